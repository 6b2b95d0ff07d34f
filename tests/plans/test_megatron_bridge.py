"""Sizes from Megatron-Bridge's run_config.yaml, and what Megatron-LM's arguments leave for it to fill in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import ckptc
from ckptc.dsl.diagnostic import MappingError
from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.runs.run_arguments import filled_in
from ckptc.runtime.formats.runs.run_config import arguments_of_run
from tests.held import same

from .llama import Llama, read, write

TINY = Llama(vocab=70, layers=2, hidden=48, ffn=84, heads=6, groups=3, dim=10)
PROVIDER = "megatron.bridge.models.gpt_provider.GPTModelProvider"


def function(name: str) -> dict[str, Any]:
    """As _function_representer of megatron/training/config/yaml_utils.py writes functions and dtypes."""
    return {"_target_": name, "_call_": False}


# The fields of GPTModelProvider (megatron/bridge/models/gpt_provider.py) and of TransformerConfig.
MODEL: dict[str, Any] = {
    "_target_": PROVIDER, "num_layers": 2, "hidden_size": 48, "ffn_hidden_size": 84, "num_attention_heads": 6, "num_query_groups": 3, "kv_channels": 10,
    "activation_func": function("torch.nn.functional.silu"), "gated_linear_unit": True, "normalization": "RMSNorm", "layernorm_epsilon": 1e-6,
    "add_bias_linear": False, "position_embedding_type": "rope", "rotary_base": 500000, "rotary_percent": 1.0, "seq_length": 99, "vocab_size": 70,
    "should_pad_vocab": True, "make_vocab_size_divisible_by": 128, "share_embeddings_and_output_weights": False, "bf16": True,
    "params_dtype": function("torch.bfloat16"), "num_moe_experts": None, "layernorm_zero_centered_gamma": False,
}  # fmt: skip
NESTED = ("vocab_size", "seq_length", "share_embeddings_and_output_weights", "position_embedding_type", "rotary_base", "rotary_percent", "make_vocab_size_divisible_by")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as training with Megatron-Bridge leaves it, its vocabulary padded."""
    ckptc.convert(write(tmp_path / "hf", TINY), tmp_path / "made", to="megatron", settings={"padded_vocab": 128})
    (tmp_path / "run").mkdir()
    (tmp_path / "made/release").rename(tmp_path / "run/iter_0000010")
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("10")
    return tmp_path / "run"


