"""Llama, hf style, between HuggingFace and NxD Training: every case of the oracle, both directions.

Where the reference is right, file names, tensor names, shapes, dtypes and hashes are exactly its own. Where it
is wrong or fails, a test here says what is right and why. Cases with xser or pad_attn_heads that really pads
belong to later work and are named below.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ckptc
from ckptc.dsl import MappingError
from ckptc.runtime.fault import Fault
from tests.asked import asked

from .nxd_cases import ORACLE, Case, contents

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)


def cases() -> list[Case]:
    """Llama in hf style: no megatron names, no xser."""
    found = [Case(d) for d in sorted(ORACLE.glob("[abch]*"))]
    return [c for c in found if c.spec["script"] == "nxdt" and "megatron" not in c.spec["argv"] and "xser" not in c.folder.name]


ALL = {c.folder.name: c for c in cases()}

# The reference writes these, but not what the framework's module reads (trn2: it pairs query heads with other
# key/value heads; trn1 with tp != kv * multiplier: it loses query heads), or it splits fused parts in thirds.
TRN2_MULTIPLIED = {n for n, c in ALL.items() if c.args.get("hw_backend") == "trn2" and c.number("kv_size_multiplier") > 1 and c.flag("qkv_linear")}
LOSES_HEADS = {n for n in ALL if n.startswith(("b_gqa_hf_tp2pp1m2_trn1", "b_gqa_hf_tp4pp1m4_trn1"))}
THIRDS = {"c_gqa_hf_fuse_tp2pp1m1_trn1__back", "c_gqa_hf_fuse_tp2pp1m1_trn2__back"}
HEAD_DIM = {"h7_explicit_head_dim16_tp2__fwd", "h7_explicit_head_dim16_tp2__back"}
# trn2 without copies: it writes files of which each rank has a part of a key/value head.
PARTS_OF_HEADS = {"b_gqa_hf_tp4pp1m1_trn2__fwd", "b_gqa_hf_tp8pp1m1_trn2__fwd"}
FAILS = {n for n, c in ALL.items() if c.spec["error"]}
RIGHT = sorted(set(ALL) - TRN2_MULTIPLIED - LOSES_HEADS - THIRDS - HEAD_DIM - PARTS_OF_HEADS - FAILS)


def settings(case: Case, hw: str | None = None) -> dict[str, object]:
    out: dict[str, object] = {}
    if case.flag("qkv_linear"):
        out["qkv"] = "fused" if case.flag("fuse_qkv") else "linear"
        out["kv_multiplier"] = case.number("kv_size_multiplier")
        out["hw"] = hw or case.args["hw_backend"]
    else:
        out["qkv"] = "coalesced" if case.flag("coalesce_qkv") else "split"
    return out


def degrees(case: Case) -> dict[str, int]:
    return {"tp": case.number("tp_size"), "pp": case.number("pp_size"), "vpp": case.number("virtual_pp_size")}


def forward(case: Case, out: Path, hw: str | None = None, source: str = "pytorch_model.bin"):
    plan = ckptc.plan(case.folder / "in" / source, to="nxdt", config=case.folder / "in/config.json", **asked(**degrees(case), **settings(case, hw)))
    plan.run(out)
    return contents(out)


def back(case: Case, out: Path, hw: str | None = None):
    """To HF; names only, as the reference puts all into one checkpoint.pt."""
    plan = ckptc.plan(case.folder / "in/model", to="hf", config=case.folder / "in/config.json", from_settings=settings(case, hw))
    plan.run(out)
    return {name: held for (_, name), held in contents(out).items()}


def expected(case: Case):
    return case.expected if case.forward else {name: held for (_, name), held in case.expected.items()}


def twin(case: Case) -> Case:
    """The case of the other direction, whose input is what this one should give back."""
    return ALL[case.folder.name.replace("__back", "__fwd")]


def originals(case: Case):
    """The HF tensors that the checkpoint of a `__back` case was made from."""
    return {name: held for (file, name), held in twin(case).input.items() if file == "pytorch_model.bin"}


def test_there_are_as_many_right_cases_as_were_counted() -> None:
    assert len(RIGHT) >= 60


@pytest.mark.parametrize("name", RIGHT)
def test_where_the_reference_is_right_the_result_is_its_own(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    assert (forward if case.forward else back)(case, tmp_path / "out") == expected(case)


@pytest.mark.parametrize("name", [n for n in RIGHT if ALL[n].forward and (ORACLE / n / "in/model.safetensors").exists()])
def test_safetensors_input_gives_the_same_result(name: str, tmp_path: Path) -> None:
    assert forward(ALL[name], tmp_path / "out", source="model.safetensors") == ALL[name].expected


@pytest.mark.parametrize("name", [n for n in RIGHT if not ALL[n].forward])
def test_degrees_and_settings_are_read_from_the_files(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    asked = {"hw": "trn1"} if case.number("kv_size_multiplier") > 1 else {}  # all but this
    plan = ckptc.plan(case.folder / "in", to="hf", config=case.folder / "in/config.json", from_settings=asked)
    plan.run(tmp_path / "out")
    assert {n: held for (_, n), held in contents(tmp_path / "out").items()} == expected(case)


@pytest.mark.parametrize("name", [n for n in RIGHT if not ALL[n].forward and ALL[n].number("kv_size_multiplier") > 1])
def test_where_heads_are_copied_it_is_asked_whose_order_they_have(name: str) -> None:
    """Names and shapes are one for both kinds of hardware, and for what the converter writes; the heads' order is not."""
    case = ALL[name]
    with pytest.raises(MappingError) as caught:
        ckptc.plan(case.folder / "in", to="hf", config=case.folder / "in/config.json")
    (question,) = caught.value.diagnostics
    assert question.code == "not-told"
    assert "`hw`" in question.title
    assert "--from-set hw=trn1" in question.help
    assert "--from-set hw=trn2_converter" in question.help


