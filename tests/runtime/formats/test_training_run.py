"""Checkpoints of training runs: rank folders, settings within the files, and classes that are never imported or called."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptc.hub import read_id
from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.torch.pickle_read import read_pickle

from .bomb import Bomb, nothing_runs  # noqa: F401 (a fixture)

SETTINGS = {"hidden_size": 16, "tokenizer": {"model": "x.model", "sizes": [1, 2.5, None]}, "precision": "bf16"}
LAYOUTS = {
    "one": ["{name}"],
    "tensor parallel": ["mp_rank_00/{name}", "mp_rank_01/{name}"],
    "with stages": [f"tp_rank_{tp:02}_pp_rank_{pp:03}/{{name}}" for tp in (0, 1) for pp in (0, 1)],
}


@pytest.fixture
def foreign() -> Any:
    """Classes of a module that is gone when the file is read."""
    module = types.ModuleType("gone_framework")

    class AttributeDict(dict):  # type: ignore[type-arg]
        pass

    class Plain:
        def __init__(self) -> None:
            self.content = {"cfg": 1}

    for each in (AttributeDict, Plain):
        each.__module__, each.__qualname__ = "gone_framework", each.__name__
        setattr(module, each.__name__, each)
    sys.modules["gone_framework"] = module
    yield module
    sys.modules.pop("gone_framework", None)


def save(path: Path, number: int = 0, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {"model.w": torch.arange(15.0).reshape(3, 5) + number, "model.b": torch.full((7,), number, dtype=torch.bfloat16)}
    top = {"epoch": 3, "global_step": 70, "pytorch-lightning_version": "2.0.9", "state_dict": weights, "loops": {"fit_loop": {"n": 1}}}
    torch.save({**top, "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}], **more}, path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["last.ckpt", "megatron--val_loss=1.25-step=100-last.ckpt"])
def test_a_checkpoint_is_found_by_its_name(layout: str, name: str, tmp_path: Path) -> None:
    files = [each.format(name=name) for each in LAYOUTS[layout]]
    for number, file in enumerate(files):
        save(tmp_path / "run" / file, number, hyper_parameters={"cfg": SETTINGS})
    wanted = [each.format(name="model_weights.ckpt") for each in LAYOUTS[layout]]
    sources: list[Any] = [tmp_path / "run" / name, f"run/{name}"]
    for source in (*sources, tmp_path / "run"):
        opened = open_checkpoint(source)
        assert [(t.file, t.name) for t in opened] == [(file, f"model.{x}") for file in wanted for x in "wb"]
        for number, file in enumerate(wanted):
            assert torch.equal(opened.by_file(file, "model.w").read(), torch.arange(15.0).reshape(3, 5) + number)
        assert opened.config("model_config.yaml") == SETTINGS
    assert read_id(f"run/{name}") is None
    os.chdir(tmp_path / "run")
    assert len(open_checkpoint(name)) == 2 * len(files)


def test_which_of_several_must_be_said(tmp_path: Path) -> None:
    for name in ("a.ckpt", "b.ckpt"):
        for rank in (0, 1):
            save(tmp_path / f"mp_rank_{rank:02}/{name}", rank + 10 * (name == "b.ckpt"))
    with pytest.raises(Fault, match="several-checkpoints") as fault:
        open_checkpoint(tmp_path)
    assert fault.value.notes == ("a.ckpt", "b.ckpt")
    assert fault.value.help.endswith(str(tmp_path / "b.ckpt"))
    assert open_checkpoint(tmp_path / "b.ckpt").by_file("mp_rank_01/model_weights.ckpt", "model.b").read()[0] == 11
    with pytest.raises(Fault, match="no-checkpoint"):
        open_checkpoint(tmp_path / "c.ckpt")


def test_settings_may_be_those_of_the_model_themselves(tmp_path: Path) -> None:
    save(tmp_path / "x.ckpt", hyper_parameters=SETTINGS)
    assert open_checkpoint(tmp_path / "x.ckpt").config("model_config.yaml") == SETTINGS
    (tmp_path / "model_config.yaml").write_text("hidden_size: 8\n")
    assert open_checkpoint(tmp_path / "x.ckpt").config("model_config.yaml") == {"hidden_size": 8}
    save(tmp_path / "none/x.ckpt")
    assert open_checkpoint(tmp_path / "none/x.ckpt").config("model_config.yaml") is None
    assert open_checkpoint(tmp_path / "x.ckpt").config("other.yaml") is None


def test_settings_that_grow_or_hold_themselves_end(tmp_path: Path) -> None:
    grown: Any = {"x": 1}
    for _ in range(45):
        grown = {"a": grown, "b": grown}
    save(tmp_path / "x.ckpt", hyper_parameters=grown)
    assert open_checkpoint(tmp_path / "x.ckpt").config("model_config.yaml")
    endless: Any = {"a": 1}
    endless["b"] = [endless, endless]
    save(tmp_path / "x.ckpt", hyper_parameters=endless)
    with pytest.raises(Fault, match="opaque-config"):
        open_checkpoint(tmp_path / "x.ckpt").config("model_config.yaml")


def test_settings_in_lightnings_dict_are_plain(tmp_path: Path, foreign: Any) -> None:
    kept = foreign.AttributeDict(cfg=foreign.AttributeDict(SETTINGS))
    save(tmp_path / "x.ckpt", hyper_parameters=kept)
    del sys.modules["gone_framework"]
    assert open_checkpoint(tmp_path / "x.ckpt").config("model_config.yaml") == SETTINGS
    assert "gone_framework" not in sys.modules


@pytest.mark.parametrize("where", ["hyper_parameters", "cfg", "deeper"])
def test_settings_that_are_objects_say_so(where: str, tmp_path: Path, foreign: Any) -> None:
    kept: Any = foreign.Plain()
    for key in {"hyper_parameters": [], "cfg": ["cfg"], "deeper": ["optim", "cfg"]}[where]:
        kept = {key: kept}
    save(tmp_path / "x.ckpt", hyper_parameters=kept)
    del sys.modules["gone_framework"]
    opened = open_checkpoint(tmp_path / "x.ckpt")
    assert opened["model.w"].read().shape == (3, 5)
    with pytest.raises(Fault, match=r"opaque-config.*gone_framework\.Plain") as fault:
        opened.config("model_config.yaml")
    assert "--config" in fault.value.help
    assert "gone_framework" not in sys.modules


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_classes_beside_the_weights_are_neither_imported_nor_called(protocol: int, tmp_path: Path, foreign: Any) -> None:
    weights = {"model.w": torch.ones(2, 3)}
    odd = {
        "callbacks": {foreign.Plain: {"best": foreign.Plain()}, "again": [foreign.AttributeDict(a=1), {foreign.AttributeDict, 3}]},
        "bomb": Bomb(), "bombs": [(Bomb(), Bomb())], "type": type, "path": Path("x"), "fn": os.path.join,
    }  # fmt: skip
    torch.save({**odd, "state_dict": weights, "last": Bomb()}, tmp_path / "x.ckpt", pickle_protocol=protocol)
    del sys.modules["gone_framework"]
    opened = open_checkpoint(tmp_path / "x.ckpt")
    assert [t.name for t in opened] == ["model.w"]
    assert torch.equal(opened["model.w"].read(), torch.ones(2, 3))
    assert {key for _, key in opened.others} >= {"callbacks", "bomb", "last"}
    assert "gone_framework" not in sys.modules


@pytest.mark.parametrize(
    "top",
    [
        {"a": torch.ones(3), "b": Bomb()},
        {"model": {"a": torch.ones(3)}, "b": Bomb()},
        {"state_dict": {"a": torch.ones(3), "b": Bomb()}},
        {"state_dict": {"a": torch.ones(3), "b": {"c": [Bomb()]}}},
        {"state_dict": {"a": torch.ones(3), Path: 1}},
        {"state_dict": Bomb()},
        {"state_dict": [Bomb()]},
        [Bomb()],
        Bomb(),
    ],
    ids=range(9),
)
def test_among_weights_they_are_refused(top: Any, tmp_path: Path) -> None:
    torch.save(top, tmp_path / "x.ckpt")
    with pytest.raises(Fault, match=r"unsafe-pickle.*x\.ckpt") as fault:
        open_checkpoint(tmp_path / "x.ckpt")
    assert "nothing was imported or run" in fault.value.notes


STRAY = b"cgone\nStorage\n"
PARTS = {
    "its storage's class": b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage" + STRAY + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00K\x06\x85K\x01\x85\x89}tR",
    "its storage": b"ctorch._utils\n_rebuild_tensor_v2\n(" + STRAY + b")RK\x00K\x06\x85K\x01\x85\x89}tR",
    "what rebuilds it": STRAY + b"(K\x00K\x06\x85K\x01\x85\x89}tR",
    "its own class": b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n" + STRAY + b")}tR",
    "the dict around it": STRAY + b")\x81X\x01\x00\x00\x00wK\x01s",
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_as_a_part_of_a_tensor_they_are_refused(part: str, with_pickle: Any) -> None:
    inner = b"}X\x01\x00\x00\x00a" + PARTS[part] + b"s" if part != "the dict around it" else PARTS[part]
    data = b"\x80\x02}X\x0a\x00\x00\x00state_dict" + inner + b"s."
    with pytest.raises(Fault, match="unsafe-pickle"):
        open_checkpoint(with_pickle(data, {"data/0": bytes(24)}))


def test_without_a_list_for_them_nothing_has_changed() -> None:
    with pytest.raises(Fault, match="unsafe-pickle"):
        read_pickle(pickle.dumps({"a": Bomb()}, protocol=2), "x")
    with pytest.raises(Fault, match="bad-pickle"):
        read_pickle(b"\x80\x02])\x81.", "x", [])
    strays: list[str] = []
    read_pickle(pickle.dumps({"a": Bomb()}, protocol=2), "x", strays)
    assert strays == ["posix.mkdir"]
