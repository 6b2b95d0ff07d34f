"""What the caller says of the target's config and of the files that it names in; the config's text with it, out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..configs.config_file import read_config
from ..configs.yaml_text import dump, put, set_scalar, set_value, value_at
from ..hub import repository
from ..nemo.artifacts import REFERENCE, name_artifacts
from ..nemo.base_config import onto_base
from ..runtime.fault import Fault
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import CONFIG, unwrap
from ..runtime.formats.nemo.interpolation import plain


@dataclass(frozen=True)
class Edits:
    """`base` is a config's file whose settings hold where the model says nothing. `values` are set in the end, by dotted
    keys. `artifacts` are files, by the keys that name them. `tokenizer` is a SentencePiece model, a folder of HuggingFace's,
    or ORG/NAME on the hub, as `check_tokenizer` lets it pass."""

    base: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None

    def __bool__(self) -> bool:
        return bool(self.base or self.values or self.artifacts or self.tokenizer)


@dataclass(frozen=True)
class Edited:
    """The config's text, the files beside it, and what there is to say. `replaced`: some of the source's own are left out."""

    text: str
    carried: tuple[SideFile, ...]
    notes: tuple[str, ...] = ()
    replaced: bool = False


NO_EDITS = Edits()


def refuse_edits(edits: Edits, layout: str, config: str = "") -> None:
    """Raises `Fault` for edits that a layout has no file for. `config` is the one that it writes, if any."""
    if (edits.base or edits.values) and not config:
        raise Fault("no-config-file", f"layout `{layout}` writes no config that could be edited", help="leave --config-base and --set-config out")
    if edits.artifacts:
        raise Fault("no-artifacts", f"layout `{layout}` has no artifacts, which are files that a {CONFIG} names", help="leave --artifact out")
    if edits.tokenizer:
        raise not_of_nemo(layout)


def not_of_nemo(layout: str) -> Fault:
    """That a tokenizer is given, and the layout has none."""
    return Fault("not-nemo2", f"a tokenizer is given for NeMo, and layout `{layout}` is none of NeMo's", help="leave --tokenizer out: a tokenizer beside the source goes along")


def edited_config(text: str, file: str, edits: Edits) -> tuple[str, tuple[str, ...]]:
    """The text of the config `file`, JSON or YAML, on its base and with values set."""
    notes: tuple[str, ...] = ()
    if edits.base is not None:
        text, notes = _onto(text, file, edits.base)
    for key, value in edits.values.items():
        keys = tuple(key.split("."))
        if not all(keys):
            raise Fault("bad-config-key", f"`{key}` is no key of a config", help="write --set-config KEY=VALUE, or KEY.KEY=VALUE for one within another")
        if not _is(_parsed(text, file), keys, value):
            text = set_value(text, keys, value) if not file.endswith(".json") else _json(put(json.loads(text), keys, value))
    return text, notes


def edited_nemo(text: str, carried: tuple[SideFile, ...], edits: Edits) -> Edited:
    """The same of a model_config.yaml, with the tokenizer and the artifacts in the place of those that it names."""
    text, notes = edited_config(text, CONFIG, replace(edits, values={}))
    result = Edited(text, carried, notes)
    if edits.tokenizer:
        result = _tokenizer(result, edits.tokenizer)
    for key, path in edits.artifacts.items():
        result = _artifact(result, tuple(key.split(".")), path)
    text, _ = edited_config(result.text, CONFIG, replace(edits, base=None))
    return replace(result, text=text)


def _onto(text: str, file: str, base: str) -> tuple[str, tuple[str, ...]]:
    keys = read_config(base)
    if file.endswith(".json"):
        own = json.loads(text)
        merged, differing = _json({**own, **{k: v for k, v in keys.items() if k not in own}}), [k for k in keys if k in own and own[k] != keys[k]]
    else:
        merged, differing = onto_base(text, plain(unwrap(keys)))
    not_taken = (f"not taken from {base}, as they follow from the model: {', '.join(differing)}",) if differing else ()
    return merged, (f"what the model does not say is in the config as {base} says", *not_taken)


def _parsed(text: str, file: str) -> Any:
    return json.loads(text) if file.endswith(".json") else _yaml(text)


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _json(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _is(config: Any, keys: tuple[str, ...], value: Any) -> bool:
    """Whether a config has just this value, of this type, at a path."""
    for key in keys:
        if not isinstance(config, Mapping) or key not in config:
            return False
        config = config[key]
    return type(config) is type(value) and bool(config == value)


def _tokenizer(at: Edited, given: str) -> Edited:
    config = dict(_yaml(at.text))
    node = config.get("tokenizer")
    node = dict(node) if isinstance(node, Mapping) else {}
    if os.path.isfile(given):
        if node.get("library") != "sentencepiece":
            own = {key: value for key, value in node.items() if key != "use_fast"}
            at = replace(at, text=dump({**config, "tokenizer": {**own, "library": "sentencepiece", "type": None}}))
        return _artifact(at, ("tokenizer", "model"), given)
    place = given if os.path.isdir(given) else repository(given)
    node |= {"library": "huggingface", "type": place, "model": None, "use_fast": True}
    return replace(at, text=dump({**config, "tokenizer": node}), notes=(*at.notes, f"the config's tokenizer is that of HuggingFace at {place}"))


def _artifact(at: Edited, keys: tuple[str, ...], path: str) -> Edited:
    """The file at `path` in the place of the one that the config names at `keys`."""
    if not os.path.isfile(path):
        raise Fault("no-file", f"there is no file `{path}`", help=f"name the file for {'.'.join(keys)}")
    config = _yaml(at.text)
    old, base = str(value_at(config, keys) or "").removeprefix(REFERENCE), os.path.basename(path)
    others = tuple(each for each in at.carried if each.name not in (old, base))
    text = set_value(at.text, keys, base)
    twin = ("tokenizer", "tokenizer_model")  # says the same as tokenizer.model in some configs
    if old and value_at(config, twin) == f"{REFERENCE}{old}":
        text = set_scalar(text, twin, base)
    text, carried = name_artifacts(text, (*others, _side_file(path)), others)
    if not str(value_at(_yaml(text), keys)).startswith(REFERENCE):
        raise Fault("no-artifact", f"`{'.'.join(keys)}` of a {CONFIG} names no artifact", help="artifacts are tokenizer.model, tokenizer.vocab_file, tokenizer.merge_file")
    return replace(at, text=text, carried=carried, notes=(*at.notes, f"the archive's {'.'.join(keys)} is {path}"), replaced=True)


def _side_file(path: str) -> SideFile:
    return SideFile(Path(path).name, os.path.abspath(path), 0, os.path.getsize(path))
