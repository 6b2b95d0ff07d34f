"""What goes wrong while checkpoints are read, planned against or written: one plain record."""

from __future__ import annotations


class Fault(Exception):
    """One fault with a place. `code` is a short hyphenated slug; `title` one sentence that names the
    file or tensor and says why; `notes` are further facts; `help` is one action that can be copied."""

    def __init__(self, code: str, title: str, *, notes: tuple[str, ...] = (), help: str = "") -> None:
        self.code, self.title, self.notes, self.help = code, title, notes, help
        super().__init__(f"{code}: {title}")
