"""The records that `ckptc.verify` and `ckptc.diff` return: frozen, readable as text, and as plain values for JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

Value = int | float | str
SHOWN = 12  # differences that a text has in full


@dataclass(frozen=True)
class Place:
    """A stored tensor: its name, its file relative to the checkpoint (empty where it may be in any), dtype and shape. Where
    an element is meant, `index` counts along the tensor's dimensions, and `value` is what stands there."""

    name: str
    file: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    index: tuple[int, ...] | None = None
    value: Value | None = None

    def __str__(self) -> str:
        return f"`{self.name}`" + (f" in {self.file}" if self.file else "")

    @property
    def element(self) -> str:
        """The element that is meant, and its value."""
        return f"{self.value} at {list(self.index or ())}"


@dataclass(frozen=True)
class Difference:
    """One stored tensor, or one file, that is not what it should be.

    `kind` is values (elements differ), shape, dtype (elements of these dtypes cannot be compared, or, of `diff`, other ones),
    missing, extra (a tensor that its layout, or the other side, has not) or missing-file. `side` says which checkpoint it is
    in, target or source. `tensor` is its name in the model, empty where it has none. Of `compared` elements
    `different` differ; `source` and `target` have the first of them, in the order of the target. The source's value is what
    it is in the target's dtype. `max_ulps` counts values of the target's dtype between the two farthest apart.
    `explanation` is what would make it equal, and `setting` the option that says so, where one does.
    """

    kind: str
    side: str
    tensor: str
    source: Place | None
    target: Place | None
    compared: int = 0
    different: int = 0
    max_abs: float = 0.0
    max_ulps: int | None = None
    explanation: str = ""
    setting: str = ""

    def __str__(self) -> str:
        own = self.target if self.side == "target" or self.source is None else self.source
        of = f" ({self.tensor})" if self.tensor else ""
        where = " of the source" if self.side == "source" else ""
        lines = [f"{_KINDS[self.kind]}{where}  {own}{of}"]
        if self.kind == "values" and self.source is not None and self.target is not None:
            ulps = f", {self.max_ulps:,} ULPs" if self.max_ulps is not None else ""
            lines.append(f"  {self.different:,} of {self.compared:,} elements differ, by at most {self.max_abs:.6g}{ulps}")
            lines.append(f"  first    {self.target.element}, and {self.source.element} of {self.source} ")
        elif self.kind in ("shape", "dtype") and self.source is not None and self.target is not None:
            what = ("shape", [list(self.source.shape), list(self.target.shape)]) if self.kind == "shape" else ("dtype", [self.source.dtype, self.target.dtype])
            lines.append(f"  the {what[0]} is {what[1][1]}, and should be {what[1][0]}")
        if self.explanation:
            lines.append(f"  because  {self.explanation}")
        if self.setting:
            lines.append(f"  say so   {self.setting}")
        return "\n".join(line.rstrip() for line in lines)


_KINDS = {
    "values": "differs", "shape": "another shape", "dtype": "another dtype", "missing": "missing", "extra": "extra",
    "missing-file": "missing file",
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """A checkpoint as it was read: where it is, and its layout with degrees and parameters, empty for `diff`."""

    path: str
    format: str
    layout: str = ""
    degrees: tuple[tuple[str, int], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"path": self.path, "format": self.format, "layout": self.layout, "degrees": dict(self.degrees), "settings": dict(self.settings)}

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in (*self.degrees, *self.settings))
        return f"{self.path}: {self.layout or self.format}" + (f" ({facts})" if facts else "")


@dataclass(frozen=True)
class Compared:
    """What both reports have: two sides, how many elements differ, and which tensors those are in."""

    source: Side
    target: Side
    different: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs, is missing or too much."""
        return not self.differences

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"same": self.same, **_plain(asdict(self)), "source": self.source.record(), "target": self.target.record()}

    def _text(self, head: list[str]) -> str:
        differ = [f"  differ  {self.different:,} elements"] if self.different else []
        return "\n".join([*head, *differ, *(f"  note    {note}" for note in self.notes), *_listed(self.differences)])


@dataclass(frozen=True)
class Verification(Compared):
    """Whether `target` holds exactly what `source` holds. Counts are in elements of the target.

    `equal` are equal elements, each of the model counted once; `copies` further copies of them that are equal, too. Of both,
    `rounded` have another dtype than the source's: they are equal to the source's after the cast that a conversion defines
    (to nearest, ties to even), and `calculated` went through a rule's arithmetic, such as norm + 1. `decoded` are stored in
    the source as codes and scales, and are equal to their products (docs/scaled.md). `padding` belongs to no
    element of the model; `unlike_padding` of it is not what the layout writes there, which is no difference.
    """

    family: str
    tensors: int
    equal: int
    copies: int
    padding: int
    rounded: int
    calculated: int
    unlike_padding: int
    decoded: int

    def __str__(self) -> str:
        head = [
            f"equal     {self.target.path} holds what {self.source.path} holds" if self.same else f"different {self.target.path} does not hold what {self.source.path} holds",
            f"  source  {self.source}",
            f"  target  {self.target}",
            f"  equal   {self.equal:,} elements of {self.family}, {self.copies:,} in further copies; {self.padding:,} are padding",
        ]
        if self.rounded:
            head.append(f"  cast    {self.rounded:,} of these have another dtype, and are equal after rounding to it")
        if self.decoded:
            head.append(f"  decoded {self.decoded:,} of these are codes times scales in the source, and are equal after decoding")
        if self.calculated:
            head.append(f"  made    {self.calculated:,} of these are equal after the layouts' arithmetic")
        return self._text(head)


@dataclass(frozen=True)
class Diff(Compared):
    """Two checkpoints compared name by name, without any mapping. Counts are in tensors, `elements` in elements."""

    tensors: int
    elements: int

    def __str__(self) -> str:
        head = [
            f"equal     {self.source.path} and {self.target.path}" if self.same else f"different {self.source.path} and {self.target.path}",
            f"  equal   {self.tensors:,} tensors of one name, shape and dtype, {self.elements:,} elements",
        ]
        return self._text(head)


def _listed(differences: Iterable[Difference]) -> list[str]:
    """The first of each kind of difference in full; how many are like it."""
    alike: dict[tuple[str, ...], list[Difference]] = {}
    for each in differences:
        own = "" if each.explanation else each.tensor
        alike.setdefault((each.kind, each.side, own, each.setting, _general(each.explanation)), []).append(each)
    lines: list[str] = []
    for first, *rest in list(alike.values())[:SHOWN]:
        lines.append(str(first))
        if rest:
            lines.append(f"  and      {len(rest):,} more like it, the last {rest[-1].target or rest[-1].source}")
    hidden = sum(map(len, list(alike.values())[SHOWN:]))
    return lines + ([f"and {hidden:,} more differences (--json has all)"] if hidden else [])


def _general(text: str) -> str:
    """An explanation without names and numbers: equal for what is alike."""
    return re.sub(r"[+-]?\d+", "#", re.sub(r"`[^`]*`", "`", text))


def _plain(value: Any) -> Any:
    """Values that JSON has: no infinities, lists for tuples."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value
