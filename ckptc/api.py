"""The Python face: from a checkpoint, or from a config alone, to a plan; `planning/planned` is what comes out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .choices.arguments import dtype_name
from .choices.option_names import naming, of_source
from .choices.settings import joined, of_layout
from .choices.stage_text import Said
from .choices.stages import stages_asked
from .compiler.fit import also_fitting
from .compiler.pipeline import Compiled, compile_sides
from .compiler.settle.resolve import Side, differs, resolve
from .compiler.settle.said import check_said
from .compiler.settle.sizes import Scalar, Sizes
from .compiler.values.stages import Given
from .hub import repository
from .identify.choose import (
    as_source,
    check_config,
    choose,
    found_in,
    route,
    said_by_run,
    sizes_of,
    stages_kept,
)
from .identify.config_at_hand import config_layout
from .identify.recognise import refuse_said_encoded
from .identify.source import opened, read_source
from .library import mapping_files as library
from .library.families import family_named
from .nemo.wanted import LAYOUT as NEMO_2
from .nemo.wanted import Wanted, family_of
from .optimizer.folder import state_folder
from .planning.ask import ask_what_differs
from .planning.edits import Edits
from .planning.given_tokenizer import check_tokenizer
from .planning.planned import Plan
from .planning.side_files import side_files, target_side
from .planning.vocabulary import say_padding_stays
from .runtime.binding.metadata import notes as metadata_notes
from .runtime.checkpoint.checkpoint import Checkpoint
from .runtime.checkpoint.decoded import decoded_in
from .runtime.fault import Fault
from .runtime.files.decode_window import decoded_to
from .runtime.formats.registry import format_named

if TYPE_CHECKING:
    import torch

    from .runtime.engine.engine import Report


def plan(
    src: str | Path | Checkpoint,
    *,
    to: str,
    from_: str | None = None,
    mapping: str | Path | None = None,
    family: str | None = None,
    config: str | Path | None = None,
    format: str | None = None,
    dtype: str | torch.dtype | None = None,
    compare_all: bool = False,
    revision: str | None = None,
    stages: str | Said | Given | None = None,
    from_stages: str | Said | Given | None = None,
    settings: Mapping[str, Scalar] | None = None,
    from_settings: Mapping[str, Scalar] | None = None,
    optimizer: bool = False,
    dp: int | None = None,
    model_id: str | None = None,
    tokenizer: str | Path | None = None,
    config_base: str | Path | None = None,
    set_config: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, str | Path] | None = None,
    accept: Collection[str] = (),
    **degrees: Scalar,
) -> Plan:
    """Plan a conversion of the checkpoint at `src` to layout `to`, from headers alone.

    `src` is a path, or a repository of the hub, `org/name` or `hf://org/name@revision`, whose files are fetched first.
    `settings` are the target's degrees and parameters (`{"tp": 8, "kv_multiplier": 4}`), or axes and settings
    of the model; what only the source has goes there. `from_settings` are the source's alone.
    Degrees may stand as keywords too (`tp=8, pp=2`), where no argument
    is called so. Where both sides are of one layout, what is not given stays as it is in the source. The family, the source's layout and its parameters are found from the files unless given.
    `stages` says what each pipeline stage of the target has, `from_stages` of the source, where its files do not tell:
    lists of layers (of each stage, or of each of its turns), or a text as `--stages` takes it.
    `optimizer` takes zero1 optimizer state along, for `dp` data parallel ranks (as many as the source has). `model_id` and
    `tokenizer` (a file or a folder) are for the context of NeMo 2; the tokenizer is for NeMo 1 as well.
    `config_base` names a config whose settings the target's config has where the model says nothing, `set_config` sets keys of
    it (`{"precision": 16, "data.num_workers": 2}`), and `artifacts` puts files in the place of those that NeMo's config names
    (`{"tokenizer.model": "new.model"}`). A setting that changes what the model computes and
    that the target cannot say is refused; `accept` names those (config keys, settings) that are not to be. Raises `MappingError` or `Fault`, each with diagnostics.
    """
    dtype = dtype_name(dtype)
    given = joined(settings, degrees)
    given_tokenizer = None if tokenizer is None else str(tokenizer)
    if given_tokenizer is not None:
        check_tokenizer(given_tokenizer, to, mapping)
    wanted = Wanted(model_id, given_tokenizer if to == NEMO_2 else None)
    edits = Edits(
        None if config_base is None else str(config_base), dict(set_config or {}), {key: str(path) for key, path in (artifacts or {}).items()},
        given_tokenizer if to != NEMO_2 else None,
    )  # fmt: skip
    family = family_of(wanted, to, family)
    checkpoint = opened(src, mapping, revision)
    found = found_in(checkpoint)
    accepted = frozenset(accept)
    said: dict[str, Any] = {"from_": from_, "mapping": mapping, "family": family, "given": given, "accepted": accepted}
    chosen = choose(checkpoint, found, to, config=config, **said)
    known = _known_config(model_id) if chosen.config is None and model_id is not None else None
    if known is not None:
        chosen = choose(checkpoint, found, to, config=known[0], **said)
    family_, layout, keys_layout = chosen.family, chosen.layout, chosen.keys_layout
    if mapping is None:
        refuse_said_encoded(checkpoint, config)
    read = read_source(chosen, checkpoint, found, to=to, settings=given, from_settings=from_settings, from_stages=from_stages, accepted=accepted)
    source, sizes, targets = read.side, read.sizes, read.targets
    if stages is None and to != source.layout:
        stages = said_by_run(checkpoint, family_.layout(to), targets)

    def target_of(source: Side) -> Side:
        kept = as_source(source, targets) if to == source.layout else targets
        owned, settled = stages_asked(stages, family_.layout(to), kept, sizes)
        if owned is None and to == source.layout:
            owned = stages_kept(source, targets)
        anew = differs(family_.layout(to), settled, source)
        return resolve(family_, to, sizes, settled, stages=owned, format=format, written=anew, **_between(source, to))

    target = target_of(source)

    def again(source: Side) -> Iterator[Compiled]:
        for each in (target, target_of(source)) if to == source.layout else (target,):
            yield compile_sides(source, each, found=found)

    side = side_files(checkpoint, source, target, family_, keys_layout, chosen.config, dtype, wanted=wanted, hub=repository(src, revision), edits=edits)
    compiled = compile_sides(source, target, found=found, compare_all=compare_all, dtype=dtype, files=side.texts)
    if side.chosen:
        compiled = replace(compiled, plan=replace(compiled.plan, target=replace(compiled.plan.target, carry=())))
    given_config = config is not None and keys_layout is not None and keys_layout.name == to
    if differs(family_.layout(to), {**target.ranks, **target.params}, source):  # else nothing moves, if the copies are as declared
        ask_what_differs(compiled, also_fitting(family_, layout, sizes, found, read.given, source), again)
    unsaid = check_said(target, family_, side.texts, accepted, given_config) if to != source.layout else ()
    extra = side.carried
    notes = (*checkpoint.notes, *read.notes, *unsaid, *_unknown(sizes, chosen.config, to != source.layout), *((known[1],) if known else ()), *side.notes)
    notes += tuple(str(each) for each in decoded_in(decoded_to(entry.window, dtype or "") for entry in checkpoint.entries))
    notes += (*target.notes, *say_padding_stays(source, target, extra))
    notes += metadata_notes(checkpoint.metadata, checkpoint.path, format_named(target.format).has_metadata)
    asked = str(src) if revision is None and not isinstance(src, Checkpoint) else None
    if not optimizer:
        return Plan(compiled.plan, checkpoint, extra, asked, notes=(*notes, *_left_out(checkpoint, target, dp)), values=sizes.values)
    from .optimizer.state import add_state

    with_state = add_state(compiled, family_, checkpoint, dp)
    return Plan(with_state.plan, with_state.checkpoint, extra, asked, with_state.trees, notes, sizes.values)


def _known_config(model_id: str) -> tuple[Path, str] | None:
    from .identify.known_config import known_config

    return known_config(model_id)


def _between(source: Side, to: str) -> dict[str, Any]:
    """What a target of another layout makes, and leaves out because the source has it only calculated."""
    return {"makes": True, "calculated": source.calculated} if to != source.layout else {}


def _unknown(sizes: Sizes, config: Path | None, other: bool) -> tuple[str, ...]:
    """What to say of keys that the layout knows nothing of: their meaning is not carried to another layout."""
    if not sizes.unknown or not other:
        return ()
    names = ", ".join(sizes.unknown[:12]) + (f" and {len(sizes.unknown) - 12} more" if len(sizes.unknown) > 12 else "")
    return (f"{config} has keys that ckptc does not know, and what they say is not carried over: {names}",)


def _left_out(checkpoint: Checkpoint, target: Side, dp: int | None) -> tuple[str, ...]:
    if dp is not None:
        raise Fault("no-optimizer", "a data parallel degree is of optimizer state alone", help="add --optimizer, or leave --dp out")
    folder = state_folder(checkpoint)
    why = "--optimizer takes it along" if target.state else f"layout {target.layout} cannot hold it"
    return (f"{folder} is left out: {why}",) if Path(folder).is_dir() else ()


def compile(
    mapping: str | Path,
    *,
    from_: str,
    to: str,
    config: str | Path | None = None,
    family: str | None = None,
    format: str | None = None,
    dtype: str | torch.dtype | None = None,
    stages: str | Said | Given | None = None,
    from_stages: str | Said | Given | None = None,
    settings: Mapping[str, Scalar] | None = None,
    from_settings: Mapping[str, Scalar] | None = None,
    model_id: str | None = None,
    accept: Collection[str] = (),
    **degrees: Scalar,
) -> Plan:
    """Compile and prove a plan from a mapping and a config alone, with no checkpoint at hand.

    Settings and degrees are as those of `plan`. Optional tensors are taken to be absent. Raises `MappingError` or `Fault`.
    """
    dtype = dtype_name(dtype)
    wanted = Wanted(model_id)
    family = family_of(wanted, to, family)
    known = library.families(mapping)
    if family is None and not known:
        raise Fault("unknown-family", f"{mapping} declares no family")
    family_ = known[-1] if family is None else family_named(family, known, str(mapping))
    check_config(config, family_, families=known)
    left, right = family_.layout(from_), family_.layout(to)
    targets, sources, model = route(joined(settings, degrees), family_, left, right, to)
    with naming(of_source(left)):
        sources |= of_layout(from_settings or {}, left)
    keys_layout = config_layout(family_, left, right, config)
    sizes = sizes_of(family_, keys_layout, Path(config) if config else None, model, None, left, frozenset(accept))
    with naming(of_source(left)):
        held, sources = stages_asked(from_stages, left, sources, sizes, "--from-stages")
        source = resolve(family_, from_, sizes, sources, stages=held)
    owned, targets = stages_asked(stages, right, targets, sizes)
    written = differs(right, targets, source)
    target = resolve(family_, to, sizes, targets, stages=owned, format=format, written=written, **_between(source, to))
    place = Path(config) if config else None
    side = target_side(target, family_, keys_layout, place, dtype, wanted)
    if to != from_:
        check_said(target, family_, side.texts, frozenset(accept))
    return Plan(compile_sides(source, target, dtype=dtype, files=side.texts).plan, notes=(*side.notes, *target.notes), values=sizes.values)


def convert(src: str | Path, dst: str | Path, *, to: str, verify: bool = False, **options: Any) -> Report:
    """Plan and run in one call. Options are those of `plan` and of `Plan.run`.

    With `verify`, what was written is read back and compared with the source, as `ckptc.verify` does it, before it gets its
    name: raises `Fault`, and leaves nothing, where they differ.
    """
    names = ("memory", "workers", "overwrite", "merge", "max_shard_size", "compare_copies", "resume", "manifest", "progress", "judge")
    running = {k: options.pop(k) for k in names if k in options}
    made = plan(src, to=to, **options)
    if verify:
        from .checking.written import judge_of

        assert made.source is not None
        running["judge"] = judge_of(made.source, made.data, options, running)
    return made.run(dst, **running)
