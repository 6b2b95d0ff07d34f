"""Each HuggingFace family to Megatron-core's distributed checkpoints, against a plain torch account of the framework.

Sizes are pairwise distinct and no weight is square: a wrong order or transpose cannot hide.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ckptc
from tests.held import counted, read, same

Weights = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]
LAYERS, HIDDEN, FFN, GROUPS, SHARE, DIM, VOCAB, EXPERTS, SHARED, PLACES = 3, 40, 36, 4, 2, 7, 31, 5, 22, 13
HEADS = GROUPS * SHARE
COMMON = {
    "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS, "head_dim": DIM, "vocab_size": VOCAB, "tie_word_embeddings": False,
}  # fmt: skip


def layers(prefix: str, *shapes: Shapes) -> Shapes:
    return {f"{prefix}{i}.{name}": shape for i in range(LAYERS) for each in shapes for name, shape in each.items()}


def gated(prefix: str, inner: int) -> Shapes:
    return {f"{prefix}gate_proj.weight": (inner, HIDDEN), f"{prefix}up_proj.weight": (inner, HIDDEN), f"{prefix}down_proj.weight": (HIDDEN, inner)}


ENDS: Shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
NORMS: Shapes = {"input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,)}
ATTENTION: Shapes = NORMS | {
    "self_attn.q_proj.weight": (HEADS * DIM, HIDDEN), "self_attn.k_proj.weight": (GROUPS * DIM, HIDDEN),
    "self_attn.v_proj.weight": (GROUPS * DIM, HIDDEN), "self_attn.o_proj.weight": (HIDDEN, HEADS * DIM),
}  # fmt: skip
BIASES: Shapes = {"self_attn.q_proj.bias": (HEADS * DIM,), "self_attn.k_proj.bias": (GROUPS * DIM,), "self_attn.v_proj.bias": (GROUPS * DIM,)}
QK_NORMS: Shapes = {"self_attn.q_norm.weight": (DIM,), "self_attn.k_norm.weight": (DIM,)}
MIXTRAL: Shapes = {"block_sparse_moe.gate.weight": (EXPERTS, HIDDEN)} | {
    f"block_sparse_moe.experts.{e}.{w}.weight": (HIDDEN, FFN) if w == "w2" else (FFN, HIDDEN) for e in range(EXPERTS) for w in ("w1", "w2", "w3")
}
QWEN_MOE: Shapes = {"mlp.gate.weight": (EXPERTS, HIDDEN)}
for _e in range(EXPERTS):
    QWEN_MOE |= gated(f"mlp.experts.{_e}.", FFN)
SHARED_EXPERT: Shapes = gated("mlp.shared_expert.", SHARED) | {"mlp.shared_expert_gate.weight": (1, HIDDEN)}
CHOSEN: Shapes = QWEN_MOE | gated("mlp.shared_experts.", 2 * FFN) | {"mlp.gate.e_score_correction_bias": (EXPERTS,)}
PLAIN: Shapes = {"mlp.up_proj.weight": (FFN, HIDDEN), "mlp.down_proj.weight": (HIDDEN, FFN)}
NORM_BIASES: Shapes = {"input_layernorm.bias": (HIDDEN,), "post_attention_layernorm.bias": (HIDDEN,)}
OF_EXPERTS = {"num_experts": EXPERTS, "moe_intermediate_size": FFN}
IN_GROUPS = {"n_routed_experts": EXPERTS, "moe_intermediate_size": FFN, "intermediate_size": 99, "n_shared_experts": 2, "first_k_dense_replace": 0, "num_experts_per_tok": 2}
AT = "model.layers."

FAMILIES: dict[str, tuple[Shapes, dict[str, Any]]] = {
    "llama": (ENDS | layers(AT, ATTENTION, gated("mlp.", FFN)), {}),
    "mistral": (ENDS | layers(AT, ATTENTION, gated("mlp.", FFN)), {"sliding_window": 17}),
    "qwen2": (ENDS | layers(AT, ATTENTION, BIASES, gated("mlp.", FFN)), {}),
    "qwen3": (ENDS | layers(AT, ATTENTION, QK_NORMS, gated("mlp.", FFN)), {}),
    "mixtral": (ENDS | layers(AT, ATTENTION, MIXTRAL), {"num_local_experts": EXPERTS}),
    "qwen3_moe": (ENDS | layers(AT, ATTENTION, QK_NORMS, QWEN_MOE), OF_EXPERTS | {"intermediate_size": 99}),
    "qwen2_moe": (
        ENDS | layers(AT, ATTENTION, BIASES, QWEN_MOE, SHARED_EXPERT),
        OF_EXPERTS | {"intermediate_size": 99, "shared_expert_intermediate_size": SHARED},
    ),
    "glm4_moe": (ENDS | layers(AT, ATTENTION, BIASES, QK_NORMS, CHOSEN), IN_GROUPS | {"attention_bias": True, "use_qk_norm": True}),
    "dots1": (ENDS | layers(AT, ATTENTION, QK_NORMS, CHOSEN), IN_GROUPS | {"sliding_window": None, "norm_topk_prob": True}),
    "solar_open": (ENDS | layers(AT, ATTENTION, CHOSEN), IN_GROUPS),
    "nemotron": (ENDS | {"model.norm.bias": (HIDDEN,)} | layers(AT, ATTENTION, PLAIN, NORM_BIASES), {"norm_eps": 1e-5, "hidden_act": "relu2"}),
}


def ends(hf: Weights) -> Weights:
    out = {
        "embedding.word_embeddings.weight": hf["model.embed_tokens.weight"], "output_layer.weight": hf["lm_head.weight"],
        "decoder.final_layernorm.weight": hf["model.norm.weight"],
    }  # fmt: skip
    if "model.norm.bias" in hf:
        out["decoder.final_layernorm.bias"] = hf["model.norm.bias"]
    return out


def account(hf: Weights) -> Weights:
    """What Megatron-core stores, with Transformer Engine's modules."""
    found = [layer({n.removeprefix(f"{AT}{i}."): x for n, x in hf.items() if n.startswith(f"{AT}{i}.")}) for i in range(LAYERS)]
    return ends(hf) | {f"decoder.layers.{name}": torch.stack([each[name] for each in found]) for name in found[0]}


