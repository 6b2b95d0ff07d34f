"""Families that are Llama with little otherwise: to Megatron-core, Megatron's rank files, NxD Training and NeMo, and back.

Names, shapes and keys are those of transformers (models/*/modeling_*.py and configuration_*.py, 4.57 and 5.24). What a target
must hold is said by a plain torch account of each family's layer. Sizes are pairwise distinct, but where a family's modules
are square (StableLM's and Helium's heads make up the hidden size).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ckptc
from tests.held import counted, read, same
from tests.plans.made_layers import (
    AT,
    DIM,
    FFN,
    GROUPS,
    HEAD,
    HEADS,
    HIDDEN,
    KEYS,
    LAYERS,
    RMS,
    SHARE,
    VOCAB,
    Shapes,
    Weights,
    attention,
    core_layer,
    gated,
    linear,
    norm,
    norms,
)  # fmt: skip


def halves(rows: torch.Tensor) -> torch.Tensor:
    """Rows of heads whose rotary positions turn neighbours, in the order in which they turn a row with one half a head on."""
    return rows.unflatten(0, (-1, DIM // 2, 2)).transpose(1, 2).flatten(0, 2)


Account = Callable[[Weights], Weights]


def plain(h: Weights) -> Weights:
    """A layer in Llama's names."""
    return h


def turned(h: Weights) -> Weights:
    return {n: halves(x) if ".q_proj." in n or ".k_proj." in n else x for n, x in h.items()}


def phi3(h: Weights) -> Weights:
    """modeling_phi3.py: all query heads, all keys, all values; the gate's half first (`gate, up_states = up_states.chunk(2)`)."""
    q, k, v = h["self_attn.qkv_proj.weight"].split([HEADS * DIM, GROUPS * DIM, GROUPS * DIM])
    gate, up = h["mlp.gate_up_proj.weight"].chunk(2)
    rest = {n: x for n, x in h.items() if "qkv_proj" not in n and "gate_up" not in n}
    return rest | {
        "self_attn.q_proj.weight": q, "self_attn.k_proj.weight": k, "self_attn.v_proj.weight": v,
        "mlp.gate_proj.weight": gate, "mlp.up_proj.weight": up,
    }  # fmt: skip


def starcoder2(h: Weights) -> Weights:
    return {n.replace("c_fc", "up_proj").replace("c_proj", "down_proj"): x for n, x in h.items()}


def internlm2(h: Weights) -> Weights:
    """modeling_internlm2.py: rows of `wqkv` by groups, a group's query heads, its key, its value; w1 is the gate, w3 is up."""
    names = {
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj", "feed_forward.w3": "mlp.up_proj",
    }  # fmt: skip
    out = {f"{new}.weight": h[f"{old}.weight"] for old, new in names.items()}
    rows = h["attention.wqkv.weight"].unflatten(0, (GROUPS, SHARE + 2, DIM))
    for name, part in (("q", rows[:, :SHARE]), ("k", rows[:, -2]), ("v", rows[:, -1])):
        out[f"self_attn.{name}_proj.weight"] = part.reshape(-1, rows.shape[-1])
    return out


def exaone(h: Weights) -> Weights:
    names = {
        "ln_1": "input_layernorm", "ln_2": "post_attention_layernorm", "attn.attention.out_proj": "self_attn.o_proj", "attn.attention.": "self_attn.",
        "c_fc_0": "gate_proj", "c_fc_1": "up_proj", "c_proj": "down_proj",
    }  # fmt: skip
    out: Weights = {}
    for name, x in h.items():
        old = next(old for old in names if old in name)
        out[name.replace(old, names[old])] = x
    return out


