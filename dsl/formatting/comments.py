"""The text and the places of statements in; which comment belongs to which statement out.

A comment after code on its line trails the statement there; one on a line of its own leads the next
statement. No comment is lost: one inside a statement of several lines moves above it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

_TOKENS = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|[{}]')

Point = tuple[int, int]  # 1-based line and column


@dataclass
class Spot:
    """A place that can hold comments: a statement, the head of a block, or the brace that closes one."""

    start: Point
    end: Point
    leading: list[tuple[bool, str]] = field(default_factory=list)  # (a blank line stands before, text)
    trailing: str = ""
    blank_before: bool = False


class Source:
    """The text that a tree was parsed from, as far as the tree does not hold it. Empty text has nothing."""

    def __init__(self, text: str) -> None:
        self.lines = [line.rstrip() for line in text.split("\n")] if text else []
        self.comments: list[tuple[Point, str]] = []
        self._closing: dict[Point, Point] = {}  # where a block's brace opens -> where it closes
        opened: list[Point] = []
        for number, line in enumerate(self.lines, 1):
            for match in _TOKENS.finditer(line):
                at = (number, match.start() + 1)
                if match[0][0] == "#":
                    self.comments.append((at, match[0]))
                elif match[0] == "{":
                    opened.append(at)
                elif match[0] == "}" and opened:
                    self._closing[opened.pop()] = at

    def block_around(self, at: Point) -> tuple[Point, Point] | None:
        """The innermost pair of braces around a place."""
        around = [(opens, closes) for opens, closes in self._closing.items() if opens < at < closes]
        return max(around, default=None)

    def block_closing(self, at: Point) -> tuple[Point, Point] | None:
        """The pair of braces of which the second stands at `at`."""
        return next(((opens, closes) for opens, closes in self._closing.items() if closes == at), None)

    def blank_above(self, line: int) -> bool:
        return line >= 2 and line - 2 < len(self.lines) and not self.lines[line - 2]

    def attach(self, spots: list[Spot]) -> list[tuple[bool, str]]:
        """Give every comment to a spot; those after the last spot come back."""
        ordered = sorted(spots, key=lambda spot: spot.start)
        starts = [spot.start for spot in ordered]
        inside: dict[int, list[tuple[Point, str]]] = {}
        left: list[tuple[bool, str]] = []
        for at, text in self.comments:
            alone = not self.lines[at[0] - 1][: at[1] - 1].strip()
            before = bisect_right(starts, at) - 1
            if before >= 0 and (not alone or at < ordered[before].end):
                inside.setdefault(before, []).append((at, text))
                continue
            after = bisect_left(starts, at)
            (ordered[after].leading if after < len(ordered) else left).append((self.blank_above(at[0]), text))
        for spot in ordered:
            spot.blank_before = self.blank_above(spot.start[0])
        for index, comments in inside.items():
            spot = ordered[index]
            if comments[-1][0] >= spot.end:
                spot.trailing = comments.pop()[1]
            for _, text in comments:
                spot.leading.append((spot.blank_before, text))
                spot.blank_before = False
        return left
