"""Megatron-LM's checkpoints of one file per rank: to them and back at any degrees, and against a plain torch account of a rank."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ckptc
from ckptc.dsl.diagnostic import MappingError
from ckptc.runtime.fault import Fault
from tests.held import counted, same

from . import test_megatron_families as families
from .llama import Llama, read, write

Weights = dict[str, torch.Tensor]
MODEL = Llama(vocab=70, layers=8, hidden=48, ffn=84, heads=12, groups=6, dim=10)
FILE = "model_optim_rng.pt"
QUERIES = 2  # of a group


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("megatron") / "hf", MODEL, side=False)


def held(folder: Path) -> dict[str, Any]:
    """A rank's file, by torch alone."""
    found = torch.load(folder / FILE, weights_only=True)
    assert isinstance(found, dict)
    return found


def cut(whole: torch.Tensor, rank: int, count: int, dim: int = 0) -> torch.Tensor:
    return whole.chunk(count, dim)[rank]


def qkv_rows(hf: Weights, i: int) -> list[torch.Tensor]:
    """Of each group, the rows of its query heads, its key head and its value head."""
    q, k, v = (hf[f"model.layers.{i}.self_attn.{n}_proj.weight"] for n in "qkv")
    return [torch.cat([q[g * QUERIES * 10 : (g + 1) * QUERIES * 10], k[g * 10 : g * 10 + 10], v[g * 10 : g * 10 + 10]]) for g in range(6)]


