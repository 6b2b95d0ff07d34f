"""Stages that are asked for, or that a run was started with, in; lists of layers for one layout's stages, and degrees, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compiler.link.flat import FlatLayout
from ..compiler.settle.sizes import Scalar, Sizes
from ..compiler.values.stages import Dealt, Given, deal
from ..dsl.tree import Stages
from ..runtime.fault import Fault
from .stage_text import FORMS, LAYOUT, Chunks, Rule, Said, parse_layout, parse_stages, rule_of


def stages_asked(
    asked: str | Said | Given | None, layout: FlatLayout, settings: Mapping[str, Scalar], sizes: Sizes, option: str = "--stages"
) -> tuple[Given | None, dict[str, Scalar]]:
    """What each stage has of a layout's layers, and the settings with the degrees that follow from it.

    `asked` is a text (see `stage_text`), what such a text says, or lists. Raises `Fault` where it does not fit the layout's
    stages, the degrees among `settings`, or the model's number of layers.
    """
    known = dict(settings)
    if asked is None:
        return None, known
    declared = stages_of_layout(layout)
    if declared is None:
        raise Fault("no-stages", f"layout `{layout.name}` has no pipeline stages", help=f"leave {option} out; --stages is of the target, --from-stages of the source")
    if isinstance(asked, str):
        text = asked
        try:
            asked = parse_stages(text)
        except (ValueError, TypeError) as problem:
            raise Fault("bad-stages", _sentence(problem, text), help=f"{option} takes {FORMS}") from None
    if not isinstance(asked, Chunks | Rule):
        known.setdefault(declared.rank, len(asked))
        return asked, known
    size, further = _layers(declared, sizes)
    if isinstance(asked, Rule):
        asked, known = _by_rule(asked, declared, known, size)
    count, turns = _degrees(len(asked.lengths), declared, known, option)
    known[declared.rank] = count
    if declared.interleave is not None and turns > 1:
        known[declared.interleave] = turns
    if sum(asked.lengths) != size:
        raise Fault("wrong-stages", f"the stages given have {sum(asked.lengths)} layers, and the model has {size}", help=f"give {count * turns} chunks that have {size} together")
    dealt = deal(asked.lengths, count)
    if asked.further is None or not further:
        return dealt, known
    chunk, number = asked.further
    if number != further:
        raise Fault("wrong-stages", f"the stages given have {number} layers that predict further tokens, and the model has {further}", help=f"write m {further} times, or leave it out: the last stage has them then")
    return _with(dealt, chunk % count, chunk // count, tuple(range(size, size + further))), known


def stages_of_run(arguments: Mapping[str, Any], layout: FlatLayout, settings: Mapping[str, Scalar]) -> Chunks | Rule | None:
    """How a run's arguments say that layers are divided, if the layout is written for as many stages and turns as the run had."""
    declared = stages_of_layout(layout)
    count = arguments.get("pipeline_model_parallel_size")
    if declared is None or type(count) is not int or count < 2 or settings.get(declared.rank) != count:
        return None
    turns = arguments.get("virtual_pipeline_model_parallel_size") or 1
    if settings.get(declared.interleave or "", turns) != turns or (turns != 1 and declared.interleave is None):
        return None
    text = arguments.get(LAYOUT)
    if not isinstance(text, str):
        return rule_of(arguments)
    try:
        chunks = parse_layout(text)
    except ValueError:
        return None
    return chunks if len(chunks.lengths) == count * turns else None


def stages_of_layout(layout: FlatLayout) -> Stages | None:
    return layout.stages


def _layers(declared: Stages, sizes: Sizes) -> tuple[int, int]:
    """How many layers are divided, and how many come after them."""
    whole, further = sizes.values.get(declared.axis), sizes.values.get(declared.beyond or "", 0)
    if type(whole) is not int or type(further) is not int:
        raise Fault("wrong-stages", f"the model's number of layers is not known, and stages are given by it (`{declared.axis}`)", help="pass the model's config with --config, or list the layers of each stage")
    return whole - further, further


