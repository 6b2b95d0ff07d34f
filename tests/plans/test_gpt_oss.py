"""GPT-OSS in plain dtypes: to Megatron-core, its rank files and NeMo 2, and back.

Names, shapes and keys are those of transformers (models/gpt_oss, 5.24), where gate and up are the even and the odd columns of
one tensor, input before output. What Megatron-core must hold is said by a plain torch account (sinks are `softmax_offset`).
"""

from __future__ import annotations

import json
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
from tests import packed_weights
from tests.held import counted, read, read_files, same
from tests.plans.made_layers import (
    AT,
    DIM,
    GROUPS,
    HEADS,
    HIDDEN,
    KEYS,
    LAYERS,
    RMS,
    VOCAB,
    Shapes,
    Weights,
    attention,
    norm,
)

EXPERTS, FFN, TOP = 6, 14, 3
FULL, SLIDING = "full_attention", "sliding_attention"
YARN = {"rope_type": "yarn", "type": "yarn", "factor": 32.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1, "mscale_all_dim": 0, "truncate": False}
CONFIG = {
    "model_type": "gpt_oss", **KEYS, **RMS, "head_dim": DIM, "intermediate_size": FFN, "num_local_experts": EXPERTS, "num_experts_per_tok": TOP, "attention_bias": True,
    "hidden_act": "silu", "swiglu_limit": 7.0, "sliding_window": 17, "layer_types": [SLIDING, FULL] * 2, "rope_theta": 150000, "rope_scaling": {"rope_type": "default"},
}  # fmt: skip
FAMILY = next(family for family in library.families(None) if family.name == "gpt_oss")
YARN_WORDS = ("rope_kind", "rope_places", "rope_whole")


def shapes(hidden: int = HIDDEN, ffn: int = FFN) -> Shapes:
    layer = norm("input_layernorm", hidden=hidden) | norm("post_attention_layernorm", hidden=hidden) | attention(True, True, hidden) | {
        "self_attn.sinks": (HEADS,), "mlp.router.weight": (EXPERTS, hidden), "mlp.router.bias": (EXPERTS,), "mlp.experts.gate_up_proj": (EXPERTS, hidden, 2 * ffn),
        "mlp.experts.gate_up_proj_bias": (EXPERTS, 2 * ffn), "mlp.experts.down_proj": (EXPERTS, ffn, hidden), "mlp.experts.down_proj_bias": (EXPERTS, hidden),
    }  # fmt: skip
    ends = {"model.embed_tokens.weight": (VOCAB, hidden), "lm_head.weight": (VOCAB, hidden)} | norm("model.norm", hidden=hidden)
    return ends | {f"{AT}{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}


def saved(folder: Path, **keys: Any) -> tuple[Path, Weights]:
    folder.mkdir()
    hf = counted(shapes())
    save_file(hf, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **keys}))
    return folder, hf


def core_layer(hf: Weights, i: int, tp: int = 1, rank: int = 0, etp: int = 1, erank: int = 0) -> tuple[Weights, Weights]:
    """A layer without its experts, and what each expert has: name -> [expert, ...]."""
    h = {n.removeprefix(f"{AT}{i}."): x for n, x in hf.items() if n.startswith(f"{AT}{i}.")}
    out = {
        "self_attention.linear_qkv.layer_norm_weight": h["input_layernorm.weight"], "pre_mlp_layernorm.weight": h["post_attention_layernorm.weight"],
        "self_attention.core_attention.softmax_offset": h["self_attn.sinks"].chunk(tp)[rank], "mlp.router.weight": h["mlp.router.weight"], "mlp.router.bias": h["mlp.router.bias"],
        "self_attention.linear_proj.weight": h["self_attn.o_proj.weight"].chunk(tp, 1)[rank], "self_attention.linear_proj.bias": h["self_attn.o_proj.bias"],
    }  # fmt: skip
    for kind in ("weight", "bias"):
        rows = torch.cat([h[f"self_attn.{p}_proj.{kind}"].unflatten(0, (GROUPS, -1)) for p in "qkv"], 1).flatten(0, 1)
        out[f"self_attention.linear_qkv.{kind}"] = rows.chunk(tp)[rank]
    both, bias = h["mlp.experts.gate_up_proj"].transpose(1, 2), h["mlp.experts.gate_up_proj_bias"]
    return out, {
        "linear_fc1.weight": torch.cat([both[:, j::2].chunk(etp, 1)[erank] for j in (0, 1)], 1), "linear_fc1.bias": torch.cat([bias[:, j::2].chunk(etp, 1)[erank] for j in (0, 1)], 1),
        "linear_fc2.weight": h["mlp.experts.down_proj"].transpose(1, 2).chunk(etp, 2)[erank], "linear_fc2.bias": h["mlp.experts.down_proj_bias"],
    }  # fmt: skip


