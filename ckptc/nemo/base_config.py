"""A model_config.yaml that was made for a model and one to base it on in; what of the base it keeps, out.

What the model or the written files say (sizes, degrees, precision, the tokenizer) is never taken from the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..configs.yaml_text import dump, put, value_at

# What follows from the model and from the files that are written, whatever a base says.
FOLLOWS = (
    "mcore_gpt", "transformer_engine", "tensor_model_parallel_size", "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size", "encoder_seq_length", "max_position_embeddings", "num_layers", "hidden_size",
    "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "init_method_std", "layernorm_epsilon",
    "normalization", "activation", "bias", "qkv_bias", "rotary_base", "rotary_percentage", "position_embedding_type",
    "seq_len_interpolation_factor", "scale_positional_embedding", "window_size", "share_embeddings_and_output_weights",
    "make_vocab_size_divisible_by", "override_vocab_size", "precision", "tokenizer",
)  # fmt: skip

TOKENIZER = ("library", "type", "model")

# The same below a top key, of models that have it.
FOLLOWS_WITHIN = (
    ("mm_cfg", "mm_mlp_adapter_type"), ("mm_cfg", "model_type"), ("mm_cfg", "llm", "model_type"), ("mm_cfg", "vision_encoder", "from_pretrained"),
    ("mm_cfg", "vision_encoder", "hidden_size"), ("data", "image_token_len"), ("data", "conv_template"),
)  # fmt: skip


def onto_base(text: str, base: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The config's text with the base's settings, and the keys of the base that are not taken, as the model says otherwise."""
    import yaml

    own = dict(yaml.safe_load(text))
    merged = {**own, **{key: value for key, value in base.items() if key not in FOLLOWS}}
    for keys in FOLLOWS_WITHIN:
        if value_at(own, keys) is not None:
            merged = put(merged, keys, value_at(own, keys))
    theirs, mine = base.get("tokenizer"), own.get("tokenizer")
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        merged["tokenizer"] = {**mine, **theirs, **{key: mine.get(key) for key in TOKENIZER}}
    follow = [(key,) for key in FOLLOWS if key not in ("tokenizer", "precision")] + [*FOLLOWS_WITHIN, *(("tokenizer", key) for key in TOKENIZER)]
    return dump(merged), [".".join(keys) for keys in follow if value_at(base, keys) not in (None, value_at(merged, keys))]
