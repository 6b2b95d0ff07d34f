"""A Llama checkpoint of a chosen size as HuggingFace stores one: sharded bfloat16 safetensors, index, config; random bits."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

HIDDEN, FFN, HEADS, GROUPS, DIM, VOCAB = 2048, 8192, 32, 8, 64, 32000
SHARD_BYTES = 1_000_000_000
ITEM = 2

Shapes = dict[str, tuple[int, ...]]


def layer_shapes(layer: int) -> Shapes:
    prefix = f"model.layers.{layer}."
    return {
        prefix + "self_attn.q_proj.weight": (HEADS * DIM, HIDDEN),
        prefix + "self_attn.k_proj.weight": (GROUPS * DIM, HIDDEN),
        prefix + "self_attn.v_proj.weight": (GROUPS * DIM, HIDDEN),
        prefix + "self_attn.o_proj.weight": (HIDDEN, HEADS * DIM),
        prefix + "mlp.gate_proj.weight": (FFN, HIDDEN),
        prefix + "mlp.up_proj.weight": (FFN, HIDDEN),
        prefix + "mlp.down_proj.weight": (HIDDEN, FFN),
        prefix + "input_layernorm.weight": (HIDDEN,),
        prefix + "post_attention_layernorm.weight": (HIDDEN,),
    }


def shapes_of(layers: int) -> Shapes:
    """All tensors, in the order of the model."""
    found: Shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(layers):
        found |= layer_shapes(layer)
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


def nbytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) * ITEM


def layers_for(gigabytes: float) -> int:
    """The even number of layers that comes nearest to the size, two at least."""
    per_layer = sum(map(nbytes, layer_shapes(0).values()))
    rest = sum(map(nbytes, shapes_of(0).values()))
    return max(2, 2 * round((gigabytes * 1e9 - rest) / per_layer / 2))


def write_llama(folder: Path, layers: int) -> int:
    """Writes the checkpoint; the bytes of its tensors."""
    folder.mkdir(parents=True)
    shards: list[Shapes] = [{}]
    filled = 0
    for name, shape in shapes_of(layers).items():
        if filled and filled + nbytes(shape) > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += nbytes(shape)
    numbers = np.random.default_rng(0)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, shard, numbers)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(nbytes(shape) for shard in shards for shape in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "num_hidden_layers": layers,
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS,
        "head_dim": DIM, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "max_position_embeddings": 4096,
    }  # fmt: skip
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    return total


def _write_shard(path: Path, shard: Shapes, numbers: np.random.Generator) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shard.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + nbytes(shape)]}
        at += nbytes(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shard.values():
            numbers.integers(0, 2**64, nbytes(shape) // 8, dtype=np.uint64).tofile(file)
