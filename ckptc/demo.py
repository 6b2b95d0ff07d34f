"""`python -m ckptc.demo [FOLDER]`: a small Llama checkpoint goes to NxD Training and back, and must come back bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtime.checkpoint.checkpoint import Tensor

VOCAB, LAYERS, HIDDEN, FFN, HEADS, GROUPS = 320, 5, 96, 160, 12, 2
DIM = HIDDEN // HEADS
SHARDS = 3

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "head_dim": DIM,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, as the HuggingFace model has them."""
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (HIDDEN,)
        yield prefix + "self_attn.q_proj.weight", (HEADS * DIM, HIDDEN)
        yield prefix + "self_attn.k_proj.weight", (GROUPS * DIM, HIDDEN)
        yield prefix + "self_attn.v_proj.weight", (GROUPS * DIM, HIDDEN)
        yield prefix + "self_attn.o_proj.weight", (HIDDEN, HEADS * DIM)
        yield prefix + "post_attention_layernorm.weight", (HIDDEN,)
        yield prefix + "mlp.gate_proj.weight", (FFN, HIDDEN)
        yield prefix + "mlp.up_proj.weight", (FFN, HIDDEN)
        yield prefix + "mlp.down_proj.weight", (HIDDEN, FFN)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def write_llama(folder: Path, seed: int = 0) -> None:
    """A whole HuggingFace checkpoint: sharded bfloat16 safetensors, their index, configs and a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(seed)
    everything = list(tensors())
    per_shard = -(-len(everything) // SHARDS)
    weight_map: dict[str, str] = {}
    total = 0
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        held = [
            (tensor, shape, _values(numbers, shape))
            for tensor, shape in everything[shard * per_shard : (shard + 1) * per_shard]
        ]
        _write_safetensors(folder / name, held)
        weight_map |= {tensor: name for tensor, _, _ in held}
        total += sum(len(data) for _, _, data in held)
    tokens = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCAB)}
    model = {"type": "WordLevel", "vocab": tokens, "unk_token": "<unk>"}
    tokenizer: dict[str, object] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None, "model": model}  # fmt: skip
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    for name, content in {
        "config.json": CONFIG,
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2},
        "model.safetensors.index.json": {"metadata": {"total_size": total}, "weight_map": weight_map},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": described,
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _values(numbers: random.Random, shape: tuple[int, ...]) -> bytes:
    """Normally distributed bfloat16: the upper halves of float32."""
    count = 1
    for n in shape:
        count *= n
    words = array("I", array("f", (numbers.gauss(0.0, 0.02) for _ in range(count))).tobytes())
    return array("H", (word >> 16 for word in words)).tobytes()


def _write_safetensors(path: Path, held: list[tuple[str, tuple[int, ...], bytes]]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape, data in held:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in held))


def differences(left: Path, right: Path) -> list[str]:
    """Tensors that are not in both checkpoints with the same dtype, shape and bits; side files that differ."""
    import ckptc

    here, there = ({t.name: t for t in ckptc.open(path)} for path in (left, right))
    found = [f"{name}: only in one of them" for name in sorted(here.keys() ^ there.keys())]
    for name in sorted(here.keys() & there.keys()):
        a, b = here[name], there[name]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            found.append(f"{name}: {a.dtype} {a.shape} and {b.dtype} {b.shape}")
        elif _bits(a) != _bits(b):
            found.append(f"{name}: other bits")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (right / name).exists() or (left / name).read_bytes() != (right / name).read_bytes():
            found.append(f"{name}: not the same file")
    return found


def _bits(tensor: Tensor) -> bytes:
    elements = tensor.read().reshape(-1)
    return bytes(elements.view(sys.modules["torch"].uint8).numpy().tobytes())


def main(folder: Path) -> int:
    import ckptc

    source, sharded, back = folder / "llama-hf", folder / "llama-nxdt", folder / "llama-hf-again"
    for path in (source, sharded, back):
        shutil.rmtree(path, ignore_errors=True)
    write_llama(source)
    print(f"1. a Llama checkpoint with {HEADS} heads and {GROUPS} key/value heads: {source}\n")
    plan = ckptc.plan(source, to="nxdt", tp=4, pp=2, settings={"kv_multiplier": 2})
    print(f"2. to NxD Training, tp = 4, pp = 2, each key/value head on 2 ranks: {sharded}\n\n{plan}\n{plan.totals()}\n")
    report = plan.run(sharded)
    print(f"   {report.bytes_written:,} bytes in {len(report.files)} files, {report.seconds:.2f} s\n")
    print(f"3. and back, the copies compared with each other: {back}\n")
    report = ckptc.convert(sharded, back, to="hf", config=source / "config.json", from_settings={"hw": "trn1"})
    print(f"   {report.bytes_written:,} bytes in {len(report.files)} files, {report.seconds:.2f} s\n")
    different = differences(source, back)
    count = sum(1 for _ in tensors())
    print("\n".join(different) if different else f"4. all {count} tensors and the side files came back, bit for bit")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
