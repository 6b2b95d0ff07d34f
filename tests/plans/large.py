"""Checkpoints of Llama 3.1 405B without their data: sparse files, and entries that are only in memory."""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path

from ckptc.runtime.checkpoint.checkpoint import Checkpoint
from ckptc.runtime.files.window import Entry, Window, row_major

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "num_hidden_layers": 126,
    "hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128, "num_key_value_heads": 8,
    "head_dim": 128, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
TP, PP, KV = 32, 16, 4
SETTINGS = {"tp": TP, "pp": PP, "kv_multiplier": KV}
SHARDS = 191
LAYERS, HIDDEN, FFN, VOCAB = 126, 16384, 53248, 128256
Q, K = 128 * 128, 8 * 128
PARAMETERS = 2 * VOCAB * HIDDEN + HIDDEN + LAYERS * (2 * HIDDEN + 2 * Q * HIDDEN + 2 * K * HIDDEN + 3 * FFN * HIDDEN)
# Key/value heads are there KV times, norms on every tensor parallel rank.
RANK_ELEMENTS = PARAMETERS + (KV - 1) * LAYERS * 2 * K * HIDDEN + (TP - 1) * (LAYERS * 2 + 1) * HIDDEN


def hf_shapes() -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        out |= {
            at + "input_layernorm.weight": (HIDDEN,), at + "self_attn.q_proj.weight": (Q, HIDDEN),
            at + "self_attn.k_proj.weight": (K, HIDDEN), at + "self_attn.v_proj.weight": (K, HIDDEN),
            at + "self_attn.o_proj.weight": (HIDDEN, Q), at + "post_attention_layernorm.weight": (HIDDEN,),
            at + "mlp.gate_proj.weight": (FFN, HIDDEN), at + "mlp.up_proj.weight": (FFN, HIDDEN),
            at + "mlp.down_proj.weight": (HIDDEN, FFN),
        }  # fmt: skip
    return out | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


def write_config(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder / "config.json"


def write_sparse(folder: Path) -> Path:
    """191 safetensors shards of full size with true headers and an index, and no data: files full of holes."""
    write_config(folder)
    shapes = hf_shapes()
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for i in range(SHARDS):
        file = f"model-{i + 1:05}-of-{SHARDS:05}.safetensors"
        header, at = {}, 0
        for name in names[i * len(names) // SHARDS : (i + 1) * len(names) // SHARDS]:
            nbytes = prod(shapes[name]) * 2
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [at, at + nbytes]}
            at += nbytes
            weight_map[name] = file
        text = json.dumps(header).encode()
        with open(folder / file, "wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + at)
    index = {"metadata": {"total_size": 2 * PARAMETERS}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def rank_checkpoint(folder: Path) -> Checkpoint:
    """The 512 rank files that such a checkpoint becomes, as entries whose windows all lie in one sparse file."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "holes"
    with open(place, "wb") as stream:
        stream.truncate(VOCAB // TP * HIDDEN * 4)
    entries: list[Entry] = []
    path = os.fspath(place)

    def add(file: str, name: str, *shape: int) -> None:
        entries.append(Entry(name, file, Window(path, 0, shape, row_major(shape), "bfloat16")))

    base, more = divmod(LAYERS, PP)
    owned, at = [], 0
    for stage in range(PP):
        n = base + (stage >= PP - more)
        owned.append(range(at, at + n))
        at += n
    for tp in range(TP):
        for pp in range(PP):
            file = f"model/dp_rank_00_tp_rank_{tp:02}_pp_rank_{pp:02}.pt"
            if pp == 0:
                add(file, "model.embed_tokens.weight", VOCAB // TP, HIDDEN)
            for i in owned[pp]:
                prefix = f"model.layers.{i}."
                add(file, prefix + "input_layernorm.weight", HIDDEN)
                add(file, prefix + "self_attn.qkv_proj.weight_q", Q // TP, HIDDEN)
                add(file, prefix + "self_attn.qkv_proj.weight_k", K * KV // TP, HIDDEN)
                add(file, prefix + "self_attn.qkv_proj.weight_v", K * KV // TP, HIDDEN)
                add(file, prefix + "self_attn.o_proj.weight", HIDDEN, Q // TP)
                add(file, prefix + "post_attention_layernorm.weight", HIDDEN)
                add(file, prefix + "mlp.gate_up_proj.weight", 2 * FFN // TP, HIDDEN)
                add(file, prefix + "mlp.down_proj.weight", HIDDEN, FFN // TP)
            if pp == PP - 1:
                add(file, "model.norm.weight", HIDDEN)
                add(file, "lm_head.weight", VOCAB // TP, HIDDEN)
    return Checkpoint(os.fspath(folder), "pt", tuple(entries), ())
