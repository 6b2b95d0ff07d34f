"""What goes wrong while checkpoints are read, planned against or written: one plain record."""

from __future__ import annotations

import errno
from typing import Any

from ..error import Error, diagnostic_text

MOST_LETTERS = 1200


class Fault(Error):
    """One fault with a place. `code` is a short hyphenated slug; `title` one sentence that names the
    file or tensor and says why; `notes` are further facts; `help` is one action that can be copied.

    Where a builtin exception says what kind of fault a code is, the fault is that, too: see `KINDS`.
    """

    def __new__(cls, code: str, title: str, **more: Any) -> Fault:
        kind = KINDS.get(code, cls) if cls is Fault else cls
        return super().__new__(cls, f"{code}: {title}") if kind is cls else kind.__new__(kind, code, title)

    def __init__(self, code: str, title: str, *, notes: tuple[str, ...] = (), help: str = "") -> None:
        self.code, self.title, self.notes, self.help = code, short(title), tuple(map(short, notes)), short(help)
        super().__init__(f"{code}: {self.title}")

    def __str__(self) -> str:
        return diagnostic_text("error", self.code, self.title, (), self.notes, self.help)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.code, self.title, self.notes, self.help)


class MissingTensor(Fault, KeyError):
    """No tensor has the name that was asked for, or that a layout needs."""


class MissingPart(Fault, IndexError):
    """A tensor has no part at the index that was asked for."""


class MissingFile(Fault, FileNotFoundError):
    """A file or a checkpoint is not there."""

    def __init__(self, code: str, title: str, *, notes: tuple[str, ...] = (), help: str = "") -> None:
        super().__init__(code, title, notes=notes, help=help)
        self.errno = errno.ENOENT


class ExistingFile(Fault, FileExistsError):
    """The destination is there already."""

    def __init__(self, code: str, title: str, *, notes: tuple[str, ...] = (), help: str = "") -> None:
        super().__init__(code, title, notes=notes, help=help)
        self.errno = errno.EEXIST


KINDS: dict[str, type[Fault]] = {
    "missing-tensor": MissingTensor,
    "destination-exists": ExistingFile,
    "no-such-index": MissingPart,
    "missing-file": MissingFile,
    "no-checkpoint": MissingFile,
    "no-config": MissingFile,
    "no-file": MissingFile,
    "hub-not-found": MissingFile,
}


def _again(kind: type[Fault], code: str, title: str, notes: tuple[str, ...], help: str) -> Fault:
    return kind(code, title, notes=notes, help=help)


def short(text: str) -> str:
    """What a file says may be megabytes long: a sentence that quotes it is cut in the middle."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 200]} ... {text[-200:]}"