def core(hf: Weights, under: str = "") -> Weights:
    layers = [core_layer(hf, i) for i in range(LAYERS)]
    out = {"embedding.word_embeddings.weight": hf["model.embed_tokens.weight"], "output_layer.weight": hf["lm_head.weight"], "decoder.final_layernorm.weight": hf["model.norm.weight"]}
    out |= {f"decoder.layers.{name}": torch.stack([layer[name] for layer, _ in layers]) for name in layers[0][0]}
    out |= {f"decoder.layers.mlp.experts.experts.{name}": torch.stack([each[name] for _, each in layers]) for name in layers[0][1]}
    return {f"{under}{name}": x for name, x in out.items()}


def test_all_of_it_is_what_megatron_core_stores_and_comes_back(tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf")
    made = ckptc.plan(source, to="megatron")
    assert made.data.mapping == "gpt_oss"
    made.run(tmp_path / "dist")
    assert same(read(tmp_path / "dist"), core(hf))
    ckptc.convert(tmp_path / "dist", tmp_path / "back", to="hf", config=source / "config.json", verify=True)
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize("experts", ["sequential", "grouped"])
@pytest.mark.parametrize(("tp", "ep", "etp"), [(2, 1, 2), (2, 3, 1)])
def test_ranks_hold_their_experts_biases_and_sinks(experts: str, tp: int, ep: int, etp: int, tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf")
    ckptc.convert(source, tmp_path / "ranks", to="megatron-legacy", settings={"tp": tp, "pp": 2, "ep": ep, "etp": etp, "experts": experts})
    name = "mp_rank_01_001" + (f"_{ep - 2:03}" if ep > 1 else "")
    last = torch.load(tmp_path / f"ranks/release/{name}/model_optim_rng.pt", weights_only=False)["model"]
    own = EXPERTS // ep
    first = own * max(ep - 2, 0)
    for local in range(LAYERS // 2):
        layer, each = core_layer(hf, LAYERS // 2 + local, tp, 1, etp, 1 % etp)
        spell = "mlp.experts.local_experts.{1}.{0}" if experts == "sequential" else "mlp.experts.{0}{1}"
        wanted = layer | {spell.format(part, e): x[first + e] for part, x in each.items() for e in range(own)}
        at = f"decoder.layers.{local}."
        assert same({n.removeprefix(at): x for n, x in last.items() if n.startswith(at) and isinstance(x, torch.Tensor)}, wanted)
    ckptc.convert(tmp_path / "ranks", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


def sizes_of(config: dict[str, Any]) -> Sizes:
    biases = {"q_bias", "k_bias", "v_bias"}
    return bind_sizes(FAMILY, FAMILY.layout("hf"), config, {}, lambda n: n in biases or (not n.endswith("_bias") and not n.startswith("shared_") and n != "position"), "config.json")


@pytest.mark.parametrize("rope", [{"rope_type": "default"}, YARN], ids=["plain", "yarn"])
def test_a_config_that_is_written_says_what_was_read(rope: dict[str, Any]) -> None:
    config = {**CONFIG, "rope_scaling": rope}
    sizes = sizes_of(config)
    assert sizes.unknown == ()
    block = FAMILY.layout("hf").config
    assert block is not None
    written = json.loads(config_text(block, resolve(FAMILY, "hf", sizes, {}), None))
    assert {k: written.get(k) for k in config} == config
    assert sizes_of(written).values == sizes.values


def test_yarn_is_what_megatrons_arguments_do_not_say(tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", rope_scaling=YARN)
    for word in YARN_WORDS:
        with pytest.raises(ckptc.MappingError, match=f"cannot say that {word} is"):
            ckptc.plan(source, to="megatron", accept=[x for x in YARN_WORDS if x != word])
    ckptc.convert(source, tmp_path / "dist", to="megatron", accept=YARN_WORDS)
    assert same(read(tmp_path / "dist"), core(hf))


@pytest.mark.parametrize(("to", "words"), [("nxdt", "one kind of attention"), ("nemo", "sinks"), ("nemo-dist", "sinks"), ("megatron-lm", r"cannot hold|no place")])
def test_modules_without_sinks_refuse_it(to: str, words: str, tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "hf")
    with pytest.raises(ckptc.MappingError, match=words):
        ckptc.plan(source, to=to)


def test_nemo_2s_class_says_all_of_it(tmp_path: Path) -> None:
    source, hf = saved(tmp_path / "hf", rope_scaling=YARN)
    ckptc.convert(source, tmp_path / "nemo2", to="nemo2")
    assert same(read(tmp_path / "nemo2"), core(hf, "module."))
    (tmp_path / "nemo2/context").mkdir(exist_ok=True)
    (tmp_path / "nemo2/context/model.yaml").write_text(yaml.safe_dump({"_target_": "nemo.collections.llm.gpt.model.gpt_oss.GPTOSSModel", "config": {
        "num_layers": LAYERS, "hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_query_groups": GROUPS, "kv_channels": DIM, "ffn_hidden_size": FFN, "moe_ffn_hidden_size": FFN,
        "num_moe_experts": EXPERTS, "moe_router_topk": TOP, "normalization": "RMSNorm", "layernorm_epsilon": 3e-6, "gated_linear_unit": True, "add_bias_linear": True,
        "activation_func": {"_target_": "megatron.core.activations.quick_gelu"}, "glu_linear_offset": 1.0, "activation_func_clamp_value": 7.0, "softmax_type": "learnable",
        "window_size": [17, 0], "window_attn_skip_freq": 2, "position_embedding_type": "yarn", "rotary_base": 150000, "rotary_scaling_factor": 32.0, "seq_length": 97,
        "yarn_original_max_position_embeddings": 64, "yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0, "yarn_correction_range_round_to_int": False,
        "share_embeddings_and_output_weights": False, "init_method_std": 0.03,
    }}))  # fmt: skip
    ckptc.convert(tmp_path / "nemo2", tmp_path / "back", to="hf", settings={"vocab": VOCAB})
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    written = json.loads((tmp_path / "back/config.json").read_text())
    wanted = {**CONFIG, "rope_scaling": YARN}
    assert {k: written.get(k) for k in wanted} == wanted


def test_arguments_of_megatron_say_windows_by_layer() -> None:
    layout = FAMILY.layout("megatron")
    args = {"num_layers": 4, "window_size": [16, 0]}
    for given, meant in ((2, [1, 3]), ([1, 0, 0, 1], [1, 2]), (None, None)):
        sizes = bind_sizes(FAMILY, layout, {**args, "window_attn_skip_freq": given, "no_rope_freq": given, "hidden_size": HIDDEN, "num_attention_heads": HEADS, "kv_channels": DIM,
                                            "num_experts": EXPERTS, "moe_ffn_hidden_size": FFN, "padded_vocab_size": VOCAB, "position_embedding_type": "rope", "group_query_attention": False}, {}, lambda name: False)
        assert (sizes.values["window"], sizes.values["full_list"]) == (17, meant)
        assert sizes.values["unturned_list"] == {None: None, 2: [1, 3]}.get(given if isinstance(given, int | None) else -1, [0, 3])


def test_other_activations_and_what_is_left_to_the_class_are_refused(tmp_path: Path) -> None:
    for at, (keys, words) in enumerate([({"hidden_act": "gelu"}, "the activation"), ({"swiglu_alpha": 1.5}, "the activation"), ({"rope_scaling": None}, "leaves to its class")]):
        source, _ = saved(tmp_path / str(at), **keys)
        with pytest.raises(ckptc.MappingError, match=words):
            ckptc.plan(source, to="hf")


def published(folder: Path, hidden: int = 64, ffn: int = 96) -> tuple[Path, Weights]:
    """`folder` with the experts' matrices in MXFP4, in two files, as gpt-oss is published. Returns another folder, with what they
    mean in bfloat16, and that."""
    keys = CONFIG | {"hidden_size": hidden, "intermediate_size": ffn, "rope_scaling": YARN}
    generator = torch.Generator().manual_seed(8)
    stored: Weights = {}
    meant: Weights = {}
    for name, shape in shapes(hidden, ffn).items():
        if name.endswith(("gate_up_proj", "down_proj")):
            made = packed_weights.gpt_oss(name, (shape[0], shape[1], shape[2]), generator)
            stored |= made.stored
            meant[name] = made.meant.bfloat16()
        else:
            stored[name] = meant[name] = torch.randn(shape, generator=generator).bfloat16()
    plain = folder.with_name(f"{folder.name}-plain")
    scales = {name: x for name, x in stored.items() if name.endswith("_scales")}
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
    for place, config in ((folder, keys | {"quantization_config": quantization}), (plain, keys)):
        place.mkdir()
        (place / "config.json").write_text(json.dumps(config))
    files = {f"model-{i:05}-of-00002.safetensors": {name: x for name, x in stored.items() if (name in scales) == (i == 2)} for i in (1, 2)}
    for file, tensors in files.items():
        save_file(tensors, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {name: file for file, tensors in files.items() for name in tensors}}))
    save_file(meant, plain / "model.safetensors")
    return plain, meant


@pytest.mark.parametrize(("to", "options"), [("hf", {}), ("megatron", {"accept": YARN_WORDS}), ("megatron-legacy", {"tp": 2, "pp": 2, "settings": {"ep": 3}, "accept": YARN_WORDS}), ("nemo2", {})], ids=str)
def test_as_it_is_published_it_becomes_what_its_decoded_experts_become(to: str, options: dict[str, Any], tmp_path: Path) -> None:
    plain, meant = published(tmp_path / "mxfp4")
    made = ckptc.plan(tmp_path / "mxfp4", to=to, **options)
    assert made.data.mapping == "gpt_oss"
    assert f"decoded, not copied: {2 * LAYERS} tensors" in str(made.totals())
    ckptc.convert(tmp_path / "mxfp4", tmp_path / "decoded", to=to, verify=True, **options)
    ckptc.convert(plain, tmp_path / "copied", to=to, **options)
    assert same(read_files(tmp_path / "decoded"), read_files(tmp_path / "copied"))
    if to == "hf":
        assert same(read(tmp_path / "decoded"), meant)
        assert json.loads((tmp_path / "decoded/config.json").read_text()).keys() == json.loads((plain / "config.json").read_text()).keys()
    elif to == "megatron":
        assert same(read(tmp_path / "decoded"), core(meant))