def account(hf: Weights, t: int, tp: int, layers: list[int], first: bool, last: bool) -> Weights:
    """What Megatron-core's models hold on tensor parallel rank `t`, in one stage or one turn of it, Transformer Engine's modules."""
    rows = -(-70 // (128 * tp)) * 128 * tp
    vocab = {n: torch.cat([hf[n], hf[n].new_zeros(rows - 70, 48)]) for n in ("model.embed_tokens.weight", "lm_head.weight")}
    out: Weights = {}
    if first:
        out["embedding.word_embeddings.weight"] = cut(vocab["model.embed_tokens.weight"], t, tp)
    for local, i in enumerate(layers):
        at, to = f"model.layers.{i}.", f"decoder.layers.{local}."
        mine = qkv_rows(hf, i)[t * 6 // tp : (t + 1) * 6 // tp]
        out |= {
            to + "self_attention.linear_qkv.layer_norm_weight": hf[at + "input_layernorm.weight"],
            to + "self_attention.linear_qkv.weight": torch.cat(mine),
            to + "self_attention.linear_proj.weight": cut(hf[at + "self_attn.o_proj.weight"], t, tp, 1),
            to + "mlp.linear_fc1.layer_norm_weight": hf[at + "post_attention_layernorm.weight"],
            to + "mlp.linear_fc1.weight": torch.cat([cut(hf[at + f"mlp.{n}_proj.weight"], t, tp) for n in ("gate", "up")]),
            to + "mlp.linear_fc2.weight": cut(hf[at + "mlp.down_proj.weight"], t, tp, 1),
        }
    if last:
        out |= {"decoder.final_layernorm.weight": hf["model.norm.weight"], "output_layer.weight": cut(vocab["lm_head.weight"], t, tp)}
    return out


@pytest.mark.parametrize(("tp", "pp", "vpp", "folder"), [
    (1, 1, 1, "mp_rank_{:02}"), (3, 1, 1, "mp_rank_{:02}"), (1, 2, 1, "mp_rank_{:02}_{:03}"), (2, 4, 1, "mp_rank_{:02}_{:03}"),
    (1, 2, 2, "mp_rank_{:02}_{:03}"), (2, 2, 2, "mp_rank_{:02}_{:03}"), (1, 2, 4, "mp_rank_{:02}_{:03}"), (3, 4, 2, "mp_rank_{:02}_{:03}"),
])  # fmt: skip
def test_every_rank_holds_what_it_should_and_all_come_back(source: Path, tmp_path: Path, tp: int, pp: int, vpp: int, folder: str) -> None:
    ckptc.convert(source, tmp_path / "out", to="megatron-legacy", tp=tp, pp=pp, vpp=vpp)
    hf = read(source)
    per_turn = 8 // (pp * vpp)
    for t in range(tp):
        for p in range(pp):
            found = held(tmp_path / "out/release" / folder.format(t, p))
            assert (found.pop("checkpoint_version"), found.pop("iteration")) == (3.0, 0)
            assert set(found) == ({"model"} if vpp == 1 else {f"model{v}" for v in range(vpp)})
            for v in range(vpp):
                first = (v * pp + p) * per_turn
                wanted = account(hf, t, tp, list(range(first, first + per_turn)), p == v == 0, (p, v) == (pp - 1, vpp - 1))
                model = found["model" if vpp == 1 else f"model{v}"]
                assert same({n: x for n, x in model.items() if x is not None}, wanted)
                linear = {n.removesuffix(".weight") + "._extra_state" for n in wanted if ("linear_" in n and "norm" not in n) or n.startswith("output")}
                assert {n for n, x in model.items() if x is None} == linear
    plan = ckptc.plan(tmp_path / "out", to="hf", config=source / "config.json")
    assert dict(plan.data.source.params)["vpp"] == vpp
    plan.run(tmp_path / "back")
    assert same(read(tmp_path / "back"), hf)


@pytest.mark.parametrize("to", ["megatron-legacy", "megatron-lm"])
def test_uneven_stages_are_read_from_the_files(source: Path, tmp_path: Path, to: str) -> None:
    """As `num_layers_in_first_pipeline_stage` makes them, also where stages are dealt out in turns."""
    lists = [[0, 4, 5], [1, 2, 3, 6, 7]]
    ckptc.convert(source, tmp_path / "out", to=to, pp=2, vpp=2, stages=lists)
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(read(tmp_path / "back"), read(source))


def _with_experts(family: str) -> bool:
    return family == "mixtral" or family.endswith("moe")


EVERY = [(family, experts) for experts in ("sequential", "grouped") for family in families.FAMILIES if experts == "sequential" or _with_experts(family)]


@pytest.mark.parametrize(("family", "experts"), EVERY)
def test_every_family_comes_back_from_ranks(family: str, experts: str, tmp_path: Path) -> None:
    shapes, keys = families.FAMILIES[family]
    hf = counted(shapes)
    path = families.saved(tmp_path / "hf", family, hf, keys)
    moe = _with_experts(family)
    ckptc.convert(path, tmp_path / "out", to="megatron-legacy", tp=2, pp=3, ep=5 if moe else 1, settings={"experts": experts})
    files = sorted(p.name for p in (tmp_path / "out/release").iterdir())
    assert files[-1] == ("mp_rank_01_002_004" if moe else "mp_rank_01_002")
    if moe:
        model = held(tmp_path / "out/release/mp_rank_01_000_002")["model"]
        name = "local_experts.0.linear_fc1.weight" if experts == "sequential" else "linear_fc1.weight0"
        whole = families.account(hf)["decoder.layers.mlp.experts.experts.linear_fc1.weight"][0, 2]
        assert torch.equal(model[f"decoder.layers.0.mlp.experts.{name}"], torch.cat([cut(half, 1, 2) for half in whole.chunk(2)]))
        assert not [n for n in model if "experts.1." in n or n.endswith("weight1")]
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=path / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize("ep", [1, 5])
def test_experts_of_the_former_grouped_module(ep: int, tmp_path: Path) -> None:
    """All of a rank in two tensors, in which the first's shape does not say its order: [experts, hidden, rows of fc1]."""
    shapes, keys = families.FAMILIES["mixtral"]
    hf = counted(shapes)
    path = families.saved(tmp_path / "hf", "mixtral", hf, keys)
    ckptc.convert(path, tmp_path / "out", to="megatron-legacy", tp=2, ep=ep, settings={"experts": "joined"})
    whole = families.account(hf)
    own, ffn, hidden = families.EXPERTS // ep, families.FFN // 2, families.HIDDEN
    for rank in range(ep):
        for t in range(2):
            name = f"mp_rank_{t:02}" + f"_{rank:03}" * (ep > 1)
            model = held(tmp_path / f"out/release/{name}")["model"]
            for i in range(families.LAYERS):
                at = f"decoder.layers.{i}.mlp.experts."
                assert model[at + "weight1"].shape == (hidden, own * 2 * ffn)
                assert model[at + "weight2"].shape == (own * ffn, hidden)
                for e in range(own):
                    fc1 = whole["decoder.layers.mlp.experts.experts.linear_fc1.weight"][i, rank * own + e]
                    fc2 = whole["decoder.layers.mlp.experts.experts.linear_fc2.weight"][i, rank * own + e]
                    assert torch.equal(model[at + "weight1"].view(own, hidden, 2 * ffn)[e].T, torch.cat([cut(half, t, 2) for half in fc1.chunk(2)]))
                    assert torch.equal(model[at + "weight2"].view(own, ffn, hidden)[e].T, cut(fc2, t, 2, 1))
    plan = ckptc.plan(tmp_path / "out", to="hf", config=path / "config.json")
    assert dict(plan.data.source.params)["experts"] == "joined"
    plan.run(tmp_path / "back")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


@pytest.mark.parametrize(("to", "name"), [("megatron-legacy", "output_layer.weight"), ("megatron-lm", "word_embeddings_for_head")])
def test_the_last_stage_has_its_copy_of_tied_embeddings(tmp_path: Path, to: str, name: str) -> None:
    tied = Llama(vocab=70, layers=2, hidden=48, ffn=84, heads=12, groups=6, dim=10, head=False, extra={"tie_word_embeddings": True})
    path = write(tmp_path / "hf", tied, side=False)
    ckptc.convert(path, tmp_path / "out", to=to, tp=2, pp=2)
    copy = held(tmp_path / "out/release/mp_rank_01_001")["model"][name]
    copy = copy["weight"] if isinstance(copy, dict) else copy
    assert torch.equal(copy, torch.cat([read(path)["model.embed_tokens.weight"], torch.zeros(186, 48, dtype=copy.dtype)]).chunk(2)[1])
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=path / "config.json")
    assert same(read(tmp_path / "back"), read(path))


# --- what Megatron-LM itself writes: nested modules, arguments, versions ---------------------------


def nested(hf: Weights, order: str, stack: str, norm: str) -> dict[str, Any]:
    """The `model` of a checkpoint before Megatron-core, on one rank, by plain torch: heads of 10 rows, as many of each kind."""
    attention = "self_attention" if stack == "encoder" else "attention"
    layers: Weights = {}
    for i in range(2):
        at, to = f"model.layers.{i}.", f"layers.{i}."
        parts = torch.stack([hf[f"{at}self_attn.{n}_proj.weight"].reshape(6, 10, 48) for n in "qkv"])  # [3, heads, dim, hidden]
        ways = {"blocks": parts, "triples": parts.permute(1, 2, 0, 3), "groups": parts.transpose(0, 1)}
        layers |= {
            f"{to}input_{norm}.weight": hf[at + "input_layernorm.weight"],
            f"{to}{attention}.query_key_value.weight": ways[order].reshape(180, 48),
            f"{to}{attention}.dense.weight": hf[at + "self_attn.o_proj.weight"],
            f"{to}post_attention_{norm}.weight": hf[at + "post_attention_layernorm.weight"],
            f"{to}mlp.dense_h_to_4h.weight": torch.cat([hf[at + "mlp.gate_proj.weight"], hf[at + "mlp.up_proj.weight"]]),
            f"{to}mlp.dense_4h_to_h.weight": hf[at + "mlp.down_proj.weight"],
        }
    layers[f"final_{norm}.weight"] = hf["model.norm.weight"]
    return {"language_model": {
        "embedding": {"word_embeddings": {"weight": hf["model.embed_tokens.weight"]}}, stack: layers, "output_layer": {"weight": hf["lm_head.weight"]},
    }}  # fmt: skip


PLAIN = Llama(vocab=70, layers=2, hidden=48, ffn=84, heads=6, groups=6, dim=10)
ARGS = {
    "num_layers": 2, "hidden_size": 48, "ffn_hidden_size": 84, "num_attention_heads": 6, "kv_channels": 10, "max_position_embeddings": 99,
    "position_embedding_type": "rope", "rotary_base": 500000, "swiglu": True, "normalization": "RMSNorm", "norm_epsilon": 1e-6,
    "add_bias_linear": False, "untie_embeddings_and_output_weights": True, "padded_vocab_size": 70, "params_dtype": torch.bfloat16,
    "some_enum": torch.device("cpu"), "bf16": True,
}  # fmt: skip


@pytest.mark.parametrize(("version", "order", "stack", "norm"), [
    (3.0, "groups", "encoder", "norm"), (2.0, "groups", "encoder", "layernorm"), (1.0, "triples", "transformer", "layernorm"),
    (0, "blocks", "transformer", "layernorm"), (None, "blocks", "transformer", "layernorm"),
])  # fmt: skip
def test_models_before_megatron_core_are_read_by_their_version(tmp_path: Path, version: float | None, order: str, stack: str, norm: str) -> None:
    hf = PLAIN.tensors()
    top = {"model": nested(hf, order, stack, norm), "args": argparse.Namespace(**ARGS), "optimizer": {"state": [torch.ones(3)]}, "iteration": 12}
    top["rng_state"] = [{"torch_rng_state": torch.ones(5)}]
    if version is None:
        top["torch_rng_state"] = torch.ones(7)  # beside the model, in the oldest
    else:
        top["checkpoint_version"] = version
    (tmp_path / "run/iter_0000012/mp_rank_00").mkdir(parents=True)
    torch.save(top, tmp_path / "run/iter_0000012/mp_rank_00" / FILE)
    torch.save({"state": torch.ones(3)}, tmp_path / "run/iter_0000012/mp_rank_00/distrib_optim.pt")
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("12")
    plan = ckptc.plan(tmp_path / "run", to="hf", family="llama")
    assert plan.data.source.layout == "megatron-lm"
    plan.run(tmp_path / "hf")
    assert same(read(tmp_path / "hf"), hf)
    again = write(tmp_path / "twin", PLAIN, side=False)
    ckptc.convert(again, tmp_path / "again", to="megatron-lm", settings={"qkv_order": order, "stack": stack, "norms": norm, "pad_vocab_to": 1})
    made = held(tmp_path / "again/release/mp_rank_00")
    assert made["checkpoint_version"] == {"groups": 3.0, "triples": 1.0, "blocks": 0.0}[order]
    wanted = nested(hf, order, stack, norm)["language_model"]
    assert {k: set(v) for k, v in made["model"]["language_model"].items()} == {k: set(v) for k, v in wanted.items()}
    assert same(made["model"]["language_model"][stack], wanted[stack])
    assert torch.equal(made["model"]["language_model"]["embedding"]["word_embeddings"]["weight"], hf["model.embed_tokens.weight"])


def test_an_order_that_grouped_heads_cannot_have_is_refused(source: Path) -> None:
    with pytest.raises(MappingError, match="unmet-requirement"):
        ckptc.plan(source, to="megatron-lm", settings={"qkv_order": "blocks"})


# --- broken and odd inputs -------------------------------------------------------------------------


@pytest.fixture
def ranks(source: Path, tmp_path: Path) -> Path:
    ckptc.convert(source, tmp_path / "ranks", to="megatron-legacy", tp=2, pp=2, vpp=2)
    return tmp_path / "ranks"


def changed(file: Path, change: Any) -> None:
    top = torch.load(file, weights_only=True)
    change(top)
    torch.save(top, file)


def fault(path: Path, source: Path) -> str:
    """All that the fault says, when the checkpoint at `path` is to be converted."""
    with pytest.raises((Fault, MappingError)) as error:
        ckptc.plan(path, to="hf", config=source / "config.json").run(path.parent / "out")
    assert not (path.parent / "out").exists()
    problem = error.value
    return repr(problem.diagnostics) if isinstance(problem, MappingError) else f"{problem.code} {problem.title} {problem.notes}"


def test_a_missing_rank_is_named(ranks: Path, source: Path) -> None:
    shutil.rmtree(ranks / "release/mp_rank_01_000")
    assert "mp_rank_01_000" in fault(ranks, source)


def test_a_missing_layer_is_named(ranks: Path, source: Path) -> None:
    for t in (0, 1):
        changed(ranks / f"release/mp_rank_0{t}_001" / FILE, lambda top: [top["model1"].pop(n) for n in list(top["model1"]) if ".layers.1." in n])
    assert "layer" in fault(ranks, source)


def test_a_missing_model_of_a_turn_is_named(ranks: Path, source: Path) -> None:
    for t in (0, 1):
        changed(ranks / f"release/mp_rank_0{t}_000" / FILE, lambda top: top.pop("model1"))
    assert "model1" in fault(ranks, source) or "layer" in fault(ranks, source)


def test_a_tensor_too_many_is_named(ranks: Path, source: Path) -> None:
    changed(ranks / "release/mp_rank_01_001" / FILE, lambda top: top["model0"].update({"decoder.layers.0.mlp.spare.weight": torch.ones(3)}))
    assert "spare" in fault(ranks, source)


def test_classes_among_the_weights_are_refused(ranks: Path) -> None:
    file = ranks / "release/mp_rank_00_000" / FILE
    top = torch.load(file, weights_only=True)
    top["model0"]["decoder.layers.0.hook"] = argparse.Namespace(a=1)
    torch.save(top, file)
    with pytest.raises(Fault, match=r"argparse\.Namespace") as error:
        ckptc.open(ranks)
    assert error.value.code == "unsafe-pickle"


def test_state_of_transformer_engine_is_dropped(ranks: Path, source: Path) -> None:
    """Its older releases keep a BytesIO beside each module, the newer ones a tensor of bytes."""
    import io

    for i, state in enumerate((io.BytesIO(b"scales"), torch.ones(9, dtype=torch.uint8))):
        changed(ranks / f"release/mp_rank_0{i}_000" / FILE, lambda top: top["model0"].update({"decoder.layers.0.mlp.linear_fc1._extra_state": state}))  # noqa: B023
    ckptc.convert(ranks, ranks.parent / "hf", to="hf", config=source / "config.json")
    assert same(read(ranks.parent / "hf"), read(source))


def test_a_truncated_file_is_named(ranks: Path) -> None:
    file = ranks / "release/mp_rank_01_001" / FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Fault, match="mp_rank_01_001"):
        ckptc.open(ranks)