def layer(h: Weights) -> Weights:
    experts = [n for n in h if n.endswith(("mlp.gate.weight", "block_sparse_moe.gate.weight"))]
    out: Weights = {"self_attention.linear_proj.weight": h["self_attn.o_proj.weight"]}
    for kind in ("weight", "bias"):
        if f"self_attn.q_proj.{kind}" in h:
            parts = [h[f"self_attn.{p}_proj.{kind}"].reshape(GROUPS, -1, *h[f"self_attn.{p}_proj.{kind}"].shape[1:]) for p in "qkv"]
            out[f"self_attention.linear_qkv.{kind}"] = torch.cat(parts, 1).flatten(0, 1)
        if f"input_layernorm.{kind}" in h:
            out[f"self_attention.linear_qkv.layer_norm_{kind}"] = h[f"input_layernorm.{kind}"]
            out[f"{'pre_mlp_layernorm.' if experts else 'mlp.linear_fc1.layer_norm_'}{kind}"] = h[f"post_attention_layernorm.{kind}"]
    for one in "qk":
        if f"self_attn.{one}_norm.weight" in h:
            out[f"self_attention.{one}_layernorm.weight"] = h[f"self_attn.{one}_norm.weight"]
    if not experts:
        up, down = h["mlp.up_proj.weight"], h["mlp.down_proj.weight"]
        fc1 = torch.cat([h["mlp.gate_proj.weight"], up]) if "mlp.gate_proj.weight" in h else up
        return out | {"mlp.linear_fc1.weight": fc1, "mlp.linear_fc2.weight": down}
    out["mlp.router.weight"] = h[experts[0]]
    mixtral = experts[0].startswith("block")
    at, (gate, up_, down_) = ("block_sparse_moe.experts.{}.{}.weight", ("w1", "w3", "w2")) if mixtral else ("mlp.experts.{}.{}_proj.weight", ("gate", "up", "down"))
    out["mlp.experts.experts.linear_fc1.weight"] = torch.stack([torch.cat([h[at.format(e, gate)], h[at.format(e, up_)]]) for e in range(EXPERTS)])
    out["mlp.experts.experts.linear_fc2.weight"] = torch.stack([h[at.format(e, down_)] for e in range(EXPERTS)])
    if "mlp.gate.e_score_correction_bias" in h:
        out["mlp.router.expert_bias"] = h["mlp.gate.e_score_correction_bias"]
    if "mlp.shared_expert_gate.weight" in h:
        out["mlp.shared_experts.gate_weight"] = h["mlp.shared_expert_gate.weight"]
    for shared in ("mlp.shared_expert.", "mlp.shared_experts."):
        if f"{shared}up_proj.weight" in h:
            out["mlp.shared_experts.linear_fc1.weight"] = torch.cat([h[f"{shared}gate_proj.weight"], h[f"{shared}up_proj.weight"]])
            out["mlp.shared_experts.linear_fc2.weight"] = h[f"{shared}down_proj.weight"]
    return out


