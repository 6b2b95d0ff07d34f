"""A mapping, a plan or an option may name files; none of them lies outside the destination."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptc as api
from ckptc.compiler.say.emit import emit_python
from ckptc.runtime.plan.plan_file import dump_plan

MODEL = """
model mlp {
  axes { layer hidden ffn }
  up [layer, ffn, hidden]
}
layout plain of mlp {
  "layers.{layer}.up" = up [ffn, hidden]
}
layout other of mlp (rank tp = 1) {
  files "model/rank_{tp}.pt"
  format pt
  ITEM
  "up.{layer}" = up [ffn/tp, hidden]
}
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    (work / "src").mkdir(parents=True)
    monkeypatch.chdir(work)
    save_file({f"layers.{i}.up": torch.arange(i, i + 6 * 4.0).reshape(6, 4) for i in range(3)}, "src/model.safetensors")
    return Path("src")


def mapping(item: str = "") -> Path:
    text = MODEL.replace('files "model/rank_{tp}.pt"', "") if item.startswith("files") else MODEL
    Path("m.ckmap").write_text(text.replace("ITEM", item))
    return Path("m.ckmap")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".ckmap"}


@pytest.mark.parametrize(
    "item",
    ['text "../precious" "x"', 'text "/PLACE/new" "x"', 'files "../rank_{tp}.pt"', 'files "/PLACE/rank_{tp}.pt"', 'config "../c.json" { hidden = .size }'],
)
def test_a_mapping_that_names_a_file_elsewhere_is_refused_at_its_line_and_nothing_changes(item, source, tmp_path, ckptc):
    (tmp_path / "precious").write_text("mine")
    item = item.replace("PLACE", str(tmp_path))
    own = mapping(item)
    before = everything(tmp_path)
    place = "m.ckmap:12:9" if item.startswith("files") else "m.ckmap:12:3"  # each choice of files has its own
    for command in (
        ["check", own],
        ["convert", source, "dst", "--to", "other", "--mapping", own, "--set", "hidden=4"],
        ["compile", own, "--from", "plain", "--to", "other", "--set", "layer=3", "--set", "ffn=6", "--set", "hidden=4"],
    ):
        done = ckptc(*command)
        assert done.code == 1
        assert "error[outside-destination]" in done.err
        assert place in done.err
    assert everything(tmp_path) == before


def test_a_template_is_beside_its_mapping_or_below_it(source, tmp_path, ckptc):
    (tmp_path / "secret").write_text("{}")
    Path("link.j2").symlink_to(tmp_path / "secret")
    for name in ("../secret", str(tmp_path / "secret"), "link.j2"):
        own = mapping(f'config "c.json" template "{name}" {{ hidden = .size }}')
        for command in (["check", own], ["convert", source, "dst", "--to", "other", "--mapping", own, "--from", "plain", "--set", "hidden=4"]):
            done = ckptc(*command)
            assert done.code == 1
            assert "error[outside-mapping]" in done.err
    done = ckptc("check", mapping('config "c.json" template "nemo.yaml.j" { hidden = .size }'))
    assert "error[no-template]" in done.err
    assert "did you mean `nemo.yaml.j2`?" in done.err


def test_a_used_mapping_is_beside_the_one_that_uses_it_or_below(source, tmp_path, ckptc):
    (tmp_path / "up.ckmap").write_text("model other { axes { a }  x [a] }")
    Path("m.ckmap").write_text('use "../up.ckmap"\n' + MODEL.replace("ITEM", ""))
    done = ckptc("check", "m.ckmap")
    assert done.code == 1
    assert "error[outside-mapping]" in done.err


def test_a_template_reaches_nothing_of_python(source, ckptc):
    Path("t.j2").write_text('{"a": "{{ hidden.__class__.__mro__ }}"}')
    own = mapping('config "c.json" template "t.j2" { hidden = .size }')
    done = ckptc("convert", source, "dst", "--to", "other", "--mapping", own, "--from", "plain", "--set", "hidden=4")
    assert done.code == 1
    assert "error[bad-template]" in done.err


@pytest.mark.parametrize("name", ["../precious", "a/../../precious", "/precious"])
def test_a_plan_that_was_made_by_hand_writes_nothing_elsewhere(name, source, tmp_path, ckptc):
    (tmp_path / "precious").write_text("mine")
    plan = api.plan(source, to="other", mapping=mapping(), settings={"hidden": 4})
    bad = replace(plan.data, files=((name, "x"),))
    Path("bad.ckplan").write_text(dump_plan(bad))
    assert "error[bad-plan]" in ckptc("run", "bad.ckplan", source, "dst").err
    with pytest.raises(api.Fault) as refused:
        replace(plan, data=bad).run("dst")
    assert refused.value.code == "outside-destination"
    space: dict[str, object] = {"__name__": "emitted"}
    exec(compile(emit_python(bad), "emitted.py", "exec"), space)
    from ckptc.runtime.emitted import run_module

    with pytest.raises(api.Fault) as refused:
        run_module(space["PLAN"], space["KERNELS"], source, "dst")  # type: ignore[arg-type]
    assert refused.value.code == "outside-destination"
    assert (tmp_path / "precious").read_text() == "mine"
    assert not Path("dst").exists()