def _degrees(chunks: int, declared: Stages, known: Mapping[str, Scalar], option: str) -> tuple[int, int]:
    """Stages and turns, of which one may be given."""
    turns = known.get(declared.interleave or "", None if declared.interleave else 1)
    count = known.get(declared.rank)
    if type(count) is not int and type(turns) is int and turns > 0 and chunks % turns == 0:
        count = chunks // turns
    elif type(count) is not int:
        count = chunks
    if count < 1 or chunks % count or turns not in (None, chunks // count):
        said = f"{declared.rank} = {count}" + (f", {declared.interleave} = {turns}" if turns not in (None, 1) else "")
        raise Fault("wrong-stages", f"the stages given are {chunks} chunks, which are not those of {said}", help=f"{option} takes as many as {declared.rank}, or {declared.rank} times {declared.interleave or 'its turns'}")
    return count, chunks // count


def _by_rule(rule: Rule, declared: Stages, known: dict[str, Scalar], size: int) -> tuple[Chunks, dict[str, Scalar]]:
    """Chunks as Megatron's get_num_layers_to_build and get_transformer_layer_offset divide layers."""
    count, name = known.get(declared.rank, 1), declared.interleave or ""
    turns: Any = known.get(name, 1)
    uneven = rule.first is not None or rule.last is not None
    if type(count) is not int or type(turns) is not int or count < 1 or turns < 1:
        raise Fault("wrong-stages", f"the number of stages is {count} times {turns}", help=f"give {declared.rank} a number from 1")
    if uneven and (rule.embedding or rule.loss or rule.per_turn):
        raise Fault("wrong-stages", "the first or last stage's layers are given, and the others' rule with them", help="use either: Megatron refuses both together")
    given = [x for x in (rule.first, rule.last) if x is not None]
    if len(given) > count:
        raise Fault("wrong-stages", f"a first and a last stage are given, and there are {count} stages", help=f"raise {declared.rank}")
    left, between = size + rule.embedding + rule.loss - sum(given), count - len(given)
    if left < 0 or (left % between if between else left):
        raise Fault("wrong-stages", f"{left} layers do not divide over the other {between} stages" if uneven else f"{left} layers, what counts as one among them, do not divide over {count} stages", help="list the layers of each stage, as 0-2,3-5")
    lengths = [left // between if between else 0] * count
    if rule.first is not None:
        lengths[0] = rule.first
    if rule.last is not None:
        lengths[-1] = rule.last
    if rule.per_turn is not None:
        if rule.per_turn < 1 or lengths[0] % rule.per_turn or known.get(name, lengths[0] // rule.per_turn) != lengths[0] // rule.per_turn:
            raise Fault("wrong-stages", f"{lengths[0]} layers of a stage are not turns of {rule.per_turn}", help="leave that number out, and give --vpp")
        turns = lengths[0] // rule.per_turn
        known = known | {name: turns}
    if any(length % turns for length in lengths):
        raise Fault("wrong-stages", f"stages of {', '.join(map(str, dict.fromkeys(lengths)))} layers do not divide into {turns} virtual stages", help=f"lower {name}")
    chunks = [length // turns for length in lengths] * turns
    chunks[0] -= rule.embedding
    chunks[-1] -= rule.loss
    if min(chunks) < 0:
        raise Fault("wrong-stages", "the first or last stage has no layer, and the embedding or the loss counts as one", help="use fewer stages")
    return Chunks(tuple(chunks)), known


def _with(dealt: Dealt, stage: int, turn: int, indices: tuple[int, ...]) -> Dealt:
    turns = dealt[stage]
    return (*dealt[:stage], (*turns[:turn], turns[turn] + indices, *turns[turn + 1 :]), *dealt[stage + 1 :])


def _sentence(problem: Exception, text: str) -> str:
    return str(problem) if type(problem) is ValueError and str(problem).startswith("`") else f"`{text}` says nothing of stages"
