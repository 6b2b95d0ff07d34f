"""Real conversions of many kinds: all is found equal, in both directions and between two results, and is counted right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc import MappingError
from tests import nxdt_state
from tests.held import counted
from tests.plans import test_hf_dialects as dialects
from tests.plans import test_megatron_families as families
from tests.plans import test_neva as neva

from .plain import Model, Weights, write_hf

VOCAB = 32  # for tensor parallel ranks
MODEL = Model(groups=4, share=4, dim=6)


def folder(place: Path, weights: Mapping[str, torch.Tensor], config: dict[str, Any]) -> Path:
    place.mkdir()
    save_file(dict(weights), place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(config))
    return place


def source_of(family: str, place: Path) -> Path:
    if family == "llama":
        weights = MODEL.weights()
        made = write_hf(place, MODEL, weights, shards=2)
        wide = {n: torch.cat([x, x[:5] * 2]) if x.shape[0] == 75 else x for n, x in weights.items()}
        save_file(wide, made / "model.safetensors")
        for file in (*made.glob("model-*"), made / "model.safetensors.index.json"):
            file.unlink()
        (made / "config.json").write_text(json.dumps(MODEL.config() | {"vocab_size": 80}))
        return made
    if family == "gpt2":
        return folder(place, {f"transformer.{n}": x for n, x in dialects.gpt2().items()}, dialects.GPT2)
    if family == "neva":
        return folder(place, neva.made(), neva.CONFIG)
    shapes, extra = families.FAMILIES[family]
    return folder(place, counted(shapes), families.COMMON | {"model_type": family} | extra)


CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "llama": [
        ("nxdt", {"tp": 2, "pp": 2}),
        ("nxdt", {"tp": 4, "settings": {"kv_multiplier": 2}}),
        ("nxdt", {"tp": 4, "settings": {"kv_multiplier": 2, "hw": "trn2", "qkv": "fused"}}),
        ("nxdt", {"tp": 2, "pp": 4, "vpp": 1, "format": "xser"}),
        ("nxdt-megatron", {"tp": 2}),
        ("megatron", {}),
        ("megatron", {"format": "zarr", "settings": {"form": "indexed"}}),
        ("megatron-legacy", {"tp": 4, "pp": 2, "vpp": 2}),
        ("nemo-legacy", {"tp": 2, "settings": {"qkv_order": "blocks"}}),
        ("nemo", {"tp": 4, "pp": 2}),
        ("nemo-dist", {}),
        ("nemo-legacy", {"tp": 2}),
        ("nemo2", {}),
        ("hf", {"dtype": "float32"}),
        ("hf", {"format": "bin", "dtype": "float16"}),
    ],
    "qwen2": [("megatron", {}), ("nemo", {"tp": 2}), ("megatron-legacy", {"tp": 4})],
    "mixtral": [("megatron", {}), ("nemo", {"tp": 2}), ("nxdt", {}), ("megatron-legacy", {"tp": 2, "ep": 5})],
    "qwen2_moe": [("megatron", {}), ("nemo", {"tp": 2})],
    "nemotron": [("megatron", {}), ("nemo", {"tp": 2})],
    "gpt2": [("megatron-legacy", {"tp": 3}), ("megatron", {}), ("nemo", {"tp": 3})],
    "neva": [("nemo", {"tp": 2, "settings": {"tower": True}}), ("nemo-legacy", {"tp": 2, "settings": {"tower": True}})],
}


def options(case: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """What must be said of a result, as it must of a conversion's source: whose heads' order it has."""
    said = {n: v for n, v in case[1].get("settings", {}).items() if n in ("hw", "qkv_order")}
    return {"settings": said} if said else {}


@pytest.mark.parametrize("family", CASES)
def test_what_is_converted_is_found_equal(family: str, tmp_path: Path) -> None:
    source = source_of(family, tmp_path / "source")
    held = sum(x.numel() for x in load_file(source / "model.safetensors").values())
    before: tuple[Path, dict[str, Any]] | None = None
    for number, case in enumerate(CASES[family]):
        to, asked = case
        result = tmp_path / f"{number}"
        plan = ckptc.plan(source, to=to, **asked)
        plan.run(result)
        found = ckptc.verify(source, result, **options(case))
        assert found.same, str(found)
        made = sum(torch.Size(m.shape).numel() for m in plan.data.made)
        assert found.equal == held + made == plan.data.target.proof.model
        assert found.copies == plan.data.target.proof.copies
        assert found.padding == plan.data.target.proof.padding
        assert found.unlike_padding == found.different == 0
        assert found.rounded == (held if "dtype" in asked else 0)
        assert found.target.layout == to
        said = options(case).get("settings", {})
        if "dtype" not in asked:
            back = ckptc.verify(result, source, config=source / "config.json", from_settings=said)
            assert back.same, str(back)
            assert back.equal == held
        if before is not None and "dtype" not in asked:
            across = ckptc.verify(before[0], result, config=source / "config.json", from_settings=before[1], settings=said)
            assert across.same, str(across)
        before = (result, said) if "dtype" not in asked else None


def test_an_archive_is_verified_where_its_members_lie(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path / "source")
    ckptc.convert(source, tmp_path / "x.nemo", to="nemo", tp=2, verify=True)
    assert ckptc.verify(source, tmp_path / "x.nemo").same


def test_copies_that_differ_in_the_source_are_told_and_no_difference_where_ranks_keep_theirs(tmp_path: Path) -> None:
    """NxD Training keeps a norm on each rank: where these came apart, renaming leaves each as it is."""
    source = source_of("llama", tmp_path / "source")
    ckptc.convert(source, tmp_path / "ranks", to="nxdt", tp=2)
    file = tmp_path / "ranks/model/dp_rank_00_tp_rank_01_pp_rank_00.pt"
    held: Weights = torch.load(file)
    held["model.norm.weight"] = held["model.norm.weight"] * 2
    torch.save(held, file)
    ckptc.convert(tmp_path / "ranks", tmp_path / "renamed", to="nxdt-megatron", config=source / "config.json", tp=2)
    found = ckptc.verify(tmp_path / "ranks", tmp_path / "renamed", config=source / "config.json")
    assert found.same, str(found)
    assert any("differ in the source itself" in note and "model.norm.weight" in note for note in found.notes)
    assert any("rank by rank" in note for note in found.notes)
    there = ckptc.verify(source, tmp_path / "ranks")
    assert [d.target.name for d in there.differences if d.target is not None] == ["model.norm.weight"]
    assert there.differences[0].explanation == "each element is multiplied by 2"


def test_a_calculated_tensor_is_held_against_what_it_should_be(tmp_path: Path) -> None:
    """NeMo's own modules store rotary frequencies, which HuggingFace's files have not."""
    source = source_of("llama", tmp_path / "source")
    ckptc.convert(source, tmp_path / "nemo", to="nemo-legacy", tp=1)
    assert ckptc.verify(source, tmp_path / "nemo").same
    file = tmp_path / "nemo/model_weights.ckpt"
    held: Weights = torch.load(file)
    held["model.language_model.rotary_pos_emb.inv_freq"] *= 0.5
    torch.save(held, file)
    found = ckptc.verify(source, tmp_path / "nemo")
    assert [d.tensor for d in found.differences] == ["rope_freq"]
    assert found.differences[0].explanation == "each element is multiplied by 0.5"


def test_rows_that_only_the_targets_config_tells_from_padding_are_left_out(tmp_path: Path) -> None:
    model = Model(groups=4)
    source = write_hf(tmp_path / "source", model, model.weights())
    ckptc.convert(source, tmp_path / "nemo", to="nemo", tp=2)
    back = ckptc.verify(tmp_path / "nemo", source)
    assert back.same, str(back)
    assert any("vocab = 75" in note for note in back.notes)


def test_a_config_of_another_model_is_told(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path / "source")
    ckptc.convert(source, tmp_path / "out", to="hf")
    config = json.loads((tmp_path / "out/config.json").read_text())
    (tmp_path / "out/config.json").write_text(json.dumps(config | {"rope_theta": 500000.0}))
    found = ckptc.verify(source, tmp_path / "out")
    assert found.same
    assert any("rope_base = 500000.0, and the source's 10000.0" in note for note in found.notes)


def test_a_conversion_that_does_not_verify_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("llama", tmp_path / "source")
    from ckptc.runtime.engine import fill

    real = fill.Filler.fill

    def wrong(self: Any, job: Any, chunk: Any, into: Any, *rest: Any) -> Any:
        done = real(self, job, chunk, into, *rest)
        into[:2] ^= 1
        return done

    monkeypatch.setattr(fill.Filler, "fill", wrong)
    with pytest.raises(ckptc.Fault) as fault:
        ckptc.convert(source, tmp_path / "out", to="nxdt", tp=2, verify=True, workers=1, compare_copies=False)
    assert fault.value.code == "not-verified"
    assert {p.name for p in tmp_path.iterdir()} == {"source"}
    monkeypatch.undo()
    ckptc.convert(source, tmp_path / "out", to="nxdt", tp=2, verify=True)


def test_settings_that_the_files_contradict_are_refused(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path / "source")
    ckptc.convert(source, tmp_path / "out", to="nxdt", tp=2)
    with pytest.raises(MappingError) as caught:
        ckptc.verify(source, tmp_path / "out", tp=4)
    assert caught.value.diagnostics[0].code == "degree-disagrees"


def test_a_conversion_with_optimizer_state_verifies_its_weights(tmp_path: Path) -> None:
    nxdt_state.write(tmp_path / "tag", nxdt_state.make(nxdt_state.HF, 2, 1), 2)
    ckptc.convert(tmp_path / "tag", tmp_path / "out", to="nxdt", tp=4, optimizer=True, verify=True)
    assert (tmp_path / "out/optim").is_dir()
