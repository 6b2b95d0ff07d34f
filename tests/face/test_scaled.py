"""FP8 checkpoints become what the checkpoint with their decoded weights becomes, bit for bit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc.demo import write_llama
from ckptc.runtime.fault import Fault
from ckptc.runtime.manifest.manifest import read_manifest

from ..made_deepseek import huggingface
from ..scaled_weights import BLOCK, Scheme, Weights, blocks, codes, scaled

Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    write_llama(tmp_path / "plain")
    return tmp_path / "plain"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "config.json"}


def same(one: Path, other: Path, to: str, **options: Any) -> None:
    """Both convert to the same files."""
    for source, verify in ((one, True), (other, False)):
        ckptc.convert(source, source.with_name(f"{source.name}-{to}"), to=to, verify=verify, overwrite=True, **options)
    found, wanted = (contents(source.with_name(f"{source.name}-{to}")) for source in (one, other))
    assert found.keys() == wanted.keys()
    assert [name for name in found if found[name] != wanted[name]] == []


@pytest.mark.parametrize(("to", "options"), [("hf", {}), ("nxdt", {"tp": 2}), ("megatron", {}), ("megatron-legacy", {"tp": 2})], ids=str)
def test_llama_in_blocks_becomes_what_its_decoded_weights_become(llama: Path, to: str, options: dict[str, Any]) -> None:
    meant = scaled(llama, llama.with_name("fp8"), left_out=("layers.1.mlp",), modules_to_not_convert=["model.layers.1.mlp"])
    same(llama.with_name("fp8"), meant, to, **options)


@pytest.mark.parametrize(("to", "options"), [("megatron", {}), ("megatron-legacy", {"tp": 3, "settings": {"ep": 2}})], ids=str)
def test_deepseek_in_blocks_becomes_what_its_decoded_weights_become(tmp_path: Path, to: str, options: dict[str, Any]) -> None:
    huggingface(tmp_path / "plain")
    same(tmp_path / "fp8", scaled(tmp_path / "plain", tmp_path / "fp8"), to, **options)


def of_rows(name: str, weight: torch.Tensor, generator: torch.Generator) -> Weights:
    """A scale for each row: fbgemm_fp8's and compressed-tensors' `weight_scale`."""
    return {name: codes(weight.shape, generator), f"{name}_scale": torch.randn(weight.shape[0], 1, generator=generator).bfloat16()}


def of_row_vectors(name: str, weight: torch.Tensor, generator: torch.Generator) -> Weights:
    return {name: codes(weight.shape, generator), f"{name}_scale": torch.randn(weight.shape[0], generator=generator)}


def of_tensors(name: str, weight: torch.Tensor, generator: torch.Generator) -> Weights:
    """One scale for a tensor: NVIDIA's Model Optimizer, transformers' `fp8` where `weight_block_size` is null."""
    return {name: codes(weight.shape, generator, torch.float8_e5m2), f"{name}_scale": torch.randn((), generator=generator)}


def of_powers(name: str, weight: torch.Tensor, generator: torch.Generator) -> Weights:
    """Powers of two (UE8M0) for blocks; code c is 2 ** (c - 127) (OCP Microscaling Formats)."""
    made = blocks(name, weight, generator)
    key = f"{name}_scale_inv"
    return made | {key: torch.randint(110, 140, made[key].shape, generator=generator).to(torch.uint8).view(torch.float8_e8m0fnu)}


@pytest.mark.parametrize(
    ("scheme", "method"),
    [(of_rows, "compressed-tensors"), (of_row_vectors, "fbgemm_fp8"), (of_tensors, "modelopt"), (of_powers, "fp8")], ids=lambda x: getattr(x, "__name__", "")
)  # fmt: skip
def test_other_scales_are_multiplied_as_well(llama: Path, scheme: Scheme, method: str) -> None:
    same(llama.with_name("fp8"), scaled(llama, llama.with_name("fp8"), scheme, quant_method=method), "nxdt", tp=2)


def as_bin(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """The checkpoint as pickled files of torch, which keep the strides of a tensor."""
    for path in folder.glob("*.safetensors"):
        torch.save({name: change(name, tensor) for name, tensor in load_file(path).items()}, path.with_name(f"pytorch_{path.stem}.bin"))
        path.unlink()


def column_major(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t().contiguous().t() if tensor.ndim == 2 else tensor


def every_third(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.repeat_interleave(3)[::3] if "_scale" in name and tensor.ndim == 1 else tensor


@pytest.mark.parametrize(("scheme", "change"), [(blocks, column_major), (of_rows, column_major), (of_row_vectors, every_third)])
def test_scales_may_lie_in_their_file_in_any_order(llama: Path, scheme: Scheme, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    folder = llama.with_name("fp8")
    meant = scaled(llama, folder, scheme)
    as_bin(folder, change)
    same(folder, meant, "nxdt", tp=2)


def test_a_plan_with_other_blocks_is_another_plan(llama: Path) -> None:
    """With 14 x 10 weights, blocks of 7 x 5 and of 8 x 6 have as many scales, of which other elements are made."""
    folder = llama.with_name("fp8")
    folder.mkdir()
    held = {"w": codes(torch.Size((14, 10)), torch.Generator().manual_seed(4)), "w_scale_inv": torch.rand(2, 2)}
    save_file(held, folder / "model.safetensors")
    mapping = llama.with_name("m.ckmap")
    mapping.write_text('model m { axes { a b } w [a, b] }\nlayout one of m { format safetensors "w" = w [a, b] }\nlayout two of m extends one {}\n')
    seen = set()
    for block in ([7, 5], [8, 6], [7, 6]):
        (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "fp8", "weight_block_size": block}}))
        ckptc.convert(folder, llama.with_name("out"), from_="one", to="two", mapping=mapping, manifest=True, overwrite=True)
        manifest, _ = read_manifest(llama.with_name("out"))
        seen.add((manifest.plan, manifest.files[-1].sha256))
    assert len({plan for plan, _ in seen}) == len({data for _, data in seen}) == 3


def test_a_wider_type_is_rounded_to_once(llama: Path) -> None:
    meant = scaled(llama, llama.with_name("fp8"), dtype=torch.float32)
    same(llama.with_name("fp8"), meant, "nxdt", tp=2, dtype="float32")
    notes = ckptc.plan(llama.with_name("fp8"), to="hf", dtype="float32").notes
    assert any(note.endswith("rounded once to float32") for note in notes)
    held = ckptc.open(llama.with_name("fp8-nxdt")).entries
    assert {entry.dtype for entry in held} == {"float32"}


def test_a_small_memory_gives_the_same_bytes(llama: Path) -> None:
    meant = scaled(llama, llama.with_name("fp8"))
    same(llama.with_name("fp8"), meant, "nxdt", tp=2, memory=64 << 10, workers=1)


def test_reading_and_streaming_give_decoded_values(llama: Path) -> None:
    folder = llama.with_name("fp8")
    wanted = load_file(scaled(llama, folder) / "model.safetensors")
    held = ckptc.open(folder)
    assert f"{Q}_scale_inv" not in held
    assert held[Q].dtype == "bfloat16"
    assert torch.equal(held[Q].read(), wanted[Q])
    assert torch.equal(held[Q][3:10, 4:], wanted[Q][3:10, 4:])
    assert torch.equal(held[Q].at(9).read(), wanted[Q][9])
    streamed = dict(ckptc.plan(folder, to="hf").stream())
    assert streamed.keys() == wanted.keys()
    assert all(torch.equal(streamed[name], wanted[name]) for name in wanted)


def test_verifying_tells_decoded_elements_and_finds_one_that_is_otherwise(llama: Path) -> None:
    folder, out = llama.with_name("fp8"), llama.with_name("out")
    wanted = load_file(scaled(llama, folder) / "model.safetensors")
    ckptc.convert(folder, out, to="hf")
    said = ckptc.verify(folder, out)
    assert said.same
    assert said.decoded == sum(t.numel() for name, t in wanted.items() if name.endswith("_proj.weight"))
    assert f"decoded {said.decoded:,} of these" in str(said)
    (path,) = out.glob("*.safetensors")
    held = load_file(path)
    held[Q].view(torch.int16)[3, 7] += 1  # one unit in the last place
    save_file(held, path)
    said = ckptc.verify(folder, out)
    assert len(said.differences) == 1
    assert said.different == 1
    assert Q in str(said)


def test_the_plan_says_what_is_decoded(llama: Path) -> None:
    folder = llama.with_name("fp8")
    scaled(llama, folder, left_out=("layers.1.",))
    held = load_file(folder / "model-00001-of-00002.safetensors")
    coded = [tensor for tensor in held.values() if tensor.dtype == torch.float8_e4m3fn]
    said = ckptc.plan(folder, to="nxdt", tp=2)
    (record,) = said.totals().record()["decoded"]
    assert (record["tensors"], record["elements"]) == (len(coded), sum(t.numel() for t in coded))
    assert (record["codes"], record["scales"], record["block"], record["dtype"]) == ("float8_e4m3fn", "float32", f"{BLOCK[0]} x {BLOCK[1]} block", "bfloat16")
    assert str(said.totals()).startswith("decoded, not copied: ")
    assert any(note.startswith("decoded, not copied: ") for note in said.notes)
    (seen,) = ckptc.inspect(folder)["decoded"]
    assert seen["tensors"] == len(coded)
    assert "decoded" not in ckptc.inspect(llama)


def test_the_written_config_no_longer_says_that_weights_are_quantized(llama: Path) -> None:
    folder = llama.with_name("fp8")
    scaled(llama, folder)
    (folder / "hf_quant_config.json").write_text("{}")
    ckptc.convert(folder, llama.with_name("out"), to="hf")
    said = json.loads((llama.with_name("out") / "config.json").read_text())
    assert said == json.loads((llama / "config.json").read_text())
    assert not (llama.with_name("out") / "hf_quant_config.json").exists()


def test_scales_of_activations_are_left_out_and_named(llama: Path) -> None:
    folder = llama.with_name("fp8")
    meant = scaled(llama, folder)
    path = folder / "model-00002-of-00002.safetensors"
    save_file(load_file(path) | {Q.replace("weight", "input_scale"): torch.ones(1)}, path)
    same(folder, meant, "hf")
    assert any("input_scale" in note for note in ckptc.plan(folder, to="hf").notes)


def without(scales: Weights) -> Weights:
    return {name: scale for name, scale in scales.items() if name != f"{Q}_scale_inv"}


FAULTS: dict[str, tuple[Any, str]] = {
    "missing": (without, f"`{Q}` \\(float8_e4m3fn\\) has no `{Q}_scale_inv`"),
    "misshaped": (lambda scales: scales | {f"{Q}_scale_inv": scales[f"{Q}_scale_inv"][1:].clone()}, "blocks of 7 x 5 of .* have scales"),
    "of integers": (lambda scales: scales | {f"{Q}_scale_inv": scales[f"{Q}_scale_inv"].int()}, "is of int32, and scales are of float32"),
    "of another tensor": (lambda scales: scales | {"model.norm.weight_scale_inv": torch.ones(3)}, "`model.norm.weight` is no FP8 tensor"),
    "twice": (lambda scales: scales | {f"{Q}_scale": torch.ones(1)}, f"`{Q}` has both"),
    "zero point": (lambda scales: scales | {f"{Q}_zero_point": torch.ones(1)}, "has a zero point"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_scales_that_do_not_fit_are_one_clear_fault(llama: Path, kind: str) -> None:
    change, said = FAULTS[kind]
    folder = llama.with_name("fp8")
    scaled(llama, folder)
    path = folder / "model-00002-of-00002.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(Fault, match=said) as caught:
        ckptc.convert(folder, llama.with_name("out"), to="nxdt", tp=2)
    assert caught.value.code == "bad-scales"
    assert len(caught.value.notes) == 1
    assert not llama.with_name("out").exists()
    notes = ckptc.inspect(folder)["notes"]  # looking at it is allowed
    assert any(re.search(said, note) for note in notes)
    with pytest.raises(Fault, match=said):
        ckptc.verify(llama, folder)


def test_a_mapping_with_names_for_the_scales_takes_codes_and_scales_as_they_are(llama: Path) -> None:
    folder, out = llama.with_name("one"), llama.with_name("two")
    folder.mkdir()
    held = {"w": codes(torch.Size((15, 10)), torch.Generator().manual_seed(4)), "w_scale_inv": torch.rand(3, 2)}
    save_file(held, folder / "model.safetensors")
    mapping = llama.with_name("m.ckmap")
    mapping.write_text(
        "model m { axes { a b c d } w [a, b] s [c, d] }\n"
        'layout one of m { format safetensors "w" = w [a, b] "w_scale_inv" = s [c, d] }\n'
        'layout two of m { format safetensors "u" = w [a, b] "v" = s [c, d] }\n'
    )
    plan = ckptc.plan(folder, to="two", mapping=mapping, settings={"a": 15, "b": 10, "c": 3, "d": 2})
    assert not plan.notes
    plan.save(llama.with_name("plan"))
    ckptc.load_plan(llama.with_name("plan")).run(out, source=folder)
    (path,) = out.glob("*.safetensors")
    found = load_file(path)
    assert found["u"].dtype == torch.float8_e4m3fn
    assert torch.equal(found["u"].view(torch.uint8), held["w"].view(torch.uint8))
    assert torch.equal(found["v"], held["w_scale_inv"])
