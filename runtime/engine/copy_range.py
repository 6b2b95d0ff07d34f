"""Long runs that a target takes over unchanged: copied from file to file within the kernel, while it can."""

from __future__ import annotations

import errno
import os

from .fill import Sources


class Copier:
    """Copies between the files of a run; `on` until the kernel or a file system refuses to once."""

    def __init__(self, sources: Sources, on: bool) -> None:
        self.sources = sources
        self.on = on and hasattr(os, "copy_file_range")

    def copy(self, path: str, at: int, number: int, to: int, size: int) -> int:
        """Copies `size` bytes of `path` from `at` to the open file `number`; the bytes copied.

        Fewer where the kernel cannot, where either file fails, or where the source ends: reading and writing the
        rest does it, or tells what is wrong."""
        done = 0
        with self.sources.file(path) as source:
            while self.on and done < size:
                try:
                    n = os.copy_file_range(source, number, size - done, at + done, to + done)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    self.on = False
                    break
                if n == 0:
                    break
                done += n
        return done
