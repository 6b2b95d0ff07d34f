"""Mixtral and DBRX between HuggingFace and NxD: the expert layout of the module, and what the converters write.

The module (ExpertFusedColumnParallelLinear, moe_parallel_layers.py) declares gate_up as (experts, hidden, 2 * inner) with
gate and up of one rank side by side, and down as (experts, inner, hidden): input axis first. Each expert parallel rank
has its own experts. That is rebuilt here with plain torch.
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

ALL = {c.folder.name: c for d in sorted(ORACLE.glob("[mtx]*")) if (c := Case(d)).spec["script"] in ("mixtral", "nxdt_mixtral", "dbrx")}
FORWARD = sorted(n for n, c in ALL.items() if c.forward)
BACK = sorted(n for n, c in ALL.items() if not c.forward and n.startswith(("m", "x")))


def megatron(case: Case) -> bool:
    return "megatron" in case.spec["argv"]


def settings(case: Case, trn2: str = "trn2") -> dict[str, object]:
    if megatron(case):
        return {"qkv": "linear"}
    hw = case.args["hw_backend"]
    out: dict[str, object] = {"kv_multiplier": case.number("kv_size_multiplier"), "hw": trn2 if hw == "trn2" else hw}
    return out | ({"expert_round_to": case.number("i_tp_round_factor")} if "i_tp_round_factor" in case.args else {})


def degrees(case: Case) -> dict[str, int]:
    return {"tp": case.number("tp_size"), "pp": case.number("pp_size"), "ep": case.number("ep_size")}


def forward(case: Case, out: Path, trn2: str = "trn2", **more: object):
    to = "nxdt-megatron" if megatron(case) else "nxdt"
    plan = ckptc.plan(case.folder / "in/pytorch_model.bin", to=to, config=case.folder / "in/config.json", **asked(**degrees(case), **settings(case, trn2), **more))
    plan.run(out)
    return contents(out)


def originals(case: Case):
    twin = Case(ORACLE / case.folder.name.replace("__back", "__fwd"))
    return {n: h for (f, n), h in twin.input.items() if f == "pytorch_model.bin"}


def test_there_are_as_many_cases_as_were_counted() -> None:
    assert len(FORWARD) >= 12
    assert len(BACK) >= 12


@pytest.mark.parametrize("name", FORWARD)
def test_each_rank_has_its_experts_input_axis_first(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    forward(case, tmp_path / "out")
    check_experts(case, tmp_path / "out")


def check_experts(case: Case, out: Path) -> None:
    config, (tp, _, ep) = case.spec["config"], degrees(case).values()
    whole = torch.load(case.folder / "in/pytorch_model.bin", weights_only=True)
    seen: dict[str, int] = {}
    for tensor in ckptc.open(out):
        kind = tensor.name.rsplit(".", 2)[-2]
        if "experts" not in tensor.name and "expert_mlps" not in tensor.name:
            continue
        rank = int(tensor.file.split("_tp_rank_")[1][:2])
        place = int(tensor.file.split("ep_rank_")[1][:2]) if "ep_rank_" in tensor.file else 0
        layer = next(int(p) for p in tensor.name.split(".") if p.isdigit())
        gate, up, down = experts_of(whole, layer, config)  # (experts, inner, hidden) twice, (experts, hidden, inner)
        mine = range(place * len(gate) // ep, (place + 1) * len(gate) // ep)
        inner = gate.shape[1]
        rows = slice(rank * inner // tp, (rank + 1) * inner // tp)
        fill = (-(inner // tp)) % case.number("i_tp_round_factor")
        zeros = torch.zeros(len(mine), fill, gate.shape[2], dtype=gate.dtype)
        parts = [torch.cat([w[list(mine), rows], zeros], dim=1).transpose(1, 2) for w in (gate, up)]
        if kind == "gate_up_proj":
            expected = torch.cat(parts, dim=2)
        else:
            expected = torch.cat([down[list(mine)][:, :, rows].transpose(1, 2), zeros], dim=1)
        assert torch.equal(tensor.read(), expected), (tensor.file, tensor.name)
        seen[kind] = seen.get(kind, 0) + 1
    layers = config.get("num_hidden_layers", config.get("n_layers"))
    assert seen == {"gate_up_proj": tp * ep * layers, "down_proj": tp * ep * layers}


def experts_of(whole, layer: int, config) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if config["model_type"] == "dbrx":
        count, inner = config["ffn_config"]["moe_num_experts"], config["ffn_config"]["ffn_hidden_size"]
        parts = [whole[f"transformer.blocks.{layer}.ffn.experts.mlp.{w}"].view(count, inner, -1) for w in ("w1", "v1", "w2")]
        return parts[0], parts[1], parts[2].transpose(1, 2)
    name = f"model.layers.{layer}.block_sparse_moe.experts."
    count = config["num_local_experts"]
    w1, w2, w3 = (torch.stack([whole[f"{name}{e}.{w}.weight"] for e in range(count)]) for w in ("w1", "w2", "w3"))
    return w1, w3, w2


@pytest.mark.parametrize("name", FORWARD)
def test_what_was_written_goes_back(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    forward(case, tmp_path / "out")
    told = {"expert_round_to": case.number("i_tp_round_factor")} if "i_tp_round_factor" in case.args else {}
    if not megatron(case):  # names and shapes do not tell
        told["hw"] = case.args["hw_backend"]
    elif case.spec["config"]["num_key_value_heads"] > case.number("tp_size"):
        told["qkv_order"] = "heads"
    assert back(tmp_path / "out", case, tmp_path / "again", **told) == originals(case)


@pytest.mark.parametrize("name", [n for n in FORWARD if "mixtral" in n and "hfstyle" not in n and "ep2" not in n])
def test_the_converters_untransposed_experts_are_written_by_name(name: str, tmp_path: Path) -> None:
    case = ALL[name]
    blocks = {"qkv_order": "blocks"} if megatron(case) else {}
    more = {"qkv": "coalesced"} if megatron(case) and not case.flag("qkv_linear") else {}
    to = "nxdt-megatron" if megatron(case) else "nxdt"
    given = degrees(case) | settings(case, "trn2_converter") | blocks | more | {"experts": "converter"}
    ckptc.plan(case.folder / "in/pytorch_model.bin", to=to, config=case.folder / "in/config.json", **asked(**given)).run(tmp_path / "out")
    assert contents(tmp_path / "out") == case.expected


@pytest.mark.parametrize("name", BACK)
def test_what_the_converters_made_goes_back(name: str, tmp_path: Path) -> None:
    """Also where every expert parallel rank has all experts, and where `moe.` stands in the names."""
    case = ALL[name]
    told: dict[str, object] = {"expert_round_to": case.number("i_tp_round_factor")} if "i_tp_round_factor" in case.args else {}
    if megatron(case):
        told["qkv_order"] = "blocks"
    else:
        told["hw"] = {"trn2": "trn2_converter"}.get(case.args["hw_backend"], "trn1")
    assert back(case.folder / "in/model", case, tmp_path / "out", **told) == originals(case)


def test_a_training_checkpoint_with_experts_cut_over_ranks_goes_back(tmp_path: Path) -> None:
    """Tensors that expert parallel ranks share are in the folder of ep_rank_00 alone."""
    case = ALL["t5_train_xser_mixtral_ep2_sliced__back"]
    found = back(case.folder / "in/llama--step=5.ckpt", case, tmp_path / "out")
    assert found == {n: h for (_, n), h in case.expected.items()}


def test_the_modules_own_layout_goes_back_to_experts_the_right_way_round(tmp_path: Path) -> None:
    """The converter leaves them transposed: w1 as (hidden, inner)."""
    case = ALL["t6_mixtral_module_layout__back"]
    found = back(case.folder / "in/llama--step=5.ckpt", case, tmp_path / "out")
    plain = Case(ORACLE / "m1_mixtral_nxd_hf_tp2pp2m1__fwd").spec["config"]
    config = case.spec["config"]
    assert found["model.layers.0.block_sparse_moe.experts.0.w1.weight"][0] == (config["intermediate_size"], config["hidden_size"])
    assert plain["model_type"] == config["model_type"]
    whole = {t.name: t.read() for t in ckptc.open(tmp_path / "out")}
    held = {(t.file, t.name): t.read() for t in ckptc.open(case.folder / "in/llama--step=5.ckpt")}
    for layer in range(config["num_hidden_layers"]):
        for expert in range(config["num_local_experts"]):
            w1 = whole[f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"]
            ranks = [
                tensor[expert, :, : tensor.shape[2] // 2].T
                for (_, name), tensor in sorted(held.items())
                if name.endswith(f"layers.{layer}.mlp.expert_mlps.mlp_op.gate_up_proj.weight")
            ]
            assert torch.equal(w1, torch.cat(ranks))


@pytest.mark.parametrize("format", ["pt", "xser"])
def test_expert_parallel_ranks_share_what_is_not_cut(format: str, tmp_path: Path) -> None:
    """As training saves it: whole in every plain rank file, once in xser folders."""
    case = ALL["m1_mixtral_nxd_hf_tp2pp1ep2__fwd"]
    forward(case, tmp_path / "out", format=format)
    check_experts(case, tmp_path / "out")
    by_file: dict[str, set[str]] = {}
    for file, name in contents(tmp_path / "out"):
        by_file.setdefault(file, set()).add(name)
    first, second = (by_file[f"model/dp_rank_00_ep_rank_0{ep}_tp_rank_01_pp_rank_00.pt"] for ep in (0, 1))
    experts = {n for n in first if "expert_mlps" in n}
    assert second == (first if format == "pt" else experts)
    assert back(tmp_path / "out", case, tmp_path / "again") == originals(case)


def test_expert_parallel_ranks_need_experts(tmp_path: Path) -> None:
    case = Case(ORACLE / "a1_mha_hf_tp2pp2__fwd")
    with pytest.raises(MappingError) as error:
        ckptc.plan(case.folder / "in/pytorch_model.bin", to="nxdt", config=case.folder / "in/config.json", ep=2)
    assert "this model has none" in error.value.diagnostics[0].title
