"""`ckptc convert --optimizer`: parameters and their optimizer state, against plain torch cutting the whole tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc as face
from ckptc.dsl.diagnostic import MappingError
from ckptc.runtime.fault import Fault
from tests.asked import asked
from tests.nxdt_state import CONFIG, DIM, HF, MEGATRON, Style, check, make, write
from tests.zero_state import files, merged, split


@pytest.mark.parametrize("xser", [False, True])
@pytest.mark.parametrize(
    ("style", "source", "target", "dp", "to"),
    [
        (HF, (2, 2, 1), (8, 3, 2), 3, 2),
        (HF, (8, 3, 2), (4, 2, 1), 2, 5),
        (HF, (1, 1, 1), (4, 3, 2), None, 3),
        (HF, (4, 1, 2), (4, 2, 2), 2, None),
        (MEGATRON, (2, 2, 1), (4, 3, 1), 3, 2),
        (MEGATRON, (4, 3, 1), (1, 1, 1), 2, 1),
    ],
)
def test_state_moves_with_its_parameters(
    style: Style, source: tuple[int, int, int], target: tuple[int, int, int], dp: int | None, to: int | None, xser: bool, tmp_path: Path
) -> None:
    write(tmp_path / "tag", make(style, *source), dp, xser)
    settings = {"kv_multiplier": target[2]} if style is HF else {}
    told = {"hw": "trn1"} if style is HF else {"qkv_order": "heads"}
    plan = face.plan(
        tmp_path / "tag", to=style.to, tp=target[0], pp=target[1], optimizer=True, dp=to, format="xser" if xser else "pt", from_settings=told,
        **asked(**settings),
    )  # fmt: skip
    plan.run(tmp_path / "out", memory="8MiB")
    check(tmp_path / "out", make(style, *target), to or dp or 0)
    assert bool(list((tmp_path / "out").rglob("*.tensors"))) == xser


@pytest.mark.parametrize("grouping", ["one", "norms", "biases"])
@pytest.mark.parametrize("master", [False, True])
def test_groups_are_found_and_kept(grouping: str, master: bool, tmp_path: Path) -> None:
    write(tmp_path / "tag", make(HF, 2, 1, 1, grouping, master), 2)
    face.convert(tmp_path / "tag", tmp_path / "out", to="nxdt", tp=4, pp=2, optimizer=True)
    check(tmp_path / "out", make(HF, 4, 2, 1, grouping, master), 2)


def test_the_command_takes_state_along_or_says_that_it_does_not(tmp_path: Path, ckptc: Callable[..., Any]) -> None:
    write(tmp_path / "tag", make(HF, 2, 1), 2)
    done = ckptc("convert", tmp_path / "tag", tmp_path / "out", "--to", "nxdt", "--tp", 4, "--optimizer", "--dp", 3)
    assert done.code == 0, done.err
    check(tmp_path / "out", make(HF, 4, 1), 3)
    done = ckptc("convert", tmp_path / "tag", tmp_path / "without", "--to", "nxdt", "--tp", 4)
    assert done.code == 0, done.err
    assert "optim is left out: --optimizer takes it along" in done.err
    assert not (tmp_path / "without/optim").exists()
    done = ckptc("convert", tmp_path / "tag", tmp_path / "hf", "--to", "hf")
    assert "optim is left out: layout hf cannot hold it" in done.err


def test_buffers_have_no_index(tmp_path: Path) -> None:
    def with_buffers(made: dict[str, Any]) -> dict[str, Any]:
        for name, model in made["model"].items():
            items: dict[str, torch.Tensor] = {}
            for key, tensor in model.items():
                items[key] = tensor
                if key.endswith("o_proj.weight"):
                    items[key.replace("o_proj.weight", "rotary_emb.inv_freq")] = torch.arange(DIM // 2) + 0.5
            made["model"][name] = items
        return made

    write(tmp_path / "tag", with_buffers(make(HF, 2, 2)), 2)
    face.convert(tmp_path / "tag", tmp_path / "out", to="nxdt", tp=4, pp=3, optimizer=True)
    check(tmp_path / "out", with_buffers(make(HF, 4, 3)), 2)


def test_tied_tensors_are_refused(tmp_path: Path) -> None:
    made = make(HF, 2, 1)
    write(tmp_path / "tag", made, 2)
    (tmp_path / "tag/config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": True}))
    with pytest.raises(Fault) as caught:
        face.convert(tmp_path / "tag", tmp_path / "out", to="nxdt", tp=4, optimizer=True)
    assert caught.value.code == "tied-state"


def change(key: tuple[int, int], what: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda made: what(made["state"][key])


FAULTS: dict[str, tuple[str, Callable[[dict[str, Any]], Any], dict[str, Any]]] = {
    "a layout that cannot hold it": ("no-state", lambda made: None, {"to": "hf"}),
    "other names": ("unknown-order", lambda made: None, {"to": "nxdt-megatron", "tp": 2}),
    "other joins": ("unknown-order", lambda made: None, {"to": "nxdt", "qkv": "fused", "tp": 2}),
    "a parameter without state": ("bad-optimizer", change((0, 0), lambda s: s["base_state"].pop(3)), {}),
    "groups of other sizes": ("unknown-order", change((1, 1), lambda s: (s["param_groups"][0]["params"].pop(), s["param_groups"][1]["params"].insert(0, 8))), {}),
    "another order": ("unknown-order", lambda made: made["model"].update({n: dict(reversed(m.items())) for n, m in made["model"].items()}), {}),
    "no groups": ("bad-optimizer", change((0, 0), lambda s: s.pop("param_groups")), {}),
    "values that differ between stages": ("ranks-disagree", change((0, 1), lambda s: s.update(mark="other")), {}),
    "a step that differs between ranks": ("copies-differ", change((1, 0), lambda s: s["base_state"][2].update(step=torch.tensor(8.0))), {}),
    "fewer ranks than the model": ("degree-disagrees", lambda made: [made["state"].pop((1, p)) for p in range(2)], {}),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_cannot_be_known_is_refused(what: str, tmp_path: Path) -> None:
    code, damage, settings = FAULTS[what]
    made = make(HF, 2, 2)
    damage(made)
    write(tmp_path / "tag", made, 2)
    with pytest.raises((Fault, MappingError)) as caught:
        face.convert(tmp_path / "tag", tmp_path / "out", **asked(optimizer=True, **(settings or {"to": "nxdt", "tp": 4})))
    assert getattr(caught.value, "code", "") == code
    assert [p.name for p in tmp_path.iterdir()] == ["tag"]


def test_a_plan_with_state_is_not_saved_and_a_degree_needs_state(tmp_path: Path) -> None:
    write(tmp_path / "tag", make(HF, 2, 1), 2)
    plan = face.plan(tmp_path / "tag", to="nxdt", tp=4, optimizer=True)
    for use in (lambda: plan.save(tmp_path / "plan"), plan.emit):
        with pytest.raises(Fault) as caught:
            use()
        assert caught.value.code == "not-saved"
    for settings in ({"dp": 4}, {"optimizer": True}):
        where = tmp_path / "tag" / ("model" if "optimizer" in settings else "")
        with pytest.raises(Fault) as caught:
            face.plan(where, to="nxdt", tp=4, config=tmp_path / "tag/config.json", **asked(**settings))
        assert caught.value.code == "no-optimizer"


MOE = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("mapping", "config", "to", "source", "target"),
    [
        ("llama", {}, "nxdt", {"tp": 2}, {"tp": 8, "kv_multiplier": 2, "hw": "trn2"}),
        ("llama", {}, "nxdt", {"tp": 4, "qkv": "fused"}, {"tp": 8, "pp": 5, "kv_multiplier": 2, "qkv": "fused"}),
        ("llama", {"num_hidden_layers": 12}, "nxdt", {"pp": 3, "vpp": 2}, {"pp": 2, "vpp": 3, "tp": 2}),
        ("llama", {"num_attention_heads": 12, "num_key_value_heads": 4}, "nxdt", {"tp": 4}, {"tp": 8, "kv_multiplier": 2, "pad_heads": True}),
        ("llama", {}, "nxdt-megatron", {"tp": 1, "qkv_order": "blocks"}, {"tp": 4, "pp": 2, "pad_vocab_to": 8}),
        ("llama", {"attention_bias": True}, "nxdt", {"tp": 2}, {"tp": 4, "pp": 3}),
        ("mixtral", MOE, "nxdt", {"tp": 4}, {"tp": 2, "pp": 2}),
        ("mixtral", MOE, "nxdt", {"tp": 2, "expert_round_to": 24}, {"tp": 8, "kv_multiplier": 2}),
    ],
)
def test_state_that_is_its_parameter_stays_so(
    mapping: str, config: dict[str, Any], to: str, source: dict[str, Any], target: dict[str, Any], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from ckptc.runtime.plan.expand import families

    config = CONFIG | config
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text(json.dumps(config))
    stored = families(face.compile(mapping, from_="hf", to=to, config=tmp_path / "hf/config.json").data.source.stored)
    made = torch.Generator().manual_seed(1)
    save_file(
        {name: torch.randn(*f.stored.shape, generator=made) for f in stored if not f.stored.optional for name in f.spell(f.stored.name)},
        tmp_path / "hf/model.safetensors", {"format": "pt"},
    )  # fmt: skip
    face.convert(tmp_path / "hf", tmp_path / "tag", to=to, **asked(**source))
    (tmp_path / "tag/optim").mkdir()
    (tmp_path / "tag/config.json").write_text(json.dumps(config))
    for file in files(tmp_path / "tag/model"):
        parts = list(torch.load(file).values())
        state = {
            "param_groups": [{"params": list(range(len(parts)))}], "shape_info": {i: tuple(p.shape) for i, p in enumerate(parts)},
            "base_state": {i: {"step": 3, "exp_avg": p} for i, p in enumerate(parts)},
        }  # fmt: skip
        for rank, part in enumerate(split(state, 3)):
            torch.save(part, tmp_path / "tag/optim" / file.name.replace("dp_rank_00", f"dp_rank_{rank:02}"))
    family = {"family": mapping}
    face.convert(tmp_path / "tag", tmp_path / "out", to=to, optimizer=True, dp=4, from_settings=source, **asked(**family, **target))
    models = files(tmp_path / "out/model")
    assert len(models) == target.get("tp", 1) * target.get("pp", 1)
    for file in models:
        parts = list(torch.load(file).values())
        state = merged([torch.load(tmp_path / "out/optim" / file.name.replace("dp_rank_00", f"dp_rank_{d:02}")) for d in range(4)])
        assert [state["base_state"][i]["step"] for i in range(len(parts))] == [3] * len(parts)
        assert all(torch.equal(state["base_state"][i]["exp_avg"], p) for i, p in enumerate(parts))
