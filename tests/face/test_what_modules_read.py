"""What no module of a framework reads is refused or said where it is written, and what files do not tell is asked.

Lines of NxD are of release 2.29, those of NxD Training of 2.26, of NeMo and Megatron-LM of 2025 and 2026.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptc
from ckptc.dsl import MappingError
from ckptc.runtime.fault import Fault
from tests.asked import asked

HIDDEN, HEADS, FFN, VOCAB, LAYERS = 48, 8, 72, 104, 2


def llama(folder: Path, groups: int, dim: int = HIDDEN // HEADS, vocab: int = VOCAB, **more: object) -> Path:
    """A made Llama checkpoint; sizes pairwise distinct."""
    def rows(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))

    tensors = {"model.embed_tokens.weight": rows(vocab, HIDDEN), "model.norm.weight": rows(HIDDEN), "lm_head.weight": rows(vocab, HIDDEN)}
    for layer in range(LAYERS):
        attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        tensors |= {
            f"{attention}q_proj.weight": rows(HEADS * dim, HIDDEN), f"{attention}o_proj.weight": rows(HIDDEN, HEADS * dim),
            f"{attention}k_proj.weight": rows(groups * dim, HIDDEN), f"{attention}v_proj.weight": rows(groups * dim, HIDDEN),
            f"{mlp}gate_proj.weight": rows(FFN, HIDDEN), f"{mlp}up_proj.weight": rows(FFN, HIDDEN), f"{mlp}down_proj.weight": rows(HIDDEN, FFN),
            f"model.layers.{layer}.input_layernorm.weight": rows(HIDDEN), f"model.layers.{layer}.post_attention_layernorm.weight": rows(HIDDEN),
        }  # fmt: skip
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": groups, "intermediate_size": FFN, "vocab_size": vocab, "tie_word_embeddings": False, "torch_dtype": "float32", **more,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return llama(tmp_path / "shared", groups=2)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Each query head with a key/value head of its own."""
    return llama(tmp_path / "own", groups=HEADS)


@pytest.mark.parametrize("settings", [{"hw": "trn1"}, {"hw": "trn2"}, {"hw": "trn2", "qkv": "fused"}, {"qkv": "split"}])
def test_a_part_of_a_key_value_head_on_a_rank_is_refused(settings, shared: Path) -> None:
    """LlamaAttention divides key/value heads by tp, whatever projections it has (NxDT modeling_llama.py:359-361)."""
    with pytest.raises(MappingError, match="a part of a key/value head"):
        ckptc.plan(shared, to="nxdt", **asked(tp=4, **settings))


def test_joined_projections_are_of_heads_that_share_nothing(shared: Path, own: Path) -> None:
    """LlamaAttention has one ColumnParallelLinear only where num_heads == num_key_value_heads (NxDT modeling_llama.py:297)."""
    with pytest.raises(MappingError, match="joined in one tensor only where"):
        ckptc.plan(shared, to="nxdt", tp=2, settings={"qkv": "coalesced"})
    assert ckptc.plan(own, to="nxdt", tp=2, settings={"qkv": "coalesced"}).notes == ()


def test_a_head_dim_that_the_modules_do_not_know_is_said(tmp_path: Path, shared: Path) -> None:
    """LlamaModule sets head_dim to hidden_size // num_attention_heads (NxDT llama_model.py:48)."""
    wide = llama(tmp_path / "wide", groups=2, dim=10, head_dim=10)
    (note,) = ckptc.plan(wide, to="nxdt", tp=2).notes
    assert "hidden_size / num_attention_heads" in note
    assert ckptc.plan(shared, to="nxdt", tp=2).notes == ()
    assert ckptc.plan(wide, to="nxdt-megatron", tp=2).notes == ()  # has kv_channels (NxDT transformer.py:848)


def test_the_megatron_style_joins_where_the_module_does(tmp_path: Path, shared: Path, own: Path) -> None:
    """ParallelAttention: query_key_value without shared heads, else query and key_value (NxDT transformer.py:875-900)."""
    for source, parts in ((shared, {"query", "key_value"}), (own, {"query_key_value"})):
        out = tmp_path / f"out-{source.name}"
        ckptc.plan(source, to="nxdt-megatron", tp=2).run(out)
        assert {n.name.split(".")[-2] for n in ckptc.open(out) if "self_attention" in n.name} == {*parts, "dense"}
    with pytest.raises(MappingError, match="in one tensor"):
        ckptc.plan(own, to="nxdt-megatron", tp=2, settings={"qkv": "linear"})
    with pytest.raises(MappingError, match="only where each query head"):
        ckptc.plan(shared, to="nxdt-megatron", tp=2, settings={"qkv": "coalesced"})


