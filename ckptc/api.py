"""The Python face: plan a conversion from headers alone, then print, save, run or stream it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import library
from .compiler.detect import find_layouts, fit_source
from .compiler.explain import describe, explain
from .compiler.link import Family, FlatLayout
from .compiler.match import Found, stored_tensors
from .compiler.pipeline import compile_sides
from .compiler.resolve import Scalar, Side, Sizes, bind_sizes, config_of, resolve
from .compiler.write_config import config_text
from .dsl.diagnostic import Diagnostic, MappingError
from .runtime.checkpoint import Checkpoint, open_checkpoint
from .runtime.fault import Fault
from .runtime.plan import Plan as PlanData
from .runtime.plan_file import load_plan as read_plan_file
from .runtime.plan_file import save_plan

if TYPE_CHECKING:
    import torch

    from .account import Totals
    from .runtime.bind import Bound
    from .runtime.engine import Report

Stages = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Plan:
    """A proved conversion. `data` is the plan itself; `source` the checkpoint it was made for, if any.

    `extra` are side files (name, path) that are copied beside the result byte for byte.
    """

    data: PlanData
    source: Checkpoint | None = None
    extra: tuple[tuple[str, Path], ...] = ()

    def __str__(self) -> str:
        return describe(self.data)

    def explain(self, name: str) -> str:
        """Where the elements of one stored tensor go or come from. Raises `Fault` if no tensor has the name."""
        text = explain(self.data, name)
        if text is None:
            from .dsl.nearest import nearest

            names = [s.name for side in (self.data.source, self.data.target) for s in side.stored]
            near = nearest(name, names)
            raise Fault("unknown-tensor", f"the plan has no tensor `{name}`", help=f"did you mean `{near}`?" if near else "")
        return text

    def save(self, path: str | Path) -> None:
        """Write the plan to a small file that `load_plan` and `ckptc run` read."""
        save_plan(self.data, path)

    def emit(self, path: str | Path | None = None) -> str:
        """The plan as a self-contained Python module; also written to `path` if given."""
        from .compiler.emit import emit_python

        text = emit_python(self.data)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _bound(self, source: str | Path | Checkpoint | None, **options: Any) -> Bound:
        from .runtime.bind import bind

        checkpoint = self.source if source is None else source if isinstance(source, Checkpoint) else open_checkpoint(source)
        if checkpoint is None:
            raise Fault("no-source", "this plan was made without a checkpoint", help="name the one to read: plan.run(dst, source=...)")
        bound = bind(self.data, checkpoint, **options)
        if self.source is None:
            return bound
        return replace(bound, carried=tuple((str(path), name) for name, path in self.extra))

    def totals(
        self,
        source: str | Path | None = None,
        *,
        memory: int | str = 512 << 20,
        workers: int = 2,
        max_shard_size: int | str = 5_000_000_000,
    ) -> Totals:
        """Bytes read and written, files, disk and buffer need, before anything runs."""
        from .account import totals

        bound = self._bound(source, max_shard_bytes=parse_size(max_shard_size))
        return totals(bound, parse_size(memory), workers)

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
            bound, Path(dst), memory=parse_size(memory), workers=workers, overwrite=overwrite, merge=merge,
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

        for name, dtype, shape, buffer in stream(self._bound(source), ranks or None):
            kind = getattr(torch, dtype)
            flat = torch.frombuffer(buffer, dtype=kind) if len(buffer) else torch.empty(0, dtype=kind)
            yield name, flat.reshape(shape).to(device)


def parse_size(size: int | str) -> int:
    """Bytes from a number or a text: "512MiB", "5GB", "1.5 GiB"."""
    if isinstance(size, int):
        return size
    text = size.strip().replace("_", "").lower()
    units = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12}
    units |= {"ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20, "gi": 2**30, "gib": 2**30, "ti": 2**40, "tib": 2**40}
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ").strip()
    unit = text[len(digits) :].strip()
    try:
        value = float(digits)
        if unit not in units or value <= 0:
            raise ValueError
        return int(value * units[unit])
    except ValueError:
        raise Fault("bad-size", f"`{size}` is not a size", help="write a number of bytes with a unit, such as 512MiB or 5GB") from None


def load_plan(path: str | Path) -> Plan:
    """A saved plan; run it with `.run(dst, source=...)`."""
    return Plan(read_plan_file(path))


def found_in(checkpoint: Checkpoint) -> tuple[Found, ...]:
    return tuple(Found(e.file, e.name, e.dtype, e.shape) for e in checkpoint.entries)


def read_config(path: str | Path) -> Mapping[str, Any]:
    """A config file as a dictionary, JSON or YAML by its ending."""
    path = Path(path)
    if path.is_dir():
        path = path / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise Fault("no-config", f"{path}: {e.strerror}", help="name the model's config with --config") from None
    except UnicodeDecodeError:
        raise Fault("bad-config", f"{path} is not text") from None
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix in (".yaml", ".yml"):
            import yaml

            data = yaml.safe_load(text)
        else:
            data = json.loads(text)
    except Exception as e:
        raise Fault("bad-config", f"{path} cannot be read: {str(e).splitlines()[0]}") from None
    if not isinstance(data, Mapping):
        raise Fault("bad-config", f"{path} holds no settings: a mapping of keys to values is needed")
    return data


def plan(
    src: str | Path,
    *,
    to: str,
    from_: str | None = None,
    mapping: str | Path | None = None,
    family: str | None = None,
    config: str | Path | None = None,
    format: str | None = None,
    dtype: str | None = None,
    compare_all: bool = False,
    stages: Sequence[Sequence[int]] | None = None,
    source_settings: Mapping[str, Scalar] | None = None,
    **settings: Scalar,
) -> Plan:
    """Plan a conversion of the checkpoint at `src` to layout `to`, from headers alone.

    `settings` are the target's degrees and parameters (`tp=8, pp=2, kv_multiplier=4`), or axes and settings
    of the model; what only the source has goes there. The family, the source's layout and its parameters are
    found from the files unless given. Raises `MappingError` or `Fault`, each with diagnostics.
    """
    checkpoint = open_checkpoint(src)
    found = found_in(checkpoint)
    family_, layout, keys_layout, config_path = _choose(checkpoint, found, to, from_, mapping, family, config)
    targets, sources, model = _routed(settings, family_, layout, family_.layout(to), to)
    sources |= dict(source_settings or {})
    sizes = _sizes(family_, keys_layout, config_path, model, found, layout)
    source = fit_source(family_, layout, sizes, found, sources)
    target = resolve(family_, to, sizes, targets, stages=_stages(stages), format=format)
    files, extra = _side_files(checkpoint, source, target, family_, keys_layout, config_path, dtype)
    compiled = compile_sides(source, target, found=found, compare_all=compare_all, dtype=dtype, files=files)
    return Plan(compiled.plan, checkpoint, extra)


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
    **settings: Scalar,
) -> Plan:
    """Compile and prove a plan from a mapping and a config alone, with no checkpoint at hand.

    Optional tensors are taken to be absent. Raises `MappingError` or `Fault`.
    """
    choices = [f for f in library.families(mapping) if family in (None, f.name)]
    if not choices:
        raise Fault("unknown-family", f"{mapping} has no family `{family}`")
    family_ = choices[-1]
    left, right = family_.layout(from_), family_.layout(to)
    targets, sources, model = _routed(settings, family_, left, right, to)
    sources |= dict(source_settings or {})
    keys_layout = _config_layout(family_, left, right, config)
    sizes = _sizes(family_, keys_layout, Path(config) if config else None, model, None, left)
    source = resolve(family_, from_, sizes, sources)
    target = resolve(family_, to, sizes, targets, stages=_stages(stages), format=format)
    text = _target_config(target, family_, keys_layout, Path(config) if config else None)
    return Plan(compile_sides(source, target, dtype=dtype, files=text).plan)


def convert(src: str | Path, dst: str | Path, *, to: str, **options: Any) -> Report:
    """Plan and run in one call. Options are those of `plan` and of `Plan.run`."""
    names = ("memory", "workers", "overwrite", "merge", "max_shard_size", "compare_copies", "progress")
    running = {k: options.pop(k) for k in names if k in options}
    return plan(src, to=to, **options).run(dst, **running)


# --- choosing -------------------------------------------------------------------------------------


def _stages(stages: Sequence[Sequence[int]] | None) -> Stages | None:
    return tuple(tuple(s) for s in stages) if stages is not None else None


def _choose(
    checkpoint: Checkpoint,
    found: tuple[Found, ...],
    to: str,
    from_: str | None,
    mapping: str | Path | None,
    family: str | None,
    config: str | Path | None,
) -> tuple[Family, FlatLayout, FlatLayout | None, Path | None]:
    """The family and layout that the files and the config fit, with the layout whose config block reads it."""
    known = library.families(mapping)
    configured = [f for f in known if any(config_of(x) for x in f.layouts)]
    choices = [f for f in known if f.name == family] if family is not None else configured or list(known)
    if family is not None and not choices:
        names = ", ".join(sorted(f.name for f in known))
        raise Fault("unknown-family", f"there is no family `{family}`", notes=(f"there are {names}",), help="see `ckptc list`")
    fits = find_layouts(choices, found, from_)
    fits = [f for f in fits if any(x.name == to for x in f.family.layouts)] or fits
    if not fits:
        which = f"layout `{from_}`" if from_ else "any layout"
        raise Fault(
            "unknown-layout", f"{checkpoint.path} does not look like {which} that ckptc knows",
            notes=(f"it holds {', '.join(sorted({f.name for f in found})[:3])} ...",),
            help="name the layout with --from and the family with --family, or write a mapping and name it with --mapping",
        )  # fmt: skip
    whole = [f for f in fits if not f.missing] or fits[:1]
    error: MappingError | Fault | None = None
    for fit in whole:
        try:
            keys_layout = _config_layout(fit.family, fit.layout, fit.family.layout(to), config, checkpoint)
            path = _config_path(checkpoint, keys_layout, config)
            _sizes(fit.family, keys_layout, path, {}, found, fit.layout)
            return fit.family, fit.layout, keys_layout, path
        except (MappingError, Fault) as e:
            error = error or e
    fit = whole[0]
    keys_layout = _config_layout(fit.family, fit.layout, fit.family.layout(to), config, checkpoint)
    if isinstance(error, MappingError) and any(d.code == "unmet-requirement" for d in error.diagnostics):
        raise error
    return fit.family, fit.layout, keys_layout, _config_path(checkpoint, keys_layout, config)


def _config_layout(
    family: Family, source: FlatLayout, target: FlatLayout, config: str | Path | None, checkpoint: Checkpoint | None = None
) -> FlatLayout | None:
    """The layout whose config block reads the config at hand: by the file's name, then source before target."""
    candidates = [x for x in (source, target, *family.layouts) if config_of(x) is not None]
    if config is not None:
        name = Path(config).name
        named = [x for x in candidates if (c := config_of(x)) and Path(c.file).name == name]
        same = [x for x in candidates if (c := config_of(x)) and Path(c.file).suffix == Path(config).suffix]
        return (named or same or candidates or [None])[0]
    if checkpoint is not None:
        for x in candidates:
            c = config_of(x)
            if c is not None and (_root(checkpoint) / c.file).exists():
                return x
    return candidates[0] if candidates else None


