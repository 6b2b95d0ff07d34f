"""The files beside the tensors: the target's config, and what is carried over byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..compiler.link.config import config_of
from ..compiler.link.link import Family, FlatLayout
from ..compiler.settle.resolve import Side
from ..compiler.settle.write_config import config_text
from ..configs.config_file import parse_config, read_config, read_text
from ..identify.config_at_hand import root_of
from ..library import mapping_files as library
from ..nemo.wanted import CONTEXT, HF_FOLDER, Wanted
from ..nemo.wanted import LAYOUT as NEMO_2
from ..runtime.binding.carry import as_in_archives, choose, named
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import CONFIG
from ..runtime.formats.registry import format_named

Texts = tuple[tuple[str, str], ...]
NOTHING_WANTED = Wanted()
USUAL_DTYPE = "bfloat16"


@dataclass(frozen=True)
class SideFiles:
    """Texts to write, files to carry over, and what there is to say about them."""

    texts: Texts
    carried: tuple[SideFile, ...]
    notes: tuple[str, ...] = ()


def side_files(
    checkpoint: Checkpoint, source: Side, target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None,
    dtype: str | None, wanted: Wanted = NOTHING_WANTED, hub: str = "",
) -> SideFiles:  # fmt: skip
    """The target's config as text, and the files to carry over: from the source, or from beside the config. `hub` is the
    repository that the source was fetched from, if it was."""
    files = target_config(target, family, keys_layout, config, dtype)
    written = {name for name, _ in files}
    archived = as_in_archives(target.format, written)
    there: dict[str, SideFile] = {}
    for each in named(beside(checkpoint, config), archived or target.layout == NEMO_2):
        there.setdefault(each.name, each)
    carried = tuple(each for each in choose(there.values(), target.carry) if each.name not in written)
    if target.layout == NEMO_2:
        from ..nemo.nemo2_side import copied_context, dtype_of, made_context

        if source.layout == NEMO_2:
            context = copied_context(checkpoint, wanted, dtype)
        else:
            context = made_context(target, family, keys_layout, config, wanted, dtype or dtype_of(checkpoint), there.values())
        return SideFiles((*files, *context.texts), (*carried, *context.carried), context.notes)
    texts = dict(files)
    if archived and CONFIG not in texts:
        return SideFiles(files, carried)
    if not archived and (config is None or config.name != CONFIG):
        return SideFiles(files, carried)
    from ..nemo.artifacts import name_artifacts, say_absent
    from ..nemo.tokenizer import with_tokenizer
    from ..runtime.formats.nemo.interpolation import plain

    if not archived and config is not None:
        return SideFiles(files, carried, say_absent(plain(read_config(config)), there.values()))
    texts[CONFIG], carried = name_artifacts(texts[CONFIG], carried, there.values())
    said: tuple[str, ...] = ()
    if keys_layout is None or Path(getattr(config_of(keys_layout), "file", "")).name != CONFIG:  # else it is NeMo's own word
        texts[CONFIG], said = with_tokenizer(texts[CONFIG], there.values(), hub)
    absent = say_absent(plain(parse_config(texts[CONFIG], Path(CONFIG))), carried)
    return SideFiles(tuple(texts.items()), carried, (*absent, *said))


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
    block = config_of(layout)
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
