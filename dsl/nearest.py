"""A word and the words it could have been, in; the one that was probably meant, or nothing, out. And the help that says so."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, candidates: Iterable[str], otherwise: str = "") -> str:
    """The help for a word that means nothing: the candidate that was probably meant, or else what to do `otherwise`."""
    near = nearest(word, candidates)
    return f"did you mean `{near}`?" if near is not None else otherwise


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate closest to `word`, or None when none is close enough to be worth suggesting.

    One slip of a finger is closest: a letter too many or too few, another letter, two letters exchanged. Of several words
    at one slip, one with the same first letter is meant.
    """
    others = [candidate for candidate in candidates if candidate != word]
    slips = [candidate for candidate in others if one_slip(word.lower(), candidate.lower())]
    if slips:
        return min(slips, key=lambda candidate: (candidate[:1] != word[:1], abs(len(candidate) - len(word)), candidate))
    from difflib import SequenceMatcher

    best, best_ratio = None, 0.0
    for candidate in others:
        ratio = SequenceMatcher(None, word.lower(), candidate.lower()).ratio()
        if ratio > best_ratio:
            best, best_ratio = candidate, ratio
    # Short words resemble each other by accident: two letters of three are not a typo.
    enough = 0.8 if len(word) <= 3 else 0.6
    return best if best_ratio >= enough else None


def one_slip(word: str, other: str) -> bool:
    """Whether a letter more, a letter less, another letter (in words of four or more), or two exchanged make one the other."""
    if abs(len(word) - len(other)) > 1 or min(len(word), len(other)) < 2:
        return False
    same = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    one, two = word[same:], other[same:]
    if len(one) != len(two):
        return one[1:] == two or one == two[1:]
    exchanged = one[:2] == two[:2][::-1] and one[2:] == two[2:]
    return exchanged or (len(word) >= 4 and one[1:] == two[1:])
