"""`plain_torch.py to-ranks|to-hf SRC DST TP PP KV_MULTIPLIER LAYERS`: the conversion as it is usually scripted.

Everything is loaded, sliced with torch, and saved rank by rank; what `convert.py` compares ckptc with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from llama import DIM, GROUPS, HEADS, HIDDEN
from safetensors.torch import load_file, save_file

SHARE = HEADS // GROUPS
LAYER = "model.layers.{}."
SAME = ("input_layernorm.weight", "post_attention_layernorm.weight")
ATTENTION = "self_attn.qkv_proj.weight_{}"

State = dict[str, torch.Tensor]


def rank_file(folder: Path, tp: int, pp: int) -> Path:
    return folder / "model" / f"dp_rank_00_tp_rank_{tp:02}_pp_rank_{pp:02}.pt"


def order(tp: int, copies: int) -> torch.Tensor:
    """The query heads in the order of the ranks that hold them."""
    shards = tp // copies
    heads = torch.arange(HEADS).view(shards, GROUPS // shards, copies, SHARE // copies)
    return heads.permute(2, 0, 1, 3).reshape(-1)


def to_ranks(src: Path, dst: Path, tp: int, pp: int, copies: int, layers: int) -> None:
    full: State = {}
    for path in sorted(src.glob("*.safetensors")):
        full |= load_file(path)
    heads = order(tp, copies)
    (dst / "model").mkdir(parents=True)
    for stage in range(pp):
        for rank in range(tp):
            part: State = {}

            def rows(tensor: torch.Tensor, rank: int = rank) -> torch.Tensor:
                return tensor.chunk(tp, 0)[rank].clone()

            if stage == 0:
                part["model.embed_tokens.weight"] = rows(full["model.embed_tokens.weight"])
            for layer in range(stage * layers // pp, (stage + 1) * layers // pp):
                at = LAYER.format(layer)
                q = full[at + "self_attn.q_proj.weight"].view(HEADS, DIM, HIDDEN)[heads]
                part[at + ATTENTION.format("q")] = rows(q.view(HEADS * DIM, HIDDEN))
                for name in "kv":
                    part[at + ATTENTION.format(name)] = rows(full[f"{at}self_attn.{name}_proj.weight"].repeat(copies, 1))
                o = full[at + "self_attn.o_proj.weight"].view(HIDDEN, HEADS, DIM)[:, heads].view(HIDDEN, HEADS * DIM)
                part[at + "self_attn.o_proj.weight"] = o.chunk(tp, 1)[rank].clone()
                gate, up = (full[f"{at}mlp.{name}_proj.weight"].chunk(tp, 0)[rank] for name in ("gate", "up"))
                part[at + "mlp.gate_up_proj.weight"] = torch.cat([gate, up])
                part[at + "mlp.down_proj.weight"] = full[at + "mlp.down_proj.weight"].chunk(tp, 1)[rank].clone()
                for name in SAME:
                    part[at + name] = full[at + name]
            if stage == pp - 1:
                part["model.norm.weight"] = full["model.norm.weight"]
                part["lm_head.weight"] = rows(full["lm_head.weight"])
            torch.save(part, rank_file(dst, rank, stage))


def to_hf(src: Path, dst: Path, tp: int, pp: int, copies: int, layers: int) -> None:
    parts = [[torch.load(rank_file(src, rank, stage), weights_only=True) for rank in range(tp)] for stage in range(pp)]
    back = torch.argsort(order(tp, copies))
    full: State = {}

    def joined(stage: int, name: str, dim: int = 0) -> torch.Tensor:
        return torch.cat([parts[stage][rank][name] for rank in range(tp)], dim)

    full["model.embed_tokens.weight"] = joined(0, "model.embed_tokens.weight")
    for layer in range(layers):
        stage, at = layer * pp // layers, LAYER.format(layer)
        q = joined(stage, at + ATTENTION.format("q")).view(HEADS, DIM, HIDDEN)[back]
        full[at + "self_attn.q_proj.weight"] = q.view(HEADS * DIM, HIDDEN)
        for name in "kv":
            copied = joined(stage, at + ATTENTION.format(name))
            full[f"{at}self_attn.{name}_proj.weight"] = copied[: GROUPS * DIM].clone()
        o = joined(stage, at + "self_attn.o_proj.weight", 1).view(HIDDEN, HEADS, DIM)[:, back]
        full[at + "self_attn.o_proj.weight"] = o.reshape(HIDDEN, HEADS * DIM)
        pairs = [part[at + "mlp.gate_up_proj.weight"].chunk(2) for part in parts[stage]]
        for i, name in enumerate(("gate", "up")):
            full[f"{at}mlp.{name}_proj.weight"] = torch.cat([pair[i] for pair in pairs])
        full[at + "mlp.down_proj.weight"] = joined(stage, at + "mlp.down_proj.weight", 1)
        for name in SAME:
            full[at + name] = parts[stage][0][at + name]
    full["model.norm.weight"] = parts[-1][0]["model.norm.weight"]
    full["lm_head.weight"] = joined(pp - 1, "lm_head.weight")
    dst.mkdir(parents=True)
    save_file(full, dst / "model.safetensors", metadata={"format": "pt"})
    (dst / "config.json").write_text(json.dumps({"model_type": "llama"}))


if __name__ == "__main__":
    way, src, dst, *numbers = sys.argv[1:]
    (to_ranks if way == "to-ranks" else to_hf)(Path(src), Path(dst), *map(int, numbers))
