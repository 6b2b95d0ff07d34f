"""Pipeline stages of any length, none too, and experts' own tensor parallel degree, in Megatron-LM's files of ranks. Writing
and reading are each compared with a plain torch account of what a rank holds."""

from __future__ import annotations

import argparse
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ckptc
from ckptc.choices.stage_text import Chunks, parse_stages
from ckptc.dsl.diagnostic import MappingError
from ckptc.runtime.fault import Fault
from tests.held import counted, same

from . import test_megatron_families as families
from .llama import read, write
from .test_megatron_ranks import FILE, MODEL, Weights, account, cut, held


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("stages") / "hf", MODEL, side=False)


# What is asked for, and how many of the 8 layers each chunk then has, in the order of the model. Source:
# megatron/core/transformer/pipeline_parallel_layer_layout.py; get_num_layers_to_build, transformer_block.py.
STAGES = [
    ("E|t*3|t*5,L", 1, 3, 1, [0, 3, 5]),
    ("Et*5|ttt|L", 2, 3, 1, [5, 3, 0]),
    ("E|t*3||t*5L", 1, 4, 1, [0, 3, 0, 5]),
    ("Et*3|(tt|)*2,tL", 1, 2, 2, [3, 2, 2, 1]),
    ("E|t*4|t*4|L", 2, 2, 2, [0, 4, 4, 0]),
    ("Et||tt|t*5||L", 1, 3, 2, [1, 0, 2, 5, 0, 0]),
    (",0-2,3-7", 1, 3, 1, [0, 3, 5]),
    ("0+4-7,1-3+", 1, 2, 2, [1, 3, 4, 0]),
    ([[], [0, 1, 2], [3, 4, 5, 6, 7]], 1, 3, 1, [0, 3, 5]),
    ("3,5", 3, 2, 1, [3, 5]),
    ("2,1,2,3", 1, 2, 2, [2, 1, 2, 3]),
    ("decoder_first_pipeline_num_layers=1,decoder_last_pipeline_num_layers=3", 1, 4, 1, [1, 2, 2, 3]),
    ("last=4", 1, 3, 2, [1, 1, 2, 1, 1, 2]),
    ("account_for_embedding_in_pipeline_split,account_for_loss_in_pipeline_split", 1, 5, 1, [1, 2, 2, 2, 1]),
    ("embedding=true,loss=true,num_layers_per_virtual_pipeline_stage=1", 1, 5, 2, [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]),
]  # fmt: skip


def models(hf: Weights, t: int, tp: int, p: int, pp: int, vpp: int, lengths: list[int]) -> list[Weights]:
    """What one rank holds, by turn: chunk v * pp + p of the model is turn v of stage p."""
    found = []
    for chunk in range(p, len(lengths), pp):
        first = sum(lengths[:chunk])
        found.append(account(hf, t, tp, list(range(first, first + lengths[chunk])), chunk == 0, chunk == len(lengths) - 1))
    assert len(found) == vpp
    return found


def save(place: Path, found: list[Weights], **further: Any) -> None:
    place.mkdir(parents=True)
    top = {"model": found[0]} if len(found) == 1 else {f"model{v}": each for v, each in enumerate(found)}
    torch.save({"checkpoint_version": 3.0, "iteration": 3, **{k: {n: x.clone() for n, x in m.items()} for k, m in top.items()}, **further}, place / FILE)


@pytest.mark.parametrize(("asked", "tp", "pp", "vpp", "lengths"), STAGES, ids=str)
def test_every_rank_is_written_what_its_stage_has(source: Path, tmp_path: Path, asked: Any, tp: int, pp: int, vpp: int, lengths: list[int]) -> None:
    given = {"vpp": vpp} if vpp > 1 and asked in ("last=4", "0+4-7,1-3+") else {}
    ckptc.convert(source, tmp_path / "out", to="megatron-legacy", tp=tp, pp=pp, stages=asked, **given)
    hf = read(source)
    for t in range(tp):
        for p in range(pp):
            top = held(tmp_path / f"out/release/mp_rank_{t:02}_{p:03}")
            wanted = models(hf, t, tp, p, pp, vpp, lengths)
            assert {n for n in top if n.startswith("model")} == ({"model"} if vpp == 1 else {f"model{v}" for v in range(vpp)})
            for v, each in enumerate(wanted):
                model = top["model" if vpp == 1 else f"model{v}"]
                assert same({n: x for n, x in model.items() if x is not None}, each)


