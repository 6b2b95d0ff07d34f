"""Qwen3-Next and Qwen3.5: layers of linear attention among gated ones, to Megatron-core and its rank files, and back.

Names, shapes and keys are those of transformers (models/qwen3_next, qwen3_5 and qwen3_5_moe, 5.24), and of the published files for the
layer that predicts a further token (`mtp`). What Megatron-core must hold is said by a plain torch account of its modules
(core/ssm/gated_delta_net.py, and get_query_key_value_tensors of core/transformer/attention.py). Sizes are pairwise distinct.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.sizes import Sizes, bind_sizes
from ckptc.compiler.settle.write_config import config_text
from ckptc.library import mapping_files as library
from tests.held import counted, read, same
from tests.plans.made_layers import (
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
    gated,
    linear,
    norm,
    norms,
)

EXPERTS, EXPERT_FFN, SHARED, KEY_HEADS, VALUE_SHARE, KEY_DIM, VALUE_DIM, KERNEL = 6, 14, 22, 10, 5, 7, 9, 3
KEY_ROWS, VALUE_HEADS, VALUE_ROWS = KEY_HEADS * KEY_DIM, KEY_HEADS * VALUE_SHARE, KEY_HEADS * VALUE_SHARE * VALUE_DIM
LINEAR, FULL = "linear_attention", "full_attention"
CONFIG = {
    **KEYS, **RMS, **HEAD, "hidden_act": "silu", "attention_bias": False, "rope_theta": 5000000, "partial_rotary_factor": 0.5, "layer_types": [LINEAR, LINEAR, FULL, LINEAR],
    "linear_num_key_heads": KEY_HEADS, "linear_num_value_heads": VALUE_HEADS, "linear_key_head_dim": KEY_DIM, "linear_value_head_dim": VALUE_DIM, "linear_conv_kernel_dim": KERNEL,
}  # fmt: skip
MOE = {"num_experts": EXPERTS, "num_experts_per_tok": 3, "moe_intermediate_size": EXPERT_FFN, "shared_expert_intermediate_size": SHARED}
EVERY = {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
TYPES = {"qwen3_next": "qwen3_next", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text"}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_next": CONFIG | MOE | EVERY | {"num_nextn_predict_layers": 1}, "qwen3_5": CONFIG | {"mtp_num_hidden_layers": 1}, "qwen3_5_moe": CONFIG | MOE | {"mtp_num_hidden_layers": 1},
}  # fmt: skip
SECTIONS = linear("linear_attn.in_proj_qkv", 2 * KEY_ROWS + VALUE_ROWS, HIDDEN) | linear("linear_attn.in_proj_z", VALUE_ROWS, HIDDEN) | linear("linear_attn.in_proj_b", VALUE_HEADS, HIDDEN)
HEADWISE = linear("linear_attn.in_proj_qkvz", 2 * KEY_ROWS + 2 * VALUE_ROWS, HIDDEN) | linear("linear_attn.in_proj_ba", 2 * VALUE_HEADS, HIDDEN)
STATES = linear("linear_attn.out_proj", HIDDEN, VALUE_ROWS) | norm("linear_attn.norm", hidden=VALUE_DIM) | {
    "linear_attn.conv1d.weight": (2 * KEY_ROWS + VALUE_ROWS, 1, KERNEL), "linear_attn.A_log": (VALUE_HEADS,), "linear_attn.dt_bias": (VALUE_HEADS,),
}  # fmt: skip
ATTENTION = (
    linear("self_attn.q_proj", 2 * HEADS * DIM, HIDDEN) | linear("self_attn.k_proj", GROUPS * DIM, HIDDEN) | linear("self_attn.v_proj", GROUPS * DIM, HIDDEN)
    | linear("self_attn.o_proj", HIDDEN, HEADS * DIM) | norm("self_attn.q_norm", hidden=DIM) | norm("self_attn.k_norm", hidden=DIM)
)  # fmt: skip
ROUTED = {"mlp.gate.weight": (EXPERTS, HIDDEN), "mlp.shared_expert_gate.weight": (1, HIDDEN)}
for _at, _inner in (("shared_expert", SHARED), *((f"experts.{e}", EXPERT_FFN) for e in range(EXPERTS))):
    ROUTED |= linear(f"mlp.{_at}.gate_proj", _inner, HIDDEN) | linear(f"mlp.{_at}.up_proj", _inner, HIDDEN) | linear(f"mlp.{_at}.down_proj", HIDDEN, _inner)
FAMILIES = {family.name: family for family in library.families(None)}
each = pytest.mark.parametrize("family", CONFIGS)


def shapes(family: str) -> Shapes:
    network = gated() if family == "qwen3_5" else ROUTED
    mixers = {LINEAR: STATES | (HEADWISE if family == "qwen3_next" else SECTIONS | linear("linear_attn.in_proj_a", VALUE_HEADS, HIDDEN)), FULL: ATTENTION}
    out = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "lm_head.weight": (VOCAB, HIDDEN)} | norm("model.norm")
    for i, kind in enumerate(CONFIG["layer_types"]):  # type: ignore[arg-type]
        out |= {f"model.layers.{i}.{name}": shape for name, shape in (norms() | mixers[kind] | network).items()}
    out |= {f"mtp.layers.0.{name}": shape for name, shape in (norms() | ATTENTION | network).items()}
    return out | norm("mtp.norm") | norm("mtp.pre_fc_norm_embedding") | norm("mtp.pre_fc_norm_hidden") | linear("mtp.fc", HIDDEN, 2 * HIDDEN)


def saved(folder: Path, family: str, **keys: Any) -> tuple[Path, Weights]:
    folder.mkdir()
    hf = counted(shapes(family))
    save_file(hf, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": TYPES[family], **CONFIGS[family], **keys}))
    return folder, hf


def projections(h: Weights) -> Weights:
    """Each part of the projections and convolutions of a layer of linear attention: its rows by key heads."""
    at = "linear_attn."
    if f"{at}in_proj_ba.weight" in h:
        wide = h[f"{at}in_proj_qkvz.weight"].unflatten(0, (KEY_HEADS, -1)).split([KEY_DIM, KEY_DIM, VALUE_SHARE * VALUE_DIM, VALUE_SHARE * VALUE_DIM], 1)
        parts = [*wide, *h[f"{at}in_proj_ba.weight"].unflatten(0, (KEY_HEADS, -1)).split(VALUE_SHARE, 1)]
    else:
        sections = [*h[f"{at}in_proj_qkv.weight"].split([KEY_ROWS, KEY_ROWS, VALUE_ROWS]), *(h[f"{at}in_proj_{x}.weight"] for x in "zba")]
        parts = [x.unflatten(0, (KEY_HEADS, -1)) for x in sections]
    out = {f"in_proj.weight.{name}": x for name, x in zip(("query", "key", "value", "z", "beta", "alpha"), parts, strict=True)}
    taps = h[f"{at}conv1d.weight"].split([KEY_ROWS, KEY_ROWS, VALUE_ROWS])
    return out | {f"conv1d.weight.{name}": x.unflatten(0, (KEY_HEADS, -1)) for name, x in zip(("query", "key", "value"), taps, strict=True)}


def mixer(h: Weights, tp: int, rank: int, whole: bool) -> Weights:
    def cut(x: torch.Tensor, dim: int = 0) -> torch.Tensor:
        return x.chunk(tp, dim)[rank]

    if "linear_attn.norm.weight" in h:
        at = "linear_attn."
        parts = {name: cut(x).flatten(0, 1) for name, x in projections(h).items()}
        if not whole:
            parts = {at: torch.cat([x for name, x in parts.items() if name.startswith(at)]) for at in ("in_proj.weight", "conv1d.weight")}
        return parts | {
            "in_proj.layer_norm_weight": h["input_layernorm.weight"], "A_log": cut(h[f"{at}A_log"]), "dt_bias": cut(h[f"{at}dt_bias"]),
            "out_norm.weight": h[f"{at}norm.weight"] - 1, "out_proj.weight": cut(h[f"{at}out_proj.weight"], 1),
        }  # fmt: skip
    query, gate = h["self_attn.q_proj.weight"].unflatten(0, (GROUPS, SHARE, 2, DIM)).unbind(2)
    key, value = (h[f"self_attn.{x}_proj.weight"].unflatten(0, (GROUPS, DIM)) for x in "kv")
    return {
        "linear_qkv.weight": cut(torch.cat([query.flatten(1, 2), gate.flatten(1, 2), key, value], 1)).flatten(0, 1), "linear_qkv.layer_norm_weight": h["input_layernorm.weight"],
        "linear_proj.weight": cut(h["self_attn.o_proj.weight"], 1), "q_layernorm.weight": h["self_attn.q_norm.weight"], "k_layernorm.weight": h["self_attn.k_norm.weight"],
    }  # fmt: skip


def layer(hf: Weights, at: str, tp: int = 1, rank: int = 0, whole: bool = True) -> Weights:
    """What Megatron-core's layer has, experts as [expert, ...]."""
    h = {n.removeprefix(at): x for n, x in hf.items() if n.startswith(at)}

    def both(name: str) -> torch.Tensor:
        return torch.cat([h[f"mlp.{name}{x}_proj.weight"].chunk(tp)[rank] for x in ("gate", "up")])

    def down(name: str) -> torch.Tensor:
        return h[f"mlp.{name}down_proj.weight"].chunk(tp, 1)[rank]

    out = {f"self_attention.{name}": x for name, x in mixer(h, tp, rank, whole).items()}
    if "mlp.gate.weight" not in h:
        return out | {"mlp.linear_fc1.layer_norm_weight": h["post_attention_layernorm.weight"], "mlp.linear_fc1.weight": both(""), "mlp.linear_fc2.weight": down("")}
    experts = {f"{x}.weight": [make_one(f"experts.{e}.") for e in range(EXPERTS)] for x, make_one in (("linear_fc1", both), ("linear_fc2", down))}
    out |= {
        "pre_mlp_layernorm.weight": h["post_attention_layernorm.weight"], "mlp.router.weight": h["mlp.gate.weight"], "mlp.shared_experts.gate_weight": h["mlp.shared_expert_gate.weight"],
        "mlp.shared_experts.linear_fc1.weight": both("shared_expert."), "mlp.shared_experts.linear_fc2.weight": down("shared_expert."),
    }  # fmt: skip
    if whole:
        return out | {f"mlp.experts.experts.{name}": torch.stack(x) for name, x in experts.items()}
    return out | {f"mlp.experts.local_experts.{e}.{name}": x[e] for name, x in experts.items() for e in range(EXPERTS)}


