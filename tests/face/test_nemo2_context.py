"""The context folder of a NeMo 2 checkpoint: the graph in io.json, the classes it calls, and the sizes of model ids."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptc.nemo.fiddle_json import Call, Symbol, serialise
from ckptc.nemo.nemo2_context import HubTokenizer, HuggingFaceFolder, SentencePieceFile, context_files, tokenizer_of
from ckptc.nemo.nemo2_models import MODELS, find_model
from ckptc.runtime.fault import Fault

CONFIGS = "nemo.collections.llm.gpt.model"
TOKENIZERS = "nemo.collections.common.tokenizers"

LLAMA: dict[str, Any] = {
    "num_layers": 3, "hidden_size": 64, "ffn_hidden_size": 112, "num_attention_heads": 8, "num_query_groups": 2,
    "kv_channels": None, "activation": "fast-swiglu", "normalization": "rmsnorm", "position_embedding_type": "rope",
    "bias": False, "share_embeddings_and_output_weights": False, "encoder_seq_length": 256, "layernorm_epsilon": 2e-6,
    "init_method_std": 0.013, "hidden_dropout": 0.0, "attention_dropout": 0.25, "make_vocab_size_divisible_by": 2,
    "rotary_base": 50000.0, "rotary_percentage": 0.75,
}  # fmt: skip
BECOMES = {
    "num_layers": 3, "hidden_size": 64, "ffn_hidden_size": 112, "num_attention_heads": 8, "num_query_groups": 2,
    "kv_channels": 8, "normalization": "RMSNorm", "layernorm_zero_centered_gamma": False, "add_bias_linear": False,
    "share_embeddings_and_output_weights": False, "seq_length": 256, "layernorm_epsilon": 2e-6, "init_method_std": 0.013,
    "hidden_dropout": 0.0, "attention_dropout": 0.25, "make_vocab_size_divisible_by": 2, "rotary_base": 50000,
    "rotary_percent": 0.75, "seq_len_interpolation_factor": None, "fp16": False, "bf16": True,
    "params_dtype": "torch.bfloat16",
}  # fmt: skip


def built(document: dict[str, Any]) -> Any:
    """What a document of fiddle's stands for: a call as (name, arguments), a symbol as its name, plain values as they are.

    On the way: every reference finds its object, each is referred to as often as is said, and what is reached from the root
    is reached by the path that it says.
    """
    seen: Counter[str] = Counter()

    def value(node: Any, path: str | None) -> Any:
        if not isinstance(node, dict):
            return node
        if node["type"] == "ref":
            seen[node["key"]] += 1
            return value(document["objects"][node["key"]], path)
        assert path is None or node["paths"] == [path]
        if node["type"] == "leaf":
            return node["value"]
        if node["type"] == "pyref":
            return f"{node['module']}.{node['name']}"
        kind = value(node["type"], None)
        if kind == "fiddle._src.config.Config":
            made_of = value(node["metadata"], None)
            assert made_of["argument_tags"] == made_of["argument_history"] == {}
            names = made_of["argument_names"]
            assert [name for name, _ in node["items"]] == [f"Attr(name={name!r})" for name in names]
            return made_of["fn_or_cls"], {name: value(each, f"{path}.{name}") for name, (_, each) in zip(names, node["items"], strict=True)}
        if kind == "fiddle._src.config.BuildableTraverserMetadata":
            return {name[len("Attr(name='") : -2]: value(each, None) for name, each in node["items"]}
        if kind == "builtins.dict":
            assert node["items"] == [] == value(node["metadata"], None)
            return {}
        assert kind in ("builtins.list", "builtins.tuple")
        return [value(each, path and f"{path}[{at}]") for at, (_, each) in enumerate(node["items"])]

    result = value(document["root"], "<root>")
    assert document["version"] == "0.0.1"
    assert seen == document["refcounts"]
    assert set(seen) == set(document["objects"])
    return result


def read(files: tuple[tuple[str, bytes], ...]) -> tuple[Any, Any]:
    """io.json as the call that it stands for, and model.yaml."""
    assert [name for name, _ in files] == ["io.json", "model.yaml"]
    (_, graph), (_, model) = files
    return built(json.loads(graph)), yaml.safe_load(model)


def test_a_document_is_as_fiddle_itself_writes_it() -> None:
    space = Symbol("argparse", "Namespace")
    config = {"layers": 3, "eps": 1e-05, "tied": False, "window": [4096, 0], "none": [], "made_by": Symbol("json", "dumps")}
    error = Call(Symbol("argparse", "ArgumentError"), {"argument": None, "message": 'é "x"'})
    model = Call(space, {"config": Call(space, config), "error": error})
    root = Call(space, {"model": model, "trainer": None, "extra": {}, "bare": Call(space, {})})
    assert serialise(root) == json.loads(Path(__file__).with_name("written_by_fiddle.json").read_text())


@pytest.mark.parametrize("value", [(1, 2), {"a": 1}, {1}, b"x", object()])
def test_a_value_of_another_kind_is_not_written(value: object) -> None:
    with pytest.raises(TypeError, match=r"<root>\.x"):
        serialise(Call(Symbol("argparse", "Namespace"), {"x": value}))


def test_a_model_of_a_family_with_its_own_sizes() -> None:
    (context, arguments), model = read(context_files("llama", LLAMA, SentencePieceFile("t.model", legacy=True)))
    assert context == "nemo.lightning.io.pl.TrainerContext"
    assert (arguments["trainer"], arguments["extra"]) == (None, {})
    name, made_of = arguments["model"]
    assert name == model["_target_"] == f"{CONFIGS}.llama.LlamaModel"
    assert made_of["config"] == (f"{CONFIGS}.llama.LlamaConfig", BECOMES)
    tokenizer = {"model_path": "t.model", "legacy": True}
    assert made_of["tokenizer"] == (f"{TOKENIZERS}.sentencepiece_tokenizer.SentencePieceTokenizer", tokenizer)
    assert model["tokenizer"] == {"_target_": f"{TOKENIZERS}.sentencepiece_tokenizer.SentencePieceTokenizer", **tokenizer}
    assert model["config"] == {
        **BECOMES, "_target_": f"{CONFIGS}.llama.LlamaConfig", "params_dtype": {"_target_": "torch.bfloat16", "_call_": False},
        "activation_func": {"_target_": "torch.nn.functional.silu", "_call_": False}, "gated_linear_unit": True,
        "position_embedding_type": "rope",
    }  # fmt: skip


def test_what_nemo_1_leaves_open_is_as_nemo_1_does_it() -> None:
    open_ones = {key: LLAMA[key] for key in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "activation", "position_embedding_type")}
    arguments = read(context_files("llama", open_ones, None))[0][1]["model"][1]
    assert "tokenizer" not in arguments
    config = arguments["config"][1]
    assert (config["num_query_groups"], config["kv_channels"], config["rotary_base"], config["rotary_percent"]) == (8, 8, 10000, 1.0)
    assert (config["normalization"], config["add_bias_linear"], config["share_embeddings_and_output_weights"]) == ("LayerNorm", True, True)
    assert (config["seq_length"], config["make_vocab_size_divisible_by"], config["hidden_dropout"]) == (512, 128, 0.1)


def test_other_families_and_settings() -> None:
    mistral = read(context_files("mistral", {**LLAMA, "window_size": [31, 0]}, None))[0][1]["model"]
    assert mistral[1]["config"] == (f"{CONFIGS}.mistral.MistralConfig7B", {**BECOMES, "window_size": [31, 0]})
    assert mistral[0] == f"{CONFIGS}.mistral.MistralModel"
    # The class of NeMo 2 has a window, so a model without one must say so.
    assert read(context_files("mistral", LLAMA, None))[0][1]["model"][1]["config"][1]["window_size"] is None
    mixtral = read(context_files("mixtral", {**LLAMA, "num_moe_experts": 5, "moe_router_topk": 3}, None))[0][1]["model"]
    assert mixtral[0] == f"{CONFIGS}.mixtral.MixtralModel"
    assert mixtral[1]["config"] == (f"{CONFIGS}.mixtral.MixtralConfig", {**BECOMES, "num_moe_experts": 5, "moe_router_topk": 3})
    said = {**LLAMA, "activation": "squared-relu", "normalization": "layernorm1p", "kv_channels": 24}
    (_, arguments), model = read(context_files("nemotron", said, None))
    name, config = arguments["model"][1]["config"]
    assert (arguments["model"][0], name) == (f"{CONFIGS}.nemotron.NemotronModel", f"{CONFIGS}.nemotron.NemotronConfig")
    assert config == {**BECOMES, "normalization": "LayerNorm", "layernorm_zero_centered_gamma": True, "kv_channels": 24}
    assert model["config"]["activation_func"]["_target_"] == "nemo.collections.llm.fn.activation.squared_relu"
    assert model["config"]["gated_linear_unit"] is False


def test_scaled_rotary_frequencies_take_the_class_that_scales_them() -> None:
    scaled = {**LLAMA, "scale_positional_embedding": True}
    assert read(context_files("llama", scaled, None))[0][1]["model"][1]["config"] == (
        f"{CONFIGS}.llama.Llama31Config", {**BECOMES, "scale_factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "old_context_len": 8192},
    )  # fmt: skip
    other = {**scaled, "scale_factor": 32, "old_context_len": 4096}
    config = read(context_files("llama", other, None))[0][1]["model"][1]["config"][1]
    assert (config["scale_factor"], config["low_freq_factor"], config["old_context_len"]) == (32, 1, 4096)
    sizes = MODELS["meta-llama/Meta-Llama-3-8B"].sizes
    with pytest.raises(Fault, match=r"Llama 3\.1 does, which meta-llama/Meta-Llama-3-8B does not"):
        context_files("meta-llama/Meta-Llama-3-8B", {**scaled, **sizes}, None)


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ({"fp8": False, "fp8_hybrid": True, "fp8_margin": 0}, {}),
        ({"fp8": True, "fp8_hybrid": True, "fp8_margin": 1, "fp8_amax_compute_algo": "max"}, {"fp8": "hybrid", "fp8_margin": 1, "fp8_amax_compute_algo": "max"}),
        ({"fp8": True, "fp8_e4m3": True, "fp8_interval": 2, "fp8_amax_history_len": 16}, {"fp8": "e4m3", "fp8_interval": 2, "fp8_amax_history_len": 16}),
        ({"qkv_bias": True, "seq_len_interpolation_factor": 4.0}, {"add_qkv_bias": True, "seq_len_interpolation_factor": 4.0}),
    ],
)  # fmt: skip
def test_settings_that_few_models_have(said: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert read(context_files("llama", {**LLAMA, **said}, None))[0][1]["model"][1]["config"][1] == {**BECOMES, **becomes}


@pytest.mark.parametrize(("dtype", "fp16", "bf16"), [("float32", False, False), ("float16", True, False), ("bfloat16", False, True)])
def test_the_dtype_of_the_weights(dtype: str, fp16: bool, bf16: bool) -> None:
    config = read(context_files("llama", LLAMA, None, dtype))[0][1]["model"][1]["config"][1]
    assert config == {**BECOMES, "fp16": fp16, "bf16": bf16, "params_dtype": f"torch.{dtype}"}


def test_tokenizers_of_huggingface() -> None:
    name = f"{TOKENIZERS}.huggingface.auto_tokenizer.AutoTokenizer"
    (_, arguments), model = read(context_files("llama", LLAMA, HuggingFaceFolder("tokenizer")))
    assert arguments["model"][1]["tokenizer"] == (name, {"pretrained_model_name": "tokenizer"})
    assert model["tokenizer"] == {"_target_": name, "pretrained_model_name": "tokenizer"}
    (_, arguments), model = read(context_files("llama", LLAMA, HubTokenizer("org/some-model")))
    text = ("nemo.lightning.io.artifact.file.DirOrStringArtifact", {"attr": "org/some-model", "skip": True})
    assert arguments["model"][1]["tokenizer"] == (name, {"pretrained_model_name": text})
    assert model["tokenizer"] == {"_target_": name, "pretrained_model_name": "org/some-model"}


def test_the_tokenizer_that_a_config_names() -> None:
    def of(**said: object) -> object:
        return tokenizer_of({"tokenizer": said})

    assert of(library="sentencepiece", model="nemo:0123_tok.model", sentencepiece_legacy=True) == SentencePieceFile("0123_tok.model", True)
    assert of(library="sentencepiece", model="/a/b/tok.model", type=None) == SentencePieceFile("tok.model", False)
    assert of(library="megatron", type="GPTSentencePieceTokenizer", model="nemo:t.model") == SentencePieceFile("t.model")
    assert of(library="huggingface", type="meta-llama/Meta-Llama-3-8B", model=None) == HubTokenizer("meta-llama/Meta-Llama-3-8B")
    assert of(library="sentencepiece", type=None, model=None) is None
    assert tokenizer_of({}) is None
    with pytest.raises(Fault, match="library megatron and type GPT2BPETokenizer"):
        of(library="megatron", type="GPT2BPETokenizer")


# ---- model ids ----

# Embedding parameters aside, models are known by how many parameters a layer's matrices have, published or counted by hand.
MILLIONS = {
    "meta-llama/Llama-2-7b-hf": 202, "meta-llama/Llama-2-13b-hf": 317, "meta-llama/Llama-2-70b-hf": 856,
    "meta-llama/Meta-Llama-3-8B": 218, "meta-llama/Meta-Llama-3-70B": 856, "mistralai/Mixtral-8x7B-v0.1": 1451,
    "mistralai/Mixtral-8x22B-v0.1": 2504, "mistralai/Mistral-7B-v0.1": 218, "nvidia/nemotron-3-8b-base-4k": 201,
    "nemotron4-22b": 453, "nemotron4-15b": 390, "nemotron4-340b": 3454,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_an_id_has_the_sizes_of_its_model(name: str) -> None:
    sizes, gated = MODELS[name].sizes, MODELS[name].family.gated
    hidden, dim = sizes["hidden_size"], sizes["kv_channels"]
    attention = 2 * hidden * dim * (sizes["num_attention_heads"] + sizes["num_query_groups"])
    mlp = (3 if gated else 2) * hidden * sizes["ffn_hidden_size"] * (sizes["num_moe_experts"] or 1)
    assert round((attention + mlp) / 1e6) == MILLIONS[name]


@pytest.mark.parametrize("name", MODELS)
def test_an_id_is_refused_for_weights_of_other_sizes(name: str) -> None:
    model = MODELS[name]
    said = {**LLAMA, **model.sizes, "activation": model.family.activations[-1]}
    target = read(context_files(name, said, None))[0][1]["model"][1]["config"][0]
    assert target == model.config.dotted
    assert target.startswith(f"{CONFIGS}.{model.family.name}.")
    for key in model.sizes:
        if key == "num_moe_experts" and not model.sizes[key]:
            continue
        with pytest.raises(Fault) as refused:
            context_files(name, {**said, key: said[key] + 1}, None)
        assert f"the model has {key} {said[key] + 1:,}, and {name} has {said[key]:,}" == refused.value.title
        assert f"`{model.family.name}`" in refused.value.help
        context_files(model.family.name, {**said, key: said[key] + 1}, None)


@pytest.mark.parametrize(
    ("name", "says", "helps"),
    [
        ("meta-llama/Llama-2-7b", "`meta-llama/Llama-2-7b` is no model id", "did you mean `meta-llama/Llama-2-7b-hf`?"),
        ("lama", "`lama` is no model id", "did you mean `llama`?"),
        ("qwen", "`qwen` is no model id", "give an id, or the family"),
        ("nemotronh8b", "`nemotronh8b` is a hybrid of attention and state space layers", ""),
    ],
)
def test_an_id_that_is_not_known(name: str, says: str, helps: str) -> None:
    with pytest.raises(Fault) as refused:
        find_model(name)
    assert says in refused.value.title
    assert helps in refused.value.help


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("nemotron", {}, "the model's activation is fast-swiglu, and nemotron models have squared-relu"),
        ("llama", {"activation": "gelu"}, "the model's activation is gelu, and llama models have fast-swiglu"),
        ("llama", {"position_embedding_type": "learned_absolute"}, "position_embedding_type is learned_absolute"),
        ("llama", {"num_moe_experts": 8}, "the model has 8 experts, which is no llama model"),
        ("mixtral", {}, "the model has 0 experts, which is no mixtral model"),
        ("llama", {"num_layers": None}, "has no num_layers that is a number above 0"),
        ("llama", {"num_attention_heads": "8"}, "has no num_attention_heads that is a number above 0"),
        ("llama", {"normalization": "batchnorm"}, "normalization is `batchnorm`"),
        ("llama", {"fp8": True}, "fp8 and neither fp8_e4m3 nor fp8_hybrid"),
    ],
)
def test_a_model_that_is_not_of_the_family(name: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(Fault) as refused:
        context_files(name, {**LLAMA, **change}, None)
    assert says in refused.value.title


def test_a_dtype_that_weights_cannot_have() -> None:
    with pytest.raises(Fault, match="not int8"):
        context_files("llama", LLAMA, None, "int8")
