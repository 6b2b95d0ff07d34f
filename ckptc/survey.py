"""A checkpoint in; what it is, from headers alone, out: `ckptc.inspect`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compiler.algebra.lower import lower
from .compiler.fit import fit_source
from .compiler.identify.detect import Fit
from .compiler.identify.match import ranks_of
from .compiler.settle.resolve import Side
from .compiler.settle.sizes import Sizes
from .configs.config_file import read_config
from .dsl.diagnostic import MappingError
from .failure import diagnostics
from .hub import open_source
from .identify.choose import Chosen, best_of, found_in, rating, said_by_files, sizes_of, with_indices
from .identify.config_at_hand import config_layout, config_path, follow_config
from .identify.glance import looked_at
from .identify.identity import Said
from .identify.unknown_family import unknown_family
from .library import mapping_files as library
from .library.families import to_choose_from
from .meter import size
from .runtime.checking.locate import locate
from .runtime.checkpoint.checkpoint import Checkpoint
from .runtime.checkpoint.decoded import decoded_in
from .runtime.fault import Fault
from .runtime.files.window import ITEM_BYTES
from .runtime.plan.expand import families
from .runtime.words import count, few

if TYPE_CHECKING:
    from .compiler.identify.match import Found


def survey(
    path: str | Path, config: str | Path | None = None, *, revision: str | None = None, progress: bool = True, mapping: str | Path | None = None
) -> dict[str, Any]:
    """Path, container, tensors, elements, bytes, dtypes and files, and what is `decoded` from codes and scales (bytes are those of decoded tensors); and the family, layout, degrees and settings, if any fit.

    `path` may be a repository of the hub, at `revision`. `mapping` is one of your own, or the name of one that ships. Without a config only names and shapes tell; `family` is then
    None where several families fit, or none is that which the checkpoint's config `says`; `notes` tell more of it then, and of
    its own config, where that does not fit. Raises `Fault` or `MappingError` where there is no checkpoint, and where the `config` does not fit it.
    """
    config = follow_config(config)
    checkpoint = open_source(path, revision, progress)
    elements = [prod(e.shape) for e in checkpoint.entries]
    dtypes = Counter(e.dtype for e in checkpoint.entries)
    report: dict[str, Any] = {
        "path": str(path),
        "format": checkpoint.format,
        "tag": checkpoint.tag or None,
        "files": len({e.file for e in checkpoint.entries}),
        "tensors": len(checkpoint.entries),
        "elements": sum(elements),
        "bytes": sum(n * ITEM_BYTES[e.dtype] for n, e in zip(elements, checkpoint.entries, strict=True)),
        "dtypes": dict(dtypes.most_common()),
    }
    if decoded := decoded_in(e.window for e in checkpoint.entries):
        report["decoded"] = [asdict(each) for each in decoded]
    identity = _identity(checkpoint, config, mapping)
    return report | identity | {"notes": [*few(checkpoint.undecoded), *identity["notes"]]}


def _identity(checkpoint: Checkpoint, config: str | Path | None, mapping: str | Path | None) -> dict[str, Any]:
    checkpoint = with_indices(checkpoint, mapping)
    found = found_in(checkpoint)
    known = to_choose_from(library.families(mapping))
    if config is not None and not Path(config).is_dir():  # of a folder, a layout says which file is read
        read_config(config)
    said, theirs, every = looked_at(checkpoint, config, known, known, found, None)
    names = {each.name for each in theirs}
    whole = [f for f in every if not f.missing and f.family.name in names]
    unknown: dict[str, Any] = {"family": None, "layout": None, "degrees": {}, "settings": {}, "axes": {}, "says": _words(said), "notes": []}
    if said is not None and not theirs:
        fault = unknown_family(said, known, every, found)
        return unknown | {"notes": [fault.title, *fault.notes, fault.help]}
    if not whole:
        return unknown
    faults: list[MappingError | Fault] = []
    good: list[tuple[Any, Chosen, Sizes]] = []
    about: dict[str, dict[str, Any]] = {}  # by family
    for fit in whole:
        if good and fit.layout.name != good[0][1].layout.name:
            continue
        try:
            rated, about[fit.family.name] = _fitted(checkpoint, found, fit, config)
            good.append(rated)
        except (MappingError, Fault) as fault:
            faults.append(fault)
    if good:
        best, _ = best_of(good, "hf")
        return unknown | about[best[0].family.name]
    if config is not None:
        raise faults[0]
    told = next((fault for fault, *_ in map(diagnostics, faults) if fault.code != "no-config"), None)  # what is wrong with its own config
    layouts = {f.layout.name for f in whole}
    named = {f.family.name for f in whole}
    first = whole[0]
    return unknown | {
        "family": first.family.name if len(named) == 1 else None,
        "layout": first.layout.name if len(layouts) == 1 else None,
        "degrees": ranks_of(first.layout, found) or {},
        "notes": [told.title, *told.notes] if told is not None else [],
    }


def _words(said: Said | None) -> dict[str, str] | None:
    """What the checkpoint's own config says of its model."""
    return None if said is None else {"key": said.key, "value": said.value, "architecture": said.architecture}


