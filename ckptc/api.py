"""The Python face: plan a conversion from headers alone, then print, save, run or stream it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import library
from .arguments import at_least_one, check_dtype, parse_size, stage_lists
from .ask import ask_what_differs
from .choose import as_source, choose, config_layout, found_in, route, said_by_files, sizes_of, with_indices
from .compiler.detect import also_fitting, fit_source
from .compiler.explain import describe, explain
from .compiler.pipeline import Compiled, compile_sides
from .compiler.resolve import Side, differs, resolve
from .compiler.sizes import Scalar
from .dsl.nearest import nearest
from .hub import open_source
from .nemo2_side import LAYOUT as NEMO_2
from .nemo2_side import Wanted, family_of
from .optimizer_state import add_state, state_folder
from .runtime.checkpoint import Checkpoint
from .runtime.fault import Fault
from .runtime.plan import Plan as PlanData
from .runtime.plan_file import load_plan as read_plan_file
from .runtime.plan_file import save_plan
from .runtime.window import SideFile
from .side_files import side_files, target_side
from .vocabulary import say_padding_stays

if TYPE_CHECKING:
    import torch

    from .account import Totals
    from .runtime.bind import Bound
    from .runtime.engine import Report


@dataclass(frozen=True)
class Plan:
    """A proved conversion. `data` is the plan itself; `source` the checkpoint it was made for, if any.

    `extra` are side files that are copied beside the result byte for byte. `asked` is how the source was
    named: a path, or a repository of the hub. `trees` are the values in which a target file's tensors stand, by file.
    """

    data: PlanData
    source: Checkpoint | None = None
    extra: tuple[SideFile, ...] = ()
    asked: str | None = None
    trees: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _known: dict[Any, Bound] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __str__(self) -> str:
        return describe(self.data)

    def explain(self, name: str) -> str:
        """Where the elements of one stored tensor go or come from. Raises `Fault` if no tensor has the name."""
        text = explain(self.data, name)
        if text is None:
            names = [s.name for side in (self.data.source, self.data.target) for s in side.stored]
            near = nearest(name, names)
            raise Fault("unknown-tensor", f"the plan has no tensor `{name}`", help=f"did you mean `{near}`?" if near else "")
        return text

    def save(self, path: str | Path) -> None:
        """Write the plan to a small file that `load_plan` and `ckptc run` read."""
        self._refuse_trees()
        if self.extra and self.data.target.layout == NEMO_2:
            raise Fault("not-saved", "a plan with a context folder's files is of one checkpoint, and is not saved", help="run it where it is made")
        save_plan(self.data, path)

    def _refuse_trees(self) -> None:
        if self.trees:
            raise Fault("not-saved", "a plan with optimizer state is of one checkpoint, and is not saved", help="run it where it is made")

    def emit(self, path: str | Path | None = None) -> str:
        """The plan as a self-contained Python module; also written to `path` if given."""
        from .compiler.emit import emit_python

        self._refuse_trees()
        text = emit_python(self.data)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _bound(self, source: str | Path | Checkpoint | None, **options: Any) -> Bound:
        from .runtime.bind import bind

        own = self.source
        if own is not None and isinstance(source, str | Path) and str(source) in (own.path, self.asked):
            source = None  # its headers are read already
        key = str(source), tuple(options.items())
        if key in self._known:
            return self._known[key]
        checkpoint = own if source is None else source if isinstance(source, Checkpoint) else open_source(source)
        if checkpoint is None:
            raise Fault("no-source", "this plan was made without a checkpoint", help="name the one to read: plan.run(dst, source=...)")
        bound = bind(self.data, checkpoint, extra=self.extra, trees=self.trees, **options)
        if not isinstance(source, Checkpoint):
            self._known.clear()
            self._known[key] = bound
        return bound

    def totals(
        self,
        source: str | Path | None = None,
        *,
        memory: int | str = 512 << 20,
        workers: int = 2,
        max_shard_size: int | str = 5_000_000_000,
        dst: str | Path = "",
    ) -> Totals:
        """Bytes read and written, files, disk and buffer need, before anything runs. `dst` tells whether it is one archive."""
        from .account import totals
        from .runtime.nemo_write import bound_for

        bound = bound_for(self._bound(source, max_shard_bytes=parse_size(max_shard_size)), dst)
        return totals(bound, parse_size(memory), at_least_one(workers))

    def run(
        self,
        dst: str | Path,
        *,
        source: str | Path | None = None,
        memory: int | str = 512 << 20,
        workers: int = 2,
        overwrite: bool = False,
        merge: bool = False,
        max_shard_size: int | str = 5_000_000_000,
        compare_copies: bool = True,
        progress: Any = None,
    ) -> Report:
        """Convert to `dst`, which appears only when it is whole. Sizes are bytes, or texts such as "512MiB"."""
        from .runtime.engine import run

        bound = self._bound(source, max_shard_bytes=parse_size(max_shard_size))
        return run(
            bound, Path(dst), memory=parse_size(memory), workers=at_least_one(workers), overwrite=overwrite, merge=merge,
            check_copies=compare_copies, progress=progress,
        )  # fmt: skip

    def stream(
        self, *, source: str | Path | None = None, device: str = "cpu", **ranks: int
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """`(name, tensor)` for every target tensor of one rank (`tp=3, pp=0`), with no file written.

        Tensors come in the order of the target's files, row-major, in the target's dtypes, one at a time.
        """
        import torch

        from .runtime.engine import stream

        degrees = dict(self.data.target.ranks)
        for rank, number in ranks.items():
            if not 0 <= number < degrees.get(rank, 0):
                there = ", ".join(f"{name} = 0 to {n - 1}" for name, n in degrees.items()) or "no ranks"
                raise Fault("unknown-rank", f"layout `{self.data.target.layout}` has no {rank} = {number}", notes=(f"it has {there}",))
        for name, dtype, shape, buffer in stream(self._bound(source), ranks or None):
            kind = getattr(torch, dtype)
            flat = torch.frombuffer(buffer, dtype=kind) if len(buffer) else torch.empty(0, dtype=kind)
            yield name, flat.reshape(shape).to(device)


def load_plan(path: str | Path) -> Plan:
    """A saved plan; run it with `.run(dst, source=...)`."""
    return Plan(read_plan_file(path))


def plan(
    src: str | Path | Checkpoint,
    *,
    to: str,
    from_: str | None = None,
    mapping: str | Path | None = None,
    family: str | None = None,
    config: str | Path | None = None,
    format: str | None = None,
    dtype: str | None = None,
    compare_all: bool = False,
    revision: str | None = None,
    stages: Sequence[Sequence[int]] | None = None,
    source_settings: Mapping[str, Scalar] | None = None,
    optimizer: bool = False,
    dp: int | None = None,
    model_id: str | None = None,
    tokenizer: str | Path | None = None,
    **settings: Scalar,
) -> Plan:
    """Plan a conversion of the checkpoint at `src` to layout `to`, from headers alone.

    `src` is a path, or a repository of the hub, `org/name` or `hf://org/name@revision`, whose files are fetched first.
    `settings` are the target's degrees and parameters (`tp=8, pp=2, kv_multiplier=4`), or axes and settings
    of the model; what only the source has goes there. Where both sides are of one layout, what is not given stays as
    it is in the source. The family, the source's layout and its parameters are found from the files unless given.
    `optimizer` takes zero1 optimizer state along, for `dp` data parallel ranks (as many as the source has). `model_id` and
    `tokenizer` (a file or a folder) are for the context of NeMo 2. Raises `MappingError` or `Fault`, each with diagnostics.
    """
    check_dtype(dtype)
    wanted = Wanted(model_id, None if tokenizer is None else str(tokenizer))
    family = family_of(wanted, to, family)
    checkpoint = src if isinstance(src, Checkpoint) else open_source(src, revision)
    checkpoint = with_indices(checkpoint, mapping)
    found = found_in(checkpoint)
    family_, layout, keys_layout, config_path = choose(checkpoint, found, to, from_, mapping, family, config, settings)
    targets, sources, model = route(settings, family_, layout, family_.layout(to), to)
    sources = said_by_files(checkpoint, layout) | sources | dict(source_settings or {})
    sizes = sizes_of(family_, keys_layout, config_path, model, found, layout)
    source = fit_source(family_, layout, sizes, found, sources)
    owned = stage_lists(stages, family_.layout(to))

    def target_of(source: Side) -> Side:
        kept = as_source(source, layout, targets, owned) if to == source.layout else (targets, owned)
        anew = differs(family_.layout(to), kept[0], source)
        return resolve(family_, to, sizes, kept[0], stages=kept[1], format=format, makes=to != source.layout, written=anew)

    target = target_of(source)

    def again(source: Side) -> Iterator[Compiled]:
        for each in (target, target_of(source)) if to == source.layout else (target,):
            yield compile_sides(source, each, found=found)

    side = side_files(checkpoint, source, target, family_, keys_layout, config_path, dtype, wanted)
    compiled = compile_sides(source, target, found=found, compare_all=compare_all, dtype=dtype, files=side.texts)
    if differs(family_.layout(to), {**target.ranks, **target.params}, source):  # else nothing moves, if the copies are as declared
        ask_what_differs(compiled, also_fitting(family_, layout, sizes, found, sources, source), again)
    padding = say_padding_stays(source, target, side.carried)
    extra, notes = side.carried, (*checkpoint.notes, *side.notes, *target.notes, *padding)
    asked = str(src) if revision is None and not isinstance(src, Checkpoint) else None
    if not optimizer:
        return Plan(compiled.plan, checkpoint, extra, asked, notes=(*notes, *_left_out(checkpoint, target, dp)))
    with_state = add_state(compiled, family_, checkpoint, dp)
    return Plan(with_state.plan, with_state.checkpoint, extra, asked, with_state.trees, notes)


def _left_out(checkpoint: Checkpoint, target: Side, dp: int | None) -> tuple[str, ...]:
    if dp is not None:
        raise Fault("no-optimizer", "a data parallel degree is of optimizer state alone", help="add --optimizer, or leave --dp out")
    folder = state_folder(checkpoint)
    why = "--optimizer takes it along" if target.state else f"layout {target.layout} cannot hold it"
    return (f"{folder} is left out: {why}",) if Path(folder).is_dir() else ()


def compile(
    mapping: str | Path,
    *,
    from_: str,
    to: str,
    config: str | Path | None = None,
    family: str | None = None,
    format: str | None = None,
    dtype: str | None = None,
    stages: Sequence[Sequence[int]] | None = None,
    source_settings: Mapping[str, Scalar] | None = None,
    model_id: str | None = None,
    **settings: Scalar,
) -> Plan:
    """Compile and prove a plan from a mapping and a config alone, with no checkpoint at hand.

    Optional tensors are taken to be absent. Raises `MappingError` or `Fault`.
    """
    check_dtype(dtype)
    wanted = Wanted(model_id)
    family = family_of(wanted, to, family)
    choices = [f for f in library.families(mapping) if family in (None, f.name)]
    if not choices:
        raise Fault("unknown-family", f"{mapping} has no family `{family}`")
    family_ = choices[-1]
    left, right = family_.layout(from_), family_.layout(to)
    targets, sources, model = route(settings, family_, left, right, to)
    sources |= dict(source_settings or {})
    keys_layout = config_layout(family_, left, right, config)
    sizes = sizes_of(family_, keys_layout, Path(config) if config else None, model, None, left)
    source = resolve(family_, from_, sizes, sources)
    written = differs(right, targets, source)
    target = resolve(family_, to, sizes, targets, stages=stage_lists(stages, right), format=format, makes=to != from_, written=written)
    place = Path(config) if config else None
    side = target_side(target, family_, keys_layout, place, dtype, wanted)
    return Plan(compile_sides(source, target, dtype=dtype, files=side.texts).plan, notes=(*side.notes, *target.notes))


def convert(src: str | Path, dst: str | Path, *, to: str, **options: Any) -> Report:
    """Plan and run in one call. Options are those of `plan` and of `Plan.run`."""
    names = ("memory", "workers", "overwrite", "merge", "max_shard_size", "compare_copies", "progress")
    running = {k: options.pop(k) for k in names if k in options}
    return plan(src, to=to, **options).run(dst, **running)
