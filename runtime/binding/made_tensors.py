"""Tensors that no file holds in, entries of a file that holds them out: small ones, calculated from a few numbers."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from ..fault import Fault
from ..files.window import Entry, Window, row_major
from ..plan.plan import FUNCTIONS as KNOWN
from ..plan.plan import Made


def _rope(shape: tuple[int, ...], base: float) -> Any:
    """Rotary frequencies, base ** (-2 i / n) for i below n / 2, as torch calculates them in float32.

    `shape` is (n / 2,). Source: transformers' and NeMo's rotary embeddings, inv_freq.
    """
    import torch

    (half,) = shape
    return 1.0 / (base ** (torch.arange(0, 2 * half, 2, dtype=torch.int64).float() / (2 * half)))


FUNCTIONS: dict[str, Callable[..., Any]] = {"rope": _rope}
assert FUNCTIONS.keys() == KNOWN.keys()


class Kept:
    """Whoever holds this keeps the file of made tensors, `path`. `complete`: it also has those that are worked out in a run."""

    complete = False
    path = ""


def make(wanted: Sequence[Made], kept: Kept) -> tuple[Entry, ...]:
    """Entries of a temporary file that is there as long as `kept` is; with room for what a run works out first."""
    if not wanted:
        return ()
    try:
        number, path = tempfile.mkstemp(prefix="ckptc-made-")
        kept.path = path
        weakref.finalize(kept, _remove, path)
        return _write(wanted, number, path)
    except OSError as error:
        raise Fault("write-failed", f"no temporary file can be written: {error.strerror}", help="set TMPDIR to a folder with room") from None


def _write(wanted: Sequence[Made], number: int, path: str) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    with os.fdopen(number, "wb") as file:
        for made in wanted:
            if made.steps:
                entries.append(Entry(made.name, "", Window(path, file.tell(), made.shape, row_major(made.shape), "float64")))
                file.write(bytes(8 * prod(made.shape)))
                continue
            if made.function not in FUNCTIONS:
                raise Fault("unknown-function", f"`{made.name}` is made by `{made.function}`, which is not known", notes=(f"known are {', '.join(FUNCTIONS)}",))
            try:
                values = FUNCTIONS[made.function](made.shape, *made.args)
            except (TypeError, ValueError) as error:
                raise Fault("bad-call", f"`{made.name}` cannot be made by {made.function}{made.args}: {error}") from None
            entries.append(Entry(made.name, "", Window(path, file.tell(), made.shape, row_major(made.shape), "float32")))
            assert values.numel() == prod(made.shape)
            file.write(values.numpy().tobytes())
    return tuple(entries)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
