"""A checkpoint and what the user said in; the config at hand, the layout whose block reads it, and what it says of the model, out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..compiler.link.flat import Family, FlatLayout
from ..configs.config_file import called, read_config, within_archive
from ..library.signs import signs_of
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault
from ..runtime.formats.megatron.rank_file import ARGS
from ..runtime.formats.nemo.archive import CONFIG, unwrap
from ..runtime.formats.runs.run_arguments import place_of_arguments
from .identity import Said, said_by


def follow_config(config: str | Path | None) -> str | Path | None:
    """A framework's own YAML file may name the model's config: that one is read then."""
    if config is None or Path(config).suffix not in (".yaml", ".yml") or not Path(config).is_file():
        return config
    model = read_config(config).get("model")
    inner = model.get("model_config") if isinstance(model, Mapping) else None
    if not isinstance(inner, str):
        return config
    place = Path(config).parent / inner
    if not place.exists():
        raise Fault("no-config", f"{config} takes the model's config from {inner}, which is not there", help="pass that file with --config")
    return place


def said_of(checkpoint: Checkpoint, config: str | Path | None, layouts: Sequence[FlatLayout], known: Sequence[Family]) -> Said | None:
    """What the config at hand says of the model: that which the layouts in question have, best first, else any's that is there."""
    every = (*layouts, *(layout for family in known for layout in family.layouts))
    for path in places(checkpoint, config, every):
        try:
            keys = read_config(path)
            said = said_by(unwrap(keys) if path.name == CONFIG else keys, str(path))
        except Fault:
            continue  # said where the config's sizes are read
        if said is not None:
            return said
    return None


def places(checkpoint: Checkpoint, config: str | Path | None, layouts: Iterable[FlatLayout]) -> Iterator[Path]:
    """The configs at hand that these layouts read, each once."""
    files = dict.fromkeys(file for layout in layouts if (file := signs_of(layout).config))
    yield from dict.fromkeys(path for file in files if (path := _place(checkpoint, file, config)) is not None)


def config_layout(
    family: Family, source: FlatLayout, target: FlatLayout, config: str | Path | None, checkpoint: Checkpoint | None = None
) -> FlatLayout | None:
    """The layout whose config block reads the config at hand: by the file's name, then source before target."""
    candidates = [(signs.config, signs.own, x) for x in (source, target, *family.layouts) if (signs := signs_of(x)).config]
    if config is not None and Path(config).is_dir():
        there = [(own, x) for file, own, x in candidates if (Path(config) / file).is_file()]
        return next(iter([x for own, x in there if own] or [x for _, x in there] or [x for _, own, x in candidates if own]), None)
    if config is not None:
        config = called(within_archive(Path(config)))
        named = [x for file, _, x in candidates if config.absolute().parts[-len(Path(file).parts) :] == Path(file).parts]
        same = [x for file, _, x in candidates if Path(file).suffix == config.suffix]
        return next(iter(named or same or [x for _, _, x in candidates]), None)
    candidates.sort(key=lambda each: not each[1])
    if checkpoint is not None:
        for file, _, x in candidates:
            if _place(checkpoint, file, None) is not None:
                return x
    return candidates[0][2] if candidates else None


def root_of(checkpoint: Checkpoint) -> Path:
    path = Path(checkpoint.path) / checkpoint.tag
    return path if path.is_dir() else path.parent


def config_path(checkpoint: Checkpoint, layout: FlatLayout | None, config: str | Path | None) -> Path | None:
    """The file that this layout's config block reads, or the one that is given."""
    return _place(checkpoint, signs_of(layout).config if layout else "", config)


def _place(checkpoint: Checkpoint, file: str, config: str | Path | None) -> Path | None:
    """Where a config of this name, "" for none, is: the one given, else the checkpoint's own."""
    if config is not None:
        path = within_archive(Path(config))
        return path / file if path.is_dir() and file else path
    if not file:
        return None
    if checkpoint.archive and file in checkpoint.side_files:
        return Path(checkpoint.path) / file
    root = root_of(checkpoint)
    ranks = root.name == "model" and checkpoint.format in ("pt", "xser")
    above = [root.parent] if ranks else []  # where a folder of rank files stands in a checkpoint
    found = next((place / file for place in (root, *above) if (place / file).exists()), None)
    if found is None and Path(file).name == CONFIG and checkpoint.settings_file:
        return Path(checkpoint.settings_file) / CONFIG
    if found is None and file == ARGS and (place := place_of_arguments(checkpoint)):
        return Path(place)
    return found