def say(folder: Path, model: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run_config.yaml").write_text(yaml.safe_dump({"model": model, "train": {"train_iters": 10}}))
    return folder / "run_config.yaml"


def test_the_sizes_of_a_run_with_megatron_bridge_are_read_from_its_own_config(run: Path, tmp_path: Path) -> None:
    say(run / "iter_0000010", MODEL)
    ckptc.convert(run, tmp_path / "out", to="hf", family="llama")
    assert same(read(tmp_path / "out"), TINY.tensors())
    assert ckptc.inspect(run)["axes"]["group"] == 3


def test_it_is_read_where_it_is_named_with_config(run: Path, tmp_path: Path) -> None:
    ckptc.convert(run, tmp_path / "out", to="hf", family="llama", config=say(tmp_path / "elsewhere", MODEL))
    assert same(read(tmp_path / "out"), TINY.tensors())


def test_the_form_with_a_builder_has_the_fields_of_the_transformer_within(run: Path, tmp_path: Path) -> None:
    """BridgeGPTModelConfig.as_dict (megatron/bridge/models/gpt/model_config.py): activation_func is a name there."""
    inner = {k: v for k, v in MODEL.items() if k not in NESTED} | {"activation_func": "silu"}
    model = {k: MODEL[k] for k in NESTED} | {"_target_": "m.BridgeGPTModelConfig", "_builder_": "m.GPTModelBuilder", "transformer": inner}
    say(run / "iter_0000010", model)
    ckptc.convert(run, tmp_path / "out", to="hf", family="llama")
    assert same(read(tmp_path / "out"), TINY.tensors())


@pytest.mark.parametrize(("change", "found"), [
    # Names of megatron/training/arguments.py; what is null as TransformerConfig.__post_init__ fills it in.
    ({"num_query_groups": None}, {"num_query_groups": None, "group_query_attention": None}),
    ({}, {"num_query_groups": 3, "group_query_attention": True, "swiglu": True, "padded_vocab_size": 70, "max_position_embeddings": 99}),
    ({"ffn_hidden_size": None}, {"ffn_hidden_size": 192, "moe_ffn_hidden_size": None}),
    ({"num_moe_experts": 5, "moe_ffn_hidden_size": 21}, {"num_experts": 5, "moe_ffn_hidden_size": 21}),
    ({"num_moe_experts": 5}, {"num_experts": 5, "moe_ffn_hidden_size": 84}),
    ({"share_embeddings_and_output_weights": True}, {"untie_embeddings_and_output_weights": False}),
    ({"activation_func": function("torch._C._nn.gelu"), "gated_linear_unit": False}, {"swiglu": False, "squared_relu": False}),
    ({"activation_func": function("megatron.core.activations.squared_relu"), "gated_linear_unit": False}, {"swiglu": False, "squared_relu": True}),
    ({"rope_scaling": True, "seq_len_interpolation_factor": 4.0}, {"use_rope_scaling": True, "rotary_seq_len_interpolation_factor": 4.0}),
    ({}, {"params_dtype": "bfloat16", "_target_": PROVIDER, "apply_layernorm_1p": False}),
])  # fmt: skip
def test_fields_get_the_names_that_arguments_have(change: dict[str, Any], found: dict[str, Any]) -> None:
    arguments = arguments_of_run({"model": MODEL | change}, "run_config.yaml")
    assert {key: arguments.get(key) for key in found} == found


def test_an_activation_that_no_argument_says_is_refused_by_its_name(run: Path, tmp_path: Path) -> None:
    tanh = {"_target_": "torch._C._nn.gelu", "_partial_": True, "_args_": [], "approximate": "tanh"}
    for activation, gated, name in ((function("torch._C._nn.gelu"), True, "gelu"), (function("m.quick_gelu"), False, "quick_gelu"), (tanh, False, "gelu")):
        config = say(tmp_path / "elsewhere", MODEL | {"activation_func": activation, "gated_linear_unit": gated})
        with pytest.raises(Fault, match=name) as error:
            ckptc.plan(run, to="hf", family="llama", config=config)
        assert error.value.code == "unknown-activation"


@pytest.mark.parametrize("content", ["model: 3\n", "train: {}\n", "model: {num_layers: 2}\n", "[]\n", "model: [\n"])
def test_a_config_without_a_model_is_refused(run: Path, tmp_path: Path, content: str) -> None:
    (run / "iter_0000010/run_config.yaml").write_text(content)
    with pytest.raises((Fault, MappingError), match="bad-config"):
        ckptc.plan(run, to="hf", family="llama")


@pytest.mark.parametrize(("args", "found"), [
    # validate_args of megatron/training/arguments.py.
    ({"hidden_size": 48}, {"ffn_hidden_size": 192, "moe_ffn_hidden_size": None}), ({"hidden_size": 48, "num_experts": 4}, {"moe_ffn_hidden_size": 192}),
    ({"hidden_size": 1000, "swiglu": True}, {"ffn_hidden_size": 2624}),
    ({"hidden_size": 48, "ffn_hidden_size": 84, "swiglu": True, "num_experts": 4}, {"ffn_hidden_size": 84, "moe_ffn_hidden_size": 84}),
    ({"hidden_size": 48, "ffn_hidden_size": 84, "moe_ffn_hidden_size": 21, "num_experts": 4}, {"moe_ffn_hidden_size": 21}),
    ({"num_layers": None, "encoder_num_layers": 7}, {"num_layers": 7}),
    ({"use_rotary_position_embeddings": True, "position_embedding_type": "learned_absolute"}, {"position_embedding_type": "rope"}),
    # load_args_from_checkpoint of megatron/training/checkpointing.py.
    ({"disable_bias_linear": True}, {"add_bias_linear": False}),
    ({"disable_bias_linear": False}, {"add_bias_linear": True}),
])  # fmt: skip
def test_arguments_that_a_run_leaves_open_are_as_megatron_fills_them_in(args: dict[str, Any], found: dict[str, Any]) -> None:
    out = filled_in(args)
    assert {key: out.get(key) for key in found} == found
