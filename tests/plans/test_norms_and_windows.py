"""Families with norms after attention and feed-forward network, norms over all heads, windows in some layers, or one norm.

Names, shapes and keys are those of transformers (models/*/modeling_*.py and configuration_*.py, 5.24). Sizes are pairwise
distinct. Where a framework's modules hold a family, what they must hold is said by a plain torch account of a layer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ckptc
from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.sizes import Sizes, bind_sizes
from ckptc.compiler.settle.write_config import config_text
from ckptc.library import mapping_files as library
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
    VOCAB,
    Shapes,
    Weights,
    attention,
    core_layer,
    gated,
    linear,
    norm,
)  # fmt: skip
from tests.scaled_weights import scaled

EXPERTS, EXPERT_FFN = 5, 14
POST = norm("post_attention_layernorm") | norm("post_feedforward_layernorm")
SANDWICH = norm("input_layernorm") | norm("pre_feedforward_layernorm") | POST
HEAD_NORMS = norm("self_attn.q_norm", hidden=DIM) | norm("self_attn.k_norm", hidden=DIM)
WIDE_NORMS = norm("self_attn.q_norm", hidden=HEADS * DIM) | norm("self_attn.k_norm", hidden=GROUPS * DIM)
BEFORE = norm("input_layernorm") | norm("post_attention_layernorm")
FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA = RMS | HEAD | {"tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "sliding_window": 17}
GEMMA_2 = GEMMA | {"query_pre_attn_scalar": 21, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "layer_types": [SLIDING, FULL] * 2}
GEMMA_3 = GEMMA | {
    "query_pre_attn_scalar": DIM, "rope_theta": 1000000, "rope_local_base_freq": 10000, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING],
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1, "mscale": 1, "mscale_all_dim": 0,
    "attention_factor": 1.2079441541679836,
}  # fmt: skip


def experts(at: str, gate: str, up: str, down: str) -> Shapes:
    out = {f"{at}gate.weight": (EXPERTS, HIDDEN)}
    for e in range(EXPERTS):
        out |= linear(f"{at}experts.{e}.{gate}", EXPERT_FFN, HIDDEN) | linear(f"{at}experts.{e}.{up}", EXPERT_FFN, HIDDEN) | linear(f"{at}experts.{e}.{down}", HIDDEN, EXPERT_FFN)
    return out


@dataclass(frozen=True)
class Case:
    """A family's layer and its config, in the spelling that is written; the words with which Megatron's layout refuses it."""

    family: str
    layer: Shapes
    keys: dict[str, Any]
    refused: str
    model_type: str = ""
    name: str = ""

    @property
    def config(self) -> dict[str, Any]:
        return {"model_type": self.model_type or self.family, **KEYS, **self.keys}

    def shapes(self) -> Shapes:
        hidden = self.config["hidden_size"]
        ends = {"model.embed_tokens.weight": (VOCAB, hidden)} | norm("model.norm", hidden=hidden)
        tied = {} if self.config["tie_word_embeddings"] else {"lm_head.weight": (VOCAB, hidden)}
        return ends | tied | {f"{AT}{i}.{name}": shape for i in range(LAYERS) for name, shape in self.layer.items()}


OLMO_2 = POST | WIDE_NORMS | attention() | gated()
EXAONE = POST | HEAD_NORMS | attention() | gated()
GLM = BEFORE | norm("post_self_attn_layernorm") | norm("post_mlp_layernorm") | attention(qkv=True) | linear("mlp.gate_up_proj", 2 * FFN, HIDDEN) | linear("mlp.down_proj", HIDDEN, FFN)
ONE_NORM = norm("input_layernorm") | attention() | gated()
COHERE = {"layer_norm_eps": 3e-6, "logit_scale": 0.125, "tie_word_embeddings": True, "attention_bias": False}
MOE = {"num_experts_per_tok": 3, "intermediate_size": EXPERT_FFN}
CASES = [
    Case("gemma2", SANDWICH | attention() | gated(), GEMMA_2, "score_cap is"),
    Case("gemma2", SANDWICH | attention() | gated(), {**GEMMA_2, "attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": DIM, "layer_types": [FULL] * 4, "sliding_window": 4096},
         "activation is", name="gemma2-full"),
    Case("gemma3", SANDWICH | HEAD_NORMS | attention() | gated(), GEMMA_3, "window_rope_base is", "gemma3_text"),
    Case("gemma3", SANDWICH | HEAD_NORMS | attention() | gated(), {**GEMMA_3, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 21}, "logit_cap is", "gemma3_text", name="gemma3-capped"),
    Case("olmo2", OLMO_2, RMS | HEAD | {"attention_bias": False, "rope_theta": 500000}, "no place for its `post_attn_norm`"),
    Case("olmo3", OLMO_2, RMS | HEAD | {"rope_theta": 500000, "rope_scaling": YARN, "sliding_window": 17, "layer_types": [SLIDING, SLIDING, SLIDING, FULL], "rope_parameters": {
        FULL: {"rope_type": "yarn", "rope_theta": 500000}, SLIDING: {"rope_type": "default", "rope_theta": 500000}}}, "no place for its `post_attn_norm`"),
    Case("olmoe", BEFORE | WIDE_NORMS | attention() | experts("mlp.", "gate_proj", "up_proj", "down_proj"),
         RMS | HEAD | MOE | {"num_experts": EXPERTS, "norm_topk_prob": False, "clip_qkv": 8.0}, "wide_q_norm"),
    Case("glm4", GLM, RMS | HEAD | {"attention_bias": True, "partial_rotary_factor": 0.5}, "no place for its `post_attn_norm`"),
    Case("exaone4", EXAONE, RMS | HEAD | {"sliding_window": 17, "layer_types": [SLIDING, FULL, SLIDING, FULL]}, "no place for its `post_attn_norm`"),
    Case("exaone4", EXAONE, RMS | HEAD | {"sliding_window": None, "layer_types": [FULL] * 4, "tie_word_embeddings": True}, "no place for its `post_attn_norm`", name="exaone4-full"),
    Case("cohere", ONE_NORM, HEAD | COHERE, "adds both at once"),
    Case("cohere", ONE_NORM | {"self_attn.q_norm.weight": (HEADS, DIM), "self_attn.k_norm.weight": (GROUPS, DIM)}, HEAD | COHERE | {"use_qk_norm": True}, "adds both at once", name="cohere-norms"),
    Case("cohere2", norm("input_layernorm", hidden=HEADS * DIM) | attention(hidden=HEADS * DIM) | gated(hidden=HEADS * DIM),
         {**COHERE, "hidden_size": HEADS * DIM, "sliding_window": 17, "layer_types": [SLIDING, FULL, SLIDING, SLIDING]}, "adds both at once"),
    Case("minimax_m2", BEFORE | WIDE_NORMS | attention() | experts("block_sparse_moe.", "w1", "w3", "w2") | {"block_sparse_moe.e_score_correction_bias": (EXPERTS,)},
         RMS | HEAD | MOE | {"num_local_experts": EXPERTS, "rotary_dim": 4, "partial_rotary_factor": 0.5}, "wide_q_norm"),
]  # fmt: skip
FAMILIES = {family.name: family for family in library.families(None)}
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name or case.family)


def saved(folder: Path, case: Case, **keys: Any) -> tuple[Path, Weights]:
    folder.mkdir()
    hf = counted(case.shapes())
    save_file(hf, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({k: v for k, v in {**case.config, **keys}.items() if v != "left out"}))
    return folder, hf


def sizes_of(case: Case, config: dict[str, Any]) -> Sizes:
    family = FAMILIES[case.family]
    biased = any("q_proj.bias" in name for name in case.layer)

    def stored(name: str) -> bool:
        return biased if name in ("q_bias", "k_bias", "v_bias") else not name.endswith("_bias") and not name.startswith("shared_") and name not in ("head", "position")

    return bind_sizes(family, family.layout("hf"), config, {}, stored, "config.json")


def settings(sizes: Sizes, family: str) -> dict[str, Any]:
    return {s.name: sizes.values.get(s.name) for s in FAMILIES[family].model.settings if not s.hint}


@each
def test_a_config_that_is_written_says_what_was_read(case: Case) -> None:
    sizes = sizes_of(case, case.config)
    assert sizes.unknown == ()
    config = FAMILIES[case.family].layout("hf").config
    assert config is not None
    written = json.loads(config_text(config, resolve(FAMILIES[case.family], "hf", sizes, {}), None))
    assert {k: written.get(k) for k in case.config} == case.config
    assert settings(sizes_of(case, written), case.family) == settings(sizes, case.family)


@each
def test_a_family_is_read_written_cast_and_compared(case: Case, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", case)
    made = ckptc.plan(source, to="hf")
    assert made.data.mapping == case.family
    ckptc.convert(source, tmp_path / "bin", to="hf", format="bin", verify=True)
    ckptc.convert(tmp_path / "bin", tmp_path / "back", to="hf", format="safetensors")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    ckptc.convert(source, tmp_path / "cast", to="hf", dtype="bfloat16", verify=True)
    cast = load_file(tmp_path / "cast/model.safetensors")
    assert all(torch.equal(cast[n], x if n.endswith("correction_bias") else x.to(torch.bfloat16)) for n, x in hf.items())


@each
def test_a_target_that_cannot_say_or_hold_a_family_refuses_it_by_name(case: Case, tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "hf", case)
    for to in ("megatron", "megatron-legacy"):
        with pytest.raises(ckptc.MappingError, match=case.refused):
            ckptc.plan(source, to=to)
    for to in ("nxdt", "nxdt-megatron", "nemo", "nemo-legacy", "megatron-lm"):
        with pytest.raises(ckptc.MappingError, match=r"cannot hold|has no place for|at once|cannot say that sigmoid scores|turn whole heads"):
            ckptc.plan(source, to=to)


def with_post_norms(h: Weights, tp: int = 1, rank: int = 0) -> Weights:
    """A layer of Megatron-Bridge's and NeMo's Gemma 2 and 3: a norm stands within the linear layer before it; all are around zero."""
    before = h | {"post_attention_layernorm.weight": h["pre_feedforward_layernorm.weight"]}
    out = core_layer(before, tp, rank) | {
        "self_attention.linear_proj.post_layernorm.weight": h["post_attention_layernorm.weight"], "mlp.linear_fc2.post_layernorm.weight": h["post_feedforward_layernorm.weight"],
    }  # fmt: skip
    return out | {f"self_attention.{x}_layernorm.weight": h[f"self_attn.{x}_norm.weight"] for x in "qk" if f"self_attn.{x}_norm.weight" in h}


def layer_of(hf: Weights, i: int) -> Weights:
    return {n.removeprefix(f"{AT}{i}."): x for n, x in hf.items() if n.startswith(f"{AT}{i}.")}


def whole(hf: Weights) -> Weights:
    found = [with_post_norms(layer_of(hf, i)) for i in range(LAYERS)]
    ends = {"embedding.word_embeddings.weight": hf["model.embed_tokens.weight"], "decoder.final_layernorm.weight": hf["model.norm.weight"]}
    return ends | {f"decoder.layers.{name}": torch.stack([x[name] for x in found]) for name in found[0]}


GEMMAS = pytest.mark.parametrize("case", [case for case in CASES if case.family in ("gemma2", "gemma3")], ids=lambda case: case.name or case.family)
UNSAID = ("activation", "gated", "full_list", "score_root", "score_cap", "logit_cap", "window_rope_base", "window_rope_kind")


@GEMMAS
def test_weights_with_norms_after_go_to_megatron_where_its_silence_is_accepted(case: Case, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", case)
    made = ckptc.plan(source, to="megatron", accept=UNSAID)
    assert any("no norms after attention" in note for note in made.notes)
    made.run(tmp_path / "dist")
    assert same(read(tmp_path / "dist"), whole(hf))
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@GEMMAS
def test_ranks_of_megatron_hold_norms_after_whole(case: Case, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", case)
    ckptc.convert(source, tmp_path / "ranks", to="megatron-legacy", tp=2, pp=2, accept=UNSAID)
    last = torch.load(tmp_path / "ranks/release/mp_rank_01_001/model_optim_rng.pt", weights_only=False)["model"]
    for local in range(LAYERS // 2):
        at = f"decoder.layers.{local}."
        wanted = with_post_norms(layer_of(hf, LAYERS // 2 + local), 2, 1)
        assert same({n.removeprefix(at): x for n, x in last.items() if n.startswith(at) and isinstance(x, torch.Tensor)}, wanted)
    ckptc.convert(tmp_path / "ranks", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


def test_nemo_2_has_windows_in_the_other_layers_of_gemma_2(tmp_path: Path) -> None:
    """nemo/collections/llm/gpt/model/gemma2.py: the window is of layers whose number, from 1, is even."""
    case = CASES[0]
    source, hf = saved(tmp_path / "hf", case)
    with pytest.raises(ckptc.MappingError, match=r"cannot say that full_list is \[1, 3\]"):
        ckptc.plan(source, to="nemo2")
    ckptc.convert(source, tmp_path / "nemo2", to="nemo2", accept=["full_list"])
    assert same({n.removeprefix("module."): x for n, x in read(tmp_path / "nemo2").items()}, whole(hf))
    other, _ = saved(tmp_path / "other", case, layer_types=[FULL, SLIDING] * 2)
    ckptc.plan(other, to="nemo2")


def context(folder: Path, model: str, **config: Any) -> None:
    common = {
        "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": FFN, "num_attention_heads": HEADS, "num_query_groups": GROUPS, "kv_channels": DIM, "seq_length": 97,
        "normalization": "RMSNorm", "layernorm_epsilon": 3e-6, "add_bias_linear": False, "gated_linear_unit": True, "position_embedding_type": "rope", "init_method_std": 0.03,
        "activation_func": {"_target_": "nemo.collections.llm.fn.activation.openai_gelu"}, "layernorm_zero_centered_gamma": True, "share_embeddings_and_output_weights": True,
    }  # fmt: skip
    (folder / "context").mkdir(exist_ok=True)
    (folder / "context/model.yaml").write_text(yaml.safe_dump({"_target_": f"nemo.collections.llm.gpt.model.{model}", "config": {**common, **config}}))


def test_a_model_of_nemo_2s_class_of_gemma_3_says_its_windows_and_bases(tmp_path: Path) -> None:
    case = CASES[2]
    source, hf = saved(tmp_path / "hf", case)
    keys = {"layer_types": [SLIDING, SLIDING, FULL, SLIDING]}
    source, hf = saved(tmp_path / "thirds", case, **keys)
    with pytest.raises(ckptc.MappingError, match="full_list is"):  # a full layer is every sixth by itself
        ckptc.plan(source, to="nemo2")
    ckptc.convert(source, tmp_path / "nemo2", to="nemo2", accept=["full_list"])
    context(tmp_path / "nemo2", "gemma3.Gemma3Model", window_size=17, interleaved_attn_pattern=[2, 1], rotary_base=[20000, 700000], rope_scaling_factor=8.0)
    ckptc.convert(tmp_path / "nemo2", tmp_path / "back", to="hf", settings={"vocab": VOCAB})
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    written = json.loads((tmp_path / "back/config.json").read_text())
    assert {k: written[k] for k in ("sliding_window", "layer_types", "query_pre_attn_scalar", "rope_scaling")} == {k: case.config[k] for k in ("sliding_window", "layer_types", "query_pre_attn_scalar", "rope_scaling")}
    assert (written["rope_theta"], written["rope_local_base_freq"]) == (700000, 20000)


def test_a_model_of_nemo_2s_class_of_gemma_2_says_its_caps(tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", CASES[0], layer_types=[FULL, SLIDING] * 2)
    ckptc.convert(source, tmp_path / "nemo2", to="nemo2")
    context(tmp_path / "nemo2", "gemma2.Gemma2Model", window_size=[17, 0], rotary_base=10000, query_pre_attn_scalar=21, attn_logit_softcapping=40.0, final_logit_softcapping=20.0)
    ckptc.convert(tmp_path / "nemo2", tmp_path / "back", to="hf", settings={"vocab": VOCAB})
    written = json.loads((tmp_path / "back/config.json").read_text())
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    assert (written["attn_logit_softcapping"], written["final_logit_softcapping"], written["query_pre_attn_scalar"], written["layer_types"]) == (40.0, 20.0, 21, [FULL, SLIDING] * 2)


PUBLISHED = [  # keys as published configs have them, and what they mean
    ("gemma2", {"layer_types": "left out", "sliding_window": 4096}, {"window": 4096, "full_list": [1, 3]}),
    ("gemma2", {"layer_types": "left out", "sliding_window": "left out", "query_pre_attn_scalar": "left out"}, {"window": 4096, "score_root": 256}),
    ("gemma2", {"attn_logit_softcapping": "left out", "final_logit_softcapping": None}, {"score_cap": 50.0, "logit_cap": 0.0}),
    ("gemma3", {"layer_types": "left out", "sliding_window_pattern": 2}, {"full_list": [1, 3]}),
    ("gemma3", {"layer_types": "left out"}, {"full_list": None, "window": 17}),
    ("gemma3", {"rope_theta": "left out", "rope_local_base_freq": "left out", "rope_scaling": "left out", "rope_parameters": {
        FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0}, SLIDING: {"rope_type": "default", "rope_theta": 7000.0}}},
     {"rope_base": 50000.0, "window_rope_base": 7000.0, "rope_kind": "linear", "window_rope_kind": "default", "rope_factor": 4.0}),
    ("olmo3", {"rope_parameters": "left out", "layer_types": "left out"}, {"rope_kind": "yarn", "window_rope_kind": "default", "rope_gain": 1.2079441541679836, "full_list": [3]}),
    ("cohere2", {"layer_types": "left out", "sliding_window_pattern": 3, "position_embedding_type": "rope_gptj", "rotary_pct": 1.0}, {"full_list": [2], "unturned_list": [2]}),
    ("exaone4", {"layer_types": "left out", "sliding_window_pattern": 4}, {"full_list": [3], "unturned_list": [3]}),
    ("minimax_m2", {"partial_rotary_factor": "left out", "scoring_func": "sigmoid", "use_qk_norm": True, "attn_type_list": [1, 1, 1, 1]}, {"rope_part": 0.5, "router_score": "sigmoid"}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "keys", "meant"), PUBLISHED, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_other_spellings_of_a_config_mean_the_same(family: str, keys: dict[str, Any], meant: dict[str, Any]) -> None:
    case = next(case for case in CASES if case.family == family)
    config = {k: v for k, v in {**case.config, **keys}.items() if v != "left out"}
    sizes = sizes_of(case, config)
    assert {name: sizes.values.get(name) for name in meant} == meant
    assert sizes.unknown == ()


REFUSED = [
    ("gemma2", {"layer_types": [FULL, "chunked_attention"] * 2}, "the kind of some layers' attention"), ("gemma2", {"use_bidirectional_attention": True}, "later tokens"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "a cap of attention scores"),
    ("gemma3", {"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 2.0}}}, "layers with a window"),
    ("gemma3", {"rope_parameters": {FULL: {"rope_theta": 3.0}}}, "which of two bases"),
    ("olmo3", {"rope_theta": 10000.0, "rope_parameters": "left out"}, "releases of transformers"), ("minimax_m2", {"attn_type_list": [1, 0, 1, 1]}, "the kind of some layers' attention"),
    ("cohere2", {"layer_types": [FULL] * 4}, "no positions at all"), ("cohere2", {"use_parallel_block": False}, "one after the other"),
    ("minimax_m2", {"scoring_func": "softmax"}, "how experts are chosen"), ("exaone4", {"hidden_act": "tanh"}, "tanh"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "keys", "words"), REFUSED, ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_what_would_be_another_model_is_refused(family: str, keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "hf", next(case for case in CASES if case.family == family), **keys)
    with pytest.raises(ckptc.MappingError, match=words):
        ckptc.plan(source, to="hf")


@pytest.mark.parametrize("family", ["olmoe", "minimax_m2"])
def test_experts_of_a_layer_become_one_tensor_and_come_apart(family: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == family)
    source, hf = saved(tmp_path / "hf", case)
    ckptc.convert(source, tmp_path / "v5", to="hf", settings={"dialect": "v5"})
    v5 = load_file(tmp_path / "v5/model.safetensors")
    assert v5[f"{AT}1.mlp.experts.gate_up_proj"].shape == (EXPERTS, 2 * EXPERT_FFN, HIDDEN)
    gate, up = (("w1", "w3") if family == "minimax_m2" else ("gate_proj", "up_proj"))
    at = f"{AT}1.block_sparse_moe." if family == "minimax_m2" else f"{AT}1.mlp."
    assert torch.equal(v5[f"{AT}1.mlp.experts.gate_up_proj"][2], torch.cat([hf[f"{at}experts.2.{x}.weight"] for x in (gate, up)]))
    ckptc.convert(tmp_path / "v5", tmp_path / "back", to="hf", settings={"dialect": "v4"})
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize("family", ["minimax_m2", "gemma3", "olmo3"])
def test_weights_in_fp8_are_read_as_what_they_mean(family: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == family)
    plain, hf = saved(tmp_path / "plain", case)
    save_file({name: x.to(torch.bfloat16) for name, x in hf.items()}, plain / "model.safetensors")
    meant = scaled(plain, tmp_path / "fp8")
    ckptc.convert(tmp_path / "fp8", tmp_path / "out", to="hf", verify=True)
    found = {name: x for file in (tmp_path / "out").glob("*.safetensors") for name, x in load_file(file).items()}
    wanted = load_file(meant / "model.safetensors")
    assert same(found, {name: x.float() if name.endswith("correction_bias") else x for name, x in wanted.items()})
