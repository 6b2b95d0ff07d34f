"""Makes and runs the models of the table: by transformers' own classes, and by those of Megatron-core, on the CPU in float32."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptc.compiler.settle.write_config import config_text
from ckptc.identify.choose import choose, found_in
from ckptc.identify.source import opened, read_source
from tests import real_megatron

from .models import PLACES, VOCAB, Model

TOKENS = torch.randint(VOCAB, (2, 17), generator=torch.Generator().manual_seed(3))


def transformers() -> Any:
    """The module; skips the test, and says why, where it cannot be imported."""
    try:
        found = importlib.import_module("transformers")
    except ImportError as error:
        pytest.skip(f"transformers cannot be imported ({error}); install it with: pip install 'ckptc[test-hf]'")
    found.logging.set_verbosity_error()
    found.logging.disable_progress_bar()
    return found


def make(model: Model, folder: Path) -> Any:
    """A model of transformers, saved in `folder`: every weight and buffer that it saves is random, in steps that adding 1 keeps exact."""
    found = transformers()
    config = getattr(found, f"{model.kind}Config")(**model.config())
    made = found.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            tensor.copy_((torch.randn(tensor.shape, generator=generator) * 300).round() / 1024)
    made.save_pretrained(folder)
    if model.published:
        (folder / "config.json").write_text(json.dumps({"architectures": [type(made).__name__]} | model.config()))
    call(folder, model.called or config.model_type)
    return made


def call(folder: Path, model_type: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": model_type}))


def written_config(folder: Path) -> str:
    """The config.json that ckptc writes for the model in `folder`, of what it reads there."""
    checkpoint = opened(folder, None)
    found = found_in(checkpoint)
    chosen = choose(checkpoint, found, "hf", from_=None, mapping=None, family=None, config=None)
    source = read_source(chosen, checkpoint, found, to="hf", settings={}, from_settings=None, from_stages=None, accepted=frozenset())
    block = chosen.family.layout("hf").config
    assert block is not None
    return config_text(block, source.side, None)


def load(folder: Path, model: Model) -> Any:
    """The model in `folder`, as transformers finds it there; a tensor too many or too few is an error. Token ids are no weights."""
    if model.called:
        assert json.loads((folder / "config.json").read_text())["model_type"] == model.called
        call(folder, getattr(transformers(), f"{model.kind}Config").model_type)
    made, found = transformers().AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", output_loading_info=True, pad_token_id=None)
    assert not any(found.values()), found
    for tensor in (*made.parameters(), *made.buffers()):
        tensor.data = tensor.clone()  # sums of floats depend on how a file that is mapped is aligned
    return made.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(TOKENS).logits
    return result


def megatron_core(core: dict[str, Any], config: Any) -> Any:
    """Megatron-core's GPTModel of its local layers, for a config of transformers and what the table says."""
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

    heads, eps = config.num_attention_heads, ("rms_norm_eps", "layer_norm_eps", "norm_epsilon", "layer_norm_epsilon", "norm_eps")
    rotary = getattr(config, "rope_parameters", None) or {}
    latent = "kv_lora_rank" in core
    own = {
        "num_layers": config.num_hidden_layers, "hidden_size": config.hidden_size, "num_attention_heads": heads,
        "num_query_groups": getattr(config, "num_key_value_heads", heads), "kv_channels": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "ffn_hidden_size": getattr(config, "intermediate_size", None) or config.n_inner, "layernorm_epsilon": next(getattr(config, x) for x in eps if hasattr(config, x)),
        "gated_linear_unit": True, "activation_func": torch.nn.functional.silu, "normalization": "RMSNorm", "add_bias_linear": False,
        "moe_router_load_balancing_type": "none", "moe_token_dispatcher_type": "allgather", "hidden_dropout": 0.0, "attention_dropout": 0.0,
        "use_cpu_initialization": True, "params_dtype": torch.float32, "bias_activation_fusion": False, "masked_softmax_fusion": False,
        "persist_layer_norm": False, "gradient_accumulation_fusion": False, "apply_rope_fusion": False, "bias_dropout_fusion": False,
    } | core  # fmt: skip
    if latent:
        own["rotary_base"] = rotary["rope_theta"]
    made = (MLATransformerConfig if latent else TransformerConfig)(**own)
    if (yarn := rotary.get("rope_type") == "yarn"):
        scales = {"beta_fast": rotary["beta_fast"], "beta_slow": rotary["beta_slow"], "mscale": None, "mscale_all_dim": None, "correction_range_round_to_int": rotary["truncate"],
                  "rotary_scaling_factor": rotary["factor"], "original_max_position_embeddings": rotary["original_max_position_embeddings"]}  # fmt: skip
        for name, value in scales.items():
            setattr(made, f"yarn_{name}", value)
    spec = get_gpt_decoder_block_spec(made, use_transformer_engine=False, normalization=own["normalization"])
    for layer in spec.layer_specs if latent else ():
        layer.submodules.self_attention.submodules.core_attention = real_megatron.Attention
    of_places = {
        "position_embedding_type": "yarn" if yarn else "rope" if rotary else "learned_absolute", "rotary_base": rotary.get("rope_theta", 10000),
        "rotary_percent": rotary.get("partial_rotary_factor", 1.0),
    }  # fmt: skip
    return GPTModel(made, spec, VOCAB, PLACES, share_embeddings_and_output_weights=config.tie_word_embeddings, **of_places).eval()


@torch.no_grad()
def core_logits(network: Any) -> torch.Tensor:
    places = TOKENS.shape[1]
    mask = torch.triu(torch.ones(places, places, dtype=torch.bool), 1)[None, None]
    result: torch.Tensor = network(TOKENS, torch.arange(places).expand_as(TOKENS), mask)
    return result
