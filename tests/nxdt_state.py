"""NxD Training checkpoints with their optimizer state, cut from whole tensors by plain torch; written, and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.zero_state import files, load, name_of, same, save_xser, split

LAYERS, VOCAB, HIDDEN, FFN, HEADS, KV, DIM = 5, 72, 20, 56, 8, 4, 6
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS, "vocab_size": VOCAB, "hidden_size": HIDDEN,
    "intermediate_size": FFN, "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": DIM, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "max_position_embeddings": 64, "tie_word_embeddings": False, "torch_dtype": "float32",
}  # fmt: skip
STAGES = {1: [range(5)], 2: [range(2), range(2, 5)], 3: [range(1), range(1, 3), range(3, 5)]}
KINDS = {"exp_avg": torch.float32, "exp_avg_sq": torch.bfloat16, "sharded_master_weights": torch.float64}


@dataclass(frozen=True)
class Style:
    """A model style: its names in the order of its modules, {} the layer. `at` gives each its whole tensor."""

    to: str
    embed: str
    layer: Mapping[str, str]
    norm: str
    head: str

    def order(self, pp: int, stage: int) -> list[tuple[str, str, int]]:
        """(name, which, layer) of one stage's parameters."""
        first = [(self.embed, "embed", 0)] if stage == 0 else []
        last = [(self.norm, "norm", 0), (self.head, "head", 0)] if stage == pp - 1 else []
        return first + [(name.format(i), which, i) for i in STAGES[pp][stage] for name, which in self.layer.items()] + last


HF = Style(
    "nxdt", "model.embed_tokens.weight",
    {f"model.layers.{{}}.{name}": which for name, which in {
        "self_attn.qkv_proj.weight_q": "q", "self_attn.qkv_proj.weight_k": "k", "self_attn.qkv_proj.weight_v": "v",
        "self_attn.o_proj.weight": "o", "mlp.gate_up_proj.weight": "gate_up", "mlp.down_proj.weight": "down",
        "input_layernorm.weight": "attn_norm", "post_attention_layernorm.weight": "mlp_norm"}.items()},
    "model.norm.weight", "lm_head.weight",
)  # fmt: skip
MEGATRON = Style(
    "nxdt-megatron", "language_model.embedding.word_embeddings.weight",
    {f"language_model.encoder.layers.{{}}.{name}": which for name, which in {
        "input_layernorm.weight": "attn_norm", "self_attention.query.weight": "q", "self_attention.key_value.weight": "key_value",
        "self_attention.dense.weight": "o", "post_attention_layernorm.weight": "mlp_norm", "mlp.dense_h_to_4h.weight": "gate_up",
        "mlp.dense_4h_to_h.weight": "down"}.items()},
    "language_model.encoder.final_layernorm.weight", "language_model.output_layer.weight",
)  # fmt: skip


