"""Faults that plain torch plants in checkpoints that ckptc did not write: each is found, and most are explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from ckptc import Fault

from .plain import LAYERS, VOCAB, Model, Weights, joined, nemo_ranks, nxdt_ranks, write_hf, write_nemo, write_nxdt

LLAMA, SQUARE = Model(), Model(dim=8)
WIDE = Model(dtype=torch.float32)
BIASED = Model(bias=True)
MIXTRAL = Model(experts=5)
AT = "model.layers.1."
Q, K, V, OUT = (f"{AT}self_attn.{n}_proj.weight" for n in "qkvo")
GATE, UP, DOWN = (f"{AT}mlp.{n}_proj.weight" for n in ("gate", "up", "down"))
EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", f"{AT}input_layernorm.weight"
EXPERT = f"{AT}block_sparse_moe.experts"
QKV = "model.decoder.layers.1.self_attention.linear_qkv.weight"
PADDED = 80


@dataclass(frozen=True)
class Plant:
    """`spoil` changes what is written; of the differences the first that is about `name` has this `kind`, and is `explained` so."""

    spoil: Callable[[Any], Any]
    kind: str = "values"
    name: str = ""
    explained: str | None = None
    model: Model = LLAMA
    setting: str = ""


def exchange(one: str, two: str) -> Callable[[Weights], None]:
    def spoil(x: Weights) -> None:
        x[one], x[two] = x[two], x[one]

    return spoil


def change(name: str, how: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], None]:
    def spoil(x: Weights) -> None:
        x[name] = how(x[name].clone()).contiguous()

    return spoil


def every(how: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], None]:
    def spoil(x: Weights) -> None:
        for name in x:
            x[name] = how(x[name].clone()).contiguous()

    return spoil


def remove(*names: str) -> Callable[[Weights], None]:
    def spoil(x: Weights) -> None:
        for name in names:
            del x[name]

    return spoil


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int16 if x.element_size() == 2 else torch.int32)


def flip(x: torch.Tensor) -> torch.Tensor:
    bits(x)[17, 5] ^= 1 << 9
    return x


def heads(x: torch.Tensor, order: list[int], dim: int) -> torch.Tensor:
    return x.view(-1, dim, *x.shape[1:])[order].reshape(x.shape)


def interleave(x: torch.Tensor, dim: int = 10) -> torch.Tensor:
    return x.view(-1, 2, dim // 2, *x.shape[1:]).transpose(1, 2).reshape(x.shape)


def deal(x: torch.Tensor, dim: int = 10) -> torch.Tensor:
    return x.view(-1, dim // 2, 2, *x.shape[1:]).transpose(1, 2).reshape(x.shape)


def swap_layers(x: Weights) -> None:
    for name in [n for n in x if n.startswith(AT)]:
        other = name.replace("layers.1", "layers.3")
        x[name], x[other] = x[other], x[name]


def shift_layers(x: Weights) -> None:
    old = dict(x)
    for name in [n for n in x if ".layers." in n and ".layers.0." not in n]:
        number = int(name.split(".")[2])
        x[name] = old[name.replace(f"layers.{number}", f"layers.{number - 1}")].clone()


def more_rows(fill: float) -> Callable[[Weights], None]:
    def spoil(x: Weights) -> None:
        for name in (EMBED, HEAD):
            x[name] = torch.cat([x[name], torch.full((5, x[name].shape[1]), fill, dtype=x[name].dtype)])

    return spoil


def cut_off(x: torch.Tensor) -> torch.Tensor:
    return (x.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)


def odd(x: torch.Tensor, value: int) -> torch.Tensor:
    bits(x)[3, 4] = value
    return x


def some_rows(x: torch.Tensor) -> torch.Tensor:
    x[20:31] = 0
    return x


def shifted(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])


def permute_experts(x: Weights) -> None:
    old = dict(x)
    for name in [n for n in x if n.startswith(EXPERT)]:
        number = int(name.split(".")[5])
        x[name] = old[name.replace(f"experts.{number}", f"experts.{(2, 0, 1, 4, 3)[number]}")]


def shift_experts(x: Weights) -> None:
    old = dict(x)
    for name in [n for n in x if n.startswith(EXPERT)]:
        number = int(name.split(".")[5])
        x[name] = old[name.replace(f"experts.{number}", f"experts.{(number + 1) % 5}")]


def rename(x: Weights) -> None:
    x[DOWN.replace("down", "out")] = x.pop(DOWN)


def noise(x: torch.Tensor) -> torch.Tensor:
    return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x.dtype)


HF: dict[str, Plant] = {
    "a square matrix is transposed": Plant(change(OUT, lambda x: x.T), name=OUT, explained="it is transposed", model=SQUARE),
    "a matrix is transposed": Plant(change(DOWN, lambda x: x.T), "shape", DOWN, "it is transposed"),
    "transposed elements in the old shape": Plant(change(DOWN, lambda x: x.T.reshape(x.shape)), name=DOWN, explained="those of the transposed tensor"),
    "gate and up are exchanged": Plant(exchange(GATE, UP), name=GATE, explained=f"what `{UP}` should hold"),
    "key and value are exchanged": Plant(exchange(K, V), name=K, explained=f"what `{V}` should hold"),
    "norms are exchanged": Plant(exchange(NORM, f"{AT}post_attention_layernorm.weight"), name=NORM, explained="post_attention_layernorm.weight` should hold"),
    "embedding and output matrix are exchanged": Plant(exchange(EMBED, HEAD), name=EMBED, explained=f"what `{HEAD}` should hold"),
    "layers are exchanged": Plant(swap_layers, name=DOWN, explained="of layer 3 should hold"),
    "layers are shifted by one": Plant(shift_layers, name=DOWN, explained=r"layer shifted by -1"),
    "one bit is flipped": Plant(change(DOWN, flip), name=DOWN, explained=r"one bit is flipped: bit 9 of the element at \[17, 5\]"),
    "key/value heads are in another order": Plant(change(K, lambda x: heads(x, [0, 2, 1], 10)), name=K, explained=r"blocks of 10 rows \(`dim`\) are in another order: 0, 2, 1"),
    "query heads are dealt out otherwise": Plant(change(Q, lambda x: heads(x, [0, 2, 4, 1, 3, 5], 10)), name=Q, explained="blocks of 10 rows .* dealt out otherwise"),
    "columns of the output projection are in another order": Plant(change(OUT, lambda x: heads(x.T, [1, 0, 2, 3, 5, 4], 10).T), name=OUT, explained="blocks of 10 columns"),
    "rotary pairs are interleaved": Plant(change(Q, interleave), name=Q, explained="rotary pairs stand side by side"),
    "rotary pairs are in halves twice": Plant(change(K, deal), name=K, explained="in two halves"),
    "1 is added to a norm": Plant(change(NORM, lambda x: x + 1), name=NORM, explained="1 is added to each element"),
    "1 is not added to a norm": Plant(change(NORM, lambda x: x - 1), name=NORM, explained="1 is taken from each element", model=WIDE),
    "embeddings are scaled": Plant(change(EMBED, lambda x: x * 48**0.5), name=EMBED, explained=r"multiplied by 6\.9", model=WIDE),
    "a weight is halved": Plant(change(UP, lambda x: x * 0.5), name=UP, explained=r"multiplied by 0\.5"),
    "a weight is negated": Plant(change(UP, lambda x: -x), name=UP, explained="opposite sign"),
    "rows of the vocabulary are shifted": Plant(change(EMBED, shifted), name=EMBED, explained="rows are shifted by 1 towards the end"),
    "rows of the vocabulary are cut off": Plant(change(EMBED, lambda x: x[:-4]), "shape", EMBED, "the last 4 rows are cut off"),
    "padding of zeros is not stripped": Plant(more_rows(0), "shape", EMBED, r"5 rows of padding \(zeros\) that should be stripped"),
    "padding of numbers is not stripped": Plant(more_rows(0.25), "shape", HEAD, r"5 rows of padding \(other numbers\)"),
    "float32 is cut off to bfloat16": Plant(every(cut_off), name=DOWN, explained=r"cut off to bfloat16 \(towards zero\)", model=WIDE),
    "float32 went through bfloat16": Plant(change(UP, lambda x: x.bfloat16().float()), name=UP, explained="went through bfloat16", model=WIDE),
    "float32 went through float16": Plant(change(UP, lambda x: x.half().float()), name=UP, explained="went through float16", model=WIDE),
    "a NaN has another payload": Plant(change(UP, lambda x: odd(x, 0x7FE1)), name=UP, explained="only the payloads of NaN differ"),
    "a zero has another sign": Plant(change(UP, lambda x: odd(x, -0x8000)), name=UP, explained="only the signs of zeros differ"),
    "a tensor is all zeros": Plant(change(UP, torch.zeros_like), name=UP, explained="all elements are zero"),
    "a norm is all ones": Plant(change(NORM, torch.ones_like), name=NORM, explained="all elements are 1: it was initialised"),
    "a tensor is all NaN": Plant(change(UP, lambda x: x * float("nan")), name=UP, explained="all elements are NaN"),
    "some rows were never filled": Plant(change(UP, some_rows), name=UP, explained="the elements that differ are all zero"),
    "bytes are in reverse order": Plant(change(UP, lambda x: x.view(torch.uint8).view(*x.shape, 2).flip(-1).reshape(len(x), -1).view(torch.bfloat16)), name=UP, explained="bytes of each element are in reverse order"),
    "rows are in reverse order": Plant(change(UP, lambda x: x.flip(0)), name=UP, explained="rows are in reverse order"),
    "two rows are exchanged": Plant(change(UP, lambda x: x[[*range(7), 9, 8, 7, *range(10, 84)]]), name=UP, explained="rows 7 and 9 are exchanged"),
    "biases are dropped": Plant(remove(*(f"model.layers.{i}.self_attn.k_proj.bias" for i in range(LAYERS))), "missing", "k_proj.bias", model=BIASED),
    "a tensor is missing": Plant(remove(DOWN), "missing", DOWN),
    "a tensor is too much": Plant(lambda x: x.update({"model.layers.1.mlp.extra": torch.ones(3, 5)}), "extra", "mlp.extra"),
    "a tensor has another name": Plant(rename, "missing", DOWN, "is there as `model.layers.1.mlp.out_proj.weight`"),
    "weights are of another step": Plant(change(UP, noise), name=UP),
    "a tied output matrix is another": Plant(lambda x: x.update({HEAD: noise(x[EMBED])}), name=HEAD, model=Model(tied=True)),
    "an expert is missing": Plant(remove(*(f"{EXPERT}.3.{w}.weight" for w in ("w1", "w2", "w3"))), "missing", f"{EXPERT}.3.w1", model=MIXTRAL),
    "experts are in another order": Plant(permute_experts, name=f"{EXPERT}.1.w2", explained="of expert 0 should hold", model=MIXTRAL),
    "experts are shifted by one": Plant(shift_experts, name=f"{EXPERT}.1.w3", explained=r"expert shifted by \+1", model=MIXTRAL),
    "an expert's gate and up are exchanged": Plant(exchange(f"{EXPERT}.2.w1.weight", f"{EXPERT}.2.w3.weight"), name=f"{EXPERT}.2.w1", explained="w3.weight` should hold", model=MIXTRAL),
    "rows of the router are in another order": Plant(change(f"{AT}block_sparse_moe.gate.weight", lambda x: x[[0, 1, 4, 2, 3]]), name="gate.weight", explained="rows are in another order: 0, 1, 4, 2, 3", model=MIXTRAL),
}  # fmt: skip


def judged(found: ckptc.Verification, plant: Plant) -> None:
    assert not found.same
    about = [d for d in found.differences if d.kind == plant.kind and d.target is not None and plant.name in d.target.name]
    assert about, str(found)
    if plant.explained is not None:
        assert re.search(plant.explained, about[0].explanation), str(found)
    assert about[0].setting == plant.setting, str(found)
    assert plant.name in str(about[0])
    assert about[0].explanation in str(about[0])
    assert str(found).count("\n  first") >= any(d.kind == "values" for d in found.differences)
    json.dumps(found.record(), allow_nan=False)


@pytest.mark.parametrize("fault", HF)
def test_a_fault_in_huggingface_files_is_found(fault: str, tmp_path: Path) -> None:
    plant = HF[fault]
    weights = plant.model.weights()
    if "NaN has" in fault:
        bits(weights[UP])[3, 4] = 0x7FC0
    if "zero has" in fault:
        weights[UP][3, 4] = 0
    source = write_hf(tmp_path / "source", plant.model, weights)
    spoilt = dict(weights)
    plant.spoil(spoilt)
    judged(ckptc.verify(source, write_hf(tmp_path / "result", plant.model, spoilt, shards=3)), plant)


EVEN = Model(groups=4, share=4, dim=6)  # 4 key/value heads for 2 ranks, or 4 of which 2 each have a copy
FUSED = "mlp.gate_up_proj.weight"


def of_rank(rank: int, spoil: Callable[[Weights], None]) -> Callable[[list[Weights]], None]:
    return lambda ranks: spoil(ranks[rank])


def exchange_ranks(ranks: list[Weights]) -> None:
    ranks[0], ranks[1] = ranks[1], ranks[0]


def stale(ranks: list[Weights]) -> None:
    ranks[1] = dict(ranks[0])


NXDT: dict[str, Plant] = {
    "rank files are exchanged": Plant(exchange_ranks, name=DOWN, explained=r"of tp 1 should hold"),
    "a rank file is that of another rank": Plant(stale, name=DOWN, explained=r"of tp 0 should hold"),
    "gate and up are exchanged": Plant(of_rank(1, change(AT + FUSED, lambda x: torch.cat(x.chunk(2)[::-1]))), name=FUSED, explained="`gate` and `up` are exchanged"),
    "one bit of a copy is flipped": Plant(of_rank(1, change(f"{AT}self_attn.qkv_proj.weight_k", lambda x: odd(x, int(bits(x)[3, 4]) ^ 4))), name="weight_k", explained=r"one bit is flipped: bit 2 of the element at \[3, 4\]"),
    "a norm differs on one rank": Plant(of_rank(1, change(NORM, lambda x: x * 2)), name=NORM, explained="multiplied by 2"),
    "a fused weight is missing on one rank": Plant(of_rank(1, remove(AT + FUSED)), "missing", FUSED),
    "columns are of the wrong rank": Plant(lambda ranks: [change(DOWN, lambda _, r=r: ranks_before(ranks, r))(ranks[r]) for r in (0,)], name=DOWN, explained="of tp 1 should hold"),
}  # fmt: skip


def ranks_before(ranks: list[Weights], rank: int) -> torch.Tensor:
    return ranks[1 - rank][DOWN]


@pytest.mark.parametrize("fault", NXDT)
def test_a_fault_in_rank_files_is_found(fault: str, tmp_path: Path) -> None:
    weights = EVEN.weights() | {name: torch.randn(VOCAB + 5, EVEN.hidden).bfloat16() for name in (EMBED, HEAD)}
    source = write_hf(tmp_path / "source", EVEN, weights)
    (source / "config.json").write_text(json.dumps(EVEN.config() | {"vocab_size": VOCAB + 5}))
    ranks = nxdt_ranks(EVEN, weights, 2)
    assert ckptc.verify(source, write_nxdt(tmp_path / "right", ranks)).same
    plant = NXDT[fault]
    plant.spoil(ranks)
    judged(ckptc.verify(source, write_nxdt(tmp_path / "result", ranks)), plant)


@pytest.mark.parametrize(("asked", "written"), [("trn1", "trn2"), ("trn2", "trn1")])
def test_copies_that_are_dealt_out_for_other_hardware_are_named(asked: str, written: str, tmp_path: Path) -> None:
    weights = EVEN.weights() | {name: torch.randn(VOCAB + 5, EVEN.hidden).bfloat16() for name in (EMBED, HEAD)}
    source = write_hf(tmp_path / "source", EVEN, weights)
    (source / "config.json").write_text(json.dumps(EVEN.config() | {"vocab_size": VOCAB + 5}))
    result = write_nxdt(tmp_path / "result", nxdt_ranks(EVEN, weights, 4, 2, written))
    right = ckptc.verify(source, result, settings={"kv_multiplier": 2, "hw": written})
    assert right.same, str(right)
    assert right.copies > right.equal // 20  # of keys and values, and of norms
    wrong = ckptc.verify(source, result, settings={"kv_multiplier": 2, "hw": asked})
    assert not wrong.same
    assert {d.setting for d in wrong.differences} == {f"--set hw={written}"}, str(wrong)


def test_a_rank_file_that_is_missing_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    weights = EVEN.weights() | {name: torch.randn(VOCAB + 5, EVEN.hidden).bfloat16() for name in (EMBED, HEAD)}
    source = write_hf(tmp_path / "source", EVEN, weights)
    (source / "config.json").write_text(json.dumps(EVEN.config() | {"vocab_size": VOCAB + 5}))
    result = write_nxdt(tmp_path / "result", nxdt_ranks(EVEN, weights, 4))
    (result / "model/dp_rank_00_tp_rank_02_pp_rank_00.pt").unlink()
    found = ckptc.verify(source, result)
    assert [d.kind for d in found.differences] == ["missing-file"]
    assert found.differences[0].target is not None
    assert found.differences[0].target.name.endswith("tp_rank_02_pp_rank_00.pt")
    assert f"{len(nxdt_ranks(EVEN, weights, 4)[2])} tensors" in found.differences[0].explanation


def reordered(order: str) -> Callable[[list[Weights]], None]:
    def spoil(ranks: list[Weights]) -> None:
        for i in range(LAYERS):
            for own, part in zip(ranks, joined(EVEN, EVEN.weights(), i, order).chunk(2), strict=True):
                own[QKV.replace("layers.1", f"layers.{i}")] = part.clone()

    return spoil


def of_blocks(ranks: list[Weights]) -> None:
    """Each rank's queries, keys and values one after the other, as of checkpoint version 0 of Megatron-LM."""
    for own in ranks:
        for i in range(LAYERS):
            name = QKV.replace("layers.1", f"layers.{i}")
            parts = own[name].view(2, 6, 6, -1).split([4, 1, 1], 1)
            own[name] = torch.cat([p.reshape(-1, 48) for p in parts])


