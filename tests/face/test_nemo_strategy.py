"""`ckptc nemo strategy-args`: which MegatronStrategy arguments come of a NeMo 1 config, and what is refused."""

from __future__ import annotations

import ast
import io
import json
import tarfile
from pathlib import Path

import pytest

from ckptc.nemo.strategy import read_strategy, strategy_of
from ckptc.runtime.fault import Fault

# Every setting of the migration page, each with a value that is not the default.
ALL = {
    "dist_ckpt_format": "zarr",
    "dist_ckpt_load_on_device": False,
    "dist_ckpt_parallel_save": True,
    "dist_ckpt_parallel_load": True,
    "dist_ckpt_torch_dist_multiproc": 3,
    "dist_ckpt_assume_constant_structure": True,
    "dist_ckpt_parallel_dist_opt": False,
}
BECOME = {
    "save_ckpt_format": "zarr",
    "ckpt_load_directly_on_device": False,
    "ckpt_parallel_save": True,
    "ckpt_parallel_load": True,
    "ckpt_torch_dist_multiproc": 3,
    "ckpt_assume_constant_structure": True,
    "ckpt_parallel_save_optim": False,
}
USUAL = {
    "save_ckpt_format": "torch_dist",
    "ckpt_load_directly_on_device": True,
    "ckpt_parallel_save": False,
    "ckpt_parallel_load": False,
    "ckpt_torch_dist_multiproc": None,
    "ckpt_assume_constant_structure": False,
    "ckpt_parallel_save_optim": True,
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(config: dict[str, object], name: str = "model_config.yaml") -> Path:
    path = Path(name)
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def called(text: str) -> dict[str, object]:
    """The arguments of the call that is printed, as Python reads it."""
    call = ast.parse(text[: text.index("\n)") + 2]).body[0].value
    assert call.func.id == "MegatronStrategy"
    return {each.arg: ast.literal_eval(each.value) for each in call.keywords}


def test_every_setting_becomes_its_argument(ckptc) -> None:
    done = ckptc("nemo", "strategy-args", written(ALL))
    assert (done.code, called(done.out)) == (0, BECOME)
    assert "default" not in done.out
    assert "note: Megatron-core 0.16 removed zarr" in done.out


def test_what_is_not_set_is_what_nemo_1_does_and_named_a_default(ckptc) -> None:
    done = ckptc("nemo", "strategy-args", written({"num_layers": 2}))
    assert called(done.out) == USUAL
    assert done.out.count("# default: dist_ckpt_") == len(USUAL)
    assert "note: model_config.yaml has no dist_ckpt_* settings" in done.out
    assert "zarr" not in done.out


@pytest.mark.parametrize("key", ALL)
def test_one_setting_alone_changes_one_argument(key: str) -> None:
    changed = {each.name: each.value for each in strategy_of({key: ALL[key]}, "it").arguments}
    (name,) = [name for name in USUAL if changed[name] != USUAL[name]]
    assert changed[name] == BECOME[name]
    assert list(ALL).index(key) == list(BECOME).index(name)


def test_the_same_for_programs(ckptc) -> None:
    said = json.loads(ckptc("nemo", "strategy-args", written({"dist_ckpt_parallel_load": True}), "--json").out)
    assert said["arguments"] == {**USUAL, "ckpt_parallel_load": True}
    assert said["settings"]["ckpt_load_directly_on_device"] == "dist_ckpt_load_on_device"
    assert said["defaults"] == [name for name in USUAL if name != "ckpt_parallel_load"]
    assert any("`ckpt_load_on_device`" in note and "`ckpt_load_directly_on_device`" in note for note in said["notes"])


def test_settings_that_only_some_configs_have_are_taken_too(ckptc) -> None:
    done = ckptc("nemo", "strategy-args", written({"dist_ckpt_parallel_save_within_dp": True, "dist_ckpt_load_strictness": "log_all"}))
    assert called(done.out) == {**USUAL, "ckpt_parallel_save_within_dp": True, "ckpt_load_strictness": "log_all"}


def test_a_training_yaml_an_archive_and_its_folder(ckptc) -> None:
    whole = written({"trainer": {"devices": 8}, "model": ALL}, "training.yaml")
    written(ALL)
    data = Path("model_config.yaml").read_bytes()
    with tarfile.open("it.nemo", "w:") as archive:
        member = tarfile.TarInfo("./model_config.yaml")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    for source in (whole, "it.nemo", "."):
        assert called(ckptc("nemo", "strategy-args", source).out) == BECOME


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("dist_ckpt_format", "safetensors", "zarr or torch_dist"),
        ("dist_ckpt_format", None, "zarr or torch_dist"),
        ("dist_ckpt_parallel_save", "${oc.env:X}", "true or false"),
        ("dist_ckpt_parallel_load", 1, "true or false"),
        ("dist_ckpt_torch_dist_multiproc", 0, "a number of processes, or null"),
        ("dist_ckpt_torch_dist_multiproc", True, "a number of processes, or null"),
        ("dist_ckpt_load_strictness", "strict", "null, or one of assume_ok_unexpected, "),
    ],
)
def test_a_value_that_is_not_known_is_refused(key: str, value: object, must: str, ckptc) -> None:
    done = ckptc("nemo", "strategy-args", written({key: value}))
    assert (done.code, done.out) == (1, "")
    assert f"{key} in model_config.yaml is `{value}`, and must be {must}" in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_setting_that_is_not_known_is_said(ckptc) -> None:
    done = ckptc("nemo", "strategy-args", written({"dist_ckpt_paralel_load": True}))
    assert called(done.out) == USUAL
    assert "`dist_ckpt_paralel_load` of model_config.yaml is not known, and becomes no argument; is `dist_ckpt_parallel_load` meant?" in done.out


def test_a_file_that_is_not_there(ckptc) -> None:
    done = ckptc("nemo", "strategy-args", "no.yaml")
    assert (done.code, done.out) == (1, "")
    assert "name a model_config.yaml" in done.err
    assert "--config" not in done.err
    with pytest.raises(Fault, match=r"no\.yaml"):
        read_strategy("no.yaml")
