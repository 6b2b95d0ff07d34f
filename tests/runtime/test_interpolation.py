"""Interpolations of OmegaConf, with the values that OmegaConf 2.3 gives (its documentation's grammar) and NeMo's resolvers."""

from __future__ import annotations

from typing import Any

import pytest

from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.nemo.interpolation import Settings, plain, resolve

TREE: dict[str, Any] = {
    "name": "megatron_gpt", "trainer": {"precision": "bf16", "devices": 8, "plugins": [3, {"n": 5}]},
    "model": {"hidden_size": 48, "heads": 6, "ratio": 1.5, "zero": 0, "no": False, "nothing": None, "key": "hidden_size", "missing": "???", "inner": {"deep": 7}},
}  # fmt: skip


def value(text: Any, key: str = "x") -> Any:
    tree = {**TREE, "model": {**TREE["model"], key: text}}
    return resolve(tree, "a.yaml")["model"][key]


@pytest.mark.parametrize(("text", "wanted"), [
    ("${model.hidden_size}", 48), ("${.hidden_size}", 48), ("${..trainer.devices}", 8), ("${.inner.deep}", 7), ("${model.no}", False), ("${model.nothing}", None),
    ("${trainer.plugins[0]}", 3), ("${trainer.plugins.1.n}", 5), ("${trainer.plugins[1].n}", 5), ("${model[heads]}", 6), ("${model.${model.key}}", 48), ("${.${.key}}", 48),
    # Within texts: a text.
    ("${name}-${trainer.devices}", "megatron_gpt-8"), ("a ${model.ratio}", "a 1.5"), ("${name}--{step}", "megatron_gpt--{step}"),
    (r"\${name}", "${name}"), (r"\\${name}", "\\megatron_gpt"), ("$name {x}", "$name {x}"), (3, 3), (None, None),
    # nemo/core/config/hydra_runner.py: multiply is x * y, sum is x + y.
    ("${multiply:4, ${.hidden_size}}", 192), ("${multiply:${model.hidden_size},${trainer.devices}}", 384), ("${sum:${.hidden_size},-1}", 47),
    ("${multiply:${sum:1,2},${.heads}}", 18), ("${multiply: 1.5 , 4}", 6.0),
    # NeMo-Aligner's int_div is x // y; the launcher's divide_ceil and divide_floor round up and down.
    ("${int_div:${.hidden_size},5}", 9), ("${divide_ceil:${.hidden_size},5}", 10), ("${divide_floor:${.hidden_size},5}", 9), ("${div:${.hidden_size},${.heads}}", 8),
    ("${sub:${.hidden_size},1}", 47), ("${oc.select:model.heads}", 6), ("${oc.select:model.none,5}", 5), ("${oc.select:model.none}", None), ("${oc.select:model.none,${.heads}}", 6),
])  # fmt: skip
def test_values_are_as_omegaconf_has_them(text: Any, wanted: Any) -> None:
    found = value(text)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(("text", "why"), [
    ("${oc.env:HOME}", "environment"), ("${model.absent}", "no `model.absent`"), ("${....x}", "above the root"), ("${x y}", "no path"), ("${}", "no path"), ("${model.hidden_size", "not closed"),
    ("${gpu_name:}", "no resolver `gpu_name`"), ("${eval:'1+1'}", "no resolver `eval`"), ("${multiply:3}", "two numbers"), ("${multiply:a,3}", "two numbers"), ("${multiply:${.no},3}", "two numbers"),
    ("${div:${.hidden_size},5}", "no value for 48 and 5"), ("${int_div:3,${.zero}}", "no value for 3 and 0"), ("${.missing}", "???"), ("a ${.inner}", "within a text"), ("${.x}", "refers to itself"),
    ("${multiply:9000000000,9000000000}", "too large"), ("${.hidden_size.deep}", "no `.hidden_size.deep`"),
])  # fmt: skip
def test_what_cannot_be_worked_out_faults_where_it_is_asked_for_and_says_why(text: str, why: str) -> None:
    tree = {**TREE, "model": {**TREE["model"], "x": text}}
    held = resolve(tree, "a.yaml")["model"]
    assert held["hidden_size"] == 48
    for ask in (lambda: held["x"], lambda: held.get("x")):
        with pytest.raises(Fault) as error:
            ask()
        assert error.value.code == "unresolved-setting"
        assert why in error.value.title
        assert "a.yaml" in error.value.title
    assert plain(held)["x"] == text
    assert type(plain(held)["x"]) is str


def test_references_are_followed_through_others_and_into_mappings() -> None:
    held = resolve({"a": "${b}", "b": "${c.d}", "c": {"d": {"e": "${.f}", "f": "${multiply:2,3}"}}}, "a.yaml")
    assert held["a"]["e"] == 6
    assert isinstance(held["a"], Settings)


def test_a_config_that_was_part_of_another_knows_its_own_node() -> None:
    """A model_config.yaml is the `model` node of a training config, whose root is not kept with it."""
    held = resolve({"hidden_size": 48, "ffn": "${model.hidden_size}", "p": "${trainer.precision}"}, "a.yaml")
    assert held["ffn"] == 48
    with pytest.raises(Fault, match=r"trainer\.precision"):
        held["p"]


@pytest.mark.parametrize("tree", [
    {"a": "${b}", "b": "${a}"}, {"a": {"b": "${a}"}}, {"a": "${b}${b}"} | {chr(98 + i): f"${{{chr(99 + i)}}}" * 2 for i in range(20)} | {"v": "long " * 50},
    {"a": {"x": "${b}", "y": "${b}"}, "b": {"x": "${a}", "y": "${a}"}}, {"a": "${" * 3000}, {"a": "${multiply:" * 3000 + "1"},
    {chr(97 + i): f"${{multiply:${{{chr(98 + i)}}},${{{chr(98 + i)}}}}}" for i in range(24)} | {"y": 1 << 62},
])  # fmt: skip
def test_what_leads_in_a_circle_or_grows_without_end_is_given_up(tree: dict[str, Any]) -> None:
    held = resolve({**tree, "plain": 5}, "a.yaml")
    assert held["plain"] == 5
    value = dict.__getitem__(held, "a")
    assert len(str(value)) < 1_000_000


def test_a_tree_that_holds_itself_is_read() -> None:
    tree: dict[str, Any] = {"n": "${m}", "m": 4}
    tree["self"] = tree
    held = resolve(tree, "a.yaml")
    assert held["self"]["n"] == 4