@pytest.mark.parametrize(("tp", "pp", "vpp", "lengths"), list({str(case[4]): case[1:] for case in STAGES}.values()), ids=str)
@pytest.mark.parametrize("said", [False, True])
def test_every_stage_is_read_from_its_files(source: Path, tmp_path: Path, said: bool, tp: int, pp: int, vpp: int, lengths: list[int]) -> None:
    """Also where --from-stages says what the files tell."""
    hf = read(source)
    for t in range(tp):
        for p in range(pp):
            save(tmp_path / f"run/iter_0000003/mp_rank_{t:02}_{p:03}", models(hf, t, tp, p, pp, vpp, lengths))
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("3")
    layout = "|".join("t" * n for n in lengths)
    ckptc.convert(tmp_path / "run", tmp_path / "back", to="hf", config=source / "config.json", from_stages=layout if said else None)
    assert same(read(tmp_path / "back"), hf)


def test_a_middle_file_that_is_lost_is_no_stage_without_layers(source: Path, tmp_path: Path) -> None:
    hf = read(source)
    for p in (0, 2):
        save(tmp_path / f"run/iter_0000003/mp_rank_00_{p:03}", models(hf, 0, 1, p, 3, 1, [3, 2, 3]))
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("3")
    for said, words in ((None, "uneven-stages"), ("0-2,3-4,5-7", "missing-file(?s:.*)mp_rank_00_001")):
        with pytest.raises((Fault, MappingError), match=words):
            ckptc.convert(tmp_path / "run", tmp_path / "back", to="hf", config=source / "config.json", from_stages=said)


@pytest.mark.parametrize("asked", ["E|t*3||t*5L", "t|t*7|"])
@pytest.mark.parametrize("to", ["nemo", "nemo-legacy", "megatron-lm", "nxdt", "nxdt-megatron"])
def test_every_layout_of_ranks_has_stages_without_layers(source: Path, tmp_path: Path, to: str, asked: str) -> None:
    pp = asked.count("|") + 1
    lengths = [part.count("t") for part in asked.replace("t*3", "ttt").replace("t*5", "ttttt").replace("t*7", "ttttttt").split("|")]
    plan = ckptc.plan(source, to=to, pp=pp, stages=asked)
    for p in range(pp):
        names = [name for name, _ in plan.stream(pp=p)]
        assert len({name.split("layers.")[1].split(".")[0] for name in names if "layers." in name}) == lengths[p]
        assert any("embed" in name for name in names) == (p == 0)
    plan.run(tmp_path / "out")
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=source / "config.json", from_settings={"qkv_order": "heads"} if to == "nxdt-megatron" else {})
    found = read(tmp_path / "back")
    found.pop("model.rotary_emb.inv_freq", None)  # NeMo's own modules have these, and HuggingFace's old ones
    assert same(found, read(source))