@pytest.mark.parametrize("name", sorted(PARTS_OF_HEADS))
def test_what_would_put_a_part_of_a_head_on_a_rank_is_refused(name: str, tmp_path: Path) -> None:
    """LlamaAttention divides key/value heads * multiplier by tp (NxDT modeling_llama.py:359, NxD's modeling_llama_nxd.py:362)."""
    with pytest.raises(MappingError, match="a part of a key/value head"):
        forward(ALL[name], tmp_path / "out")


# --- trn2 with a multiplier -----------------------------------------------------------------------

MULTIPLIED = sorted(n for n in TRN2_MULTIPLIED - FAILS if not n.startswith("b3_"))


@pytest.mark.parametrize("name", MULTIPLIED)
def test_what_the_converter_makes_for_trn2_is_read_and_written_by_name(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    if "fuse" in name and not case.forward:
        assert back(case, tmp_path / "out", "trn2_converter") == originals(case)  # the reference splits in thirds
    else:
        result = (forward if case.forward else back)(case, tmp_path / "out", "trn2_converter")
        assert result == expected(case)


WHOLE_HEADS = [n for n in MULTIPLIED if ALL[n].forward and n != "b_gqa_hf_tp8pp1m2_trn2__fwd"]


@pytest.mark.parametrize("name", WHOLE_HEADS)
def test_on_trn2_each_rank_has_the_query_heads_of_its_key_value_heads(name: str, tmp_path: Path) -> None:
    """The module's rule (qkv_linear.py, arrange_kv_groups): m neighbouring ranks share their key/value heads,
    and within a rank query heads stand beside the key/value head they attend to."""
    case = ALL[name]
    forward(case, tmp_path / "out")
    check_pairing(case, tmp_path / "out", lambda r, m, tp: r // m)


@pytest.mark.parametrize("name", sorted(n for n in ALL if ALL[n].forward and ALL[n].flag("qkv_linear") and ALL[n].args["hw_backend"] == "trn1" and (n in RIGHT or n in LOSES_HEADS) and n.startswith(("a5", "b_", "b2_", "c_"))))
def test_on_trn1_each_rank_has_the_query_heads_of_its_key_value_heads(name: str, tmp_path: Path) -> None:
    """On trn1 the ranks that share key/value heads are tp / m apart."""
    case = ALL[name]
    forward(case, tmp_path / "out")
    check_pairing(case, tmp_path / "out", lambda r, m, tp: r % (tp // m))


def check_pairing(case: Case, out: Path, shard_of) -> None:
    """Rebuilt from the module's own rules, head by head: no query head is lost, each is beside its key head."""
    config = case.spec["config"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    dim, tp, m = config["hidden_size"] // heads, case.number("tp_size"), case.number("kv_size_multiplier")
    whole = torch.load(case.folder / "in/pytorch_model.bin", weights_only=True)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.self_attn."
        query = whole[prefix + "q_proj.weight"].split(dim)
        key = whole[prefix + "k_proj.weight"].split(dim)
        seen: list[int] = []
        for rank in range(tp):
            held = {t.name: t.read() for t in ckptc.open(out) if f"tp_rank_{rank:02}_" in t.file and t.name.startswith(prefix)}
            if prefix + "qkv_proj.weight_qkv" in held:
                parts = held[prefix + "qkv_proj.weight_qkv"].split([heads * dim // tp, groups * m * dim // tp, groups * m * dim // tp])
            else:
                parts = held[prefix + "qkv_proj.weight_q"], held[prefix + "qkv_proj.weight_k"]
            mine_q, mine_k = parts[0].split(dim), parts[1].split(dim)
            each = groups * m // tp
            shard = shard_of(rank, m, tp)
            for i, k in enumerate(mine_k):
                group = shard * each + i
                assert torch.equal(k, key[group])
                share = len(mine_q) // len(mine_k)  # repeat_kv: so many query heads in a row attend to key i
                for q in mine_q[i * share : (i + 1) * share]:
                    number = next(h for h in range(heads) if torch.equal(q, query[h]))
                    assert number // (heads // groups) == group
                    seen.append(number)
            out_proj = held[prefix + "o_proj.weight"].split(dim, dim=1)
            whole_o = whole[prefix + "o_proj.weight"].split(dim, dim=1)
            assert all(torch.equal(o, whole_o[h]) for o, h in zip(out_proj, seen[-len(out_proj) :], strict=True))
        assert sorted(seen) == list(range(heads))


@pytest.mark.parametrize("name", [n for n in MULTIPLIED if not ALL[n].forward and ALL[n].number("tp_size") // ALL[n].number("kv_size_multiplier") > 1 and n != "b_gqa_hf_tp8pp1m2_trn2__back"])
def test_reading_converter_files_as_true_trn2_is_refused_because_copies_differ(name: str, tmp_path: Path) -> None:
    with pytest.raises(Fault) as fault:
        back(ALL[name], tmp_path / "out")
    assert fault.value.code == "copies-differ"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["b_gqa_hf_tp8pp1m2_trn2__fwd", "b_gqa_hf_tp8pp1m2_trn1__fwd", "b_gqa_hf_tp4pp1m1_trn1__fwd", "b_gqa_hf_tp8pp1m1_trn1__fwd"])
def test_half_a_key_value_head_per_rank_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MappingError) as error:
        forward(ALL[name], tmp_path / "out")
    assert [d.code for d in error.value.diagnostics] == ["unmet-requirement"]
    assert "part of a key/value head" in error.value.diagnostics[0].title


def test_padded_attention_heads_are_written_as_the_converter_does_and_stripped_going_back(tmp_path: Path) -> None:
    """12 query heads over 8 ranks: 4 heads of zeros. The reference leaves them in when it goes back (trn2)."""
    case, again = ALL["b3_gqa12x2_pad_tp8m4_trn2__fwd"], ALL["b3_gqa12x2_pad_tp8m4_trn2__back"]
    plan = ckptc.plan(
        case.folder / "in/pytorch_model.bin", to="nxdt", config=case.folder / "in/config.json", tp=8,
        settings={"kv_multiplier": 4, "hw": "trn2_converter", "pad_heads": True},
    )  # fmt: skip
    plan.run(tmp_path / "out")
    assert contents(tmp_path / "out") == case.expected
    plan = ckptc.plan(
        again.folder / "in/model", to="hf", config=again.folder / "in/config.json",
        from_settings={"hw": "trn2_converter", "kv_multiplier": 4, "pad_heads": True},
    )  # fmt: skip
    plan.run(tmp_path / "again")
    assert {name: held for (_, name), held in contents(tmp_path / "again").items()} == originals(again)


@pytest.mark.parametrize("hw", ["trn1", "trn2"])
def test_padded_heads_stand_beside_their_own_key_value_head(hw: str, tmp_path: Path) -> None:
    """6 query heads per key/value head over 4 copies: 2 each for three copies, two heads of zeros on the fourth."""
    case = ALL["b3_gqa12x2_pad_tp8m4_trn2__fwd"]
    plan = ckptc.plan(
        case.folder / "in/pytorch_model.bin", to="nxdt", config=case.folder / "in/config.json", tp=8,
        settings={"kv_multiplier": 4, "hw": hw, "pad_heads": True},
    )  # fmt: skip
    plan.run(tmp_path / "out")
    whole = torch.load(case.folder / "in/pytorch_model.bin", weights_only=True)
    query, key = (whole[f"model.layers.0.self_attn.{x}_proj.weight"].split(8) for x in "qk")
    for rank in range(8):
        held = {t.name.split(".")[-1]: t.read() for t in ckptc.open(tmp_path / "out") if f"tp_rank_{rank:02}_" in t.file and "layers.0.self_attn.qkv" in t.name}
        copy, group = (rank // 2, rank % 2) if hw == "trn1" else (rank % 4, rank // 4)
        assert torch.equal(held["weight_k"], key[group])
        heads = [query[group * 6 + copy * 2 + i] if copy < 3 else torch.zeros(8, 96) for i in (0, 1)]
        assert torch.equal(held["weight_q"], torch.cat(heads))
    back_again = ckptc.plan(tmp_path / "out", to="hf", config=case.folder / "in/config.json", from_settings={"hw": hw})
    back_again.run(tmp_path / "again")
    assert {name: held for (_, name), held in contents(tmp_path / "again").items()} == originals(case)


def test_heads_that_do_not_share_out_evenly_need_padding(tmp_path: Path) -> None:
    with pytest.raises(MappingError) as error:
        forward(ALL["b3_gqa12x2_pad_tp8m4_trn2__fwd"], tmp_path / "out")
    assert error.value.diagnostics[0].code == "uneven-refinement"


# --- what the reference loses, cuts in thirds, or misreads ----------------------------------------


@pytest.mark.parametrize("name", sorted(n for n in LOSES_HEADS if not ALL[n].forward))
def test_files_that_lost_query_heads_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Fault) as fault:
        back(ALL[name], tmp_path / "out")
    assert fault.value.code == "wrong-shape"


@pytest.mark.parametrize("name", [*sorted(n for n in FAILS | THIRDS if "fuse" in n and "trn1" in n and not ALL[n].forward), "c_gqa_hf_fuse_tp2pp1m1_trn2__back"])
def test_fused_parts_of_unequal_size_go_back(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    assert back(case, tmp_path / "out") == originals(case)


def test_an_explicit_head_dim_is_kept(tmp_path: Path) -> None:
    """8 heads of 16 in hidden 64: the reference takes dim 8 and writes (32, 128); the module has (64, 64)."""
    case = ALL["h7_explicit_head_dim16_tp2__fwd"]
    forward(case, tmp_path / "out")
    shapes = {t.name: tuple(t.shape) for t in ckptc.open(tmp_path / "out") if "layers.0" in t.name}
    assert shapes["model.layers.0.self_attn.qkv_proj.weight_q"] == (64, 64)
    assert shapes["model.layers.0.self_attn.o_proj.weight"] == (64, 64)
    plan = ckptc.plan(tmp_path / "out", to="hf", config=case.folder / "in/config.json")
    plan.run(tmp_path / "again")
    assert {n: held for (_, n), held in contents(tmp_path / "again").items()} == {n: h for (f, n), h in case.input.items() if f == "pytorch_model.bin"}
    with pytest.raises(Fault, match="wrong-shape"):
        back(ALL["h7_explicit_head_dim16_tp2__back"], tmp_path / "out2")


@pytest.mark.parametrize("name", ["a1_mha_hf_tp2pp2__back", "a4_mha_hf_tp2pp2_qkv_linear_emptystring__back", "h6_qbias_noqkvlinear__back"])
def test_separate_projections_go_back(name: str, tmp_path: Path) -> None:
    """The reference raises KeyError: it looks for coalesced names without --coalesce_qkv, and knows no biases."""
    assert back(ALL[name], tmp_path / "out") == originals(ALL[name])


@pytest.mark.parametrize("name", ["a6_mha_hf_qkvlinear_tp2pp2_trn1__fwd", "b_gqa_hf_tp1pp1m1_trn1__fwd", "b2_gqa16x4_hf_tp2pp1m1_trn1__fwd"])
def test_on_trn1_with_fewer_ranks_than_heads_the_order_is_plain(name: str, tmp_path: Path) -> None:
    """The reference crashes for tp < kv heads; with multiplier 1 nothing is replicated and trn1 is trn2."""
    same = ALL[name.replace("trn1", "trn2")]
    assert forward(ALL[name], tmp_path / "out") == same.expected


def test_query_biases_take_the_order_of_their_rows(tmp_path: Path) -> None:
    """The reference raises KeyError; the module's parameter is bias_q."""
    case = ALL["h6_qbias_qkvlinear__fwd"]
    result = forward(case, tmp_path / "out")
    whole = torch.load(case.folder / "in/pytorch_model.bin", weights_only=True)
    for tensor in ckptc.open(tmp_path / "out"):
        if tensor.name.endswith("bias_q"):
            rank = int(tensor.file.split("tp_rank_")[1][:2])
            bias = whole[tensor.name.replace("qkv_proj.bias_q", "q_proj.bias")]
            assert torch.equal(tensor.read(), bias.chunk(2)[rank])
    assert sum(name.endswith("bias_q") for _, name in result) == 8


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("h1_pp_uneven_L3pp4__fwd", "uneven-stages"),
        ("h5_inter_127_tp2__fwd", "uneven-split"),
        ("h5_vocab_127_tp2__fwd", "uneven-split"),
        ("h6_obias_noqkvlinear__fwd", "missing-tensor"),  # only one layer has the bias
        ("h9_config_without_kv_heads__fwd", "wrong-shape"),  # the config means MHA, the weights are GQA
    ],
)
def test_what_cannot_be_right_is_one_diagnostic(name: str, code: str, tmp_path: Path) -> None:
    with pytest.raises((MappingError, Fault)) as error:
        forward(ALL[name], tmp_path / "out")
    found = {d.code for d in error.value.diagnostics} if isinstance(error.value, MappingError) else {error.value.code}
    assert found == {code}
    assert list(tmp_path.iterdir()) == []


def test_the_documented_false_means_false(tmp_path: Path) -> None:
    """`--qkv_linear False` reads as true in the reference, which then crashes; false means plain projections."""
    case = ALL["a3_mha_hf_tp2pp2_doc_qkv_linear_False_string__fwd"]
    plan = ckptc.plan(case.folder / "in/pytorch_model.bin", to="nxdt", config=case.folder / "in/config.json", tp=2, pp=2, settings={"qkv": "split"})
    plan.run(tmp_path / "out")
    assert contents(tmp_path / "out") == ALL["a1_mha_hf_tp2pp2__fwd"].expected