@dataclass(frozen=True)
class Case:
    """A family's layer, its config, how its layer is one of Llama's, and the layouts that hold it or refuse it with these words."""

    family: str
    layer: Shapes
    keys: dict[str, Any]
    account: Account = plain
    hidden: int = HIDDEN
    norm_bias: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()  # what Megatron-LM's arguments have no word for
    name: str = ""
    embed: str = "model.embed_tokens.weight"
    head: str = "lm_head.weight"
    at: str = AT
    norm: str = "model.norm"

    def shapes(self) -> Shapes:
        ends = {self.embed: (VOCAB, self.hidden)} | norm(self.norm, self.norm_bias, self.hidden)
        tied = {} if self.keys.get("tie_word_embeddings") else {self.head: (VOCAB, self.hidden)}
        return ends | tied | {f"{self.at}{i}.{name}": shape for i in range(LAYERS) for name, shape in self.layer.items()}


NO_BIAS = {"nxdt": "has no place for"}
UNGATED = {"nxdt": "feed-forward network"}
CASES = [
    Case("seed_oss", norms() | attention(qkv=True) | gated(), RMS | HEAD | {"attention_bias": True, "attention_out_bias": False}),
    Case("seed_oss", norms() | attention(True, True) | gated(True), RMS | HEAD | {"attention_bias": True, "attention_out_bias": True, "mlp_bias": True}, name="seed_oss-biases"),
    Case("arcee", norms() | attention() | linear("mlp.up_proj", FFN, HIDDEN) | linear("mlp.down_proj", HIDDEN, FFN), RMS | HEAD | {"hidden_act": "relu2"}, refused=UNGATED),
    Case("phi3", norms() | linear("self_attn.qkv_proj", (HEADS + 2 * GROUPS) * DIM, HIDDEN) | linear("self_attn.o_proj", HIDDEN, HEADS * DIM)
         | linear("mlp.gate_up_proj", 2 * FFN, HIDDEN) | linear("mlp.down_proj", HIDDEN, FFN), RMS | HEAD | {"sliding_window": 17}, phi3),
    Case("phi3", norms() | linear("self_attn.qkv_proj", (HEADS + 2 * GROUPS) * DIM, HIDDEN) | linear("self_attn.o_proj", HIDDEN, HEADS * DIM)
         | linear("mlp.gate_up_proj", 2 * FFN, HIDDEN) | linear("mlp.down_proj", HIDDEN, FFN), RMS | HEAD | {"partial_rotary_factor": 0.75}, phi3,
         refused={"nxdt": "a part of each head"}, name="phi3-partial"),
    Case("starcoder2", norms(True) | attention(True, True) | linear("mlp.c_fc", FFN, HIDDEN, True) | linear("mlp.c_proj", HIDDEN, FFN, True),
         HEAD | {"norm_epsilon": 3e-6, "use_bias": True, "sliding_window": 17, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"},
         starcoder2, norm_bias=True, refused=NO_BIAS),
    Case("stablelm", norms(True, HEADS * DIM) | attention(True, False, HEADS * DIM) | gated(False, HEADS * DIM),
         {"hidden_size": HEADS * DIM, "layer_norm_eps": 3e-6, "use_qkv_bias": True, "partial_rotary_factor": 0.25}, hidden=HEADS * DIM, norm_bias=True,
         refused=NO_BIAS),
    Case("helium", norms(False, HEADS * DIM) | attention(hidden=HEADS * DIM) | gated(False, HEADS * DIM), RMS | HEAD | {"hidden_size": HEADS * DIM}, turned, HEADS * DIM),
    Case("internlm2", norm("attention_norm", False, HEADS * DIM) | norm("ffn_norm", False, HEADS * DIM) | linear("attention.wqkv", (HEADS + 2 * GROUPS) * DIM, HEADS * DIM)
         | linear("attention.wo", HEADS * DIM, HEADS * DIM) | linear("feed_forward.w1", FFN, HEADS * DIM) | linear("feed_forward.w2", HEADS * DIM, FFN)
         | linear("feed_forward.w3", FFN, HEADS * DIM), RMS | {"hidden_size": HEADS * DIM, "bias": False}, internlm2, HEADS * DIM, embed="model.tok_embeddings.weight", head="output.weight"),
    Case("gemma", norms() | attention() | gated(), RMS | HEAD | {"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"}, accepted=("activation", "gated"),
         refused={"nxdt": "root of the hidden size"}),
    Case("ministral", norms() | attention() | gated(), RMS | HEAD | {"sliding_window": 17}),
    Case("internlm3", norms() | attention(True, True) | gated(True), RMS | HEAD | {"bias": True, "qkv_bias": True}),
    Case("jais2", norms(True) | attention(True, True) | linear("mlp.up_proj", FFN, HIDDEN, True) | linear("mlp.down_proj", HIDDEN, FFN, True),
         HEAD | {"layer_norm_eps": 3e-6, "hidden_act": "relu2", "attention_bias": True, "mlp_bias": True}, norm_bias=True, refused=NO_BIAS),
    Case("exaone", norm("ln_1") | norm("ln_2") | linear("attn.attention.q_proj", HEADS * DIM, HIDDEN) | linear("attn.attention.k_proj", GROUPS * DIM, HIDDEN)
         | linear("attn.attention.v_proj", GROUPS * DIM, HIDDEN) | linear("attn.attention.out_proj", HIDDEN, HEADS * DIM) | linear("mlp.c_fc_0", FFN, HIDDEN)
         | linear("mlp.c_fc_1", FFN, HIDDEN) | linear("mlp.c_proj", HIDDEN, FFN), HEAD | {"num_hidden_layers": None, "num_layers": LAYERS, "layer_norm_epsilon": 3e-6, "activation_function": "silu"},
         exaone, embed="transformer.wte.weight", at="transformer.h.", norm="transformer.ln_f"),
    Case("granite", norms() | attention() | gated(), RMS | HEAD | {"embedding_multiplier": 12.0, "attention_multiplier": 0.125, "residual_multiplier": 0.5, "logits_scaling": 8.0},
         accepted=("embed_scale", "attention_scale", "residual_scale", "logit_divisor"), refused=dict.fromkeys(("nxdt", "nemo", "nemo2"), "no factors")),
    Case("ernie4_5", norms() | attention(True, True) | gated(True), RMS | HEAD | {"use_bias": True, "tie_word_embeddings": True}, turned),
]  # fmt: skip
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name or case.family)