def interleaved(ranks: list[Weights]) -> None:
    for own in ranks:
        for i in range(LAYERS):
            name = QKV.replace("layers.1", f"layers.{i}")
            q, k, v = own[name].view(2, 6, 6, -1).split([4, 1, 1], 1)
            q, k = (interleave(x.reshape(-1, 48), 6).view(x.shape) for x in (q, k))
            own[name] = torch.cat([q, k, v], 1).reshape(-1, 48)


NEMO: dict[str, Plant] = {
    "key and value are exchanged": Plant(reordered("qvk"), name=QKV, explained="`k` and `v` are exchanged"),
    "query, key and value are in another order": Plant(reordered("kvq"), name=QKV, explained="parts are in the order k, v, q, k, v, q, and should be q, k, v, q, k, v"),
    "query, key and value are in blocks": Plant(of_blocks, name=QKV, explained="parts are in the order q, q, k, k, v, v|qkv_order=blocks"),
    "rotary pairs are interleaved": Plant(interleaved, name=QKV, explained="rotary=interleaved", setting="--set rotary=interleaved"),
    "gate and up are exchanged": Plant(of_rank(0, change("model.decoder.layers.2.mlp.linear_fc1.weight", lambda x: torch.cat(x.chunk(2)[::-1]))), name="layers.2.mlp.linear_fc1", explained="`gate` and `up` are exchanged"),
    "the last norm is missing": Plant(lambda ranks: [remove("model.decoder.final_layernorm.weight")(own) for own in ranks], "missing", "final_layernorm"),
    "1 is added to all norms": Plant(lambda ranks: [change("model.decoder.final_layernorm.weight", lambda x: (x.float() + 1).bfloat16())(own) for own in ranks], name="final_layernorm", explained="1 is added|norm_shift=1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", NEMO)
def test_a_fault_in_megatrons_modules_is_found(fault: str, tmp_path: Path) -> None:
    weights = EVEN.weights()
    source = write_hf(tmp_path / "source", EVEN, weights)
    ranks = nemo_ranks(EVEN, weights, 2, PADDED)
    right = ckptc.verify(source, write_nemo(tmp_path / "right", EVEN, ranks, PADDED))
    assert right.same, str(right)
    assert right.padding == 2 * (PADDED - VOCAB) * EVEN.hidden
    plant = NEMO[fault]
    plant.spoil(ranks)
    found = ckptc.verify(source, write_nemo(tmp_path / "result", EVEN, ranks, PADDED))
    judged(found, Plant(plant.spoil, plant.kind, plant.name, plant.explained, setting=found_setting(found, plant)))


def found_setting(found: ckptc.Verification, plant: Plant) -> str:
    """A fault may be one that a parameter of the layout says."""
    said = next((d.setting for d in found.differences if d.target is not None and plant.name in d.target.name), "")
    return plant.setting or said


def test_numbers_in_padding_are_no_difference_and_are_told(tmp_path: Path) -> None:
    weights = EVEN.weights()
    source = write_hf(tmp_path / "source", EVEN, weights)
    ranks = nemo_ranks(EVEN, weights, 2, PADDED, fill=0.5)
    found = ckptc.verify(source, write_nemo(tmp_path / "result", EVEN, ranks, PADDED))
    assert found.same
    assert found.unlike_padding == found.padding == 2 * (PADDED - VOCAB) * EVEN.hidden
    assert any("padding" in note for note in found.notes)


def drop_shard(folder: Path) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def ghost_key(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.layers.1.ghost"] = "model-00002-of-00003.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def unlisted(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    del index["weight_map"][DOWN]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def truncate(folder: Path) -> None:
    file = folder / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "code", "names"),
    [(drop_shard, "missing-file", "model-00002-of-00003"), (ghost_key, "index-mismatch", "model.layers.1.ghost"),
     (unlisted, "index-mismatch", DOWN), (truncate, None, "model-00003-of-00003")],
)  # fmt: skip
def test_files_that_do_not_go_together_are_named(spoil: Callable[[Path], None], code: str | None, names: str, tmp_path: Path) -> None:
    source = write_hf(tmp_path / "source", LLAMA, LLAMA.weights())
    result = write_hf(tmp_path / "result", LLAMA, LLAMA.weights(), shards=3)
    spoil(result)
    for judge in (ckptc.verify, ckptc.diff):
        with pytest.raises(Fault) as fault:
            judge(source, result)
        assert code in (None, fault.value.code)
        assert names in fault.value.title


LARGE = Model(hidden=160, ffn=252, groups=4, share=4, dim=10)
SMALL_MEMORY: dict[str, Plant] = {
    "a bit in the middle": Plant(change(UP, lambda x: odd_at(x, 177, 93)), name=UP, explained=r"^one bit is flipped: bit 3 of the element at \[177, 93\]$"),
    "a square matrix is transposed": Plant(change(Q, lambda x: x.T), name=Q, explained="^it is transposed .as far as was looked at"),
    "a matrix is transposed": Plant(change(DOWN, lambda x: x.T), "shape", DOWN, "^it is transposed .as far as was looked at"),
    "rotary pairs are interleaved": Plant(change(Q, interleave), name=Q, explained="rotary pairs stand side by side,.*as far as"),
    "rows are shifted": Plant(change(UP, shifted), name=UP, explained="rows are shifted by 1 towards the end .as far as"),
    "columns are exchanged in blocks": Plant(change(DOWN, lambda x: torch.cat([x[:, 126:], x[:, :126]], 1)), name=DOWN, explained="columns are shifted in a circle, by 126 of 252"),
    "layers are exchanged": Plant(swap_layers, name=DOWN, explained="of layer 3 should hold"),
    "a weight is halved": Plant(change(UP, lambda x: x * 0.5), name=UP, explained=r"multiplied by 0\.5"),
}  # fmt: skip


def odd_at(x: torch.Tensor, row: int, column: int) -> torch.Tensor:
    bits(x)[row, column] ^= 8
    return x


@pytest.mark.parametrize("fault", SMALL_MEMORY)
def test_what_is_too_large_to_be_held_is_explained_from_its_parts(fault: str, tmp_path: Path) -> None:
    """4,096 elements are held at once: a tenth of a weight."""
    plant, weights = SMALL_MEMORY[fault], LARGE.weights()
    source = write_hf(tmp_path / "source", LARGE, weights)
    spoilt = dict(weights)
    plant.spoil(spoilt)
    judged(ckptc.verify(source, write_hf(tmp_path / "result", LARGE, spoilt), memory="1KiB"), plant)


def test_there_are_as_many_faults_as_were_promised() -> None:
    """At least 40 that are found, of which at least 30 are explained."""
    plants = [*HF.values(), *NXDT.values(), *NEMO.values()]
    assert len(plants) >= 60
    assert sum(plant.explained is not None for plant in plants) >= 50
