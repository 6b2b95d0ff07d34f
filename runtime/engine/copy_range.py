"""Long runs that a target takes over unchanged: copied from file to file by the file system, where it does better than
this process."""

from __future__ import annotations

import errno
import os

import numpy as np

from ..binding.bind import Bound
from ..files.file_system import copies_itself
from ..files.window import ITEM_BYTES
from .chunk import LONG_BYTES
from .fill import Sources


class Copier:
    """Copies between the files of a run; `on` until the kernel or a file system refuses to once."""

    def __init__(self, sources: Sources, on: bool) -> None:
        self.sources = sources
        self.on = on and hasattr(os, "copy_file_range")
        self._unit = 0  # what both ends of a copy are a multiple of, where the file system is to share it

    def settle(self, bound: Bound, root: str) -> None:
        """Turns it off where the file system below `root` has to move the bytes just as this process would."""
        if not self.on:
            return
        number = os.open(root, os.O_RDONLY)
        try:
            self._unit = copies_itself(number)
        finally:
            os.close(number)
        self.on = self._unit > 0 and congruent(bound, self._unit)

    def copy(self, path: str, at: int, number: int, to: int, size: int) -> int:
        """Copies `size` bytes of `path` from `at` to the open file `number`; the bytes copied.

        Fewer where the kernel cannot, where either file fails, or where the source ends: reading and writing the
        rest does it, or tells what is wrong."""
        done = 0
        unit = self._unit or 1
        head = min(size, -at % unit)
        whole = size - (size - head) % unit
        with self.sources.file(path) as source:
            while self.on and done < size:
                end = next(e for e in (head, whole, size) if e > done)
                try:
                    n = os.copy_file_range(source, number, end - done, at + done, to + done)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    self.on = False
                    break
                if n == 0:
                    break
                done += n
        return done


def congruent(bound: Bound, unit: int) -> bool:
    """Whether most bytes of long runs lie at the same place within `unit` bytes in source and target."""
    if unit == 1:
        return True
    fit = total = 0
    moves, steps = bound.moves, bound.plan.steps
    sizes = np.array([step.loops[0].extent if len(step.loops) == 1 and step.kernel == "range" else 0 for step in steps] or [0])
    for k in np.flatnonzero((sizes[moves.step] >= LONG_BYTES // 16) & (moves.source >= 0)).tolist():
        window, target = bound.windows[int(moves.source[k])], bound.tensors[int(moves.target[k])]
        if window is None or window.composed or target.file < 0:
            continue
        file, item = bound.files[target.file], ITEM_BYTES[window.dtype]
        size = int(sizes[moves.step[k]]) * item
        start = file.at + file.layout.regions[target.region].at
        total += size
        if (window.at + int(moves.source_at[k]) * item - start - int(moves.target_at[k]) * item) % unit == 0:
            fit += size
    return fit * 2 > total