@pytest.mark.parametrize(("to", "settings"), [("nxdt", {"hw": "trn2_converter", "kv_multiplier": 2, "tp": 4}), ("nxdt-megatron", {"qkv_order": "blocks"})])
def test_what_only_the_converter_writes_is_written_by_name_and_said(to: str, settings, shared: Path) -> None:
    (note,) = ckptc.plan(shared, to=to, **asked(**settings)).notes
    assert note.startswith("no module reads ")


@pytest.mark.parametrize("to", ["megatron", "megatron-legacy", "nemo", "nemo-dist", "nemo2"])
def test_megatron_core_has_rows_in_groups_alone(to: str, own: Path) -> None:
    """SelfAttention views groups; the older orders are put right for `query_key_value` alone (Megatron-LM checkpointing.py:1800)."""
    with pytest.raises(MappingError, match="groups"):
        ckptc.plan(own, to=to, settings={"qkv_order": "blocks"})


@pytest.mark.parametrize("to", ["megatron-legacy", "nemo"])
def test_gate_and_up_are_apart_in_distributed_checkpoints_alone(to: str, shared: Path) -> None:
    """`weight_w` and `weight_v` are keys of sharded state (Megatron-LM core/transformer/mlp.py:464-468)."""
    with pytest.raises(MappingError, match="singleton_local_shards"):
        ckptc.plan(shared, to=to, settings={"glu": "parts"})
    ckptc.plan(shared, to="megatron", settings={"glu": "parts"})


def test_shared_heads_in_nemos_own_modules_are_said(shared: Path, own: Path) -> None:
    """MegatronGPTModel asserts that there are none (NeMo megatron_gpt_model.py:514)."""
    said, unsaid = ("NeMo will not load the result" in " ".join(ckptc.plan(source, to="nemo-legacy").notes) for source in (shared, own))
    assert said
    assert not unsaid


# --- what is asked --------------------------------------------------------------------------------


def written(source: Path, out: Path, **settings: object) -> Path:
    ckptc.plan(source, to="nxdt", **asked(**settings)).run(out)
    return out


@pytest.mark.parametrize("hw", ["trn1", "trn2", "trn2_converter"])
def test_whose_order_heads_have_is_asked_and_the_answer_gives_all_back(hw: str, shared: Path, tmp_path: Path) -> None:
    out = written(shared, tmp_path / "out", tp=4, kv_multiplier=2, hw=hw)
    with pytest.raises(MappingError) as caught:
        ckptc.plan(out, to="hf", config=shared / "config.json")
    (question,) = caught.value.diagnostics
    assert question.code == "not-told"
    assert all(f"--from-set hw={value}" in question.help for value in ("trn1", "trn2", "trn2_converter"))
    ckptc.plan(out, to="hf", config=shared / "config.json", from_settings={"hw": hw}).run(tmp_path / "again")
    before, after = ({t.name: t.read() for t in ckptc.open(place)} for place in (shared, tmp_path / "again"))
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_wrong_answer_is_refused_where_copies_tell(shared: Path, tmp_path: Path) -> None:
    out = written(shared, tmp_path / "out", tp=4, kv_multiplier=2, hw="trn2")
    with pytest.raises(Fault) as caught:
        ckptc.plan(out, to="hf", config=shared / "config.json", from_settings={"hw": "trn1"}).run(tmp_path / "again")
    assert caught.value.code == "copies-differ"


@pytest.mark.parametrize("settings", [{"tp": 2}, {"tp": 4, "kv_multiplier": 4}])
def test_nothing_is_asked_where_the_orders_mean_the_same(settings, shared: Path, tmp_path: Path) -> None:
    """Without copies; and of trn1 and trn2, where every rank has every key/value head."""
    out = written(shared, tmp_path / "out", **settings)
    if settings["tp"] == 2:
        ckptc.plan(out, to="hf", config=shared / "config.json")
        return
    with pytest.raises(MappingError) as caught:
        ckptc.plan(out, to="hf", config=shared / "config.json")
    assert "hw=trn2 " not in caught.value.diagnostics[0].help


def test_what_stays_as_it_is_is_not_asked_about(shared: Path, tmp_path: Path) -> None:
    out = written(shared, tmp_path / "out", tp=4, kv_multiplier=2, hw="trn1")
    ckptc.plan(out, to="nxdt", config=shared / "config.json", format="xser").run(tmp_path / "xser")
    there = {(t.file, t.name): t.read() for t in ckptc.open(out)}
    assert all(torch.equal(t.read(), there[t.file, t.name]) for t in ckptc.open(tmp_path / "xser"))


