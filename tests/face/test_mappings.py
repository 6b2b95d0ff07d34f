"""`ckptc check`, `fmt`, `list`, `explain` and `inspect`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import ckptc as face
from ckptc.library.mapping_files import shipped_names

GOOD = """model m {
  axes { layer hidden }

  w [layer, hidden]
}

layout plain of m {
  format safetensors

  "w.{layer}" = w [hidden]
}
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("good.ckmap").write_text(GOOD)
    Path("bad.ckmap").write_text(GOOD.replace("plain of m", "plain of n"))
    Path("worse.ckmap").write_text(GOOD.replace("[hidden]", "[hidden"))


def test_check_passes_what_is_right_and_all_that_ships(ckptc):
    done = ckptc("check", "good.ckmap", *shipped_names())
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "good.ckmap: 1 model, 1 layout, no faults"


def test_check_reports_the_faults_of_every_file(ckptc):
    done = ckptc("check", "bad.ckmap", "good.ckmap", "worse.ckmap")
    assert done.code == 1
    assert "error[unknown-model]: there is no model `n`" in done.err
    assert "--> bad.ckmap:7:" in done.err
    assert "--> worse.ckmap:11:" in done.err
    assert "good.ckmap: 1 model" in done.out


def test_check_in_json_lists_records(ckptc):
    done = ckptc("check", "bad.ckmap", "worse.ckmap", "--json")
    assert done.code == 1
    found = json.loads(done.out)["diagnostics"]
    assert [d["labels"][0]["file"] for d in found] == ["bad.ckmap", "worse.ckmap"]


def test_fmt_changes_only_what_is_not_canonical(ckptc):
    assert ckptc("fmt", "good.ckmap").out == ""
    Path("loose.ckmap").write_text(GOOD.replace("w [layer, hidden]", "w   [layer,hidden]"))
    checked = ckptc("fmt", "--check", "loose.ckmap")
    assert (checked.code, checked.out) == (1, "loose.ckmap: would change\n")
    shown = ckptc("fmt", "--diff", "loose.ckmap")
    assert shown.code == 1
    assert "-  w   [layer,hidden]\n+  w [layer, hidden]\n" in shown.out
    assert ckptc("fmt", "loose.ckmap").code == 0
    assert Path("loose.ckmap").read_text() == GOOD


def test_fmt_leaves_a_file_that_does_not_parse(ckptc):
    before = Path("worse.ckmap").read_text()
    assert ckptc("fmt", "worse.ckmap").code == 1
    assert Path("worse.ckmap").read_text() == before


def test_list_is_a_table_of_layouts_and_families_that_fits_a_screen(ckptc):
    lines = ckptc("list").out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert re.match(r"\d+ families: arcee, cohere, ", lines[0])  # no decoder, which holds only what these share
    rows = {line.split()[0]: line for line in lines if line}
    assert re.search(r"nemo \| pt          \d+ of \d+$", rows["nemo"])
    assert rows["hf"].endswith(" all")
    assert "pt, read only" in rows["nnm"]
    assert rows["llava"].endswith("neva")


def test_list_of_a_layout_explains_its_parameters_with_the_mappings_own_comments(ckptc):
    Path("own.ckmap").write_text(
        "model m { axes { a }  w [a] }\n"
        "# What layouts share.\n#\n# cut_rows cuts. It does so evenly.\n#\n# Of nothing in particular. mode = old is the old one.\n"
        "base layout shared of m (cut_rows = 3, mode = new | old, plain = false) {}\n\n"
        "# A framework of mine.\n"
        "layout mine of m extends shared (rank tp = 1, mode = old) { \"w\" = w [a/tp] }\n"
    )
    done = ckptc("list", "mine", "--mapping", "own.ckmap")
    assert done.out.splitlines() == [
        "layout mine of m  (own.ckmap)",
        "formats: safetensors",
        "",
        "A framework of mine.",
        "",
        "parameters, the default first:",
        "  cut_rows  3",
        "              cut_rows cuts. It does so evenly.",
        "  plain     false | true",
        "  tp        1  (parallel degree)",
    ]


def test_list_of_a_shipped_layout_and_of_a_family(ckptc):
    done = ckptc("list", "nxdt")
    assert "AWS NxD Training" in done.out
    assert "hw               trn1 | trn2 | trn2_converter" in done.out
    assert "tp               1  (parallel degree)" in done.out
    assert done.out.count("layout nxdt of") == 1  # layouts of the same parameters are one
    family = ckptc("list", "llama")
    assert family.out.startswith("family llama  (mappings/llama.ckmap)\n")
    assert "  hf                class\n" in family.out
    wrong = ckptc("list", "nxd")
    assert wrong.code == 1
    assert "did you mean `nxdt`?" in wrong.err