@pytest.mark.parametrize("version", ["three", None, 0.5, 1.5, True])
def test_a_version_that_megatron_does_not_know_is_refused_unless_the_order_is_said(tmp_path: Path, version: Any) -> None:
    """Below version 2 fix_query_key_value_ordering knows 0 and 1 (megatron/training/checkpointing.py)."""
    source = write(tmp_path / "plain", PLAIN)
    ckptc.convert(source, tmp_path / "ranks", to="megatron-lm")
    changed(tmp_path / "ranks/release/mp_rank_00" / FILE, lambda top: top.update(checkpoint_version=version))
    assert "bad-version" in fault(tmp_path / "ranks", source)
    ckptc.convert(tmp_path / "ranks", tmp_path / "hf", to="hf", config=source / "config.json", from_settings={"qkv_order": "groups"})
    assert same(read(tmp_path / "hf"), read(source))


@pytest.mark.parametrize("arguments", [True, False])
def test_files_without_a_version_are_of_version_0(tmp_path: Path, arguments: bool) -> None:
    """load_checkpoint of megatron/training/checkpointing.py: state_dict.get('checkpoint_version', 0)."""
    hf = PLAIN.tensors()
    source = write(tmp_path / "plain", PLAIN)
    top = {"model": nested(hf, "blocks", "transformer", "layernorm"), "iteration": 5} | ({"args": argparse.Namespace(**ARGS)} if arguments else {})
    (tmp_path / "run/release/mp_rank_00").mkdir(parents=True)
    torch.save(top, tmp_path / "run/release/mp_rank_00" / FILE)
    plan = ckptc.plan(tmp_path / "run", to="hf", config=source / "config.json")
    assert any("no checkpoint_version" in note and "version 0" in note for note in plan.notes)
    plan.run(tmp_path / "hf")
    assert same(read(tmp_path / "hf"), hf)
    assert ckptc.inspect(tmp_path / "run", source / "config.json")["settings"]["qkv_order"] == "blocks"


