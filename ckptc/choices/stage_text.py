"""What is said of pipeline stages in one line, in; lists of layers, or numbers of layers, out.

    0-2,3-5                 layers of each stage; `,` between stages, `+` between the turns of one; a stage may be empty
    [[0,1,2],[3,4,5]]       the same as JSON; a stage may be a list for each turn
    3,3                     how many layers each has, where the numbers are not the layers 0, 1, 2, ... themselves
    Et*3|(tt|)*29,m|L       Megatron-core's --pipeline-model-parallel-layout
    first=2,last=3          Megatron's rules, by the names of its arguments or short ones

Numbers and layouts go through the model: with virtual stages, the first turn of all stages before the second. Source of the
last two: megatron/core/transformer/pipeline_parallel_layer_layout.py and megatron/training/arguments.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

MOST = 2**16  # what a layout may come to when it is written out
FORMS = "0-6,7-13, a list of lists, or a layout such as Et*7|t*7,L"


@dataclass(frozen=True)
class Chunks:
    """How many layers each chunk has, in the order of the model. `further`: the chunk that has the layers which predict
    further tokens, and how many they are."""

    lengths: tuple[int, ...]
    further: tuple[int, int] | None = None


@dataclass(frozen=True)
class Rule:
    """How Megatron divides layers over stages. `first`, `last`: layers of these stages, in all turns together.
    `embedding`, `loss`: whether these count as a layer of the first and the last chunk. `per_turn`: layers of a chunk."""

    first: int | None = None
    last: int | None = None
    embedding: bool = False
    loss: bool = False
    per_turn: int | None = None


Lists: TypeAlias = list[list[int] | list[list[int]]]
Said: TypeAlias = Lists | Chunks | Rule

# Of each rule its names; the first are those of Megatron's arguments.
_NAMES = {
    "first": ("decoder_first_pipeline_num_layers", "num_layers_in_first_pipeline_stage", "first"),
    "last": ("decoder_last_pipeline_num_layers", "num_layers_in_last_pipeline_stage", "last"),
    "embedding": ("account_for_embedding_in_pipeline_split", "embedding"),
    "loss": ("account_for_loss_in_pipeline_split", "loss"),
    "per_turn": ("num_layers_per_virtual_pipeline_stage", "per_turn"),
}
LAYOUT = "pipeline_model_parallel_layout"


def parse_stages(text: str) -> Said:
    """What a text says of stages. Raises `ValueError`, with a sentence, for a text of no such form."""
    text = text.strip()
    if text.startswith("["):
        return _lists(text)
    if "=" in text or any(_field(part) for part in text.split(",")):
        return _rule(text)
    if re.search(r"[EtmL|]", text):
        return parse_layout(text)
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() for part in parts):
        numbers = [_number(part) for part in parts]
        if sorted(numbers) != list(range(len(numbers))):
            return Chunks(tuple(numbers))
    return [[_range(piece) for piece in part.split("+")] if "+" in part else _range(part) for part in parts]


def parse_layout(text: str) -> Chunks:
    """Megatron-core's layout: E the embedding, t a layer, m one that predicts further tokens, L the output; `|` between
    chunks, `(...)*n` and `t*n` for repetition, commas and spaces mean nothing. E and L may be left out.

    Raises `ValueError`."""
    plain = re.sub(r"[,\s]", "", text)
    for repeated in (r"\(([^()]*)\)\*(\d+)", r"([^()*])\*(\d+)"):
        plain = re.sub(repeated, lambda hit: hit[1] * _few(len(hit[1]), hit[2], text), plain)
    stray = re.sub(r"[EtmL|]", "", plain)
    if stray:
        raise ValueError(f"`{text}` is no layout: `{stray[0]}` is none of E, t, m, L and |, nor ends a repetition such as (tt|)*3")
    order = plain.replace("|", "")
    if not re.fullmatch(r"E?t+m*L?", order):
        raise ValueError(f"`{text}` is no layout: the embedding E comes first, then layers t, then those that predict further, m, and the output L last")
    chunks = plain.split("|")
    holding = [i for i, chunk in enumerate(chunks) if "m" in chunk]
    if len(holding) > 1:
        raise ValueError(f"`{text}` is no layout: all of m stand in one stage")
    if (order.startswith("E") and "E" not in chunks[0]) or (order.endswith("L") and "L" not in chunks[-1]):
        raise ValueError(f"`{text}` is no layout: the first stage has the embedding E, and the last the output L")
    return Chunks(tuple(chunk.count("t") for chunk in chunks), (holding[0], order.count("m")) if holding else None)


def rule_of(values: Mapping[str, Any]) -> Rule | None:
    """The rule that arguments of a run say, by their names. None where they say none."""
    found: dict[str, Any] = {}
    for field, names in _NAMES.items():
        value = next((values[name] for name in names if values.get(name) is not None), None)
        if value is not None and value is not False:
            found[field] = value
    if any(type(value) is not (bool if field in ("embedding", "loss") else int) for field, value in found.items()):
        return None
    return Rule(**found) if found else None


def _rule(text: str) -> Rule:
    said: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        field = _field(name)
        if field is None:
            raise ValueError(f"`{name}` is no rule for stages: there are {', '.join(names[0] for names in _NAMES.values())}")
        if field in ("embedding", "loss"):
            if value.lower() not in ("", "true", "false", "1", "0"):
                raise ValueError(f"`{part.strip()}` is neither true nor false")
            said[field] = value.lower() not in ("false", "0")
        elif not equals or not value.isdecimal():
            raise ValueError(f"`{part.strip()}` is no number of layers")
        else:
            said[field] = _number(value)
    return Rule(**said)


def _field(name: str) -> str | None:
    """The rule that a name is of, also where it stands as on a command line: --decoder-first-pipeline-num-layers."""
    plain = name.strip().replace("-", "_").lstrip("_")
    return next((field for field, names in _NAMES.items() if plain in names), None)


def _lists(text: str) -> Lists:
    found = json.loads(text)

    def numbers(item: Any) -> bool:
        return isinstance(item, list) and all(type(i) is int for i in item)

    if all(numbers(stage) or (isinstance(stage, list) and all(map(numbers, stage))) for stage in found):
        return [list(stage) for stage in found]
    raise ValueError(f"`{text}` is no list of lists")


def _range(part: str) -> list[int]:
    """`0-6`, `7`, or nothing."""
    if not part.strip():
        return []
    first, dash, last = part.strip().partition("-")
    start, end = _number(first), _number(last if dash else first)
    if end - start > MOST:
        raise ValueError(f"`{part}` is too many layers")
    return list(range(start, end + 1))


def _number(text: str) -> int:
    if len(text) > 9:
        raise ValueError(f"`{text}` is too large")
    return int(text)


def _few(length: int, times: str, text: str) -> int:
    if len(times) > 6 or length * int(times) > MOST:
        raise ValueError(f"`{text}` comes to more than {MOST} layers and stages")
    return int(times)