def test_list_as_records_has_all_and_of_a_name_what_is_of_it(ckptc):
    families = {f["family"]: f for f in json.loads(ckptc("list", "--json").out)["families"]}
    layouts = {x["layout"]: x for x in families["llama"]["layouts"]}
    assert layouts["nxdt"]["from"] == "mappings/nxd.ckmap"
    assert {"name": "tp", "rank": True, "values": "1", "choices": [], "default": "1", "about": ""} in layouts["nxdt"]["parameters"]
    only = json.loads(ckptc("list", "llava", "--json").out)["families"]
    assert [(f["family"], [x["layout"] for x in f["layouts"]]) for f in only] == [("neva", ["llava"])]
    (llama,) = json.loads(ckptc("list", "llama", "--json").out)["families"]
    assert len(llama["layouts"]) == len(families["llama"]["layouts"])
    assert "decoder" not in families
    (decoder,) = json.loads(ckptc("list", "decoder", "--json").out)["families"]
    assert {x["layout"] for x in decoder["layouts"]} > {"nemo", "nxdt"}


def test_list_as_records_has_a_family_and_the_layouts_of_its_name(ckptc):
    Path("own.ckmap").write_text(
        "model one { axes { a }  w [a] }\nmodel two { axes { a }  w [a] }\nmodel bare { axes { a }  w [a] }\n"
        'layout one of one { "w" = w [a] }\nlayout other of one { "v" = w [a] }\nlayout one of two { "w" = w [a] }\n'
    )
    named = json.loads(ckptc("list", "one", "--mapping", "own.ckmap", "--json").out)["families"]
    assert [(f["family"], [x["layout"] for x in f["layouts"]]) for f in named] == [("one", ["one", "other"]), ("two", ["one"])]
    every = json.loads(ckptc("list", "--mapping", "own.ckmap", "--json").out)["families"]
    assert [f["family"] for f in every] == ["one", "two", "bare"]


@pytest.mark.parametrize("family", [("list", "lama"), ("show", "hf", "--family", "lama"), ("compile", "llama", "--family", "lama", "--from", "hf", "--to", "nxdt")])
def test_a_family_that_there_is_not_is_said_with_the_one_that_was_meant(family, ckptc):
    done = ckptc(*family)
    assert done.code == 1
    assert "`lama`" in done.err
    assert "did you mean `llama`?" in done.err


def test_explain_says_where_elements_go(llama, ckptc):
    name = "model.layers.1.self_attn.k_proj.weight"
    how = ["--from", "hf", "--to", "nxdt", "--config", llama, "--tp", 4, "--set", "kv_multiplier=2"]
    done = ckptc("explain", "llama", name, *how)
    assert done.code == 0, done.err
    assert f"  [0:8, :] of {name}" in done.out
    assert done.out.count("->") == 4


def test_explain_suggests_a_near_name(llama, ckptc):
    done = ckptc("explain", "llama", "model.norm.weigth", "--from", "hf", "--to", "nxdt", "--config", llama)
    assert done.code == 1
    assert "help: did you mean `model.norm.weight`?" in done.err


def test_inspect_knows_a_huggingface_checkpoint(llama, ckptc):
    report = json.loads(ckptc("inspect", llama, "--json").out)
    assert (report["family"], report["layout"], report["format"]) == ("llama", "hf", "safetensors")
    assert (report["tensors"], report["elements"], report["bytes"], report["files"]) == (48, 400_416, 800_832, 3)
    assert report["dtypes"] == {"bfloat16": 48}
    assert report == face.inspect(llama)


def test_inspect_reads_degrees_from_names_and_settings_from_shapes(llama, ckptc):
    ckptc("convert", llama, "out", "--to", "nxdt", "--tp", 4, "--pp", 2, "--set", "kv_multiplier=2")
    bare = json.loads(ckptc("inspect", "out", "--json").out)
    assert (bare["layout"], bare["degrees"], bare["settings"]) == ("nxdt", {"tp": 4, "pp": 2}, {})
    full = json.loads(ckptc("inspect", "out", "--config", llama, "--json").out)
    assert full["settings"]["kv_multiplier"] == 2
    assert full["axes"]["group"] == 2


def test_version_is_printed(ckptc):
    assert ckptc("version").out == f"ckptc {face.__version__}\n"
