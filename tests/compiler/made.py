"""Hypothesis-made mappings: a random model and two random layouts of it, as text, with sizes that are all distinct."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

SIZES = {"a": 6, "b": 4, "c": 10, "e": 3, "layer": 5}  # pairwise distinct; tp and pp cut through some of them


@dataclass(frozen=True)
class Made:
    text: str
    source: dict[str, int]
    target: dict[str, int]


@st.composite
def mappings(draw) -> Made:
    tensors = []
    for name in ("x", "y", "z")[: draw(st.integers(1, 3))]:
        axes = draw(st.permutations(["a", "b", "c", "e"]).map(lambda p: p[:3]))
        axes = axes[: draw(st.integers(1, 3))]
        if draw(st.booleans()):
            axes = ["layer", *axes]
        tensors.append((name, tuple(axes)))
    # w and v share all axes but one: they can stand in one tensor, as segments
    tensors += [("w", ("layer", "a", "b")), ("v", ("layer", "a", "e"))]
    model = "\n".join(f"  {n} [{', '.join(a)}]" for n, a in tensors)
    text = f"model m {{\n  axes {{ a b c e layer }}\n{model}\n}}\n"
    degrees = []
    for layout in ("one", "two"):
        body, ranks = draw(_layout(tensors))
        text += f"layout {layout} of m (rank tp = 1, rank pp = 1, vpp = 1) {{\n{body}}}\n"
        degrees.append(ranks)
    return Made(text, *degrees)


@st.composite
def _layout(draw, tensors):
    tp = draw(st.sampled_from([1, 2, 3, 4, 6]))
    staged = draw(st.booleans())
    pp = draw(st.sampled_from([1, 2, 3])) if staged else 1
    vpp = draw(st.sampled_from([1, 2])) if staged and pp < 3 else 1
    lines = []
    if tp > 1 or staged:
        lines.append('files "part_{tp:02}_{pp:02}.pt"')
    if staged:
        lines.append(f"stages layer over pp interleave vpp remainder {draw(st.sampled_from(['first', 'last']))}")
    halves = draw(st.sampled_from([None, ("a", 2), ("a", 3), ("c", 5), ("b", 2), ("a", 4), ("c", 3), ("b", 3)]))
    if halves:
        pad = "pad" if SIZES[halves[0]] % halves[1] else draw(st.sampled_from(["", "pad"]))
        lines.append(f"axis {halves[0]} = {pad}(hi lo) with hi = {halves[1]}")
    for name, axes in tensors:
        if name in "wv":
            continue
        lines.append(draw(_rule(name, axes, tp, staged, halves)))
    lines.append(draw(_segments(tp, staged, halves)))
    return "".join(f"  {x}\n" for x in lines), {"tp": tp, "pp": pp, "vpp": vpp}


def _size(factor: str, halves) -> int:
    if factor in ("hi", "lo"):
        n = SIZES[halves[0]]
        return halves[1] if factor == "hi" else -(-n // halves[1])
    return SIZES[factor]


@st.composite
def _dims(draw, axes, tp, halves):
    """Axes permuted, grouped into dimensions, one of them perhaps sliced, padded or repeated."""
    factors = []
    for axis in axes:
        if halves and axis == halves[0] and draw(st.booleans()):
            factors += ["hi", "lo"]
        else:
            factors.append(axis)
    factors = draw(st.permutations(factors))
    groups, rest = [], list(factors)
    while rest:
        n = draw(st.integers(1, len(rest)))
        groups.append(rest[:n])
        rest = rest[n:]
    dims, sliced = [], tp == 1
    for group in groups:
        size = 1
        for f in group:
            size *= _size(f, halves)
        text = group[0] if len(group) == 1 else f"({' '.join(group)})"
        if draw(st.integers(0, 5)) == 0:
            text, size = f"({text} copies(2))" if draw(st.booleans()) else f"(copies(2) {text})", size * 2
        if draw(st.integers(0, 4)) == 0:
            n = draw(st.sampled_from([4, 7]))
            fill = draw(st.sampled_from(["", ", repeat last"]))
            text, size = f"pad({text}, {n}{fill})", -(-size // n) * n
        if not sliced and size % tp == 0 and draw(st.booleans()):
            text, sliced, size = f"{text}/tp", True, size // tp
            if draw(st.integers(0, 2)) == 0:  # each rank's part is filled up by itself
                fill = draw(st.sampled_from(["", ", repeat last"]))
                text = f"pad({text}, {draw(st.sampled_from([4, 7]))}{fill})"
        dims.append(text)
    if draw(st.integers(0, 6)) == 0:
        dims.insert(draw(st.integers(0, len(dims))), "1")
    return dims


@st.composite
def _rule(draw, name, axes, tp, staged, halves):
    spelled, rest = "", list(axes)
    on = ""
    if "layer" in axes:
        rest.remove("layer")
        where = draw(st.sampled_from(["name", "shape"])) if not staged else draw(st.sampled_from(["name", "local", "turn", "shape"]))
        if where == "shape":
            dims = draw(_dims(rest, tp, halves))
            return f'"{name}" = {name} [{", ".join(["layer/pp" if staged else "layer", *dims])}]'
        spelled = {"local": ".{layer/pp}", "turn": ".{vpp}.{layer/pp}"}.get(where, ".{layer}")
    elif staged:
        spelled = draw(st.sampled_from(["", ".{vpp}"]))
        on = draw(st.sampled_from([" on first", " on last", " on all", ""]))
    if len(rest) > 1 and draw(st.integers(0, 3)) == 0:
        axis = draw(st.sampled_from(rest))
        rest.remove(axis)
        spelled += f".{{{axis}}}"
    dims = draw(_dims(rest, tp, halves))
    return f'"{name}{spelled}" = {name} [{", ".join(dims)}]{on}'


@st.composite
def _segments(draw, tp, staged, halves):
    """w and v in one tensor: sliced before or after they are put together, whole groups or through them."""
    spelled = ".{layer/pp}" if staged and draw(st.booleans()) else ".{layer}"
    forms = ["((a (w: b + v: e)))", "(w: a b + v: a e)", "(a (v: e + w: b))"]
    if (SIZES["a"] * 7) % tp == 0:
        forms += ["(a (w: b + v: e))/tp", "(w: a b + v: a e)/tp"]
    if SIZES["a"] % tp == 0:
        forms += ["(a/tp (w: b + v: e))", "(w: (a b)/tp + v: (a e)/tp)", "(w: b a/tp + v: a/tp e)"]
        forms += ["(w: pad((a b)/tp, 5) + v: pad((a e)/tp, 5))"]
    if draw(st.booleans()):
        return f'"wv{spelled}" = [{draw(st.sampled_from(forms))}]'
    return f'"w{spelled}" = w [b, a]\n  "v{spelled}" = v [(e a)]'
