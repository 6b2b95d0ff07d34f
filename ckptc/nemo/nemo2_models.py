"""The model ids of NeMo 2's import of NeMo 1 checkpoints: id in, its classes in NeMo 2 and the sizes that these have out.

A family's name, such as `llama`, stands for the same model in sizes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..dsl.nearest import nearest
from ..runtime.fault import Fault
from .fiddle_json import Symbol

MODULE = "nemo.collections.llm.gpt.model"
SILU = Symbol("torch.nn.functional", "silu")
SQUARED_RELU = Symbol("nemo.collections.llm.fn.activation", "squared_relu")

# How the script's ids for hybrids of attention and state space layers begin.
HYBRID = "nemotronh"


@dataclass(frozen=True)
class Family:
    """What all models of a family have in common. `activations` are NeMo 1's names of its activation."""

    name: str
    model: Symbol
    config: Symbol
    activation: Symbol
    gated: bool
    activations: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """What an id means. `sizes` are by the names that NeMo's configs use; a family's own name has none.

    `settings` are the others that its class in NeMo 2 fixes, in NeMo 1's words.
    """

    name: str
    family: Family
    config: Symbol
    sizes: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nemo_config(self) -> dict[str, Any]:
        """What a NeMo 1 config of this model says, but for the rows of its vocabulary; empty for a family's own name."""
        if not self.sizes:
            return {}
        return {**{key: n for key, n in self.sizes.items() if n}, **self.settings, "activation": self.family.activations[0]}


def _family(name: str, model: str, config: str, activation: Symbol, gated: bool, *activations: str) -> Family:
    module = f"{MODULE}.{name}"
    return Family(name, Symbol(module, model), Symbol(module, config), activation, gated, activations)


_GATED = ("fast-swiglu", "swiglu")
FAMILIES = {
    each.name: each
    for each in (
        _family("llama", "LlamaModel", "LlamaConfig", SILU, True, *_GATED),
        _family("mistral", "MistralModel", "MistralConfig7B", SILU, True, *_GATED),
        _family("mixtral", "MixtralModel", "MixtralConfig", SILU, True, *_GATED),
        _family("nemotron", "NemotronModel", "NemotronConfig", SQUARED_RELU, False, "squared-relu"),
    )
}


# What the config classes of a family say alike, and where others than megatron.core's and GPTConfig's defaults; rotary_base
# is 10000 there, rotary_percent 1.0, layernorm_epsilon 1e-5, init_method_std 0.02 and make_vocab_size_divisible_by 128.
# Source: nemo/collections/llm/gpt/model/{llama,mistral,mixtral,nemotron}.py.
_COMMON = {
    "normalization": "rmsnorm", "position_embedding_type": "rope", "rotary_base": 10000, "rotary_percentage": 1.0, "layernorm_epsilon": 1e-5,
    "init_method_std": 0.02, "bias": False, "hidden_dropout": 0.0, "attention_dropout": 0.0, "share_embeddings_and_output_weights": False,
    "make_vocab_size_divisible_by": 128,
}  # fmt: skip
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"window_size": [4096, 0]},
    # The router takes 2 experts, as the model has it; a class of an early release says 1 for 8x7B.
    "mixtral": {"rotary_base": 1000000, "moe_router_topk": 2, "moe_router_pre_softmax": True},
    "nemotron": {"normalization": "layernorm1p", "rotary_percentage": 0.5},
}


def _model(
    name: str, family: str, config: str, layers: int, hidden: int, ffn: int, heads: int, groups: int, experts: int = 0, *, places: int = 4096, **more: Any
) -> Model:
    sizes = {
        "num_layers": layers,
        "hidden_size": hidden,
        "ffn_hidden_size": ffn,
        "num_attention_heads": heads,
        "num_query_groups": groups,
        "kv_channels": hidden // heads,
        "num_moe_experts": experts,
    }
    settings = {**_COMMON, **_OF_FAMILY[family], "encoder_seq_length": places, "max_position_embeddings": places, **more}
    return Model(name, FAMILIES[family], Symbol(f"{MODULE}.{family}", config), sizes, settings)


# Llama 3's classes.
_LLAMA_3: dict[str, Any] = {"places": 8192, "rotary_base": 500000}

# NeMo 2.0.0 calls the class of 22B otherwise than later releases: with the family's class any release loads it.
MODELS = {
    each.name: each
    for each in (
        _model("meta-llama/Llama-2-7b-hf", "llama", "Llama2Config7B", 32, 4096, 11008, 32, 32),
        _model("meta-llama/Llama-2-13b-hf", "llama", "Llama2Config13B", 40, 5120, 13824, 40, 40),
        _model("meta-llama/Llama-2-70b-hf", "llama", "Llama2Config70B", 80, 8192, 28672, 64, 8),
        _model("meta-llama/Meta-Llama-3-8B", "llama", "Llama3Config8B", 32, 4096, 14336, 32, 8, **_LLAMA_3, init_method_std=0.01),
        _model("meta-llama/Meta-Llama-3-70B", "llama", "Llama3Config70B", 80, 8192, 28672, 64, 8, **_LLAMA_3, init_method_std=0.008944),
        _model("mistralai/Mixtral-8x7B-v0.1", "mixtral", "MixtralConfig8x7B", 32, 4096, 14336, 32, 8, 8),
        _model("mistralai/Mixtral-8x22B-v0.1", "mixtral", "MixtralConfig8x22B", 56, 6144, 16384, 48, 8, 8),
        _model("mistralai/Mistral-7B-v0.1", "mistral", "MistralConfig7B", 32, 4096, 14336, 32, 8, places=32768),
        _model("nvidia/nemotron-3-8b-base-4k", "nemotron", "Nemotron3Config8B", 32, 4096, 16384, 32, 32, init_method_std=0.01),
        _model("nemotron4-22b", "nemotron", "NemotronConfig", 40, 6144, 24576, 48, 48, init_method_std=0.008),
        _model("nemotron4-15b", "nemotron", "Nemotron4Config15B", 32, 6144, 24576, 48, 8, init_method_std=0.0134),
        _model("nemotron4-340b", "nemotron", "Nemotron4Config340B", 96, 18432, 73728, 96, 8, init_method_std=0.0063),
    )
}


def find_model(name: str) -> Model:
    """The model of an id, or of a family's name; a fault for others."""
    if name in MODELS:
        return MODELS[name]
    if name in FAMILIES:
        return Model(name, FAMILIES[name], FAMILIES[name].config)
    if name.startswith(HYBRID):
        raise Fault("not-yet", f"`{name}` is a hybrid of attention and state space layers, which is not converted yet")
    close = nearest(name, (*MODELS, *FAMILIES))
    raise Fault(
        "no-model-id", f"`{name}` is no model id of NeMo 2's import",
        notes=(f"ids: {', '.join(MODELS)}", f"families, for other sizes: {', '.join(FAMILIES)}"),
        help=f"did you mean `{close}`?" if close else "give an id, or the family for a model of other sizes",
    )  # fmt: skip


def check_sizes(model: Model, sizes: Mapping[str, int]) -> None:
    """A fault that names the first size which is not as the id says; `sizes` may leave some out."""
    for key, wanted in model.sizes.items():
        found = sizes.get(key, wanted)
        if found != wanted:
            raise Fault(
                "other-sizes", f"the model has {key} {found:,}, and {model.name} has {wanted:,}",
                help=f"give the id of this model, or `{model.family.name}` for a {model.family.name} model of its own sizes",
            )  # fmt: skip
