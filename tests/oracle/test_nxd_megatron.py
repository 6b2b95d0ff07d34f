"""NxD Training's megatron style: both orders of attention rows, against the converter's files and the module's rule.

The module (ParallelAttention.forward, transformer.py) views a rank's query_key_value rows as (heads, 3 * dim) and its
key_value rows as (key/value heads, 2 * dim) and splits the last axis. That is rebuilt here with plain torch.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ckptc
from ckptc.dsl import MappingError
from tests.asked import asked

from .nxd_cases import ORACLE, Case, back, contents

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

ALL = {c.folder.name: c for d in sorted(ORACLE.glob("[de]*")) if "megatron" in (c := Case(d)).spec["argv"]}
RIGHT = sorted(n for n, c in ALL.items() if not c.spec["error"])
FORWARD = [n for n in RIGHT if ALL[n].forward and "no_qkvlinear" not in n]


def settings(case: Case) -> dict[str, object]:
    return {"qkv": "linear" if case.flag("qkv_linear") else "coalesced"}


def forward(case: Case, out: Path, **more: object):
    degrees = {"tp": case.number("tp_size"), "pp": case.number("pp_size")}
    plan = ckptc.plan(case.folder / "in/pytorch_model.bin", to="nxdt-megatron", config=case.folder / "in/config.json", **asked(**degrees, **settings(case), **more))
    plan.run(out)
    return contents(out)


def originals(case: Case):
    return {n: h for (f, n), h in case.input.items() if f == "pytorch_model.bin"}


def test_there_are_as_many_cases_as_were_counted() -> None:
    assert len(RIGHT) >= 18
    assert len(FORWARD) >= 8


@pytest.mark.parametrize("name", RIGHT)
def test_blocks_are_the_order_of_the_converter(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    if case.forward:
        assert forward(case, tmp_path / "out", qkv_order="blocks") == case.expected
    else:
        found = back(case.folder / "in/model", case, tmp_path / "out", qkv_order="blocks")
        assert found == {n: h for (_, n), h in case.expected.items()}


@pytest.mark.parametrize("name", [n for n in FORWARD if n != "d4_gqa_meg_tp4pp1m1_trn1__fwd"])
def test_by_default_each_head_has_its_parts_side_by_side(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    written = forward(case, tmp_path / "out")
    config, tp = case.spec["config"], case.number("tp_size")
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config["hidden_size"] // heads
    whole = torch.load(case.folder / "in/pytorch_model.bin", weights_only=True)
    seen = 0
    for tensor in ckptc.open(tmp_path / "out"):
        rank, parts = int(tensor.file.split("tp_rank_")[1][:2]), tensor.name.split(".")
        if parts[-2] not in ("query_key_value", "key_value", "query", "dense"):
            continue
        layer = whole_layer(whole, int(parts[3]), dim)
        mine = range(rank * groups // tp, (rank + 1) * groups // tp)
        share = heads // groups
        if parts[-2] == "query_key_value":  # view(heads, 3 * dim)
            expected = torch.cat([x for h in mine for x in (layer["q"][h], layer["k"][h], layer["v"][h])])
        elif parts[-2] == "key_value":  # view(key/value heads, 2 * dim)
            expected = torch.cat([x for h in mine for x in (layer["k"][h], layer["v"][h])])
        elif parts[-2] == "query":
            expected = torch.cat([layer["q"][h * share + i] for h in mine for i in range(share)])
        else:
            expected = torch.cat([layer["o"][h * share + i] for h in mine for i in range(share)], dim=1)
        assert torch.equal(tensor.read(), expected), (tensor.file, tensor.name)
        seen += 1
    assert seen == sum(name.split(".")[-2] in ("query_key_value", "key_value", "query", "dense") for _, name in written)
    assert seen >= 2 * tp * config["num_hidden_layers"]
    if groups > tp:  # else the orders are one
        with pytest.raises(MappingError, match="`qkv_order` of layout `nxdt-megatron` as heads and blocks"):
            back(tmp_path / "out", case, tmp_path / "again")
    assert back(tmp_path / "out", case, tmp_path / "again", qkv_order="heads") == originals(case)


def whole_layer(whole, number: int, dim: int) -> dict[str, tuple[torch.Tensor, ...]]:
    prefix = f"model.layers.{number}.self_attn."
    rows = {x: whole[f"{prefix}{x}_proj.weight"].split(dim) for x in "qkv"}
    return {**rows, "o": whole[prefix + "o_proj.weight"].split(dim, dim=1)}


@pytest.mark.parametrize("name", ["d2_gqa_meg_tp2pp2m1_trn1__fwd"])
def test_with_one_key_value_head_on_a_rank_the_orders_are_one(name: str, tmp_path: Path) -> None:
    assert forward(ALL[name], tmp_path / "out") == ALL[name].expected


def test_a_key_value_head_is_cut_between_ranks_only_in_blocks(tmp_path: Path) -> None:
    case = ALL["d4_gqa_meg_tp4pp1m1_trn1__fwd"]
    with pytest.raises(MappingError) as error:
        forward(case, tmp_path / "out")
    assert "part of a key/value head" in error.value.diagnostics[0].title
    assert "qkv_order=blocks" in error.value.diagnostics[0].help
    assert forward(case, tmp_path / "out", qkv_order="blocks") == case.expected


def test_query_key_and_value_are_joined_only_where_the_module_does_so(tmp_path: Path) -> None:
    with pytest.raises(MappingError) as error:
        forward(ALL["d6_gqa_meg_no_qkvlinear_tp2pp2__fwd"], tmp_path / "out")
    assert "a key/value head of its own" in error.value.diagnostics[0].title


def test_files_that_join_them_all_the_same_are_read(tmp_path: Path) -> None:
    """The converter writes them without --qkv_linear, and then raises KeyError on them."""
    case = Case(ORACLE / "d6_gqa_meg_no_qkvlinear_tp2pp2__back")
    assert back(case.folder / "in/model", case, tmp_path / "out") == originals(ALL["d6_gqa_meg_no_qkvlinear_tp2pp2__fwd"])


def test_an_explicit_head_dim_is_kept(tmp_path: Path) -> None:
    case = Case(ORACLE / "h7_explicit_head_dim16_tp2_meg__fwd")
    forward(case, tmp_path / "out")
    shapes = {t.name.split("self_attention.")[-1]: t.shape for t in ckptc.open(tmp_path / "out") if "self_attention" in t.name}
    heads, groups = case.spec["config"]["num_attention_heads"], case.spec["config"]["num_key_value_heads"]
    assert shapes["query.weight"] == (heads * 16 // 2, 64)
    assert shapes["key_value.weight"] == (groups * 2 * 16 // 2, 64)
    assert back(tmp_path / "out", case, tmp_path / "again") == originals(case)


def test_the_vocabulary_is_padded_as_the_module_pads_it(tmp_path: Path) -> None:
    """127 rows over 2 ranks with make_vocab_size_divisible_by 8: 128, the last of zeros, dropped going back."""
    case = Case(ORACLE / "h5_vocab_127_tp2__fwd")
    plan = ckptc.plan(case.folder / "in/pytorch_model.bin", to="nxdt-megatron", config=case.folder / "in/config.json", tp=2, settings={"pad_vocab_to": 8})
    plan.run(tmp_path / "out")
    whole = torch.load(case.folder / "in/pytorch_model.bin", weights_only=True)["model.embed_tokens.weight"]
    parts = [t.read() for t in ckptc.open(tmp_path / "out") if t.name.endswith("word_embeddings.weight")]
    assert torch.equal(torch.cat(parts), torch.cat([whole, torch.zeros(1, whole.shape[1])]))
    assert back(tmp_path / "out", case, tmp_path / "again", pad_vocab_to=8) == originals(case)


@pytest.mark.parametrize(("tp", "pp", "stages"), [(1, 3, None), (2, 2, [[0], [1, 2, 3]]), (2, 1, None)])
def test_degrees_change_within_the_style(tp: int, pp: int, stages, tmp_path: Path) -> None:
    """Through disk, equal to converting directly; what is not said stays as it is in the source."""
    case = ALL["d9_gqa16x4_meg_tp2pp2m1__fwd"]
    config = case.folder / "in/config.json"
    forward(case, tmp_path / "a")
    ckptc.plan(tmp_path / "a", to="nxdt-megatron", config=config, tp=tp, pp=pp, stages=stages, from_settings={"qkv_order": "heads"}).run(tmp_path / "b")
    ckptc.plan(case.folder / "in/pytorch_model.bin", to="nxdt-megatron", config=config, tp=tp, pp=pp, stages=stages).run(tmp_path / "c")
    assert contents(tmp_path / "b") == contents(tmp_path / "c")
