"""Windows in; what of them is decoded, and how, for whoever says so, out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from ..files.window import Coded, Window
from ..words import count


@dataclass(frozen=True)
class Decoded:
    """Tensors that are decoded in one way. `block` has the elements of a scale along the last two axes, or "tensor" and the like."""

    codes: str
    scales: str
    block: str
    dtype: str
    tensors: int
    elements: int

    def __str__(self) -> str:
        return (
            f"decoded, not copied: {count(self.tensors, 'tensor')}, {self.elements:,} elements: {self.codes} times {self.scales}, a scale for each {self.block}, "
            f"multiplied in float32 and rounded once to {self.dtype}"
        )


def decoded_in(windows: Iterable[Window | None]) -> tuple[Decoded, ...]:
    """What of the windows is decoded, and how."""
    found: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for window in windows:
        if window is not None and (coded := window.coded) is not None:
            key = (coded.kind, _scales(coded), _block(coded), window.dtype)
            tensors, elements = found.get(key, (0, 0))
            found[key] = tensors + 1, elements + prod(window.shape)
    return tuple(Decoded(*key, *numbers) for key, numbers in found.items())


def _scales(coded: Coded) -> str:
    said = "powers of two" if coded.scales.dtype == "uint8" else coded.scales.dtype
    if coded.second is None:
        return said
    return f"({said} {'/' if coded.divided else '*'} one {coded.second.dtype})"


def _block(coded: Coded) -> str:
    if prod(coded.scales.shape) == 1:
        return "tensor"
    if coded.block[-1] >= coded.shape[-1] and all(n == 1 for n in coded.block[:-1]):
        return "row"
    return " x ".join(map(str, coded.block[-2:])) + " block"
