"""Checkpoints of four-bit weights become what the checkpoint with their decoded weights becomes, bit for bit."""

from __future__ import annotations

import json
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

from ..packed_weights import (
    PackedScheme,
    gpt_oss,
    integers,
    modelopt,
    mxfp4,
    nvfp4,
    packed_checkpoint,
    said_of_integers,
)
from ..scaled_weights import Weights
from .test_scaled import as_bin, column_major, same

Q = "model.layers.0.self_attn.q_proj.weight"
NVFP4 = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
SCHEMES: dict[str, tuple[PackedScheme, dict[str, object]]] = {
    "int4": (integers(32), said_of_integers()),
    "int4, channels, float32": (integers(0, torch.float32), said_of_integers(strategy="channel", group_size=None)),
    "int8": (integers(16, bits=8), said_of_integers(num_bits=8, group_size=16)),
    "nvfp4": (nvfp4, NVFP4),
    "modelopt": (modelopt, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "mxfp4": (mxfp4, {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}),
}
EXPERTS = (
    "model m { axes { e a b } w [e, a, b] n [a] }\n"
    'layout one of m { format safetensors  config "config.json" { e = .e a = .a b = .b } "x.w" = w [e, a, b] "n" = n [a] }\n'
    'layout turned of m extends one { "x.w" = w [e, b, a] }\n'
    'layout cut of m (rank tp = 1) { format pt  files "rank_{tp}.pt"  "x.w" = w [e, a, b/tp]  "n" = n [a] }\n'
)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    write_llama(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize(("to", "options"), [("hf", {}), ("nxdt", {"tp": 2}), ("megatron-legacy", {"tp": 2})], ids=str)
@pytest.mark.parametrize("kind", SCHEMES)
def test_a_packed_llama_becomes_what_its_decoded_weights_become(llama: Path, kind: str, to: str, options: dict[str, Any]) -> None:
    folder = llama.with_name("packed")
    same(folder, packed_checkpoint(llama, folder, *SCHEMES[kind]), to, **options)


@pytest.mark.parametrize("kind", ["int4", "nvfp4"])
def test_files_of_torch_a_wider_type_and_a_small_memory_change_nothing(llama: Path, kind: str) -> None:
    folder = llama.with_name("packed")
    meant = packed_checkpoint(llama, folder, *SCHEMES[kind], dtype=torch.float32)
    as_bin(folder, lambda name, tensor: column_major(name, tensor) if tensor.dtype != torch.float8_e4m3fn else tensor)
    same(folder, meant, "nxdt", tp=2, dtype="float32", memory=1100 << 10, workers=1)


def experts(folder: Path, shape: tuple[int, int, int] = (3, 96, 10)) -> torch.Tensor:
    """A checkpoint with experts as gpt-oss has them, and what they mean."""
    made = gpt_oss("x.w", shape, torch.Generator().manual_seed(6))
    folder.mkdir()
    save_file(made.stored | {"n": torch.ones(shape[1], dtype=torch.bfloat16)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(zip("eab", shape, strict=True)) | {"quantization_config": {"quant_method": "mxfp4"}}))
    return made.meant.bfloat16()


@pytest.mark.parametrize("memory", [None, 64 << 10], ids=str)
@pytest.mark.parametrize("shape", [(3, 96, 10), (1, 32, 1), (2, 256, 200)], ids=str)
def test_experts_of_gpt_oss_are_turned_and_cut_like_any_tensor(tmp_path: Path, shape: tuple[int, int, int], memory: int | None) -> None:
    meant = experts(tmp_path / "in", shape)
    (tmp_path / "m.ckmap").write_text(EXPERTS)
    options: dict[str, Any] = {"from_": "one", "mapping": tmp_path / "m.ckmap", "verify": True, **({"memory": memory, "workers": 1} if memory else {})}
    for to, wanted in (("one", meant), ("turned", meant.transpose(1, 2))):
        ckptc.convert(tmp_path / "in", tmp_path / to, to=to, **options)
        assert torch.equal(ckptc.open(tmp_path / to)["x.w"].read(), wanted.contiguous())
    if shape[2] % 2 == 0:
        ckptc.convert(tmp_path / "in", tmp_path / "cut", to="cut", tp=2, **options)
        parts = [tensor.read() for tensor in ckptc.open(tmp_path / "cut") if tensor.name == "x.w"]
        assert torch.equal(torch.cat(parts, dim=2), meant)


def test_reading_and_streaming_give_decoded_values(llama: Path) -> None:
    folder = llama.with_name("packed")
    wanted = load_file(packed_checkpoint(llama, folder, *SCHEMES["int4"]) / "model.safetensors")
    held = ckptc.open(folder)
    assert held.keys() == wanted.keys()
    assert torch.equal(held[Q].read(), wanted[Q])
    assert torch.equal(held[Q][3:10, 5:], wanted[Q][3:10, 5:])
    assert torch.equal(held[Q].at(9).read(), wanted[Q][9])
    streamed = dict(ckptc.plan(folder, to="hf").stream())
    assert all(torch.equal(streamed[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("kind", SCHEMES)
def test_verifying_finds_one_number_that_is_otherwise(llama: Path, kind: str) -> None:
    folder, out = llama.with_name("packed"), llama.with_name("out")
    wanted = load_file(packed_checkpoint(llama, folder, *SCHEMES[kind]) / "model.safetensors")
    ckptc.convert(folder, out, to="hf")
    said = ckptc.verify(folder, out)
    assert said.same
    assert said.decoded == sum(t.numel() for name, t in wanted.items() if name.endswith("_proj.weight"))
    (path,) = out.glob("*.safetensors")
    held = load_file(path)
    held[Q].view(torch.int16)[3, 7] ^= 1  # one unit in the last place
    save_file(held, path)
    said = ckptc.verify(folder, out)
    assert said.different == 1
    assert Q in str(said)


SAID = {
    "int4": ("int4", "bfloat16", "1 x 32 block"), "nvfp4": ("float4_e2m1fn", "(float8_e4m3fn / one float32)", "1 x 16 block"),
    "modelopt": ("float4_e2m1fn", "(float8_e4m3fn * one float32)", "1 x 16 block"), "mxfp4": ("float4_e2m1fn", "powers of two", "1 x 32 block"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
def test_the_plan_and_the_written_config_say_what_is_decoded(llama: Path, kind: str) -> None:
    folder = llama.with_name("packed")
    wanted = load_file(packed_checkpoint(llama, folder, *SCHEMES[kind]) / "model.safetensors")
    weights = [tensor for name, tensor in wanted.items() if name.endswith("_proj.weight")]
    for record in (*ckptc.plan(folder, to="hf").totals().record()["decoded"], *ckptc.inspect(folder)["decoded"]):
        assert (record["codes"], record["scales"], record["block"]) == SAID[kind]
        assert (record["tensors"], record["elements"], record["dtype"]) == (len(weights), sum(t.numel() for t in weights), "bfloat16")
    ckptc.convert(folder, llama.with_name("out"), to="hf")
    assert json.loads((llama.with_name("out") / "config.json").read_text()) == json.loads((llama / "config.json").read_text())


def test_experts_of_gpt_oss_are_named_in_the_plan(tmp_path: Path) -> None:
    experts(tmp_path / "in")
    (record,) = ckptc.inspect(tmp_path / "in")["decoded"]
    assert (record["codes"], record["scales"], record["block"]) == ("float4_e2m1fn", "powers of two", "1 x 32 block")


def test_scales_of_activations_are_left_out_and_named(llama: Path) -> None:
    folder = llama.with_name("packed")
    meant = packed_checkpoint(llama, folder, *SCHEMES["nvfp4"])
    path = folder / "model-00002-of-00002.safetensors"
    save_file(load_file(path) | {Q.replace("weight", "input_global_scale"): torch.ones(1), Q.replace("q_proj.weight", "k_scale"): torch.ones(1)}, path)
    same(folder, meant, "hf")
    assert any("input_global_scale" in note for note in ckptc.plan(folder, to="hf").notes)


def test_all_that_decides_the_numbers_is_in_the_fingerprint(llama: Path) -> None:
    """The same bytes under names and dtypes that mean other numbers."""
    folder, mapping = llama.with_name("packed"), llama.with_name("m.ckmap")
    folder.mkdir()
    mapping.write_text('model m { axes { a b } w [a, b] }\nlayout one of m { format safetensors "w" = w [a, b] }\nlayout two of m extends one {}\n')
    generator = torch.Generator().manual_seed(4)
    floats, whole = nvfp4("w", (32, 64), generator).stored, integers(32)("w", (32, 64), generator).stored
    codes, scales, one = floats["w_packed"], floats["w_scale"], torch.tensor([2.0])
    cases: list[Weights] = [
        {"w_packed": codes, "w_scale": scales, "w_global_scale": one}, {"w": codes, "w_scale": scales, "w_scale_2": one},
        {"w_packed": codes, "w_scale": scales.view(torch.uint8)[:, :2].contiguous()}, whole, whole | {"w_scale": whole["w_scale"][:, :1].clone()},
        whole | {"w_scale": whole["w_scale"].half()},
    ]  # fmt: skip
    seen = set()
    for held in cases:
        save_file(held, folder / "model.safetensors")
        ckptc.convert(folder, llama.with_name("out"), from_="one", to="two", mapping=mapping, manifest=True, overwrite=True)
        manifest, _ = read_manifest(llama.with_name("out"))
        seen.add((manifest.plan, manifest.files[-1].sha256))
    assert len({plan for plan, _ in seen}) == len(cases)
    assert len({data for _, data in seen}) == len(cases) - 1  # scales of half precision have the same values


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda held: {key: tensor for key, tensor in held.items() if key != name}


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], Weights]:
    return lambda held: held | {name: change(held[name]).contiguous()}


FAULTS: dict[str, tuple[str, Callable[[Weights], Weights], str]] = {
    "no scale": ("int4", without(f"{Q}_scale"), f"`{Q}_packed` has no `{Q}_scale`"),
    "no shape": ("int4", without(f"{Q}_shape"), f"`{Q}_packed` has no `{Q}_shape`"),
    "another shape": ("int4", changed(f"{Q}_shape", lambda t: t + torch.tensor([0, 8])), r"_shape` says \[96, 104\], and `.*_packed` is \[96, 12\]"),
    "a shape of other rows": ("int4", changed(f"{Q}_shape", lambda t: t + torch.tensor([1, 0])), r"_shape` says \[97, 96\]"),
    "a shape of three": ("int4", changed(f"{Q}_shape", lambda t: torch.ones(3, dtype=torch.int64)), r"_shape` says \[\]"),
    "a shape of floats": ("int4", changed(f"{Q}_shape", lambda t: t.float()), "_shape` is of float32, and is to be of int64 or int32"),
    "misshaped": ("int4", changed(f"{Q}_scale", lambda t: t[1:]), r"_scale` is \[95, 3\], and no scales for groups"),
    "groups of another size": ("int4", changed(f"{Q}_scale", lambda t: t.repeat_interleave(2, 1)), "a scale for 16 of a row, and the config says 32"),
    "groups of rows": ("int4, channels, float32", changed(f"{Q}_scale", lambda t: t.repeat(1, 3)), "a scale for 32 of a row, and the config says a whole one"),
    "scales of integers": ("int4", changed(f"{Q}_scale", lambda t: t.int()), "_scale` is of int32, and is to be of float32 or bfloat16"),
    "zero points": ("int4", lambda held: held | {f"{Q}_zero_point": torch.ones(3, 3).int()}, f"`{Q}_packed` has a zero point"),
    "an order of columns": ("int4", lambda held: held | {f"{Q}_g_idx": torch.ones(96).int()}, "in an order of its own"),
    "a plain weight as well": ("int4", lambda held: held | {Q: torch.ones(96, 96)}, f"there is `{Q}_packed`, and `{Q}` as well"),
    "no second scale": ("nvfp4", without(f"{Q}_global_scale"), f"`{Q}_packed` has no `{Q}_global_scale`"),
    "several second scales": ("nvfp4", changed(f"{Q}_global_scale", lambda t: t.repeat(2)), r"_global_scale` is \[2\], and it is to be one number"),
    "misshaped floats": ("nvfp4", changed(f"{Q}_scale", lambda t: t[:, 1:]), r"_scale` is \[96, 5\]; the scales of `.*`, \[96, 48\], are \[96, 6\]"),
    "no scale_2": ("modelopt", without(f"{Q}_scale_2"), f"`{Q}` has no `{Q}_scale_2`"),
    "scales before": ("modelopt", lambda held: held | {Q.replace("weight", "pre_quant_scale"): torch.ones(96)}, "has a `pre_quant_scale` of its activations"),
    "exponents of floats": ("mxfp4", changed(f"{Q}_scale", lambda t: t.float()), "_scale` is of float32, and is to be of float8_e4m3fn or uint8"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_scales_that_do_not_fit_are_one_clear_fault(llama: Path, kind: str) -> None:
    scheme, change, said = FAULTS[kind]
    folder = llama.with_name("packed")
    packed_checkpoint(llama, folder, *SCHEMES[scheme])
    paths = sorted(folder.glob("*.safetensors"))
    before = load_file(paths[0]) | load_file(paths[1])
    for path in paths:
        path.unlink()
    save_file(change(before), folder / "model.safetensors")
    with pytest.raises(Fault, match=said) as caught:
        ckptc.convert(folder, llama.with_name("out"), to="nxdt", tp=2)
    assert caught.value.code == "bad-scales"
    assert len(caught.value.notes) == 1
    assert not llama.with_name("out").exists()
    assert ckptc.inspect(folder)["tensors"]  # looking at it is allowed


OF_EXPERTS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "misshaped": (changed("x.w_scales", lambda t: t[:, 1:]), r"`x.w_scales` is \[3, 9, 3\]; the scales of `x.w_blocks`, \[3, 10, 3, 16\], are \[3, 10, 3\]"),
    "floats": (changed("x.w_scales", lambda t: t.float()), "`x.w_scales` is of float32, and is to be of uint8"),
    "other blocks": (changed("x.w_blocks", lambda t: t[..., :15]), "`x.w_blocks` has blocks of 15 bytes, and those of MXFP4 have 16"),
    "scales alone": (lambda held: held | {"y.w_scales": held["x.w_scales"].clone()}, "`y.w_scales` is a scale, and there is no `y.w_blocks`"),
    "blocks alone": (lambda held: held | {"y.w_blocks": held["x.w_blocks"].clone()}, "`y.w_blocks` has no `y.w_scales`"),
}


@pytest.mark.parametrize("kind", OF_EXPERTS)
def test_experts_whose_scales_do_not_fit_are_one_clear_fault(tmp_path: Path, kind: str) -> None:
    change, said = OF_EXPERTS[kind]
    experts(tmp_path / "in")
    path = tmp_path / "in" / "model.safetensors"
    save_file(change(load_file(path)), path)
    (tmp_path / "m.ckmap").write_text(EXPERTS)
    with pytest.raises(Fault, match=said) as caught:
        ckptc.convert(tmp_path / "in", tmp_path / "out", from_="one", to="turned", mapping=tmp_path / "m.ckmap")
    assert caught.value.code == "bad-scales"
    assert len(caught.value.notes) == 1


def refused(folder: Path, said: str) -> None:
    with pytest.raises(Fault, match=said) as caught:
        ckptc.convert(folder, folder.with_name("out"), to="nxdt", tp=2)
    assert caught.value.code == "quantized-checkpoint"


def test_bytes_without_scales_of_their_own_are_not_decoded(llama: Path) -> None:
    for path in llama.glob("*.safetensors"):
        held = load_file(path)
        held |= {name: tensor.view(torch.uint8) for name, tensor in held.items() if name.endswith("_proj.weight")}
        save_file(held, path)
    assert {tensor.dtype for tensor in ckptc.open(llama)} == {"bfloat16", "uint8"}
    refused(llama, "is quantized to bytes")


def test_other_bits_and_rotated_weights_are_refused_as_what_they_are(llama: Path) -> None:
    folder = llama.with_name("packed")
    packed_checkpoint(llama, folder, *SCHEMES["int4"])
    config = json.loads((folder / "config.json").read_text())
    for said in (said_of_integers(num_bits=3), said_of_integers() | {"transform_config": {"config_groups": {"R3": {}}}}):
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
        refused(folder, "packed integers")


def test_a_mapping_with_names_for_the_parts_takes_them_as_they_are(tmp_path: Path) -> None:
    folder, mapping = tmp_path / "in", tmp_path / "m.ckmap"
    experts(folder)
    mapping.write_text(
        "model m { axes { e a b g c } x [e, b, g, c] s [e, b, g] n [a] }\n"
        'layout one of m { format safetensors "x.w_blocks" = x [e, b, g, c] "x.w_scales" = s [e, b, g] "n" = n [a] }\n'
        'layout two of m { format safetensors "y" = x [e, b, g, c] "z" = s [e, b, g] "n" = n [a] }\n'
    )
    ckptc.convert(folder, tmp_path / "out", from_="one", to="two", mapping=mapping, settings={"e": 3, "a": 96, "b": 10, "g": 3, "c": 16})
    found, held = load_file(next((tmp_path / "out").glob("*.safetensors"))), load_file(folder / "model.safetensors")
    assert torch.equal(found["y"], held["x.w_blocks"])
    assert torch.equal(found["z"], held["x.w_scales"])