def _root(checkpoint: Checkpoint) -> Path:
    path = Path(checkpoint.path)
    return path if path.is_dir() else path.parent


def _config_path(checkpoint: Checkpoint, layout: FlatLayout | None, config: str | Path | None) -> Path | None:
    if config is not None:
        path = Path(config)
        block = config_of(layout) if layout else None
        return path / block.file if path.is_dir() and block else path
    block = config_of(layout) if layout else None
    if block is None:
        return None
    beside = _root(checkpoint) / block.file
    return beside if beside.exists() else None


def _sizes(
    family: Family,
    layout: FlatLayout | None,
    config: Path | None,
    given: Mapping[str, Scalar],
    found: tuple[Found, ...] | None,
    source: FlatLayout,
) -> Sizes:
    keys = read_config(config) if config is not None else None
    if keys is None and layout is not None and found is not None and not given:
        block = config_of(layout)
        raise Fault(
            "no-config", f"the model's sizes are unknown: there is no {block.file if block else 'config'} with the checkpoint",
            help="pass it with --config, for example --config HF_DIR/config.json",
        )  # fmt: skip
    present = stored_tensors(source, found) if found is not None else _expected(family)
    return bind_sizes(family, layout if config is not None else None, keys, given, present.__contains__, str(config or ""))


