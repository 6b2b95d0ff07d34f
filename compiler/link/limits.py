"""How far a mapping may go when it is written out: a number and its limit in, a fault where it is passed out.

Each limit is many times what any mapping that ships comes to, and small enough for every pass after this one.
"""

from __future__ import annotations

from ...dsl.diagnostic import fault
from ...dsl.tree import Span

DEEPEST = 40  # models that extend each other, parts within parts, prefixes that begin with prefixes
MOST_LAYOUTS = 100  # that one layout is made of; one that stands under several prefixes counts for each
MOST_PREFIXES = 100  # that one name may begin with
MOST_CONDITIONS = 100  # that one rule or tensor is under
MOST_FILES = 64  # names that one file may have
MOST_NAMES = 4_000  # of one model
MOST_RULES = 4_000  # of one layout
MOST_IN_ALL = 100_000  # names of all models, and rules of all layouts


def check_deep(deep: int, what: str, span: Span) -> None:
    """Raises `MappingError` where more than `DEEPEST` of a kind need each other; `what` is the first of them and the verb."""
    if deep > DEEPEST:
        raise fault("deep-chain", f"{what} more than {DEEPEST} others, one after the other", span, help="make the chain shorter")


def check_size(size: int, most: int, what: str, of: str, span: Span) -> None:
    """Raises `MappingError` where there is too much of something; `what` is the one that has it and the verb."""
    if size > most:
        raise fault("long-mapping", f"{what} more than {most:,} {of} when written out", span, help="say it with fewer, or in several mappings")