def _fitted(checkpoint: Checkpoint, found: tuple[Found, ...], fit: Fit, config: str | Path | None) -> tuple[tuple[Any, Chosen, Sizes], dict[str, Any]]:
    """How well the checkpoint fits one layout of one family, and all about it under that. Raises `MappingError` or `Fault` where config or shapes do not agree with it."""
    layout = config_layout(fit.family, fit.layout, fit.layout, config, checkpoint)
    place = config_path(checkpoint, layout, config)
    sizes = sizes_of(fit.family, layout, place, {}, found, fit.layout)
    side = fit_source(fit.family, fit.layout, sizes, found, said_by_files(checkpoint, fit.layout)[0], bare=checkpoint.bare)
    if place is not None:
        _check_tensors(checkpoint, side, place)
    about = {
        "family": fit.family.name,
        "layout": fit.layout.name,
        "degrees": dict(side.ranks),
        "settings": dict(side.params),
        "axes": {n: v for n, v in sizes.values.items() if n in {axis for t in sizes.tensors.values() for axis in t.axes}},
    }
    chosen = Chosen(fit.family, fit.layout, layout, place, sizes, {})
    return (rating(fit.family, fit.layout, sizes, found), chosen, sizes), about


def _check_tensors(checkpoint: Checkpoint, side: Side, config: Path) -> None:
    """Raises `Fault` where there are other tensors than the config says, or tensors of other shapes."""
    there = locate(families(tuple(x.stored for x in lower(side))), checkpoint.entries)
    shapes = [(there.names[n], entry.shape, there.shape(n)) for n in there.misshapen if (entry := there.entries[n]) is not None]
    wrong = [f"`{name}` is {list(shape)}, expected {list(expected)}" for name, shape, expected in shapes]
    wrong += [f"`{lost.name}` is not there" for lost in there.lost]
    if wrong:
        raise Fault(
            "wrong-shape", f"{config} does not fit {count(len(wrong), 'tensor')} of {checkpoint.path}", notes=few(wrong),
            help="check that the config belongs to this checkpoint",
        )  # fmt: skip


def describe(report: dict[str, Any]) -> str:
    """The report for a person."""
    says = report["says"]
    family = report["family"] or "unknown family" + (f" ({says['key']} {says['value']})" if says else "")
    layout = report["layout"] or "unknown layout"
    facts = [f"{k} {v}" for part in ("degrees", "settings") for k, v in report[part].items()]
    lines = [
        report["path"] + (f" (its newest complete checkpoint, {report['tag']})" if report["tag"] else ""),
        f"  is       {family}, {layout}" + (f" ({', '.join(facts)})" if facts else ""),
        f"  format   {report['format']}, {report['files']:,} file{'s' * (report['files'] != 1)}",
        f"  holds    {report['tensors']:,} tensors, {report['elements']:,} elements, {size(report['bytes'])}",
        "  dtypes   " + ", ".join(f"{name} {count:,}" for name, count in report["dtypes"].items()),
    ]
    for each in report.get("decoded", ()):
        lines.append(f"  decoded  {each['tensors']:,} tensors, {each['elements']:,} elements: {each['codes']} times {each['scales']}, a scale for each {each['block']}")
    if report["axes"]:
        lines.append("  axes     " + "  ".join(f"{n} {v:,}" for n, v in report["axes"].items()))
    lines += [f"  note     {note}" for note in report["notes"]]
    return "\n".join(lines)
