"""`ckptc convert`, `compile`, `run`: what they write, print and report, and what they leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ckptc as face
from ckptc import demo
from ckptc.demo import differences, write_llama


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def bits(path: Path) -> dict[tuple[str, str], bytes]:
    return {(t.file, t.name): demo._bits(t) for t in face.open(path)}


def test_there_and_back_is_bit_for_bit(llama, ckptc):
    there = ckptc("convert", llama, "nxdt", "--to", "nxdt", "--tp", 4, "--pp", 2, "--set", "kv_multiplier=2")
    assert there.code == 0, there.err
    assert len(tree(Path("nxdt"))) == 8
    back = ckptc("convert", "nxdt", "back", "--to", "hf", "--config", llama / "config.json", "--from-set", "hw=trn1")
    assert back.code == 0, back.err
    assert differences(llama, Path("back")) == []


def test_differences_are_seen(llama, tmp_path):
    write_llama(tmp_path / "other", seed=1)
    found = differences(llama, tmp_path / "other")
    assert len(found) == sum(1 for _ in demo.tensors())
    assert all(line.endswith(": other bits") for line in found)


def test_the_demo_succeeds(tmp_path, capsys):
    assert demo.main(tmp_path) == 0
    assert "came back, bit for bit" in capsys.readouterr().out


def test_convert_says_what_it_will_do_and_what_it_did(llama, ckptc):
    done = ckptc("convert", llama, "out", "--to", "nxdt", "--tp", 2)
    lines = done.out.splitlines()
    assert [line.split(" ")[0] for line in lines if not line.startswith(" ")] == [
        "plan",
        "axes",
        "proof",
        "totals",
        "needs",
        "done",
    ]
    assert "hf: 48 tensors hold 400,416 elements once" in done.out
    assert done.err == ""


def test_quiet_prints_nothing(llama, ckptc):
    done = ckptc("convert", llama, "out", "--to", "nxdt", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_dry_run_prints_the_plan_and_writes_nothing(llama, ckptc, tmp_path):
    before = tree(tmp_path)
    done = ckptc("convert", llama, "out", "--to", "nxdt", "--tp", 2, "--dry-run")
    assert done.code == 0
    assert "lm_head.weight" in done.out
    assert "totals" in done.out
    assert tree(tmp_path) == before
    assert not Path("out").exists()


def test_totals_come_true(llama, ckptc):
    done = ckptc("convert", llama, "out", "--to", "nxdt", "--tp", 2, "--json")
    report = json.loads(done.out)
    assert set(report) == {"source", "destination", "plan", "totals", "report"}
    written = sum(p.stat().st_size for p in Path("out").rglob("*") if p.is_file())
    assert report["totals"]["bytes_written"] == report["report"]["bytes_written"] == written
    assert report["totals"]["files"] == len(report["report"]["files"]) == len(tree(Path("out")))
    assert report["report"]["peak_buffer_bytes"] <= report["totals"]["buffer_bytes"]
    assert report["plan"]["target"]["ranks"] == {"tp": 2, "pp": 1, "ep": 1}
    assert report["plan"]["axes"]["ffn"] == 160


def test_a_dry_run_in_json_says_so(llama, ckptc):
    report = json.loads(ckptc("convert", llama, "out", "--to", "nxdt", "--dry-run", "--json").out)
    assert report["dry_run"] is True
    assert "report" not in report


@pytest.mark.parametrize(
    "option", ["--tp", "--tensor-parallel-size", "--tensor-model-parallel-size", "--tensor_model_parallel_size"]
)
def test_degrees_have_their_long_names_with_dashes_and_underscores(option, llama, ckptc):
    report = json.loads(ckptc("convert", llama, "out", "--to", "nxdt", option, 2, "--dry_run", "--json").out)
    assert report["plan"]["target"]["ranks"]["tp"] == 2


def test_settings_are_typed_and_take_dashes(llama, ckptc):
    report = json.loads(
        ckptc(
            "convert",
            llama,
            "out",
            "--to",
            "nxdt",
            "--tp",
            2,
            "--set",
            "kv-multiplier=2",
            "--set",
            "hw=trn2",
            "--dry-run",
            "--json",
        ).out
    )
    assert report["plan"]["target"]["settings"]["kv_multiplier"] == 2
    assert report["plan"]["target"]["settings"]["hw"] == "trn2"


@pytest.mark.parametrize("stages", ["0-1,2-4", "[[0,1],[2,3,4]]", "0+1,2-4"])
def test_stages_say_which_layers_are_where(stages, llama, ckptc):
    done = ckptc("convert", llama, "out", "--to", "nxdt", "--pp", 2, "--stages", stages)
    assert done.code == 0, done.err
    first = [t.name for t in face.open("out") if t.file.endswith("pp_rank_00.pt") and "input_layernorm" in t.name]
    assert first == ["model.layers.0.input_layernorm.weight", "model.layers.1.input_layernorm.weight"]


def test_dtype_casts_and_knows_short_names(llama, ckptc):
    assert ckptc("convert", llama, "out", "--to", "nxdt", "--dtype", "fp32").code == 0
    assert {t.dtype for t in face.open("out")} == {"float32"}


def test_shards_follow_the_size_and_the_format(llama, ckptc):
    ckptc("convert", llama, "mid", "--to", "nxdt", "--tp", 2)
    done = ckptc(
        "convert",
        "mid",
        "out",
        "--to",
        "hf",
        "--config",
        llama / "config.json",
        "--format",
        "bin",
        "--max-shard-size",
        "300kB",
    )
    assert done.code == 0, done.err
    assert "pytorch_model.bin.index.json" in tree(Path("out"))
    assert differences(llama, Path("out")) == []


def test_a_single_file_holds_all_and_nothing_else_is_written(llama, ckptc):
    ckptc("convert", llama, "mid", "--to", "nxdt", "--tp", 2)
    done = ckptc(
        "convert", "mid", "out", "--to", "hf", "--config", llama, "--format", "bin", "--single-file", "checkpoint.pt"
    )
    assert done.code == 0, done.err
    assert tree(Path("out")) == {"checkpoint.pt"}
    assert len(face.open("out/checkpoint.pt")) == 48


def test_a_layout_of_ranks_does_not_go_into_a_single_file(llama, ckptc):
    done = ckptc("convert", llama, "out", "--to", "nxdt", "--single-file", "all.pt")
    assert done.code == 1
    assert done.err.startswith("error[not-one-file]: layout `nxdt` has a file per rank")


def test_an_existing_destination_is_kept_unless_told_otherwise(llama, ckptc):
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    assert ckptc("convert", llama, "out", "--to", "nxdt").code == 1
    assert tree(Path("out")) == {"mine.txt"}
    assert ckptc("convert", llama, "out", "--to", "nxdt", "--merge").code == 0
    assert "mine.txt" in tree(Path("out"))
    assert ckptc("convert", llama, "out", "--to", "nxdt", "--overwrite").code == 0
    assert "mine.txt" not in tree(Path("out"))


def test_a_saved_plan_and_an_emitted_module_write_what_convert_writes(llama, ckptc):
    how = ["llama", "--from", "hf", "--to", "nxdt", "--config", llama / "config.json", "--tp", 2]
    assert ckptc("compile", *how, "-o", "plan.ckplan").code == 0
    assert ckptc("run", "plan.ckplan", llama, "one").code == 0
    assert ckptc("convert", llama, "two", "--to", "nxdt", "--tp", 2).code == 0
    assert bits(Path("one")) == bits(Path("two"))
    printed = ckptc("compile", *how, "--emit", "python").out
    assert ckptc("compile", *how, "--emit", "python", "-o", "plan.py").code == 0
    assert Path("plan.py").read_text() == printed
    compile(printed, "plan.py", "exec")


def test_compile_without_output_prints_the_plan(llama, ckptc):
    done = ckptc("compile", "llama", "--from", "hf", "--to", "nxdt", "--config", llama, "--tp", 2)
    assert done.out.startswith("plan    llama: hf -> nxdt (tp 2")


def test_a_stream_gives_what_the_files_hold(llama, ckptc):
    plan = face.plan(llama, to="nxdt", tp=4, pp=2, settings={"kv_multiplier": 2})
    plan.run("out")
    file = "model/dp_rank_00_tp_rank_03_pp_rank_01.pt"
    stored = {t.name: t.read() for t in face.open("out") if t.file == file}
    streamed = dict(plan.stream(tp=3, pp=1))
    assert streamed.keys() == stored.keys()
    assert all(streamed[n].equal(stored[n]) for n in stored)