def whole_model(seed: int, dtype: torch.dtype) -> dict[tuple[str, int], torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    shapes = {
        "q": (KV, HEADS // KV, DIM, HIDDEN), "k": (KV, DIM, HIDDEN), "v": (KV, DIM, HIDDEN), "o": (HIDDEN, KV, HEADS // KV, DIM),
        "gate": (FFN, HIDDEN), "up": (FFN, HIDDEN), "down": (HIDDEN, FFN), "attn_norm": (HIDDEN,), "mlp_norm": (HIDDEN,),
    }  # fmt: skip
    out = {(which, i): torch.randn(*shape, generator=made).to(dtype) for i in range(LAYERS) for which, shape in shapes.items()}
    for which, shape in {"embed": (VOCAB, HIDDEN), "norm": (HIDDEN,), "head": (VOCAB, HIDDEN)}.items():
        out[which, 0] = torch.randn(*shape, generator=made).to(dtype)
    return out


def local(model: Mapping[tuple[str, int], torch.Tensor], which: str, i: int, tp: int, rank: int, m: int) -> torch.Tensor:
    """One rank's part. Key/value heads stand `m` times, tp / m ranks apart; query heads go with theirs."""
    shards = tp // m
    copy, shard = divmod(rank, shards)
    groups = slice(shard * (KV // shards), (shard + 1) * (KV // shards))
    share = slice(copy * (HEADS // KV // m), (copy + 1) * (HEADS // KV // m))
    match which:
        case "attn_norm" | "mlp_norm" | "norm":
            return model[which, i]
        case "embed" | "head":
            return model[which, i].chunk(tp)[rank]
        case "q":
            return model["q", i][groups, share].reshape(-1, HIDDEN)
        case "k" | "v":
            return model[which, i][groups].reshape(-1, HIDDEN)
        case "key_value":
            return torch.stack([model["k", i][groups], model["v", i][groups]], 1).reshape(-1, HIDDEN)
        case "o":
            return model["o", i][:, groups, share].reshape(HIDDEN, -1)
        case "down":
            return model["down", i].chunk(tp, 1)[rank]
        case "gate_up":
            return torch.cat([model["gate", i].chunk(tp)[rank], model["up", i].chunk(tp)[rank]])
    raise ValueError(which)


def is_apart(name: str, grouping: str) -> bool:
    return grouping == "norms" and "norm" in name


def make(style: Style, tp: int, pp: int, m: int = 1, grouping: str = "norms", master: bool = True) -> dict[str, Any]:
    """Every file's value: models by their file names, states, uncut, by (tp, pp)."""
    models = {kind: whole_model(seed, dtype) for seed, (kind, dtype) in enumerate({"model": torch.float32, **KINDS}.items())}
    out: dict[str, Any] = {"model": {}, "state": {}}
    for t in range(tp):
        for p in range(pp):
            named = style.order(pp, p)
            out["model"][f"dp_rank_00_tp_rank_{t:02}_pp_rank_{p:02}.pt"] = {n: local(models["model"], w, i, tp, t, m).clone() for n, w, i in named}
            groups = [[x for x in named if is_apart(x[0], grouping) == apart] for apart in ((False, True) if grouping != "one" else (False,))]
            order = [x for group in groups for x in group]
            of = {kind: {j: local(models[kind], w, i, tp, t, m).clone() for j, (_, w, i) in enumerate(order)} for kind in KINDS}
            sizes = [len(group) for group in groups]
            state = {
                "state": {},
                "param_groups": [{"params": list(range(sum(sizes[:g]), sum(sizes[: g + 1]))), "weight_decay": 0.01 / (g + 1)} for g in range(len(sizes))],
                "base_state": {j: {"step": torch.tensor(9.0), "exp_avg": of["exp_avg"][j], "exp_avg_sq": of["exp_avg_sq"][j]} for j in range(len(order))},
                "shape_info": {j: list(of["exp_avg"][j].shape) for j in range(len(order))}, "mark": "kept",
            }  # fmt: skip
            out["state"][t, p] = state | ({"sharded_master_weights": of["sharded_master_weights"]} if master else {})
    return out


def write(folder: Path, made: dict[str, Any], dp: int | None, xser: bool = False) -> Path:
    save = save_xser if xser else torch.save
    for name in ("model", "optim"):
        (folder / name).mkdir(parents=True)
    for name, model in made["model"].items():
        save(model, folder / "model" / name)
    for key, state in made["state"].items():
        for rank, part in enumerate(split(state, dp)) if dp else [(None, state)]:
            save(part, folder / "optim" / name_of(rank, *key))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def check(out: Path, made: dict[str, Any], dp: int) -> None:
    for name, model in made["model"].items():
        found = load(out / "model" / name)
        assert found.keys() == model.keys()
        assert all(torch.equal(found[n], model[n]) for n in model), name
    expected = {name_of(rank, *key): part for key, state in made["state"].items() for rank, part in enumerate(split(state, dp))}
    assert [f.name for f in files(out / "optim")] == sorted(expected)
    for name, part in expected.items():
        assert same(load(out / "optim" / name), part), name