def test_an_archive_has_a_member_for_a_stage_without_tensors(source: Path, tmp_path: Path) -> None:
    ckptc.convert(source, tmp_path / "out.nemo", to="nemo", pp=4, stages="Ettt||tt|tttL")
    ckptc.convert(tmp_path / "out.nemo", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(read(tmp_path / "back"), read(source))


@pytest.mark.parametrize("form", ["text", "object", "lists"])
def test_a_run_s_own_layout_holds_for_as_many_stages(source: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("megatron.core.transformer.pipeline_parallel_layer_layout")
    for depth in range(1, 5):
        name = ".".join(module.__name__.split(".")[:depth])
        monkeypatch.setitem(sys.modules, name, module if depth == 4 else types.ModuleType(name))
    made = type("PipelineParallelLayerLayout", (), {"__module__": module.__name__})
    module.PipelineParallelLayerLayout = made  # type: ignore[attr-defined]
    parsed, listed = made(), made()
    text = "E|t*3|t*5,L"
    lists = [["embedding"], ["decoder"] * 3, [*["decoder"] * 5, "loss"]]
    parsed.input_data, listed.input_data = text, lists  # type: ignore[attr-defined]
    said = {"text": text, "object": parsed, "lists": listed}[form]
    hf = read(source)
    args = argparse.Namespace(
        num_layers=8, hidden_size=48, ffn_hidden_size=84, num_attention_heads=12, num_query_groups=6, group_query_attention=True, kv_channels=10,
        max_position_embeddings=64, position_embedding_type="rope", swiglu=True, normalization="RMSNorm", add_bias_linear=False,
        untie_embeddings_and_output_weights=True, padded_vocab_size=128, pipeline_model_parallel_size=3, pipeline_model_parallel_layout=said,
    )  # fmt: skip
    for p in range(3):
        save(tmp_path / f"run/iter_0000003/mp_rank_00_{p:03}", models(hf, 0, 1, p, 3, 1, [0, 3, 5]), args=args)
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("3")
    plan = ckptc.plan(tmp_path / "run", to="nemo", pp=3, family="llama")
    counted = [len({n.split(".")[3] for n, _ in plan.stream(pp=p) if ".layers." in n}) for p in range(3)]
    assert counted == [0, 3, 5]
    even = ckptc.plan(tmp_path / "run", to="nemo", pp=4, family="llama")
    assert len({n.split(".")[3] for n, _ in even.stream(pp=0) if ".layers." in n}) == 2


@pytest.mark.parametrize(
    ("text", "lengths", "further"),
    [
        ("Et*3|(tt|)*29,m|L", (3, *[2] * 29, 0, 0), (30, 1)),  # DeepSeek-V3 with 16 stages of 2 turns, Megatron's own example
        ("Et|(t|)*3,tmL", (1, 1, 1, 1, 1), (4, 1)), ("E(t*2|)*2tL", (2, 2, 1), None), ("Et|t*10,mmL", (1, 10), (1, 2)),
    ],
)  # fmt: skip
def test_a_layout_is_read_as_megatron_reads_it(text: str, lengths: tuple[int, ...], further: tuple[int, int] | None) -> None:
    assert parse_stages(text) == Chunks(lengths, further)


@pytest.mark.parametrize("text", ["Et*3|x", "tE|tL", "EtL|t", "Etm|tL", "Et|tm|mL", "(t", "Et**2L", "E|L", "t*99999999", "E(t|)*9999999,L"])
def test_what_is_no_layout_is_refused_with_a_sentence(text: str, source: Path) -> None:
    with pytest.raises(Fault) as fault:
        ckptc.plan(source, to="megatron-legacy", pp=2, stages=text)
    assert fault.value.code == "bad-stages"


# --- experts' own tensor parallel degree ----------------------------------------------------------------------------------

E, H, F = 6, families.HIDDEN, 24
MOE = families.layers("model.layers.", families.ATTENTION, {"block_sparse_moe.gate.weight": (E, H)} | {
    f"block_sparse_moe.experts.{e}.{w}.weight": (H, F) if w == "w2" else (F, H) for e in range(E) for w in ("w1", "w2", "w3")
})  # fmt: skip
KEYS = {"model_type": "mixtral", "num_local_experts": E, "intermediate_size": F}


def process(hf: Weights, r: int, tp: int, etp: int, ep: int, stage: list[int], first: bool, last: bool, grouped: bool) -> tuple[tuple[int, int], Weights]:
    """The numbers in the file's name and the weights of process `r` of a stage: it is r % tp of the dense part, r % etp of an
    expert, r / etp % ep of the experts (RankGenerator, megatron/core/parallel_state.py; get_checkpoint_name, checkpointing.py)."""
    t, x, e = r % tp, r % etp, r // etp % ep
    out: Weights = {}
    pad = lambda w: torch.cat([w, w.new_zeros(32 - families.VOCAB, H)])  # noqa: E731
    if first:
        out["embedding.word_embeddings.weight"] = cut(pad(hf["model.embed_tokens.weight"]), t, tp)
    for local, i in enumerate(stage):
        at, to = f"model.layers.{i}.", f"decoder.layers.{local}."
        qkv = [hf[at + f"self_attn.{n}_proj.weight"].reshape(families.GROUPS, -1, H) for n in "qkv"]
        out |= {
            to + "self_attention.linear_qkv.layer_norm_weight": hf[at + "input_layernorm.weight"],
            to + "self_attention.linear_qkv.weight": cut(torch.cat(qkv, 1), t, tp).flatten(0, 1),
            to + "self_attention.linear_proj.weight": cut(hf[at + "self_attn.o_proj.weight"], t, tp, 1),
            to + "pre_mlp_layernorm.weight": hf[at + "post_attention_layernorm.weight"],
            to + "mlp.router.weight": hf[at + "block_sparse_moe.gate.weight"],
        }
        for k in range(E // ep):
            own = at + f"block_sparse_moe.experts.{e * (E // ep) + k}."
            name = to + ("mlp.experts.linear_fc{}.weight" + str(k) if grouped else f"mlp.experts.local_experts.{k}.linear_fc{{}}.weight")
            out[name.format(1)] = torch.cat([cut(hf[own + w + ".weight"], x, etp) for w in ("w1", "w3")])
            out[name.format(2)] = cut(hf[own + "w2.weight"], x, etp, 1)
    if last:
        out |= {"decoder.final_layernorm.weight": hf["model.norm.weight"], "output_layer.weight": cut(pad(hf["lm_head.weight"]), t, tp)}
    return (t, e), out


GRID = [(2, 1, 2, 1), (4, 1, 2, 2), (4, 1, 6, 1), (4, 1, 3, 2), (4, 3, 2, 1), (2, 1, 1, 1), (4, 2, 1, 2), (2, 1, 3, 2), (4, 1, 6, 2)]


def every_file(hf: Weights, tp: int, pp: int, ep: int, etp: int, grouped: bool) -> dict[str, Weights]:
    """The files of all processes, by folder."""
    cuts = [0, 0, 1, 3] if pp == 3 else [0, 1, 3] if pp == 2 else [0, 3]
    found: dict[str, Weights] = {}
    for p in range(pp):
        for r in range(math.lcm(tp, etp * ep)):
            (t, e), held_ = process(hf, r, tp, etp, ep, list(range(cuts[p], cuts[p + 1])), p == 0, p == pp - 1, grouped)
            name = f"mp_rank_{t:02}" + f"_{p:03}" * (pp > 1) + f"_{e:03}" * (ep > 1)
            assert same(found.setdefault(name, held_), held_)  # processes of one file hold the same
    return found


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    hf = counted(families.ENDS | MOE)
    return families.saved(tmp_path_factory.mktemp("moe") / "hf", "mixtral", hf, KEYS), hf


@pytest.mark.parametrize(("tp", "pp", "ep", "etp"), GRID)
@pytest.mark.parametrize("grouped", [False, True])
def test_files_of_ranks_hold_experts_by_their_own_degree(mixtral: tuple[Path, Weights], tmp_path: Path, tp: int, pp: int, ep: int, etp: int, grouped: bool) -> None:
    path, hf = mixtral
    stages = {3: {"stages": "E|t|ttL"}, 2: {"stages": "Et|ttL"}}.get(pp, {})
    kind = "grouped" if grouped else "sequential"
    ckptc.convert(path, tmp_path / "out", to="megatron-legacy", tp=tp, pp=pp, ep=ep, etp=etp, settings={"experts": kind, "padded_vocab": 32}, **stages)
    wanted = every_file(hf, tp, pp, ep, etp, grouped)
    assert {each.name for each in (tmp_path / "out/release").iterdir()} == set(wanted)
    for name, weights in wanted.items():
        model = held(tmp_path / "out/release" / name)["model"]
        assert same({n: x for n, x in model.items() if x is not None}, weights)


@pytest.mark.parametrize(("tp", "pp", "ep", "etp"), GRID)
@pytest.mark.parametrize("grouped", [False, True])
def test_experts_of_their_own_degree_are_read(mixtral: tuple[Path, Weights], tmp_path: Path, tp: int, pp: int, ep: int, etp: int, grouped: bool) -> None:
    path, hf = mixtral
    for name, weights in every_file(hf, tp, pp, ep, etp, grouped).items():
        save(tmp_path / "run/iter_0000003" / name, [weights])
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("3")
    ckptc.convert(tmp_path / "run", tmp_path / "back", to="hf", config=path / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


def test_files_for_numbers_that_no_process_has_are_read_and_written(mixtral: tuple[Path, Weights], tmp_path: Path) -> None:
    path, hf = mixtral
    ckptc.convert(path, tmp_path / "out", to="megatron-legacy", tp=2, ep=2, etp=1, settings={"grid": "all", "padded_vocab": 32})
    assert len(list((tmp_path / "out/release").iterdir())) == 4
    for e in range(2):
        model = held(tmp_path / f"out/release/mp_rank_{1 - e:02}_{e:03}")["model"]
        at = "model.layers.2.block_sparse_moe.experts."
        assert torch.equal(model["decoder.layers.2.mlp.experts.local_experts.1.linear_fc2.weight"], hf[f"{at}{e * 3 + 1}.w2.weight"])
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=path / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


def test_a_degree_of_experts_that_names_cannot_tell_is_refused(mixtral: tuple[Path, Weights], tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="files of one name"):
        ckptc.convert(mixtral[0], tmp_path / "out", to="megatron-legacy", tp=2, ep=2, etp=4)
