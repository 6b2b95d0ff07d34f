"""What a setting says comes out of a conversion: in the target's config, or in the tensors where the two frameworks differ."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from ckptc.dsl.diagnostic import MappingError
from ckptc.library import families_page, settings_page
from ckptc.library import mapping_files as library
from ckptc.runtime.fault import Fault
from tests.plans.llama import Llama, read, write
from tests.plans.test_megatron_ranks import MODEL, account

DOCS = Path(__file__).parents[2] / "docs"
SHAPE = {
    "num_layers": 8, "hidden_size": 48, "ffn_hidden_size": 84, "num_attention_heads": 12, "num_query_groups": 6, "group_query_attention": True,
    "kv_channels": 10, "max_position_embeddings": 64, "position_embedding_type": "rope", "rotary_base": 500000, "swiglu": True,
    "normalization": "RMSNorm", "norm_epsilon": 1e-5, "add_bias_linear": False, "untie_embeddings_and_output_weights": True,
    "padded_vocab_size": 128,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return MODEL.tensors()


def saved_run(folder: Path, weights: dict[str, torch.Tensor], **args: Any) -> Path:
    """A checkpoint as a run of Megatron-LM saves it on one rank, by torch alone."""
    place = folder / "iter_0000003/mp_rank_00"
    place.mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("3")
    model = account(weights, 0, 1, list(range(8)), True, True)
    if args.get("normalization") == "LayerNorm":
        model |= {name.removesuffix("weight") + "bias": torch.zeros(48) for name in model if name.endswith("norm.weight")}
        model |= {name.removesuffix("weight") + "bias": torch.zeros(48) for name in model if name.endswith("layer_norm_weight")}
    if not args.get("swiglu", True):
        model |= {name: tensor[:84] for name, tensor in model.items() if name.endswith("linear_fc1.weight")}
    if args.get("add_bias_linear"):
        linear = [name for name in model if name.endswith((*(f"{x}.weight" for x in ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")),))]
        model |= {name.removesuffix("weight") + "bias": model[name][:, 0].clone() for name in linear}
    torch.save({"args": argparse.Namespace(**(SHAPE | args)), "model": model, "checkpoint_version": 3.0, "iteration": 3}, place / "model_optim_rng.pt")
    return folder


def to_hf(folder: Path, **options: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The config and the tensors of the HuggingFace model, without the rows of padding."""
    out = folder.parent / "hf"
    ckptc.convert(folder, out, to="hf", settings={"vocab": 70}, **options)
    return json.loads((out / "config.json").read_text()), read(out)


