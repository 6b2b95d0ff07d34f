"""The files beside the tensors: the target's config, and what is carried over byte for byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..compiler.link.flat import Family, FlatLayout
from ..compiler.settle.resolve import Side
from ..compiler.settle.write_config import config_text
from ..configs.config_file import parse_config, read_config, read_text
from ..identify.config_at_hand import root_of
from ..library import mapping_files as library
from ..nemo.wanted import CONTEXT, HF_FOLDER, Wanted
from ..nemo.wanted import LAYOUT as NEMO_2
from ..runtime.binding.carry import as_in_archives, choose, named
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.checkpoint.quantization import QUANTIZATION
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import CONFIG
from ..runtime.formats.registry import format_named
from .edits import NO_EDITS, Edits, edited_config, edited_nemo, refuse_edits

Texts = tuple[tuple[str, str], ...]
NOTHING_WANTED = Wanted()
USUAL_DTYPE = "bfloat16"
_OF_QUANTIZERS = ("hf_quant_config.json",)  # of NVIDIA's Model Optimizer


@dataclass(frozen=True)
class SideFiles:
    """Texts to write, files to carry over, and what there is to say about them. `chosen`: nothing else goes along."""

    texts: Texts
    carried: tuple[SideFile, ...]
    notes: tuple[str, ...] = ()
    chosen: bool = False


def side_files(
    checkpoint: Checkpoint, source: Side, target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None,
    dtype: str | None, *, wanted: Wanted = NOTHING_WANTED, hub: str = "", edits: Edits = NO_EDITS,
) -> SideFiles:  # fmt: skip
    """The target's config as text, and the files to carry over: from the source, or from beside the config. `hub` is the
    repository that the source was fetched from, if it was. Raises `Fault` for edits that the target has no file for."""
    files = target_config(target, family, keys_layout, config, dtype)
    decoded = any(entry.window.coded is not None for entry in checkpoint.entries)
    if decoded:
        files = tuple((name, _unquantized(text) if name.endswith(".json") else text) for name, text in files)
    written = {name for name, _ in files}
    archived = as_in_archives(target.format, written)
    there: dict[str, SideFile] = {}
    for each in named(beside(checkpoint, config), archived or target.layout == NEMO_2):
        there.setdefault(each.name, each)
    carried = tuple(each for each in choose(there.values(), target.carry) if each.name not in written and not (decoded and each.name in _OF_QUANTIZERS))
    if target.layout == NEMO_2:
        refuse_edits(edits, target.layout)
        from ..nemo.nemo2_side import copied_context, dtype_of, made_context

        if source.layout == NEMO_2:
            context = copied_context(checkpoint, wanted, dtype)
        else:
            context = made_context(target, family, keys_layout, config, wanted, dtype or dtype_of(checkpoint), there.values())
        return SideFiles((*files, *context.texts), (*carried, *context.carried), context.notes)
    block = family.layout(target.layout).config
    texts = dict(files)
    if not archived or CONFIG not in texts:
        own = block.file if block is not None and block.file in texts else ""
        refuse_edits(edits, target.layout, own)
        edit_notes: tuple[str, ...] = ()
        if edits:
            texts[own], edit_notes = edited_config(texts[own], own, edits)
        if archived or config is None or config.name != CONFIG:
            return SideFiles(tuple(texts.items()), carried, edit_notes)
        from ..nemo.artifacts import say_absent
        from ..runtime.formats.nemo.interpolation import plain

        absent = say_absent(plain(read_config(config)), there.values())
        return SideFiles(tuple(texts.items()), carried, (*edit_notes, *absent))
    from ..nemo.artifacts import name_artifacts, say_absent
    from ..nemo.tokenizer import with_tokenizer
    from ..runtime.formats.nemo.interpolation import plain

    texts[CONFIG], carried = name_artifacts(texts[CONFIG], carried, there.values())
    said: tuple[str, ...] = ()
    its_own = keys_layout is not None and Path(getattr(keys_layout.config, "file", "")).name == CONFIG
    if not its_own and edits.tokenizer is None and "tokenizer.model" not in edits.artifacts:
        texts[CONFIG], said = with_tokenizer(texts[CONFIG], there.values(), hub)
    edited = edited_nemo(texts[CONFIG], carried, edits)
    texts[CONFIG] = edited.text
    absent = say_absent(plain(parse_config(edited.text, Path(CONFIG))), edited.carried, named=edits.tokenizer is not None)
    return SideFiles(tuple(texts.items()), edited.carried, (*absent, *said, *edited.notes), edited.replaced)


def _unquantized(text: str) -> str:
    """A config without what it says of codes and scales, which are decoded."""
    config = json.loads(text)
    for place in (config, config.get("text_config")):
        for key in QUANTIZATION if isinstance(place, dict) else ():
            place.pop(key, None)
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def beside(checkpoint: Checkpoint, config: Path | None) -> list[SideFile]:
    """The files beside the tensors, and those beside the config."""
    found = list(checkpoint.beside) if checkpoint.archive else []
    folders = [root_of(checkpoint)] if Path(checkpoint.path).is_dir() else []
    folders += [config.parent] if config and config.parent.is_dir() else []
    contexts = [folder / CONTEXT for folder in folders]
    folders += [place for context in contexts for place in (context, context / HF_FOLDER) if place.is_dir()]
    for folder in dict.fromkeys(folders):
        files = (path for path in sorted(folder.iterdir()) if path.is_file())
        found += [SideFile(path.name, str(path), 0, path.stat().st_size) for path in files]
    return found


def target_config(
    target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, dtype: str | None = None
) -> Texts:
    """The config at hand, byte for byte, where it is the target's own, else written from sizes and settings."""
    layout = family.layout(target.layout)
    block = layout.config
    if block is None or block.read_only:
        return ()
    own = keys_layout is not None and keys_layout.name == layout.name and config is not None
    text = read_text(config) if own and config else config_text(block, target, library.read_template(block))
    if Path(block.file).name != CONFIG:
        return ((block.file, text),)
    from ..nemo.config import of_model

    # A distributed checkpoint is for any degrees, and the config's stay as they are.
    degrees, format = ({}, target.format) if format_named(target.format).in_folder else (target.ranks, None)
    return ((block.file, of_model(text, degrees, dtype, format)),)


def target_side(
    target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, dtype: str | None, wanted: Wanted
) -> SideFiles:
    """The same without a checkpoint at hand: texts alone, as sizes and config have them."""
    texts = target_config(target, family, keys_layout, config)
    if target.layout != NEMO_2:
        return SideFiles(texts, ())
    from ..nemo.nemo2_side import made_context

    context = made_context(target, family, keys_layout, config, wanted, dtype or USUAL_DTYPE, ())
    return SideFiles((*texts, *context.texts), (), context.notes)
