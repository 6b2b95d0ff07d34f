"""A small Llama whose sizes are all distinct, written as HuggingFace checkpoints of every kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import ckptc
from tests.asked import asked

SIDE_FILES = {
    "generation_config.json": b'{"bos_token_id": 1}\n',
    "tokenizer.json": '{"version": "1.0", "note": "ünïcode"}'.encode(),
    "tokenizer.model": bytes(range(256)),
    "special_tokens_map.json": b"{}",
}


@dataclass(frozen=True)
class Llama:
    """`dim` is not hidden / heads: an explicit head_dim. `extra` are further config keys."""

    vocab: int = 72
    layers: int = 4
    hidden: int = 48
    ffn: int = 84
    heads: int = 6
    groups: int = 3
    dim: int = 10
    attention_bias: bool = False
    mlp_bias: bool = False
    head: bool = True
    inv_freq: bool = False
    dtype: torch.dtype = torch.bfloat16
    extra: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": self.vocab,
            "num_hidden_layers": self.layers, "hidden_size": self.hidden, "intermediate_size": self.ffn,
            "num_attention_heads": self.heads, "num_key_value_heads": self.groups, "head_dim": self.dim,
            "attention_bias": self.attention_bias, "mlp_bias": self.mlp_bias, "tie_word_embeddings": False,
            "rope_theta": 500000.0, **self.extra,
        }  # fmt: skip

    def shapes(self) -> dict[str, tuple[int, ...]]:
        h, f, q, k = self.hidden, self.ffn, self.heads * self.dim, self.groups * self.dim
        out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, h)}
        for i in range(self.layers):
            at = f"model.layers.{i}."
            out |= {at + "input_layernorm.weight": (h,), at + "post_attention_layernorm.weight": (h,)}
            for name, rows, columns, bias in (
                ("self_attn.q_proj", q, h, self.attention_bias), ("self_attn.k_proj", k, h, self.attention_bias),
                ("self_attn.v_proj", k, h, self.attention_bias), ("self_attn.o_proj", h, q, self.attention_bias),
                ("mlp.gate_proj", f, h, self.mlp_bias), ("mlp.up_proj", f, h, self.mlp_bias),
                ("mlp.down_proj", h, f, self.mlp_bias),
            ):  # fmt: skip
                out[f"{at}{name}.weight"] = (rows, columns)
                if bias:
                    out[f"{at}{name}.bias"] = (rows,)
            if self.inv_freq:
                out[at + "self_attn.rotary_emb.inv_freq"] = (self.dim // 2,)
        out["model.norm.weight"] = (h,)
        if self.head:
            out["lm_head.weight"] = (self.vocab, h)
        return out

    def tensors(self) -> dict[str, torch.Tensor]:
        made = torch.Generator().manual_seed(7)
        return {
            name: torch.randn(shape, generator=made).to(torch.float32 if name.endswith("inv_freq") else self.dtype)
            for name, shape in self.shapes().items()
        }


def write(folder: Path, model: Llama, tensors: Mapping[str, torch.Tensor] | None = None, *, kind: str = "safetensors", shards: int = 1, side: bool = True) -> Path:
    """A HuggingFace checkpoint of `kind` safetensors or bin, in one file or in shards with an index."""
    folder.mkdir(parents=True)
    tensors = dict(tensors if tensors is not None else model.tensors())
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names = list(tensors)
    step = -(-len(names) // shards)
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i + 1:05}-of-{shards:05}.{suffix}"
        part = {n: tensors[n] for n in names[i * step : (i + 1) * step]}
        if kind == "safetensors":
            save_file(part, folder / file, {"format": "pt"})
        else:
            torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        total = sum(t.nbytes for t in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(model.config(), indent=1))
    if side:
        for name, content in SIDE_FILES.items():
            (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, torch.Tensor]:
    """A HuggingFace folder through safetensors or torch.load, not through ckptc."""
    out: dict[str, torch.Tensor] = {}
    for path in sorted(folder.iterdir()):
        held = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True) if path.suffix == ".bin" else {}
        assert not set(out) & set(held)
        out |= held
    return out


def rank_files(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The rank files of an nxdt folder, through torch.load."""
    return {p.relative_to(folder).as_posix(): torch.load(p, weights_only=True) for p in sorted(folder.rglob("*.pt"))}


def to_nxdt(source: Path, out: Path, **options: Any) -> Path:
    ckptc.convert(source, out, to="nxdt", **asked(**options))
    return out


def to_hf(source: Path, out: Path, **options: Any) -> Path:
    ckptc.convert(source, out, to="hf", **asked(**options))
    return out
