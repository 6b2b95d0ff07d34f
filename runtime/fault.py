"""What goes wrong while checkpoints are read, planned against or written: one plain record."""

from __future__ import annotations

MOST_LETTERS = 1200


class Fault(Exception):
    """One fault with a place. `code` is a short hyphenated slug; `title` one sentence that names the
    file or tensor and says why; `notes` are further facts; `help` is one action that can be copied."""

    def __init__(self, code: str, title: str, *, notes: tuple[str, ...] = (), help: str = "") -> None:
        self.code, self.title, self.notes, self.help = code, short(title), tuple(map(short, notes)), short(help)
        super().__init__(f"{code}: {self.title}")


def short(text: str) -> str:
    """What a file says may be megabytes long: a sentence that quotes it is cut in the middle."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 200]} ... {text[-200:]}"
