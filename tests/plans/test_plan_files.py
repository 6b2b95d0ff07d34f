"""Plans as files: run like the plan they were saved from, refused when damaged, and never out of bounds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptc
from ckptc import Fault
from ckptc.runtime.plan.plan_file import dump_plan, parse_plan
from tests.held import files_of

from .llama import Llama, write


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("plans") / "hf", Llama(layers=2, attention_bias=True), shards=2)


@pytest.fixture(scope="module")
def plan(source: Path) -> ckptc.Plan:
    return ckptc.plan(source, to="nxdt", tp=6, pp=2, settings={"kv_multiplier": 2})


def test_a_loaded_plan_runs_like_the_one_that_was_saved(plan: ckptc.Plan, source: Path, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.ckplan")
    loaded = ckptc.load_plan(tmp_path / "plan.ckplan")
    assert loaded.data == plan.data
    assert str(loaded) == str(plan)
    plan.run(tmp_path / "direct")
    loaded.run(tmp_path / "loaded", source=source)
    assert files_of(tmp_path / "loaded") == files_of(tmp_path / "direct")


def test_a_loaded_plan_to_hf_takes_side_files_along(plan: ckptc.Plan, source: Path, tmp_path: Path) -> None:
    back = ckptc.plan(source, to="hf", format="bin")
    back.save(tmp_path / "plan.ckplan")
    back.run(tmp_path / "direct")
    ckptc.load_plan(tmp_path / "plan.ckplan").run(tmp_path / "loaded", source=source)
    assert files_of(tmp_path / "loaded") == files_of(tmp_path / "direct")


def test_a_plan_without_a_source_says_so(plan: ckptc.Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.ckplan")
    with pytest.raises(Fault, match="no-source"):
        ckptc.load_plan(tmp_path / "plan.ckplan").run(tmp_path / "out")


OTHERS = {
    "missing-tensor": Llama(layers=2),
    "unknown-tensor": Llama(layers=2, attention_bias=True, mlp_bias=True),
    "wrong-shape": Llama(layers=2, attention_bias=True, ffn=90),
}


@pytest.mark.parametrize("code", OTHERS)
def test_a_plan_for_another_checkpoint_is_one_fault(code: str, plan: ckptc.Plan, tmp_path: Path) -> None:
    other = write(tmp_path / "other", OTHERS[code])
    with pytest.raises(Fault) as fault:
        ckptc.Plan(parse_plan(dump_plan(plan.data))).run(tmp_path / "out", source=other)
    assert fault.value.code == code
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "plan", '{"format": "other", "version": 1, "plan": {}}', '{"version": 1}'])
def test_what_is_not_a_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan").write_text(text)
    with pytest.raises(Fault) as fault:
        ckptc.load_plan(tmp_path / "plan")
    assert fault.value.code == "bad-plan"
    assert "is not a plan file" in fault.value.title


def test_a_binary_file_and_a_folder_are_no_plans(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path, code in ((tmp_path / "binary", "bad-plan"), (tmp_path, "unreadable-plan"), (tmp_path / "none", "unreadable-plan")):
        with pytest.raises(Fault) as fault:
            ckptc.load_plan(path)
        assert fault.value.code == code


@pytest.mark.parametrize("version", [0, 2, "1", None, 10**30])
def test_another_version_is_refused(plan: ckptc.Plan, version: Any) -> None:
    document = json.loads(dump_plan(plan.data)) | {"version": version}
    with pytest.raises(Fault) as fault:
        parse_plan(json.dumps(document))
    assert fault.value.code == "plan-version"


def test_truncated_plans_are_refused(plan: ckptc.Plan) -> None:
    text = dump_plan(plan.data)
    for at in range(0, len(text) - 2, 97):
        with pytest.raises(Fault) as fault:
            parse_plan(text[:at])
        assert fault.value.code == "bad-plan"


def damage(plan: ckptc.Plan, change: Any) -> str:
    document = json.loads(dump_plan(plan.data))
    change(document["plan"])
    return json.dumps(document)


DAMAGES = {
    "unknown field": lambda p: p.update(extra=1),
    "unknown field deeper": lambda p: p["steps"][0].update(extra=1),
    "field gone": lambda p: p["steps"][0].pop("target_at"),
    "text for a number": lambda p: p["steps"][0].update(target_at="0"),
    "number for a list": lambda p: p.update(steps=3),
    "true for a number": lambda p: p["steps"][0].update(target_at=True),
    "step beyond the tensor": lambda p: p["steps"][0].update(target_at=10**9),
    "step before the tensor": lambda p: p["steps"][0].update(source_at=-1),
    "unknown family of tensors": lambda p: p["steps"][0].update(target=99),
    "unknown kernel": lambda p: p["steps"][0].update(kernel="magic"),
    "file above the destination": lambda p: p["target"]["stored"][0].update(file="../outside_{tp}.pt"),
    "file at the root": lambda p: p["target"]["stored"][0].update(file="/outside_{tp}.pt"),
    "config above the destination": lambda p: p.update(files=[["../config.json", "{}"]]),
    "name with an attribute": lambda p: p["target"]["stored"][0].update(name="x{tp.__class__}"),
    "name of great width": lambda p: p["target"]["stored"][0].update(name="x{tp:0999999999}"),
    "far too many tensors": lambda p: p["source"]["stored"][0].update(boxes=[{"first": [], "loops": [[10**12, []]]}]),
    "unknown format": lambda p: p["target"].update(format="zip"),
    "unknown dtype": lambda p: p.update(dtype="int3"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_plans_are_refused(what: str, plan: ckptc.Plan) -> None:
    with pytest.raises(Fault) as fault:
        parse_plan(damage(plan, DAMAGES[what]), "some.ckplan")
    assert fault.value.code == "bad-plan"
    assert fault.value.title.startswith("some.ckplan is damaged: ")


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [p for key, item in inside for p in places(item, (*at, key))]


ODD = st.one_of(st.integers(-3, 70), st.sampled_from([10**6, 10**12, 10**30, -(10**12), None, True, "", "x", "..", [], {}, 1.5, "bfloat16", "{tp}"]))


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_plan_with_any_value_changed_is_refused_or_stays_in_bounds(plan: ckptc.Plan, source: Path, data: st.DataObject) -> None:
    document = json.loads(dump_plan(plan.data))
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from(places(document["plan"])))
        at = document["plan"]
        try:
            for key in parents:
                at = at[key]
            at[last] = data.draw(ODD)
        except (KeyError, IndexError, TypeError):
            continue  # the first change took this place away
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        try:
            ckptc.Plan(parse_plan(json.dumps(document))).run(out, source=source, workers=1)
        except Fault:
            assert not out.exists()
        assert {p.name for p in Path(name).iterdir()} <= {"out"}
