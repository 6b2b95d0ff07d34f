"""Every NxD case of the oracle through `ckptc compat`, with the script's own arguments.

Where the script is right, files, names, shapes, dtypes and hashes are its own. Where it is wrong or fails, the case
is listed here with what is right: the HuggingFace tensors that it was made from, an order that other tests of this
folder prove, or one diagnostic.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import ckptc
from ckptc.main import main

from .nxd_cases import ORACLE, Case, contents

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

SCRIPT = {
    "nxdt": "examples/checkpoint_converter_scripts/checkpoint_converter.py",
    "nxdt_mixtral": "examples/checkpoint_converter_scripts/hf_nxdt_mixtral_ckpt_converter.py",
    "llama": "examples/training/llama/convert_checkpoints.py",
    "mixtral": "examples/training/mixtral/convert_checkpoints.py",
    "dbrx": "examples/training/dbrx/convert_checkpoints.py",
    "nnm": "nnm_model_ckpt_to_nxdt_model_ckpt_converter.py",
}
ALL = {c.folder.name: c for d in sorted(ORACLE.iterdir()) if (c := Case(d)).spec["script"] in SCRIPT}

# The script would write or read something that the framework's module does not have.
TRN2 = "trn2 with copies: the script pairs query heads with other key/value heads (test_nxd_llama)"
LOST = "trn1 with tp != kv * multiplier: the script loses query heads (test_nxd_llama)"
HEAD_DIM = "the script does not read head_dim (test_nxd_llama, test_nxd_megatron)"
ORDER = "the script writes blocks where the module reads head by head (test_nxd_megatron)"
GQA = "the script joins query, key and value where the module does not (test_nxd_megatron)"
EXPERTS = "the script does not transpose experts, and copies all to each expert parallel rank (test_nxd_experts)"
REFERENCES = "each tensor's file was listed by itself (test_nxd_xser)"
BETTER = {
    **{n: TRN2 for n, c in ALL.items() if c.forward and c.args.get("hw_backend") == "trn2" and c.number("kv_size_multiplier") > 1},
    **dict.fromkeys(("b_gqa_hf_tp2pp1m2_trn1__fwd", "b_gqa_hf_tp4pp1m4_trn1__fwd"), LOST),
    **dict.fromkeys(("h7_explicit_head_dim16_tp2__fwd", "h7_explicit_head_dim16_tp2_meg__fwd"), HEAD_DIM),
    **{n: EXPERTS for n, c in ALL.items() if c.forward and "mixtral" in n},
    **{
        n: ORDER for n in ALL
        if n.startswith(("d1_", "d7_", "d9_", "e2_", "d4_gqa_meg_tp1"))
    },
    "d6_gqa_meg_no_qkvlinear_tp2pp2__fwd": GQA,
    "e4_forced_xla_refs_gqa_hf_tp2pp2m1__fwd": REFERENCES,
    "n1_nnm_to_nxdt_tp2pp2": REFERENCES,
    # Files of true trn2 order and of the module's expert layout, which the script reads in its own.
    "t4_true_trn2_kv_byhead_tp8m4__back": TRN2,
    "t6_mixtral_module_layout__back": EXPERTS,
    # Every rank has every key/value head: whose order it is cannot be told, and the module's is taken.
    "b_gqa_hf_tp2pp1m2_trn2__back": TRN2,
    "b_gqa_hf_tp4pp1m4_trn2__back": TRN2,
}  # fmt: skip

# The script fails, or gives back something else than it was given.
ORIGINALS = [
    "a1_mha_hf_tp2pp2__back", "a4_mha_hf_tp2pp2_qkv_linear_emptystring__back", "b3_gqa12x2_pad_tp8m4_trn2__back",
    "c_gqa_hf_fuse_tp2pp1m1_trn1__back", "c_gqa_hf_fuse_tp2pp1m1_trn2__back", "c_gqa_hf_fuse_tp4pp2m2_trn1__back",
    "c_gqa_hf_fuse_tp4pp2m2_trn2__back", "d6_gqa_meg_no_qkvlinear_tp2pp2__back", "e4_forced_xla_refs_gqa_hf_tp2pp2m1__back",
    "h6_qbias_noqkvlinear__back", "m2_mixtral_nxdt_meg_doc_tp2pp2__back",
]  # fmt: skip
# The same checkpoint in forms on which the script fails, and a case that reads it well.
SAME_AS = {
    "q3_load_xser_relative_path": "b_gqa_hf_tp4pp2m2_trn1__back",
    "q4_v1_layout_nested_model_key": "q4_v1_layout_flat",
    "r2_hf_nontensor_entry_back": "b_gqa_hf_tp2pp2m1_trn1__back",
    "t1_train_xser_loaded_without_load_xser": "t1_train_xser_gqa_hf_tp4pp2m2__back",
    "t1_train_xser_no_info_gqa_hf_tp4pp2m2__back": "t1_train_xser_gqa_hf_tp4pp2m2__back",
}
# The script fails going forward; what comes out is tested where the reason is.
FORWARD = [
    "a3_mha_hf_tp2pp2_doc_qkv_linear_False_string__fwd", "a6_mha_hf_qkvlinear_tp2pp2_trn1__fwd", "b2_gqa16x4_hf_tp2pp1m1_trn1__fwd",
    "b_gqa_hf_tp1pp1m1_trn1__fwd", "h6_qbias_qkvlinear__fwd", "r4_no_config",
]  # fmt: skip
REFUSED = {
    "b_gqa_hf_tp2pp1m2_trn1__back": "wrong-shape",  # the files have lost query heads
    "b_gqa_hf_tp4pp1m4_trn1__back": "wrong-shape",
    "b_gqa_hf_tp4pp1m1_trn2__fwd": "unmet-requirement",
    "b_gqa_hf_tp8pp1m1_trn2__fwd": "unmet-requirement",
    "r3_gqa_coalesce__fwd": "unmet-requirement",  # no module joins them where query heads share key/value heads
    "b_gqa_hf_tp4pp1m1_trn1__fwd": "unmet-requirement",  # a part of a key/value head on a rank
    "b_gqa_hf_tp8pp1m1_trn1__fwd": "unmet-requirement",
    "b_gqa_hf_tp8pp1m2_trn1__fwd": "unmet-requirement",
    "b_gqa_hf_tp8pp1m2_trn2__fwd": "unmet-requirement",
    "b3_gqa12x2_pad_tp8m4_trn2__fwd": "",  # written as the module has it: TRN2
    "d3_gqa_meg_tp4pp2m2_trn1__fwd": "no-kv-copies",
    "d3_gqa_meg_tp8pp1m4_trn1__fwd": "no-kv-copies",
    "d4_gqa_meg_tp4pp1m1_trn1__fwd": "unmet-requirement",
    "h1_pp_uneven_L3pp4__fwd": "uneven-stages",
    "h5_inter_127_tp2__fwd": "uneven-split",
    "h5_vocab_127_tp2__fwd": "uneven-split",
    "h6_obias_noqkvlinear__fwd": "missing-tensor",  # only one layer has the bias
    "h7_explicit_head_dim16_tp2__back": "wrong-shape",  # what the script made of it is no model
    "h7_explicit_head_dim16_tp2_meg__back": "wrong-shape",
    "h9_config_without_kv_heads__fwd": "wrong-shape",
    "n2_nnm_to_nxdt_then_hf": "",  # read, though its info files have the wrong name (test_nxd_xser)
    "q1_no_convert_flag": "usage",
    "q1_no_hw_backend": "usage",
    "q1_no_input": "usage",
    "q1_two_convert_flags": "usage",
    "q1_unknown_flag_llama": "unknown-hardware",  # trn9, which the script takes for trn1
    "q1_unknown_flag_nxdt": "usage",
    "r1_hf_unmapped_key_score_weight__back": "unknown-tensor",  # what no rule maps is never carried along or dropped
    "r1_hf_unmapped_key_score_weight__fwd": "unknown-tensor",
    "r1_meg_unmapped_key_score_weight__fwd": "unknown-tensor",
    "r6_missing_shard": "missing-file",
    "r6_pp_too_small": "degree-disagrees",  # the script drops layers
    "r6_tp_too_small": "degree-disagrees",
    "r7_trn1_m4_ckpt_read_with_m1": "setting-disagrees",
    "t4_true_trn2_kv_byrow_tp8m4__back": "copies-differ",  # rows repeated one by one: no rank has a whole head
}
REFUSED = {name: code for name, code in REFUSED.items() if code}
CONTAINERS = ["q2_convert_from_xser", "q2_convert_to_xser"]
ELSEWHERE = {*BETTER, *ORIGINALS, *SAME_AS, *FORWARD, *REFUSED, *CONTAINERS, "n2_nnm_to_nxdt_then_hf"}
RIGHT = sorted(set(ALL) - ELSEWHERE)


@pytest.fixture
def compat(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Case], tuple[int, str, Path]]:
    def run(case: Case) -> tuple[int, str, Path]:
        """Exit code, what was said on standard error, and the output folder."""
        monkeypatch.chdir(case.folder)
        out = tmp_path / "out"
        places = {"{in}": str(case.folder / "in"), "{out}": str(out), "{cfg}": str(case.folder / "in/config.json")}
        words = list(case.spec["argv"])
        for mark, place in places.items():
            words = [w.replace(mark, place) for w in words]
        with pytest.raises(SystemExit) as stopped:
            main(["compat", SCRIPT[case.spec["script"]], *words])
        return int(str(stopped.value.code)), capfd.readouterr().err, out

    return run


def held(out: Path):
    """What was written, in the form of `Case.expected`."""
    return contents(out) if (out / "model").is_dir() else {("checkpoint.pt", n): h for (_, n), h in contents(out / "checkpoint.pt").items()}


def originals(case: Case):
    twin = Case(ORACLE / case.folder.name.replace("__back", "__fwd"))
    return {("checkpoint.pt", n): h for (f, n), h in twin.input.items() if f == "pytorch_model.bin"}


def test_most_cases_are_right_and_no_case_is_in_two_lists() -> None:
    lists = [set(BETTER), set(ORIGINALS), set(SAME_AS), set(FORWARD), set(REFUSED), set(CONTAINERS)]
    assert len(RIGHT) >= 100
    assert set.union(*lists) <= set(ALL)
    assert sum(map(len, lists)) - len(set.union(*lists)) == len(set(BETTER) & set(REFUSED)) == 1


@pytest.mark.parametrize("name", RIGHT)
def test_where_the_script_is_right_the_files_are_its_own(name: str, compat) -> None:
    case = ALL[name]
    assert case.spec["error"] is None
    code, said, out = compat(case)
    assert code == 0, said
    assert held(out) == case.expected


@pytest.mark.parametrize("name", ORIGINALS)
def test_where_the_script_fails_going_back_the_originals_come_out(name: str, compat) -> None:
    code, said, out = compat(ALL[name])
    assert code == 0, said
    assert held(out) == originals(ALL[name])


@pytest.mark.parametrize("name", SAME_AS)
def test_every_form_of_a_checkpoint_is_read(name: str, compat) -> None:
    code, said, out = compat(ALL[name])
    assert code == 0, said
    assert held(out) == ALL[SAME_AS[name]].expected


@pytest.mark.parametrize("name", sorted(set(FORWARD) | set(BETTER) - set(REFUSED)))
def test_where_the_script_is_wrong_or_fails_the_module_gets_what_it_reads(name: str, compat) -> None:
    """That it is right is proved elsewhere; here it runs with the script's arguments."""
    code, said, out = compat(ALL[name])
    assert code == 0, said
    assert held(out)
    if name in BETTER:
        assert held(out) != ALL[name].expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_one_diagnostic(name: str, compat) -> None:
    code, said, out = compat(ALL[name])
    if REFUSED[name] == "usage":
        assert (code, said.count("\n"), said[:7]) == (2, 1, "ckptc: ")
    else:
        assert code == 1
        assert [line.split("[")[1].split("]")[0] for line in said.splitlines() if line.startswith("error[")] == [REFUSED[name]]
    assert not out.exists()


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_container_changes_and_nothing_else(name: str, compat) -> None:
    """The script always crashes here (ep_rank is missing)."""
    case = ALL[name]
    code, said, out = compat(case)
    assert code == 0, said
    assert contents(out) == contents(case.folder / "in")
    assert ckptc.open(out).format == ("xser" if name.endswith("to_xser") else "pt")
    assert json.loads((case.folder / "case.json").read_text())["error"]