def _expected(family: Family) -> frozenset[str]:
    """Without a checkpoint: all tensors but the optional ones and those that are there only if they are stored."""
    return frozenset(t.name for t in family.model.tensors if not t.optional and "function='stored'" not in repr(t.when))


def _routed(
    settings: Mapping[str, Scalar], family: Family, source: FlatLayout, target: FlatLayout, to: str
) -> tuple[dict[str, Scalar], dict[str, Scalar], dict[str, Scalar]]:
    """Settings to where they belong: the target's parameters, else the source's, else the model's."""
    targets: dict[str, Scalar] = {}
    sources: dict[str, Scalar] = {}
    model: dict[str, Scalar] = {}
    of_target, of_source = {p.name for p in target.params}, {p.name for p in source.params}
    of_model = {a.name for a in family.model.axes} | {s.name for s in family.model.settings}
    for name, value in settings.items():
        if name in of_target:
            targets[name] = value
        elif name in of_source:
            sources[name] = value
        elif name in of_model:
            model[name] = value
        else:
            from .dsl.nearest import nearest

            near = nearest(name, sorted(of_target | of_source | of_model))
            raise MappingError(
                Diagnostic(
                    "unknown-parameter", f"neither layout `{to}` nor `{source.name}` has a parameter `{name}`, and model `{family.name}` no setting",
                    notes=(f"`{to}` has {', '.join(sorted(of_target)) or 'no parameters'}",), help=f"did you mean `{near}`?" if near else "",
                )
            )  # fmt: skip
    return targets, sources, model


# --- side files -----------------------------------------------------------------------------------


def _side_files(
    checkpoint: Checkpoint, source: Side, target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, dtype: str | None
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, Path], ...]]:
    """The target's config as text, and the files to carry over: from the source, or from beside the config."""
    files = _target_config(target, family, keys_layout, config)
    written = {name for name, _ in files}
    extra: dict[str, Path] = {}
    for folder in dict.fromkeys(([_root(checkpoint)] if Path(checkpoint.path).is_dir() else []) + ([config.parent] if config else [])):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in written and any(fnmatch(path.name, g) for g in target.carry):
                extra.setdefault(path.name, path)
    return files, tuple(extra.items())


def _target_config(
    target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None
) -> tuple[tuple[str, str], ...]:
    """Byte for byte the config at hand where it is the target's own, else written from sizes and settings."""
    layout = family.layout(target.layout)
    block = config_of(layout)
    if block is None:
        return ()
    if keys_layout is not None and keys_layout.name == layout.name and config is not None:
        return ((block.file, config.read_text(encoding="utf-8")),)
    template = (library.SHIPPED / block.template).read_text(encoding="utf-8") if block.template else None
    return ((block.file, config_text(block, target, template)),)