def test_a_wrong_multiplier_is_told_the_right_one(shared: Path, tmp_path: Path, ckptc_line) -> None:
    out = written(shared, tmp_path / "out", tp=8, kv_multiplier=4)
    with pytest.raises(MappingError, match="the files are of kv_multiplier = 4, not 1"):
        ckptc.plan(out, to="hf", config=shared / "config.json", from_settings={"kv_multiplier": 1, "hw": "trn1"})
    words = ("--hw_backend", "trn1", "--output_dir", tmp_path / "x", "--config", shared / "config.json", "--tp_size", 8, "--qkv_linear", "True")
    done = ckptc_line("compat", "checkpoint_converter", "--input_dir", shared, "--convert_from_full_state", "--kv_size_multiplier", 3, *words)
    assert done.code == 1
    assert "--kv_size_multiplier is 3; with --tp_size 8, 8 heads and 2 key/value heads it may be 4" in done.err


@pytest.fixture
def ckptc_line(ckptc):
    return ckptc


# --- shared experts -------------------------------------------------------------------------------


def test_shared_experts_need_no_gate(tmp_path: Path) -> None:
    """`moe_shared_expert_gate` is false by default (Megatron-LM core/transformer/transformer_config.py:713)."""
    groups, dim, inner, experts, common = 2, HIDDEN // HEADS, 40, 3, 28
    state = {"embedding.word_embeddings.weight": torch.rand(VOCAB, HIDDEN), "decoder.final_layernorm.weight": torch.rand(HIDDEN), "output_layer.weight": torch.rand(VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        p = f"decoder.layers.{layer}."
        state |= {
            f"{p}input_layernorm.weight": torch.rand(HIDDEN), f"{p}pre_mlp_layernorm.weight": torch.rand(HIDDEN), f"{p}mlp.router.weight": torch.rand(experts, HIDDEN),
            f"{p}self_attention.linear_qkv.weight": torch.rand((HEADS + 2 * groups) * dim, HIDDEN), f"{p}self_attention.linear_proj.weight": torch.rand(HIDDEN, HIDDEN),
            f"{p}mlp.shared_experts.linear_fc1.weight": torch.rand(2 * common, HIDDEN), f"{p}mlp.shared_experts.linear_fc2.weight": torch.rand(HIDDEN, common),
        }  # fmt: skip
        for e in range(experts):
            own = f"{p}mlp.experts.local_experts.{e}."
            state |= {f"{own}linear_fc1.weight": torch.rand(2 * inner, HIDDEN), f"{own}linear_fc2.weight": torch.rand(HIDDEN, inner)}
    arguments = argparse.Namespace(
        num_layers=LAYERS, hidden_size=HIDDEN, ffn_hidden_size=FFN, num_attention_heads=HEADS, group_query_attention=True, num_query_groups=groups,
        kv_channels=dim, padded_vocab_size=VOCAB, swiglu=True, normalization="RMSNorm", untie_embeddings_and_output_weights=True, position_embedding_type="rope",
        add_bias_linear=False, num_experts=experts, moe_ffn_hidden_size=inner, moe_shared_expert_intermediate_size=common, moe_shared_expert_gate=False,
    )  # fmt: skip
    folder = tmp_path / "run/iter_0000005/mp_rank_00"
    folder.mkdir(parents=True)
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("5")
    torch.save({"args": arguments, "checkpoint_version": 3.0, "iteration": 5, "model": state}, folder / "model_optim_rng.pt")
    ckptc.plan(tmp_path / "run", to="megatron").run(tmp_path / "out")
    stored = {t.name: t.shape for t in ckptc.open(tmp_path / "out")}
    assert stored["decoder.layers.mlp.shared_experts.linear_fc1.weight"] == (LAYERS, 2 * common, HIDDEN)
    assert not [name for name in stored if "gate_weight" in name]
    with pytest.raises((MappingError, Fault), match="shared experts have no gate"):  # no family of HuggingFace's here has them so
        ckptc.plan(tmp_path / "run", to="hf")


# --- padding rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "said"), [(None, "how many tokens there are is not known"), (130, "tokenizer.json has 130 tokens (--set vocab=130 drops the rows above)")])
def test_padding_rows_that_stay_are_said(tokens: int | None, said: str, tmp_path: Path) -> None:
    """130 tokens are 132 rows on two ranks of a multiple of 2, and NeMo makes 130 of them on one."""
    source = llama(tmp_path / "hf", groups=4, vocab=130)
    if tokens is not None:
        words = {"model": {"type": "BPE", "vocab": {f"t{i}": i for i in range(tokens)}}, "added_tokens": []}
        (source / "tokenizer.json").write_text(json.dumps(words))
    ckptc.plan(source, to="nemo", tp=2).run(tmp_path / "two")
    plan = ckptc.plan(tmp_path / "two", to="nemo", tp=1)
    assert [note for note in plan.notes if "all 132 rows of the vocabulary are kept" in note and said in note]
    assert ckptc.plan(tmp_path / "two", to="nemo", tp=4).notes == ()  # 132 rows or 136, whatever the tokens are
    assert ckptc.plan(tmp_path / "two", to="nemo", tp=1, settings={"vocab": 130}).notes == ()