def test_rows_that_turn_as_neighbours_come_out_as_halves(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """--rotary-interleaved turns rows 2j and 2j + 1 of a head together, HuggingFace's Llama rows j and j + dim / 2
    (Megatron-core models/common/embeddings/rope_utils.py, transformers modeling_llama.py `rotate_half`)."""
    _, found = to_hf(saved_run(tmp_path / "run", weights, rotary_interleaved=True), family="llama")
    for i in range(8):
        for name, heads in (("q", 12), ("k", 6)):
            at = f"model.layers.{i}.self_attn.{name}_proj.weight"
            rows = [weights[at][head * 10 + 2 * j + odd] for head in range(heads) for odd in range(2) for j in range(5)]
            assert torch.equal(found[at], torch.stack(rows))
        assert torch.equal(found[f"model.layers.{i}.self_attn.v_proj.weight"], weights[f"model.layers.{i}.self_attn.v_proj.weight"])


def test_norms_that_add_one_come_out_with_it(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """--apply-layernorm-1p stores weights less 1 (Megatron-core fusions/fused_layer_norm.py `zero_centered_gamma`)."""
    _, found = to_hf(saved_run(tmp_path / "run", weights, apply_layernorm_1p=True), family="llama")
    for name, tensor in weights.items():
        expected = tensor + 1 if "norm" in name else tensor
        assert torch.equal(found[name], expected), name


def test_a_window_counts_the_query_itself_in_huggingface(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """`window_size` (15, 0) sees 15 keys before the query (Megatron-core transformer/utils.py), `sliding_window` 16 the same."""
    config, _ = to_hf(saved_run(tmp_path / "run", weights, window_size=(15, 0)))
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 16)


def test_what_a_family_of_huggingface_cannot_say_is_refused_before_a_byte_is_written(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", weights, window_size=(15, 0))
    with pytest.raises(MappingError, match="window") as error:
        to_hf(run, family="llama")
    assert "--accept" in str(error.value.diagnostics[0].help)
    assert not (tmp_path / "hf").exists()


def test_where_no_family_can_say_it_each_one_s_reason_is_given(weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squared ReLU with layer norms and biases: but for Jais 2 the tensors are those of two families, and neither has this activation."""
    every = library.families(None)
    monkeypatch.setattr(library, "families", lambda mapping: [family for family in every if family.name != "jais2"])
    with pytest.raises(Fault) as fault:
        to_hf(saved_run(tmp_path / "run", weights, normalization="LayerNorm", swiglu=False, squared_relu=True, add_bias_linear=True))
    assert fault.value.code == "no-family-says"
    assert any(note.startswith("gpt_neox: layout `hf` cannot say that") for note in fault.value.notes)
    assert "starcoder2: layout `hf` cannot say that activation is 'relu2'" in fault.value.notes


def test_where_one_family_has_the_tensors_alone_its_reason_is_given(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(ckptc.MappingError, match="layout `hf` cannot say that normalization is 'layernorm1p'"):
        to_hf(saved_run(tmp_path / "run", weights, normalization="LayerNorm", apply_layernorm_1p=True))


def test_what_is_accepted_is_left_out(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    config, found = to_hf(saved_run(tmp_path / "run", weights, window_size=(15, 0)), family="llama", accept=["window"])
    assert config["model_type"] == "llama"
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_a_value_that_is_checked_is_refused_and_may_be_accepted(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", Llama(extra={"partial_rotary_factor": 0.5}), side=False)
    with pytest.raises(MappingError, match="partial_rotary_factor"):
        ckptc.plan(source, to="nemo")
    assert ckptc.plan(source, to="nemo", accept=["partial_rotary_factor"])


def test_a_value_that_means_nothing_known_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", Llama(extra={"hidden_act": "relu6"}), side=False)
    with pytest.raises(MappingError, match="relu6"):
        ckptc.plan(source, to="nemo")


LLAMA_3_2 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize("to", ["nemo", "nemo-dist", "nemo2"])
def test_the_factor_of_llama_3_2_comes_back(to: str, tmp_path: Path) -> None:
    """It is 32 there and 8 in Llama 3.1, whose factor NeMo takes by itself."""
    source = write(tmp_path / "hf", Llama(extra={"rope_scaling": LLAMA_3_2}), side=False)
    ckptc.convert(source, tmp_path / "out", to=to)
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", settings={"vocab": 72})
    assert json.loads((tmp_path / "back/config.json").read_text())["rope_scaling"] == LLAMA_3_2


def test_a_key_that_is_not_known_gets_a_note(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", Llama(extra={"a_new_switch": 3}), side=False)
    assert any("a_new_switch" in note for note in ckptc.plan(source, to="nemo").notes)
    assert not any("a_new_switch" in note for note in ckptc.plan(source, to="hf").notes)


@pytest.mark.parametrize("name", sorted(settings_page.pages()))
def test_the_pages_of_settings_are_those_of_the_mappings(name: str) -> None:
    assert (DOCS / name).read_text() == settings_page.pages()[name], "python -m ckptc.library.settings_page docs"


def test_the_page_of_families_is_that_of_the_mappings() -> None:
    assert (DOCS / families_page.NAME).read_text() == families_page.page(), "python -m ckptc.library.families_page docs"
