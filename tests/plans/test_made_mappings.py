"""Made mappings through disk: written as checkpoints, converted by the engine and by the emitted module, read back."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ckptc.compiler.link.link import link
from ckptc.compiler.pipeline import compile_sides
from ckptc.compiler.say.emit import emit_python
from ckptc.compiler.settle.resolve import Side, resolve
from ckptc.compiler.settle.sizes import Sizes, Tensor
from ckptc.dsl.parsing.parse import parse
from ckptc.runtime import emitted as module
from ckptc.runtime.binding.bind import bind
from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.engine.engine import run
from ckptc.runtime.fault import Fault
from ckptc.runtime.plan.plan import Plan
from ckptc.runtime.plan.plan_file import dump_plan, parse_plan
from tests.compiler.made import Made, mappings
from tests.compiler.reference import contents
from tests.compiler.test_algebra import sides
from tests.held import files_of

from .disk import contained, read, write

DTYPES = st.sampled_from([torch.int32, torch.float32])
LOOSE = st.sampled_from(["safetensors", "bin"])


def plan_of(made: Made, loose: tuple[str, str] = ("safetensors", "safetensors")) -> tuple[Side, Side, Plan]:
    source, target = (contained(s, c) for s, c in zip(sides(made), loose, strict=True))
    return source, target, compile_sides(source, target).plan


def load_module(path: Path, text: str, known: bool = False) -> ModuleType:
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    if known:
        sys.modules[path.stem] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@settings(max_examples=60, deadline=None)
@given(mappings(), DTYPES, LOOSE, LOOSE, st.sampled_from([1, 2, 3]), st.integers(800, 4000))
def test_the_engine_writes_what_the_reference_says_under_any_budget(made: Made, dtype: torch.dtype, one: str, two: str, workers: int, memory: int) -> None:
    source, target, plan = plan_of(made, (one, two))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bound = bind(plan, open_checkpoint(write(root / "in", source, contents(source), dtype)))
        report = run(bound, root / "out", memory=1 << 20, workers=workers)
        assert read(root / "out", target) == contents(target)
        assert report.bytes_written == sum(len(b) for b in files_of(root / "out").values()) == bound.bytes_written
        small = run(bound, root / "small", memory=memory * workers, workers=workers)
        assert small.peak_buffer_bytes <= memory * workers
        assert files_of(root / "small") == files_of(root / "out")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mappings(), DTYPES, st.integers(800, 4000))
def test_an_emitted_module_writes_the_same_bytes_as_the_engine(monkeypatch: pytest.MonkeyPatch, made: Made, dtype: torch.dtype, memory: int) -> None:
    """The kernels run as plain Python here: what they mean is tested, and Numba is below."""
    source, _, plan = plan_of(made)
    monkeypatch.setattr(module, "kernel", lambda function: function)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / "in", source, contents(source), dtype)
        run(bind(plan, open_checkpoint(root / "in")), root / "out")
        emitted = load_module(root / "plan_module.py", emit_python(plan))
        assert plan == emitted.PLAN
        module.run_module(emitted.PLAN, emitted.KERNELS, root / "in", root / "again")
        assert files_of(root / "again") == files_of(root / "out")
        module.run_module(emitted.PLAN, emitted.KERNELS, root / "in", root / "small", memory=memory, workers=1)
        assert files_of(root / "small") == files_of(root / "out")


@settings(max_examples=100, deadline=None)
@given(mappings())
def test_a_plan_file_gives_an_equal_plan_back(made: Made) -> None:
    _, _, plan = plan_of(made)
    assert parse_plan(dump_plan(plan)) == plan


# Both layouts and sizes by hand, so that every kind of kernel runs and Numba compiles few of them.
TURNED = """
model m {
  axes { a b c layer }
  x [layer, a, b, c]
  y [a, c]
}
layout one of m {
  "x.{layer}" = x [a, b, c]
  "y" = y [a, c]
}
layout two of m (rank tp = 1) {
  files "part_{tp:02}.pt"
  format pt
  "x.{layer}" = x [c, a/tp, b]
  "y" = y [(c a/tp)]
}
"""
TURNED_SIZES = {"a": 6, "b": 34, "c": 40, "layer": 2}


def turned() -> tuple[Side, Side, Plan]:
    (family,) = link([parse(TURNED)])
    tensors = {t.name: Tensor(t.name, tuple(a.name for a in t.axes), tuple(TURNED_SIZES[a.name] for a in t.axes)) for t in family.model.tensors}
    sizes = Sizes(TURNED_SIZES, {}, tensors, {}, frozenset())
    source, target = resolve(family, "one", sizes, {}), resolve(family, "two", sizes, {"tp": 3})
    return source, target, compile_sides(source, target).plan


@pytest.mark.parametrize("known", [True, False])
def test_emitted_kernels_run_compiled_and_write_the_same_bytes(known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as a script after an import, which shares the compiled kernels if the module has a name in `sys.modules`."""
    monkeypatch.delitem(sys.modules, "plan_module", raising=False)
    source, target, plan = turned()
    assert {s.kernel for s in plan.steps} & {"rows", "transpose"}
    write(tmp_path / "in", source, contents(source), torch.float32)
    run(bind(plan, open_checkpoint(tmp_path / "in")), tmp_path / "out")
    assert read(tmp_path / "out", target) == contents(target)
    emitted = load_module(tmp_path / "plan_module.py", emit_python(plan), known)
    calls: list[int] = []

    def counted(number, function):
        def call(*arguments):
            calls.append(number)
            function(*arguments)

        return call

    kernels = {i: counted(i, k) for i, k in emitted.KERNELS.items()}
    assert kernels
    module.run_module(emitted.PLAN, kernels, tmp_path / "in", tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(tmp_path / "out")
    assert set(calls) == set(kernels)
    module.run_module(emitted.PLAN, emitted.KERNELS, tmp_path / "in", tmp_path / "small", memory=20_000, workers=1)
    assert files_of(tmp_path / "small") == files_of(tmp_path / "out")

    for flags in ([], ["--overwrite", "--compile"]):
        command = [sys.executable, tmp_path / "plan_module.py", tmp_path / "in", tmp_path / "third", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert files_of(tmp_path / "third") == files_of(tmp_path / "out")
    done = subprocess.run([sys.executable, tmp_path / "plan_module.py", tmp_path / "in", tmp_path / "third"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error[destination-exists]")


def test_an_emitted_plan_that_is_run_compiles_nothing(tmp_path: Path) -> None:
    """Its first run would else wait for seconds, whatever it has to copy."""
    source, _, plan = turned()
    write(tmp_path / "in", source, contents(source), torch.float32)
    text = emit_python(plan).replace("    main(PLAN, KERNELS)", "    import sys\n\n    main(PLAN, KERNELS)\n    assert 'numba' not in sys.modules")
    (tmp_path / "plan_module.py").write_text(text)
    command = [sys.executable, tmp_path / "plan_module.py", tmp_path / "in", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@example(memory=1)
@settings(max_examples=12, deadline=None)
@given(memory=st.integers(1, 30_000))
def test_any_memory_either_suffices_or_is_refused(memory: int) -> None:
    source, target, plan = turned()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bound = bind(plan, open_checkpoint(write(root / "in", source, contents(source), torch.int32)))
        try:
            report = run(bound, root / "out", memory=memory, workers=2)
        except Fault as fault:
            assert fault.code == "memory-too-small"  # noqa: PT017
            assert not (root / "out").exists()
        else:
            assert report.peak_buffer_bytes <= memory
            assert read(root / "out", target) == contents(target)


# The copies of y lie in rows of 8 in the source, 6 of them elements: cut apart at other places, they were never equal.
PADDED_COPIES = Made(
    """
model m {
  axes { a b c e layer }
  y [e, c, a]
  w [layer, a, b]
  v [layer, a, e]
}
layout one of m (rank tp = 1, rank pp = 1, vpp = 1) {
  "y" = y [(copies(2) (e c)), pad((copies(2) a), 4)]
  "w.{layer}" = w [b, a]
  "v.{layer}" = v [(e a)]
}
layout two of m (rank tp = 1, rank pp = 1, vpp = 1) {
  "y" = y [e, c, a]
  "w.{layer}" = w [b, a]
  "v.{layer}" = v [(e a)]
}
""",
    {"tp": 1},
    {"tp": 1},
)


@pytest.mark.parametrize("memory", [400, 575, 892, 2000, 1 << 20])
def test_declared_copies_are_compared_alike_whatever_the_memory(memory: int, tmp_path: Path) -> None:
    source, target, plan = plan_of(PADDED_COPIES)
    held = contents(source)
    bound = bind(plan, open_checkpoint(write(tmp_path / "in", source, held, torch.int32)))
    run(bound, tmp_path / "out", memory=memory, workers=1)
    assert read(tmp_path / "out", target) == contents(target)
    shape, values = held["", "y"]
    values = [*values[:-5], 7, *values[-4:]]
    bound = bind(plan, open_checkpoint(write(tmp_path / "bad", source, held | {("", "y"): (shape, values)}, torch.int32)))
    with pytest.raises(Fault, match="copies-differ"):
        run(bound, tmp_path / "out2", memory=memory, workers=1)
    assert not (tmp_path / "out2").exists()