def saved(folder: Path, family: str, hf: Weights, keys: dict[str, Any]) -> Path:
    folder.mkdir()
    save_file(hf, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": family, **COMMON, **keys}))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_becomes_what_megatron_core_stores_and_comes_back(family: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES[family]
    hf = counted(shapes)
    source = saved(tmp_path / "hf", family, hf, keys)
    made = ckptc.plan(source, to="megatron")
    assert made.data.mapping == family
    made.run(tmp_path / "dist")
    assert same(read(tmp_path / "dist"), account(hf))
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


def test_an_emitted_module_holds_the_whole_plan(tmp_path: Path) -> None:
    """What stands beside the tensors too: Megatron-core asks for its objects."""
    shapes, keys = FAMILIES["qwen2_moe"]
    made = ckptc.plan(saved(tmp_path / "hf", "qwen2_moe", counted(shapes), keys), to="megatron")
    assert made.data.target.objects
    module: dict[str, Any] = {"__name__": "emitted"}
    exec(made.emit(), module)
    assert module["PLAN"] == made.data


NEOX: Shapes = {"gpt_neox.embed_in.weight": (VOCAB, HIDDEN), "embed_out.weight": (VOCAB, HIDDEN), "gpt_neox.final_layer_norm.weight": (HIDDEN,), "gpt_neox.final_layer_norm.bias": (HIDDEN,)} | layers("gpt_neox.layers.", NORMS, NORM_BIASES, {
    "attention.query_key_value.weight": (3 * HIDDEN, HIDDEN), "attention.query_key_value.bias": (3 * HIDDEN,),
    "attention.dense.weight": (HIDDEN, HIDDEN), "attention.dense.bias": (HIDDEN,), "mlp.dense_h_to_4h.weight": (FFN, HIDDEN),
    "mlp.dense_h_to_4h.bias": (FFN,), "mlp.dense_4h_to_h.weight": (HIDDEN, FFN), "mlp.dense_4h_to_h.bias": (HIDDEN,),
})  # fmt: skip
NEOX_NAMES = {
    "input_layernorm": "self_attention.linear_qkv.layer_norm_", "post_attention_layernorm": "mlp.linear_fc1.layer_norm_",
    "attention.query_key_value": "self_attention.linear_qkv.", "attention.dense": "self_attention.linear_proj.",
    "mlp.dense_h_to_4h": "mlp.linear_fc1.", "mlp.dense_4h_to_h": "mlp.linear_fc2.",
}  # fmt: skip


def test_gpt_neox_has_heads_in_megatrons_own_order(tmp_path: Path) -> None:
    """Both hold each head's query, key and value side by side: only names differ."""
    hf = counted(NEOX)
    source = saved(tmp_path / "hf", "gpt_neox", hf, {"use_parallel_residual": False, "num_attention_heads": 8})
    ckptc.convert(source, tmp_path / "dist", to="megatron")
    wanted = {
        "embedding.word_embeddings.weight": hf["gpt_neox.embed_in.weight"], "output_layer.weight": hf["embed_out.weight"],
        "decoder.final_layernorm.weight": hf["gpt_neox.final_layer_norm.weight"], "decoder.final_layernorm.bias": hf["gpt_neox.final_layer_norm.bias"],
    }  # fmt: skip
    for old, new in NEOX_NAMES.items():
        for kind in ("weight", "bias"):
            wanted[f"decoder.layers.{new}{kind}"] = torch.stack([hf[f"gpt_neox.layers.{i}.{old}.{kind}"] for i in range(LAYERS)])
    assert same(read(tmp_path / "dist"), wanted)
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize("to", ["megatron", "megatron-legacy", "megatron-lm", "nemo2", "nemo", "nemo-dist", "nemo-legacy"])
def test_what_megatron_cannot_say_is_refused(to: str, tmp_path: Path) -> None:
    """Four heads of even size, for each layout could hold the tensors: attention and feed-forward network at once it cannot."""
    serial = saved(tmp_path / "serial", "gpt_neox", counted(NEOX), {"num_attention_heads": 4, "use_parallel_residual": False})
    assert ckptc.plan(serial, to=to).data.target.layout == to
    parallel = saved(tmp_path / "parallel", "gpt_neox", counted(NEOX), {"num_attention_heads": 4})
    with pytest.raises(ckptc.MappingError, match="adds both at once"):
        ckptc.plan(parallel, to=to)


MIXED: list[tuple[dict[str, Any], set[int]]] = [
    ({"decoder_sparse_step": 2}, {1}),
    ({"mlp_only_layers": [1]}, {0, 2}),
    ({"mlp_only_layers": [0, 2], "decoder_sparse_step": 1}, {1}),
]


@pytest.mark.parametrize(("said", "sparse"), MIXED, ids=["every-second", "all-but-one", "one"])
@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe"])
def test_experts_in_some_layers(family: str, said: dict[str, Any], sparse: set[int], tmp_path: Path) -> None:
    """transformers (Qwen3MoeDecoderLayer): a layer has experts where its number is not in mlp_only_layers, and one more
    divides by decoder_sparse_step. Such layers do not stack: Megatron-core numbers them."""
    shapes, keys = FAMILIES[family]
    with_experts = tuple(f"{AT}{i}." for i in sparse)
    dense = layers(AT, gated("mlp.", 99))
    shapes = {n: s for n, s in shapes.items() if ".mlp." not in n or n.startswith(with_experts)} | {n: s for n, s in dense.items() if not n.startswith(with_experts)}
    hf = counted(shapes)
    source = saved(tmp_path / "hf", family, hf, {**keys, **said})
    with pytest.raises(ckptc.MappingError, match="do not stack"):
        ckptc.plan(source, to="megatron", settings={"form": "stacked"})
    with pytest.raises(ckptc.MappingError, match="NeMo 1's configuration cannot say"):
        ckptc.plan(source, to="nemo")
    ckptc.convert(source, tmp_path / "dist", to="megatron", settings={"form": "indexed"})
    wanted = ends(hf)
    for i in range(LAYERS):
        wanted |= {f"decoder.layers.{i}.{n}": x for n, x in layer({n.removeprefix(f"{AT}{i}."): x for n, x in hf.items() if n.startswith(f"{AT}{i}.")}).items()}
    assert same(read(tmp_path / "dist"), wanted)
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    ckptc.convert(source, tmp_path / "ranks", to="megatron-legacy", pp=3, ep=5)
    ckptc.convert(tmp_path / "ranks", tmp_path / "again", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "again/model.safetensors"), hf)


