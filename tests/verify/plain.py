"""Small models, and checkpoints of them that plain torch and safetensors write, without ckptc. Sizes are pairwise distinct."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

Weights = dict[str, torch.Tensor]
LAYERS, VOCAB, EXPERTS = 4, 75, 5


@dataclass(frozen=True)
class Model:
    """A Llama, or with `experts` a Mixtral. With `square` the query and output matrices are square."""

    hidden: int = 48
    ffn: int = 84
    groups: int = 3
    share: int = 2
    dim: int = 10
    bias: bool = False
    experts: int = 0
    tied: bool = False
    dtype: torch.dtype = torch.bfloat16

    @property
    def heads(self) -> int:
        return self.groups * self.share

    def config(self) -> dict[str, Any]:
        kind = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": self.experts, "num_experts_per_tok": 2, "sliding_window": None}
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "num_hidden_layers": LAYERS,
            "hidden_size": self.hidden, "intermediate_size": self.ffn, "num_attention_heads": self.heads, "head_dim": self.dim,
            "num_key_value_heads": self.groups, "attention_bias": self.bias, "tie_word_embeddings": self.tied, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "rope_theta": 10000.0, **(kind if self.experts else {}),
        }  # fmt: skip

    def weights(self) -> Weights:
        h, q, k = self.hidden, self.heads * self.dim, self.groups * self.dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, h), "model.norm.weight": (h,)}
        if not self.tied:
            shapes["lm_head.weight"] = (VOCAB, h)
        for i in range(LAYERS):
            at = f"model.layers.{i}."
            shapes |= {f"{at}input_layernorm.weight": (h,), f"{at}post_attention_layernorm.weight": (h,)}
            for name, rows, columns in (("q", q, h), ("k", k, h), ("v", k, h), ("o", h, q)):
                shapes[f"{at}self_attn.{name}_proj.weight"] = (rows, columns)
                if self.bias:
                    shapes[f"{at}self_attn.{name}_proj.bias"] = (rows,)
            if self.experts:
                shapes[f"{at}block_sparse_moe.gate.weight"] = (self.experts, h)
            for e in range(self.experts):
                for name in ("w1", "w2", "w3"):
                    shapes[f"{at}block_sparse_moe.experts.{e}.{name}.weight"] = (h, self.ffn) if name == "w2" else (self.ffn, h)
            if not self.experts:
                shapes |= {f"{at}mlp.{n}_proj.weight": (h, self.ffn) if n == "down" else (self.ffn, h) for n in ("gate", "up", "down")}
        made = torch.Generator().manual_seed(11)
        return {name: torch.randn(shape, generator=made).to(self.dtype) for name, shape in shapes.items()}


def write_hf(folder: Path, model: Model, weights: Mapping[str, torch.Tensor], shards: int = 1) -> Path:
    """A folder of safetensors, with an index where there are several shards."""
    folder.mkdir()
    names = list(weights)
    step = -(-len(names) // shards)
    places: dict[str, str] = {}
    for i in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{i + 1:05}-of-{shards:05}.safetensors"
        held = {n: weights[n].contiguous() for n in names[i * step : (i + 1) * step]}
        save_file(held, folder / file, {"format": "pt"})
        places |= dict.fromkeys(held, file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps(model.config()))
    return folder


def nxdt_ranks(model: Model, hf: Weights, tp: int, copies: int = 1, hw: str = "trn1") -> list[Weights]:
    """The rank files of NxD Training, style hf, with separate query, key and value weights.

    Source: nxdt, checkpoint_converter_scripts/hf_nxdt_llama3_70b_ckpt_converter.py, and neuronx_distributed's
    modules/qkv_linear.py: key/value heads are tiled `copies` times; on trn1 copies are tp / copies ranks apart, on trn2 they
    are neighbours. A rank's query heads are those that attend to its key/value heads.
    """
    shard = tp // copies
    local, rest = model.groups // shard, model.share // copies
    ranks: list[Weights] = []
    for rank in range(tp):
        copy, at = divmod(rank, shard) if hw == "trn1" else divmod(rank, copies)[::-1]
        own: Weights = {}

        def rows(x: torch.Tensor, dim: int = 0, rank: int = rank) -> torch.Tensor:
            return x.chunk(tp, dim)[rank].clone()

        def heads(x: torch.Tensor, kv: bool, at: int = at, copy: int = copy) -> torch.Tensor:
            if kv:
                return x.view(shard, local, model.dim, *x.shape[1:])[at].reshape(-1, *x.shape[1:]).clone()
            return x.view(shard, local, copies, rest, model.dim, *x.shape[1:])[at, :, copy].reshape(-1, *x.shape[1:]).clone()

        own["model.embed_tokens.weight"] = rows(hf["model.embed_tokens.weight"])
        for i in range(LAYERS):
            layer = f"model.layers.{i}."
            for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
                own[layer + name] = hf[layer + name].clone()
            for name in "qkv":
                own[f"{layer}self_attn.qkv_proj.weight_{name}"] = heads(hf[f"{layer}self_attn.{name}_proj.weight"], name != "q")
            own[f"{layer}self_attn.o_proj.weight"] = heads(hf[f"{layer}self_attn.o_proj.weight"].T, False).T.contiguous()
            own[f"{layer}mlp.gate_up_proj.weight"] = torch.cat([rows(hf[f"{layer}mlp.{n}_proj.weight"]) for n in ("gate", "up")])
            own[f"{layer}mlp.down_proj.weight"] = rows(hf[f"{layer}mlp.down_proj.weight"], 1)
        own["model.norm.weight"] = hf["model.norm.weight"].clone()
        own["lm_head.weight"] = rows(hf["lm_head.weight"])
        ranks.append(own)
    return ranks


def write_nxdt(folder: Path, ranks: list[Weights]) -> Path:
    (folder / "model").mkdir(parents=True)
    for rank, held in enumerate(ranks):
        torch.save(held, folder / f"model/dp_rank_00_tp_rank_{rank:02}_pp_rank_00.pt")
    return folder


def joined(model: Model, hf: Weights, layer: int, order: str = "groups") -> torch.Tensor:
    """linear_qkv: in groups, the query heads of each key/value head before its key and its value (Megatron-core,
    core/transformer/attention.py, SelfAttention.get_query_key_value_tensors), or in blocks."""
    at = f"model.layers.{layer}.self_attn."
    q, k, v = (hf[f"{at}{n}_proj.weight"] for n in "qkv")
    if order == "blocks":
        return torch.cat([q, k, v])
    parts = [x.view(model.groups, -1, model.hidden) for x in (q, k, v)]
    return torch.cat([parts["qkv".index(n)] for n in order.replace("groups", "qkv")], 1).reshape(-1, model.hidden)


def nemo_ranks(model: Model, hf: Weights, tp: int, padded: int, order: str = "groups", fill: float = 0.0) -> list[Weights]:
    """The rank files of NeMo 1 with Megatron-core's names. Source: NeMo, scripts/checkpoint_converters/convert_llama_hf_to_nemo.py."""
    ranks: list[Weights] = [{} for _ in range(tp)]

    def put(name: str, parts: list[torch.Tensor]) -> None:
        for own, part in zip(ranks, parts, strict=True):
            own["model." + name] = part.clone().contiguous()

    def wide(x: torch.Tensor) -> list[torch.Tensor]:
        rows = torch.full((padded - len(x), x.shape[1]), fill, dtype=x.dtype)
        return list(torch.cat([x, rows]).chunk(tp))

    put("embedding.word_embeddings.weight", wide(hf["model.embed_tokens.weight"]))
    for i in range(LAYERS):
        layer, at = f"model.layers.{i}.", f"decoder.layers.{i}."
        put(f"{at}self_attention.linear_qkv.layer_norm_weight", [hf[f"{layer}input_layernorm.weight"]] * tp)
        put(f"{at}self_attention.linear_qkv.weight", list(joined(model, hf, i, order).chunk(tp)))
        put(f"{at}self_attention.linear_proj.weight", list(hf[f"{layer}self_attn.o_proj.weight"].chunk(tp, 1)))
        put(f"{at}mlp.linear_fc1.layer_norm_weight", [hf[f"{layer}post_attention_layernorm.weight"]] * tp)
        gate, up = (hf[f"{layer}mlp.{n}_proj.weight"].chunk(tp) for n in ("gate", "up"))
        put(f"{at}mlp.linear_fc1.weight", [torch.cat(pair) for pair in zip(gate, up, strict=True)])
        put(f"{at}mlp.linear_fc2.weight", list(hf[f"{layer}mlp.down_proj.weight"].chunk(tp, 1)))
    put("decoder.final_layernorm.weight", [hf["model.norm.weight"]] * tp)
    put("output_layer.weight", wide(hf["lm_head.weight"]))
    return ranks


def write_nemo(folder: Path, model: Model, ranks: list[Weights], padded: int, **changed: Any) -> Path:
    folder.mkdir()
    config = {
        "mcore_gpt": True, "num_layers": LAYERS, "hidden_size": model.hidden, "ffn_hidden_size": model.ffn, "num_attention_heads": model.heads,
        "num_query_groups": model.groups, "kv_channels": model.dim, "activation": "fast-swiglu", "normalization": "rmsnorm", "bias": False,
        "position_embedding_type": "rope", "rotary_percentage": 1.0, "rotary_base": 10000.0, "share_embeddings_and_output_weights": False,
        "layernorm_epsilon": 1e-5, "make_vocab_size_divisible_by": padded // len(ranks), "tensor_model_parallel_size": len(ranks),
        "pipeline_model_parallel_size": 1, "precision": "bf16", "encoder_seq_length": 4096, "max_position_embeddings": 4096, **changed,
    }  # fmt: skip
    (folder / "model_config.yaml").write_text(yaml.safe_dump(config))
    for rank, held in enumerate(ranks):
        at = folder / (f"mp_rank_{rank:02}" if len(ranks) > 1 else "")
        at.mkdir(exist_ok=True)
        torch.save(held, at / "model_weights.ckpt")
    return folder