@pytest.mark.parametrize("version", [0, 1.0, 3.0, None])
def test_models_of_megatron_core_have_one_order_whatever_the_version_is(ranks: Path, source: Path, version: float | None) -> None:
    """fix_query_key_value_ordering moves tensors that are called query_key_value, and theirs are called linear_qkv."""
    for file in ranks.rglob(FILE):
        changed(file, lambda top: top.pop("checkpoint_version") if version is None else top.update(checkpoint_version=version))
    ckptc.convert(ranks, ranks.parent / "hf", to="hf", config=source / "config.json")
    assert same(read(ranks.parent / "hf"), read(source))


def test_virtual_stages_of_one_stage_are_refused(source: Path) -> None:
    with pytest.raises(MappingError, match="unmet-requirement"):
        ckptc.plan(source, to="megatron-legacy", vpp=2)


def test_a_plan_is_saved_and_run(source: Path, tmp_path: Path) -> None:
    """What stands around the tensors is part of the format, so a saved plan writes it as well."""
    made = ckptc.plan(source, to="megatron-legacy", tp=2, pp=2, vpp=2)
    made.save(tmp_path / "plan.json")
    made.run(tmp_path / "one")
    ckptc.load_plan(tmp_path / "plan.json").run(tmp_path / "two", source=source)
    for file in (tmp_path / "one").rglob("*"):
        assert file.is_dir() or file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