def saved(folder: Path, case: Case, **keys: Any) -> tuple[Path, Weights]:
    folder.mkdir()
    hf = counted(case.shapes())
    save_file(hf, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": case.family, **KEYS, **case.keys, **keys}))
    return folder, hf


def of_layer(case: Case, hf: Weights, i: int) -> Weights:
    return case.account({n.removeprefix(f"{case.at}{i}."): x for n, x in hf.items() if n.startswith(f"{case.at}{i}.")})


def core(case: Case, hf: Weights) -> Weights:
    found = [core_layer(of_layer(case, hf, i)) for i in range(LAYERS)]
    out = {f"decoder.layers.{name}": torch.stack([x[name] for x in found]) for name in found[0]}
    out["embedding.word_embeddings.weight"] = hf[case.embed]
    out |= {n.replace(case.norm, "decoder.final_layernorm"): x for n, x in hf.items() if n.startswith(f"{case.norm}.")}
    return out | ({"output_layer.weight": hf[case.head]} if case.head in hf else {})


@each
def test_a_family_becomes_what_megatron_core_stores_and_comes_back(case: Case, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", case)
    if case.accepted:
        with pytest.raises(ckptc.MappingError, match=case.accepted[0]):
            ckptc.plan(source, to="megatron")
    made = ckptc.plan(source, to="megatron", accept=case.accepted)
    assert made.data.mapping == case.family
    made.run(tmp_path / "dist")
    assert same(read(tmp_path / "dist"), core(case, hf))
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@each
def test_ranks_of_megatron_hold_their_parts_and_come_back(case: Case, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", case)
    ckptc.convert(source, tmp_path / "ranks", to="megatron-legacy", tp=2, pp=2, accept=case.accepted)
    last = torch.load(tmp_path / "ranks/release/mp_rank_01_001/model_optim_rng.pt", weights_only=False)["model"]
    for local in range(LAYERS // 2):
        wanted = core_layer(of_layer(case, hf, LAYERS // 2 + local), 2, 1)
        at = f"decoder.layers.{local}."
        assert same({n.removeprefix(at): x for n, x in last.items() if n.startswith(at) and isinstance(x, torch.Tensor)}, wanted)
    ckptc.convert(tmp_path / "ranks", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@each
@pytest.mark.parametrize("to", ["nxdt", "nemo", "nemo2"])
def test_a_family_goes_to_the_frameworks_whose_modules_hold_it_and_back(case: Case, to: str, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", case)
    tp = 1 if to == "nemo2" else 2
    if to in case.refused:
        with pytest.raises(ckptc.MappingError, match=case.refused[to]):
            ckptc.plan(source, to=to, tp=tp)
        return
    ckptc.convert(source, tmp_path / "there", to=to, tp=tp)
    ckptc.convert(tmp_path / "there", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize("case", [case for case in CASES if "nemo" not in case.refused], ids=lambda case: case.name or case.family)
def test_what_the_config_says_goes_through_nemo(case: Case, tmp_path: Path) -> None:
    """Without the first config beside it: NeMo's alone must say all that the family's config says."""
    source, _ = saved(tmp_path / "hf", case)
    ckptc.convert(source, tmp_path / "nemo", to="nemo")
    ckptc.convert(tmp_path / "nemo", tmp_path / "back", to="hf", family=case.family)
    found, wanted = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "back", source))
    assert {k: found.get(k) for k in wanted} == wanted


def test_windows_in_some_of_ministrals_layers_are_megatrons_and_not_nxds(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "ministral")
    source, hf = saved(tmp_path / "hf", case, sliding_window=7, layer_types=["full_attention", *["sliding_attention"] * 3])
    ckptc.convert(source, tmp_path / "dist", to="megatron")
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    with pytest.raises(ckptc.MappingError, match="one kind of attention"):
        ckptc.plan(source, to="nxdt")


UNSAID = [
    ("seed_oss", {"attention_bias": False, "attention_out_bias": True}, "output alone"), ("phi3", {"rope_scaling": {"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}}, "longrope"),
    ("stablelm", {"use_parallel_residual": True}, "at once"), ("stablelm", {"qk_layernorm": True}, "norms of each query"),
    ("arcee", {"hidden_act": "silu"}, "silu"), ("starcoder2", {"hidden_act": "silu"}, "silu"), ("helium", {"partial_rotary_factor": 0.5}, "rotary"),
    ("internlm3", {"qkv_bias": False}, "biases of query"),
    ("jais2", {"hidden_act": "silu"}, "silu"), ("exaone", {"partial_rotary_factor": 0.5}, "rotary"), ("granite", {"embedding_multiplier": 3.0}, "embed_scale"),
    ("gemma", {"use_bidirectional_attention": True}, "later tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "keys", "words"), UNSAID, ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_a_setting_that_no_target_has_is_refused(family: str, keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == family)
    source, _ = saved(tmp_path / "hf", case, **keys)
    with pytest.raises(ckptc.MappingError, match=words):
        ckptc.plan(source, to="megatron")


def test_gemmas_norms_are_around_one_where_nemo_1_multiplies_by_them(tmp_path: Path) -> None:
    """NeMo 1's converter adds 1 to each (scripts/checkpoint_converters/convert_gemma_hf_to_nemo.py), and its config says the scale of embeddings."""
    case = next(case for case in CASES if case.family == "gemma")
    source, hf = saved(tmp_path / "hf", case)
    ckptc.convert(source, tmp_path / "nemo", to="nemo")
    found = read(tmp_path / "nemo")
    assert torch.equal(found["model.decoder.final_layernorm.weight"], hf["model.norm.weight"] + 1)
    assert torch.equal(found["model.decoder.layers.1.self_attention.linear_qkv.layer_norm_weight"], hf[f"{AT}1.input_layernorm.weight"] + 1)
    assert yaml.safe_load((tmp_path / "nemo/model_config.yaml").read_text())["apply_embedding_scaling"] is True
    with pytest.raises(ckptc.MappingError, match="root of the hidden size"):
        ckptc.plan(source, to="nemo-legacy")
