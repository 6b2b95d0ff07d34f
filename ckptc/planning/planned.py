"""A proved conversion: what prints, explains, saves, runs and streams it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..choices.arguments import at_least_one, parse_size
from ..dsl.nearest import nearest
from ..hub import open_source
from ..nemo.wanted import LAYOUT as NEMO_2
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault, MissingTensor
from ..runtime.files.window import SideFile
from ..runtime.plan.plan import Plan as PlanData

if TYPE_CHECKING:
    import torch

    from ..account import Totals
    from ..runtime.binding.bind import Bound
    from ..runtime.engine.engine import Report
    from ..runtime.progress import OnProgress


@dataclass(frozen=True)
class Plan:
    """A proved conversion. `data` is the plan itself; `source` the checkpoint it was made for, if any.

    `extra` are side files that are copied beside the result byte for byte. `asked` is how the source was
    named: a path, or a repository of the hub. `trees` are the values in which a target file's tensors stand, by file.
    `values` are the sizes and settings of the model; a plan that was loaded has none.
    """

    data: PlanData
    source: Checkpoint | None = None
    extra: tuple[SideFile, ...] = ()
    asked: str | None = None
    trees: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _known: dict[Any, Bound] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __str__(self) -> str:
        from ..compiler.say.explain import describe

        return describe(self.data)

    def __repr__(self) -> str:
        source, target = self.data.source, self.data.target
        where = f" of {self.source.path}" if self.source is not None else ""
        return f"<Plan {source.layout} to {target.layout}{where}: {source.proof.tensors:,} tensors to {target.proof.tensors:,}, {len(self.data.steps)} steps>"

    def explain(self, name: str) -> str:
        """Where the elements of one stored tensor go or come from. Raises `Fault` if no tensor has the name."""
        from ..compiler.say.explain import explain

        text = explain(self.data, name)
        if text is None:
            names = [s.name for side in (self.data.source, self.data.target) for s in side.stored]
            near = nearest(name, names)
            raise MissingTensor("unknown-tensor", f"the plan has no tensor `{name}`", help=f"did you mean `{near}`?" if near else "")
        return text

    def save(self, path: str | Path) -> None:
        """Write the plan to a small file that `load_plan` and `ckptc run` read."""
        self._refuse_trees()
        if self.extra and self.data.target.layout == NEMO_2:
            raise Fault("not-saved", "a plan with a context folder's files is of one checkpoint, and is not saved", help="run it where it is made")
        from ..runtime.plan.plan_file import save_plan

        save_plan(self.data, path)

    def _refuse_trees(self) -> None:
        if self.trees:
            raise Fault("not-saved", "a plan with optimizer state is of one checkpoint, and is not saved", help="run it where it is made")

    def emit(self, path: str | Path | None = None) -> str:
        """The plan as a self-contained Python module; also written to `path` if given, which is replaced."""
        from ..compiler.say.emit import emit_python

        self._refuse_trees()
        text = emit_python(self.data)
        if path is not None:
            from ..runtime.plan.plan_file import write_text

            write_text(path, text)
        return text

    def _bound(self, source: str | Path | Checkpoint | None, **options: Any) -> Bound:
        from ..runtime.binding.bind import bind

        own = self.source
        if own is not None and isinstance(source, str | Path) and str(source) in (own.path, self.asked):
            source = None  # its headers are read already
        key = str(source), tuple(options.items())
        if key in self._known:
            return self._known[key]
        checkpoint = own if source is None else source if isinstance(source, Checkpoint) else open_source(source)
        if checkpoint is None:
            raise Fault("no-source", "this plan was made without a checkpoint", help="name the one to read: plan.run(dst, source=...)")
        checkpoint = checkpoint.for_names(name for stored in self.data.source.stored for name in (stored.name, *stored.others))
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
        from ..account import totals
        from ..runtime.binding.archive import bound_for

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
        progress: bool | OnProgress | None = None,
        judge: Callable[[str], None] | None = None,
        resume: bool = False,
        manifest: bool = False,
    ) -> Report:
        """Convert to `dst`, which appears only when it is whole. Sizes are bytes, or texts such as "512MiB".

        `judge` is called with the path of what was written before it gets its final name; what it raises keeps it from that.
        `resume` goes on with what a run with `resume` has left when it was ended, or begins one. `manifest` writes
        ckptc-manifest.json, with checksums of all files and tensors.
        `progress` is called with a `Progress` record (phase, bytes, seconds) some ten times a second; what it raises ends the
        run, and nothing is left behind. True shows progress on standard error as the command line does. Raises `Fault`, which
        is a `FileExistsError` where `dst` is there and neither `overwrite` nor `merge` is given.
        """
        from ..meter import Meter
        from ..runtime.engine.engine import run

        bound = self._bound(source, max_shard_bytes=parse_size(max_shard_size))
        with Meter(progress is True) as meter:
            return run(
                bound, Path(dst), memory=parse_size(memory), workers=at_least_one(workers), overwrite=overwrite, merge=merge,
                check_copies=compare_copies, progress=meter if progress is True else progress or None, judge=judge, resume=resume, manifest=manifest,
            )  # fmt: skip

    def stream(
        self, ranks: Mapping[str, int] | Literal["all"] | None = None, *, source: str | Path | None = None, device: str = "cpu", **degrees: int
    ) -> Iterator[tuple[Any, torch.Tensor]]:
        """`(name, tensor)` for every target tensor of one rank (`tp=3, pp=0`), with no file written.

        Ranks may stand in `ranks` too (`{"tp": 3}`). Each degree above 1 needs its rank: else ranks would give different
        tensors under one name. With `ranks="all"` the tensors of all of them come, as `((file, name), tensor)`.
        Tensors come in the order of the target's files, row-major, in the target's dtypes, one at a time. Raises `Fault`
        for ranks that are missing or that there are not.
        """
        from ..streaming import stream, stream_files, which

        chosen = which(self.data.target, ranks, degrees)
        bound = self._bound(source)
        return stream_files(bound, device) if chosen is None else stream(bound, chosen, device)


def load_plan(path: str | Path) -> Plan:
    """A saved plan; run it with `.run(dst, source=...)`."""
    from ..runtime.plan.plan_file import load_plan

    return Plan(load_plan(path))
