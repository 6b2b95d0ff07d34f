"""The artifacts of a .nemo archive: a config's text and the files beside it in, the text that refers to them and the
files under the names that it says out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..configs.yaml_text import has_scalar, set_scalar, value_at
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import plain_name
from .tokenizer import other_kind

REFERENCE = "nemo:"
CHUNK = 1 << 20


@dataclass(frozen=True)
class ArtifactPath:
    """A key of the config that may name an artifact, and the file that is meant where it says nothing, if any is."""

    keys: tuple[str, ...]
    usual: str = ""


# What NeMo's models and converters register as artifacts.
PATHS = (
    ArtifactPath(("tokenizer", "model"), "tokenizer.model"),
    ArtifactPath(("tokenizer", "vocab_file")),
    ArtifactPath(("tokenizer", "merge_file")),
    ArtifactPath(("tokenizer", "tokenizer_model")),
)


def name_artifacts(
    text: str, carried: Iterable[SideFile], known: Iterable[SideFile] = (), paths: tuple[ArtifactPath, ...] = PATHS
) -> tuple[str, tuple[SideFile, ...]]:
    """The YAML config with `nemo:<name>` at each path whose file is among `carried`, and these files under such names.

    What the config refers to already is taken from `known` under the name it has. A file that no path names keeps its
    own. A value that says nothing is filled only for a sentencepiece tokenizer, and with no file of another kind.
    """
    import yaml

    files = {each.name: each for each in carried}
    named = {each.name: each for each in (*known, *files.values())}
    config = yaml.safe_load(text)
    out = dict(files)
    for path in paths:
        if not has_scalar(text, path.keys):
            continue
        said = value_at(config, path.keys)
        if isinstance(said, str) and said.removeprefix(REFERENCE) in named and said.startswith(REFERENCE):
            name = said.removeprefix(REFERENCE)
            out[name] = named[name]
            continue
        base = _last(said) if isinstance(said, str) else ""
        meant = not base and path.usual and value_at(config, (*path.keys[:-1], "library")) == "sentencepiece"
        base = path.usual if meant else base
        file = next((each for each in files.values() if base and base in (each.name, plain_name(each.name))), None)
        if file is None or (meant and other_kind(file)):
            continue
        name = numbered_name(file)
        out.pop(file.name, None)
        out[name] = replace(file, name=name)
        text = set_scalar(text, path.keys, f"{REFERENCE}{name}")
    return text, tuple(out.values())


def say_absent(config: Mapping[str, Any], held: Iterable[SideFile], paths: tuple[ArtifactPath, ...] = PATHS, named: bool = False) -> tuple[str, ...]:
    """A note for each path of the config that names a file that is not `held`, and for a tokenizer of HuggingFace that is
    only named, unless it was the user who `named` it. Files elsewhere are not gone for: a config may have come from anywhere."""
    there = list(held)
    names = {each.name for each in there} | {plain_name(each.name) for each in there}
    said = [(".".join(path.keys), value_at(config, path.keys)) for path in paths]
    notes = [
        f"the config's {keys} is `{value}`, a file that is not beside it and is left out"
        for keys, value in said
        if isinstance(value, str) and value and not names & {value.removeprefix(REFERENCE), plain_name(_last(value))}
    ]
    kind, library = value_at(config, ("tokenizer", "type")), value_at(config, ("tokenizer", "library"))
    if not named and library == "huggingface" and isinstance(kind, str) and kind and not any(name.startswith("tokenizer") for name in names):
        notes.append(f"the config's tokenizer is HuggingFace's `{kind}`, whose files are not beside it: take them from there")
    return tuple(notes)


def _last(value: str) -> str:
    """The file's name in what a config says of it."""
    return re.split(r"[/\\]", value.removeprefix(REFERENCE))[-1]


def numbered_name(file: SideFile) -> str:
    """The name in an archive: 32 hex digits, of its content so that the same file is always called the same, and its own."""
    if plain_name(file.name) != file.name:
        return file.name
    digest = hashlib.sha256()
    with open(file.path, "rb") as stream:
        stream.seek(file.at)
        left = file.nbytes
        while left and (data := stream.read(min(left, CHUNK))):
            digest.update(data)
            left -= len(data)
    return f"{digest.hexdigest()[:32]}_{file.name.rsplit('/', 1)[-1]}"
