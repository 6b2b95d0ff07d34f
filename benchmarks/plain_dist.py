"""`plain_dist.py to-dist|to-hf SRC DST LAYERS`: HuggingFace to torch_dist and back as it is usually scripted, with torch alone.

Everything is loaded, reordered, and saved with torch.distributed.checkpoint; what `megatron.py` compares ckptc with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from llama import DIM, FFN, GROUPS, HEADS, HIDDEN, VOCAB
from safetensors.torch import load_file, save_file

State = dict[str, torch.Tensor]
SHARE = HEADS // GROUPS
ROWS = (HEADS + 2 * GROUPS) * DIM
AT = "decoder.layers."
PLAIN = {
    "self_attn.o_proj.weight": f"{AT}self_attention.linear_proj.weight", "mlp.down_proj.weight": f"{AT}mlp.linear_fc2.weight",
    "input_layernorm.weight": f"{AT}self_attention.linear_qkv.layer_norm_weight",
    "post_attention_layernorm.weight": f"{AT}mlp.linear_fc1.layer_norm_weight",
}  # fmt: skip
ENDS = {
    "model.embed_tokens.weight": "embedding.word_embeddings.weight", "model.norm.weight": "decoder.final_layernorm.weight",
    "lm_head.weight": "output_layer.weight",
}  # fmt: skip


def to_dist(src: Path, dst: Path, layers: int) -> None:
    full: State = {}
    for path in sorted(src.glob("*.safetensors")):
        full |= load_file(path)
    out: State = {new: full.pop(old) for old, new in ENDS.items()}

    def layer(i: int, name: str) -> torch.Tensor:
        return full.pop(f"model.layers.{i}.{name}")

    def qkv(i: int) -> torch.Tensor:
        q, k, v = (layer(i, f"self_attn.{name}_proj.weight").view(GROUPS, -1, DIM, HIDDEN) for name in "qkv")
        return torch.cat([q, k, v], 1).view(ROWS, HIDDEN)

    out[f"{AT}self_attention.linear_qkv.weight"] = torch.stack([qkv(i) for i in range(layers)])
    out[f"{AT}mlp.linear_fc1.weight"] = torch.stack([torch.cat([layer(i, f"mlp.{n}_proj.weight") for n in ("gate", "up")]) for i in range(layers)])
    for old, new in PLAIN.items():
        out[new] = torch.stack([layer(i, old) for i in range(layers)])
    dcp.save(out, checkpoint_id=dst, no_dist=True)


def to_hf(src: Path, dst: Path, layers: int) -> None:
    shapes = {
        f"{AT}self_attention.linear_qkv.weight": (layers, ROWS, HIDDEN), f"{AT}mlp.linear_fc1.weight": (layers, 2 * FFN, HIDDEN),
        f"{AT}self_attention.linear_proj.weight": (layers, HIDDEN, HEADS * DIM), f"{AT}mlp.linear_fc2.weight": (layers, HIDDEN, FFN),
        f"{AT}self_attention.linear_qkv.layer_norm_weight": (layers, HIDDEN), f"{AT}mlp.linear_fc1.layer_norm_weight": (layers, HIDDEN),
        "embedding.word_embeddings.weight": (VOCAB, HIDDEN), "output_layer.weight": (VOCAB, HIDDEN), "decoder.final_layernorm.weight": (HIDDEN,),
    }  # fmt: skip
    stored: State = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    dcp.load(stored, checkpoint_id=src, no_dist=True)
    full: State = {old: stored[new] for old, new in ENDS.items()}
    for i in range(layers):
        at = f"model.layers.{i}."
        parts = stored[f"{AT}self_attention.linear_qkv.weight"][i].view(GROUPS, SHARE + 2, DIM, HIDDEN).split([SHARE, 1, 1], 1)
        full |= {f"{at}self_attn.{name}_proj.weight": part.reshape(-1, HIDDEN) for name, part in zip("qkv", parts, strict=True)}
        for name, part in zip(("gate", "up"), stored[f"{AT}mlp.linear_fc1.weight"][i].chunk(2), strict=True):
            full[f"{at}mlp.{name}_proj.weight"] = part
        full |= {at + old: stored[new][i] for old, new in PLAIN.items()}
    dst.mkdir(parents=True)
    save_file({name: tensor.clone() for name, tensor in full.items()}, dst / "model.safetensors", metadata={"format": "pt"})
    (dst / "config.json").write_text(json.dumps({"model_type": "llama"}))


if __name__ == "__main__":
    way, src, dst, count = sys.argv[1:]
    (to_dist if way == "to-dist" else to_hf)(Path(src), Path(dst), int(count))