def test_a_single_file_lies_within_the_destination(source, tmp_path, ckptc):
    done = ckptc("convert", source, "dst", "--to", "plain", "--mapping", mapping(), "--set", "hidden=4", "--single-file", "a/../../x.safetensors")
    assert done.code == 1
    assert "error[bad-file-name]" in done.err
    assert not (tmp_path / "x.safetensors").exists()


def test_merging_writes_through_no_link_that_leads_out_of_the_destination(source, tmp_path):
    plan = api.plan(source, to="other", mapping=mapping(), settings={"hidden": 4})
    (tmp_path / "elsewhere").mkdir()
    Path("dst").mkdir()
    Path("dst/model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(api.Fault) as refused:
        plan.run("dst", merge=True)
    assert refused.value.code == "outside-destination"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    Path("dst/model").unlink()
    Path("dst/kept").mkdir()
    Path("dst/model").symlink_to("kept")
    plan.run("dst", merge=True)
    assert [p.name for p in Path("dst/kept").iterdir()] == ["rank_0.pt"]


def test_merging_replaces_a_link_in_a_files_place_and_not_what_it_leads_to(source, tmp_path):
    (tmp_path / "precious").write_text("mine")
    Path("dst/model").mkdir(parents=True)
    Path("dst/model/rank_0.pt").symlink_to(tmp_path / "precious")
    api.plan(source, to="other", mapping=mapping(), settings={"hidden": 4}).run("dst", merge=True)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not Path("dst/model/rank_0.pt").is_symlink()


@pytest.mark.parametrize(
    ("place", "what_to_do"),
    [
        ("s3://bucket/out", "aws s3 cp --recursive FOLDER s3://bucket/out"),
        ("gs://bucket/x.nemo", "gcloud storage cp -r FOLDER gs://bucket/x.nemo"),
        ("hf://org/name", "hf upload org/name FOLDER"),
        ("https://example.com/x", "write to a local folder, and upload it from there"),
        ("file:///tmp/x", "write to /tmp/x"),
    ],
)
def test_a_url_is_no_destination_and_no_folder_of_its_name_is_made(place, what_to_do, source, ckptc):
    before = everything(Path())
    own = mapping()
    for more in ([], ["--dry-run"], ["-q", "--overwrite"]):
        done = ckptc("convert", source, place, "--to", "other", "--mapping", own, "--set", "hidden=4", *more)
        assert done.code == 1
        assert f"error[remote-path]: {place.replace(':///', '://')} is a URL" in done.err
        assert what_to_do in done.err
    plan = api.plan(source, to="other", mapping=own, settings={"hidden": 4})
    for act in (plan.run, plan.save, plan.emit, lambda dst: plan.run(Path(dst))):
        with pytest.raises(api.Fault) as refused:
            act(place)
        assert refused.value.code == "remote-path"
    assert everything(Path()) == before
    assert not any(":" in p.name for p in Path().iterdir())


@pytest.mark.parametrize(
    ("place", "what_to_do"),
    [
        ("s3://bucket/llama", "aws s3 cp --recursive s3://bucket/llama FOLDER"),
        ("https://huggingface.co/org/name", "hf://org/name"),
        ("https://huggingface.co/org/name/tree/main", "hf://org/name"),
        ("file:///tmp/x", "name the path: /tmp/x"),
    ],
)
def test_a_url_that_is_not_of_the_hub_is_no_source(place, what_to_do, ckptc):
    for arguments in (["convert", place, "dst", "--to", "hf"], ["inspect", place], ["compile", "llama", "--from", "hf", "--to", "nxdt", "--config", place]):
        done = ckptc(*arguments)
        assert done.code == 1
        assert "error[remote-path]" in done.err
        assert what_to_do in done.err


def test_a_path_that_is_not_there_is_told_from_one_that_is_nearly_called_so(llama, ckptc, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("demo").mkdir()
    Path("demo/llama-hf").symlink_to(Path(llama).resolve())
    done = ckptc("inspect", "demo/lama-hf")
    assert done.code == 1
    assert done.err.splitlines()[0].startswith("error[hub-offline]: there is no path `demo/lama-hf`, and")
    assert "did you mean `demo/llama-hf`?" in done.err
    done = ckptc("inspect", "./dem/llama-hf")
    assert done.err.splitlines()[0] == "error[no-checkpoint]: `./dem/llama-hf` does not exist"
    assert "did you mean `./demo/llama-hf`?" in done.err


CLASHES = """
model mlp {
  axes { layer hidden ffn }
  settings { kind = "plain"  scale = 1.0  twice = false }
  up [layer, ffn, hidden]
}
layout plain of mlp {
  "layers.{layer}.up" = up [ffn, hidden]
}
layout other of mlp (rank dp = 1, format = blocks | nan, to = "x", config = 1, dtype = false, overwrite = 1) {
  files "rank_{dp}.pt"
  format pt
  text "said" "7" when format == nan
  "up.{layer}" = up [ffn/dp, hidden]
}
"""


def test_parameters_may_be_called_as_arguments_are(source, ckptc):
    Path("m.ckmap").write_text(CLASHES)
    done = ckptc("convert", source, "dst", "--to", "other", "--mapping", "m.ckmap", "--set", "hidden=4", "--set", "dp=2", "--set", "dtype=true", "--set", "to=7", "--set", "config=3", "--set", "overwrite=2", "--set", "format=nan")
    assert (done.code, done.err) == (0, "")
    assert sorted(p.name for p in Path("dst").iterdir()) == ["rank_0.pt", "rank_1.pt", "said"]
    settings = {"hidden": 4, "dp": 2, "dtype": True, "to": "7", "config": 3, "overwrite": 2}
    plan = api.plan(source, to="other", mapping="m.ckmap", settings=settings)
    assert dict(plan.data.target.params) == {"format": "blocks", "to": "7", "config": 3, "dtype": True, "overwrite": 2}
    assert dict(plan.data.target.ranks) == {"dp": 2}
    report = api.convert(source, "dst2", to="other", mapping="m.ckmap", settings=settings)
    assert report.files == ("rank_0.pt", "rank_1.pt")
    compiled = api.compile("m.ckmap", from_="plain", to="other", settings={"layer": 3, "ffn": 6, **settings})
    assert dict(compiled.data.target.params) == dict(plan.data.target.params)


@pytest.mark.parametrize(
    ("pair", "wrong"),
    [("config=true", "a whole number, not `True`"), ("dtype=1", "true or false, not `1`"), ("format=seven", "is one of blocks, nan"), ("config=x", "a whole number, not `x`")],
)
def test_a_value_is_read_as_its_parameter_is_declared(pair, wrong, source, ckptc):
    Path("m.ckmap").write_text(CLASHES)
    done = ckptc("convert", source, "dst", "--to", "other", "--mapping", "m.ckmap", "--set", "hidden=4", "--set", pair)
    assert done.code == 1
    assert wrong in done.err


def test_a_models_settings_are_read_as_they_are_declared(source):
    from ckptc.choices.typed_text import Text

    Path("m.ckmap").write_text(CLASHES)
    given = {"hidden": Text("4"), "kind": Text("12"), "scale": Text("2"), "twice": Text("true")}
    values = api.plan(source, to="plain", mapping="m.ckmap", settings=given).values
    assert {name: values[name] for name in given} == {"hidden": 4, "kind": "12", "scale": 2, "twice": True}
    assert [type(values[name]) for name in given] == [int, str, int, bool]


def test_a_degree_is_given_once(source):
    with pytest.raises(api.Fault, match="given-twice"):
        api.plan(source, to="other", mapping=mapping(), tp=1, settings={"tp": 2, "hidden": 4})


def test_a_folder_is_not_made_under_the_name_of_a_file(source, ckptc):
    own = mapping()
    for more in ([], ["--dry-run"]):
        done = ckptc("convert", source, "y.safetensors", "--to", "plain", "--mapping", own, "--set", "hidden=4", *more)
        assert done.code == 1
        assert "error[folder-as-file]: y.safetensors would be a folder" in done.err
        assert "--single-file y.safetensors" in done.err
    assert not Path("y.safetensors").exists()
    done = ckptc("convert", source, "out", "--to", "plain", "--mapping", own, "--set", "hidden=4", "--single-file", "y.safetensors", "-q")
    assert done.code == 0
    assert [p.name for p in Path("out").iterdir()] == ["y.safetensors"]


def test_a_checkpoint_of_a_users_own_family_is_known_by_its_mapping(source, ckptc):
    assert "unknown family" in ckptc("inspect", source).out
    Path("config.json").write_text('{"size": 4}')
    done = ckptc("inspect", source, "--mapping", mapping())
    assert "is       mlp, plain" in done.out


def test_check_and_fmt_take_folders(source, ckptc):
    Path("maps").mkdir()
    Path("maps/a.ckmap").write_text(MODEL.replace("ITEM", ""))
    Path("maps/b.ckmap").write_text(MODEL.replace("ITEM", 'text "../x" "y"'))
    done = ckptc("check", "maps")
    assert done.code == 1
    assert done.out == "maps/a.ckmap: 1 model, 2 layouts, no faults\n"
    assert "maps/b.ckmap:12" in done.err
    assert ckptc("fmt", "--check", "maps").out.count("would change") == 2
    Path("none").mkdir()
    assert "the folder none holds no .ckmap file" in ckptc("check", "none").err
