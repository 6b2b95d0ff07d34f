"""A word and the words it could have been, in; the one that was probably meant, or nothing, out."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate closest to `word`, or None when none is close enough to be worth suggesting."""
    from difflib import SequenceMatcher

    best, best_ratio = None, 0.0
    for candidate in candidates:
        if candidate == word:
            continue
        ratio = SequenceMatcher(None, word.lower(), candidate.lower()).ratio()
        if ratio > best_ratio:
            best, best_ratio = candidate, ratio
    # Short words resemble each other by accident: two letters of three are not a typo.
    enough = 0.8 if len(word) <= 3 else 0.6
    return best if best_ratio >= enough else None