def predictor(hf: Weights, tp: int = 1, rank: int = 0, whole: bool = True) -> Weights:
    out = {f"transformer_layer.{name}": x for name, x in layer(hf, "mtp.layers.0.", tp, rank, whole).items()}
    return out | {
        "enorm.weight": hf["mtp.pre_fc_norm_embedding.weight"], "hnorm.weight": hf["mtp.pre_fc_norm_hidden.weight"], "eh_proj.weight": hf["mtp.fc.weight"],
        "final_layernorm.weight": hf["mtp.norm.weight"],
    }  # fmt: skip


@each
def test_all_of_it_is_what_megatron_core_stores_and_comes_back(family: str, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", family)
    made = ckptc.plan(source, to="megatron")
    assert made.data.mapping == family
    made.run(tmp_path / "dist")
    wanted = {"embedding.word_embeddings.weight": hf["model.embed_tokens.weight"], "output_layer.weight": hf["lm_head.weight"], "decoder.final_layernorm.weight": hf["model.norm.weight"]}
    for i in range(LAYERS):
        wanted |= {f"decoder.layers.{i}.{name}": x for name, x in layer(hf, f"model.layers.{i}.").items()}
    wanted |= {f"mtp.layers.0.{name}": x for name, x in predictor(hf).items()}
    assert same(read(tmp_path / "dist"), wanted)
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json", verify=True)
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@each
def test_ranks_hold_whole_key_heads_and_come_back(family: str, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", family)
    ckptc.convert(source, tmp_path / "ranks", to="megatron-legacy", tp=2, pp=2)
    last = torch.load(tmp_path / "ranks/release/mp_rank_01_001/model_optim_rng.pt", weights_only=False)["model"]
    found = {name: x for name, x in last.items() if isinstance(x, torch.Tensor)}
    wanted = {f"decoder.layers.{local}.{name}": x for local in (0, 1) for name, x in layer(hf, f"model.layers.{LAYERS // 2 + local}.", 2, 1, False).items()}
    wanted |= {f"mtp.layers.0.{name}": x for name, x in predictor(hf, 2, 1, False).items()}
    assert same({n: x for n, x in found.items() if n.startswith(("decoder.layers.", "mtp."))}, wanted)
    ckptc.convert(tmp_path / "ranks", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize("family", ["qwen3_next", "qwen3_5_moe"])
def test_experts_in_one_tensor_are_those_one_by_one(family: str, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", family)
    ckptc.convert(source, tmp_path / "joined", to="hf", settings={"dialect": "v5"})
    found = load_file(tmp_path / "joined/model.safetensors")
    at = "mtp.layers.0.mlp.experts."
    both = torch.stack([torch.cat([hf[f"{at}{e}.{x}_proj.weight"] for x in ("gate", "up")]) for e in range(EXPERTS)])
    assert torch.equal(found[f"{at}gate_up_proj"], both)
    ckptc.convert(tmp_path / "joined", tmp_path / "back", to="hf", settings={"dialect": "v4"})
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


def sizes_of(family: str, config: dict[str, Any], predicts: bool = True) -> Sizes:
    def stored(name: str) -> bool:
        absent = name.endswith("_bias") or name in ("position", "further_embed", "further_head") or (name.startswith("join") and not predicts)
        return not absent and (family != "qwen3_5" or "shared" not in name)

    return bind_sizes(FAMILIES[family], FAMILIES[family].layout("hf"), config, {}, stored, "config.json", lacks=lambda name: not stored(name))


@each
def test_a_config_that_is_written_says_what_was_read(family: str) -> None:
    config = {"model_type": TYPES[family], **CONFIGS[family]}
    sizes = sizes_of(family, config)
    assert sizes.unknown == ()
    block = FAMILIES[family].layout("hf").config
    assert block is not None
    written = json.loads(config_text(block, resolve(FAMILIES[family], "hf", sizes, {}), None))
    wanted = {k: v for k, v in config.items() if k != "intermediate_size" or family == "qwen3_5"}  # no layer has it otherwise
    assert {k: written.get(k) for k in wanted} == wanted
    assert sizes_of(family, written).values == sizes.values


@each
def test_which_layers_are_linear_is_said_by_a_list_or_by_an_interval(family: str) -> None:
    for keys, linear_ones in (({}, [0, 1, 3]), ({"layer_types": None}, [0, 1, 2]), ({"layer_types": None, "full_attention_interval": 2}, [0, 2]), ({"layer_types": [FULL] * LAYERS}, [])):
        assert sizes_of(family, {"model_type": TYPES[family], **CONFIGS[family], **keys}).values["linear_list"] == linear_ones


@each
def test_files_without_the_layer_that_predicts_are_read_as_well(family: str, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", family)
    kept = {name: x for name, x in hf.items() if not name.startswith("mtp.")}
    save_file(kept, source / "model.safetensors")
    ckptc.convert(source, tmp_path / "dist", to="megatron")
    assert not any(name.startswith("mtp.") for name in read(tmp_path / "dist"))
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), kept)


def test_arguments_of_megatron_say_which_layers_are_linear() -> None:
    family = FAMILIES["qwen3_5"]
    args = {
        "num_layers": LAYERS, "hidden_size": HIDDEN, "num_attention_heads": HEADS, "kv_channels": DIM, "ffn_hidden_size": FFN, "padded_vocab_size": VOCAB, "position_embedding_type": "rope",
        "attention_output_gate": True, "linear_num_key_heads": KEY_HEADS, "linear_num_value_heads": VALUE_HEADS, "mtp_num_layers": 1,
    }  # fmt: skip
    for variant, given, meant in (("gated_delta_net", 4, [0, 1, 2]), ("gated_delta_net", [1, 0, 1, 0], [0, 2]), (None, None, None)):
        sizes = bind_sizes(family, family.layout("megatron"), {**args, "experimental_attention_variant": variant, "linear_attention_freq": given}, {}, lambda name: False, lacks=lambda name: False)
        assert (sizes.values["linear_list"], sizes.values["layer"], sizes.values["output_gate"]) == (meant, LAYERS + 1, True)
        assert sizes.values.get("linear_share") == (None if meant is None else VALUE_SHARE)


UNSAID = [
    ("qwen3_next", {"layer_types": [LINEAR, FULL, "chunked_attention", FULL]}, "the kind of some layers' attention"), ("qwen3_5", {"attn_output_gate": False}, "gates of attention"),
    ("qwen3_next", {"num_nextn_predict_layers": 2}, "what joins two vectors"), ("qwen3_5_moe", {"norm_topk_prob": False}, "sum to 1"), ("qwen3_5_moe", {"decoder_sparse_step": 2}, "which layers have experts"),
    ("qwen3_5_moe", {"mlp_only_layers": [1]}, "which layers have experts"), ("qwen3_5", {"mtp_use_dedicated_embeddings": True}, "embedding of layers that predict"),
    ("qwen3_5", {"rope_parameters": {"partial_rotary_factor": 0.25}}, "which part of each head"), ("qwen3_5", {"hidden_act": "mish"}, "mish"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "keys", "words"), UNSAID, ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_a_setting_of_another_model_is_refused(family: str, keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "hf", family, **keys)
    with pytest.raises(ckptc.MappingError, match=words):
        ckptc.plan(source, to="megatron")


@pytest.mark.parametrize(("to", "words"), [("nemo", "no gates"), ("nemo-dist", "no gates"), ("nemo2", "no gates"), ("megatron-lm", "no place for `q_gate`, `linear_q`")])
def test_modules_without_linear_attention_refuse_it(to: str, words: str, tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "hf", "qwen3_5")
    with pytest.raises(ckptc.MappingError, match=words):
        ckptc.plan(source, to=to)


def test_modules_without_transformer_engine_have_no_linear_attention(tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "hf", "qwen3_5")
    with pytest.raises(ckptc.MappingError, match="Transformer Engine alone"):
        ckptc.plan(source, to="megatron", settings={"spec": "local"})