def test_layers_that_are_alike_may_be_numbered_too(tmp_path: Path) -> None:
    """Both forms are read, whatever is written by itself."""
    shapes, keys = FAMILIES["qwen3_moe"]
    hf = counted(shapes)
    source = saved(tmp_path / "hf", "qwen3_moe", hf, {**keys, "mlp_only_layers": []})
    ckptc.convert(source, tmp_path / "dist", to="megatron", settings={"form": "indexed"})
    assert "decoder.layers.1.mlp.router.weight" in read(tmp_path / "dist")
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize("to", ["nemo", "nemo2"])
@pytest.mark.parametrize("family", [*FAMILIES, "gpt_neox"])
def test_scaled_rotary_positions_are_not_dropped(family: str, to: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES.get(family, (NEOX, {"num_attention_heads": 4, "use_parallel_residual": False}))
    source = saved(tmp_path / "hf", family, counted(shapes), {**keys, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})
    with pytest.raises(ckptc.MappingError, match="rotary positions"):
        ckptc.plan(source, to=to)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe"])
def test_how_experts_are_weighted_goes_through_nemo_and_back(family: str, normed: bool, tmp_path: Path) -> None:
    """Megatron takes the softmax of the chosen experts' scores, which then sum to 1, or chooses after the softmax."""
    shapes, keys = FAMILIES[family]
    hf = counted(shapes)
    source = saved(tmp_path / "hf", family, hf, {**keys, "norm_topk_prob": normed, "num_experts_per_tok": 3})
    ckptc.convert(source, tmp_path / "nemo", to="nemo", tp=2)
    said = yaml.safe_load((tmp_path / "nemo/model_config.yaml").read_text())
    assert said.get("moe_router_pre_softmax", False) is not normed
    assert said.get("moe_shared_expert_intermediate_size") == (SHARED if family == "qwen2_moe" else None)
    ckptc.convert(tmp_path / "nemo", tmp_path / "back", to="hf", family=family, settings={"vocab": VOCAB})
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert (config["model_type"], config["norm_topk_prob"], config["num_experts_per_tok"]) == (family, normed, 3)


def test_mixtral_cannot_say_that_experts_are_weighted_otherwise(tmp_path: Path) -> None:
    shapes, keys = FAMILIES["mixtral"]
    ckptc.convert(saved(tmp_path / "hf", "mixtral", counted(shapes), keys), tmp_path / "nemo", to="nemo")
    with (tmp_path / "nemo/model_config.yaml").open("a") as file:
        file.write("moe_router_pre_softmax: true\n")
    with pytest.raises(ckptc.MappingError, match="cannot say that router_normed is false"):
        ckptc.plan(tmp_path / "nemo", to="hf", family="mixtral", settings={"vocab": VOCAB})


def test_the_bias_of_a_router_stays_float32(tmp_path: Path) -> None:
    shapes, keys = FAMILIES["mixtral"]
    hf = counted(shapes)
    source = saved(tmp_path / "hf", "mixtral", hf, keys)
    ckptc.convert(source, tmp_path / "one", to="nemo")
    path = tmp_path / "one/model_weights.ckpt"
    weights = torch.load(path, weights_only=True)
    biases = {f"model.decoder.layers.{i}.mlp.router.expert_bias": torch.arange(EXPERTS) / 7 + i for i in range(LAYERS)}
    torch.save(weights | biases, path)
    ckptc.convert(tmp_path / "one", tmp_path / "dist", to="megatron", family="mixtral", dtype="bfloat16", settings={"vocab": VOCAB})
    wanted = {name: x.bfloat16() for name, x in account(hf).items()}
    assert same(read(tmp_path / "dist"), wanted | {"decoder.layers.mlp.router.expert_bias": torch.stack([*biases.values()])})


NAMED = {"mistral": "llama", "qwen2": "llama"}  # their names are Llama's: only model_type tells them apart


@pytest.mark.parametrize("family", [*FAMILIES, "gpt_neox"])
def test_names_tell_the_family_where_the_config_does_not(family: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES.get(family, (NEOX, {"num_attention_heads": 4, "use_parallel_residual": False}))
    source = saved(tmp_path / "hf", family, counted(shapes), keys)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "model_type"}))
    assert ckptc.plan(source, to="megatron").data.mapping == NAMED.get(family, family)


def test_no_family_restates_what_the_frameworks_share() -> None:
    """Names of Megatron-core's modules are written in the decoder's layouts alone, but for those of latent attention, which
    DeepSeek has in the place of query, key and value."""
    own = re.compile(r"linear_(qkv|proj|fc1|fc2)|embedding\.word_embeddings|final_layernorm|local_experts\.|output_layer")
    folder = Path(ckptc.__file__).parent / "mappings"
    families = [path for path in folder.glob("*.ckmap") if path.stem not in ("decoder", "nxd", "megatron", "megatron_settings", "nemo", "nemo2", "huggingface", "vit", "neva", "dbrx")]
    assert len(families) >= 10
    assert [path.name for path in families if own.search(path.read_text())] == []
