"""A file, a folder's names or a checkpoint's tensors in; the fault that says what it is, out, where `signs` knows it.

Asked where something cannot be read or no layout fits. Each fault says what the thing is, why it is not converted, and
what its owner can do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from ..fault import Fault
from ..files.read_window import read_at
from ..files.window import Entry
from ..words import few
from .signs import ADAPTERS, FILES, METHODS, OTHERS, QUANTIZED, STARTS, TARGETS, Sign

_LONGEST = max(len(sign.start) for sign in STARTS)
_SHOWN = 3
_MOST_NAMES = 10_000
IN_PLACE = ("git-lfs-pointer", "web-page")  # what stands in the place of a file that is elsewhere
_OF_WEIGHTS = re.compile(r"(?:.*/)?(?:[^/]*\.(?:safetensors|bin|pt|pth|ckpt|distcp|index\.json)|\.metadata|\.zarray|metadata\.json|[0-9.]+)")
_HIDDEN = (".metadata", ".zarray")
PARTS = ("zero3-checkpoint", "zero-checkpoint", "deepspeed-pipeline", "deepspeed-universal")  # which torch files alone would not tell


def refuse_start(path: str, file: str, at: int = 0, nbytes: int | None = None, codes: Container[str] | None = None) -> None:
    """Raises `Fault` where the file at `path`, or a stretch of it, begins as something else that is known: of any kind, or of
    those called `codes`. `file` is what it is called."""
    try:
        there = os.stat(path).st_size - at if nbytes is None else nbytes
        begun = bytes(read_at(path, at, max(0, min(_LONGEST, there))))
    except (OSError, Fault):
        return
    for sign in STARTS:
        if (codes is None or sign.code in codes) and begun[: len(sign.start)].lower() == sign.start.lower():
            raise _fault(sign, f"`{file}` {sign.title}")


def refuse_names(path: str, names: Iterable[str], codes: Container[str] | None = None) -> None:
    """Raises `Fault` where the file names of the folder or archive at `path`, or the name of the file itself, are known to be
    of something else: of any kind, or of those called `codes`."""
    every = list(names)
    for sign in FILES:
        if codes is not None and sign.code not in codes:
            continue
        found = [name for name in every if re.fullmatch(sign.file, name)]
        if found:
            raise _fault(sign, f"`{path}` {sign.title}", _few(found, "such as "))


def refuse_place(path: str, stretches: Iterable[tuple[str, int, int]] = ()) -> None:
    """Raises `Fault` where something else stands in the place of what could not be read at `path`: of the file, of files that
    hold weights or say where they are in the folder, and of an archive's `stretches` (name, first byte, how many)."""
    if os.path.isfile(path):
        refuse_start(path, os.path.basename(path))
    for name, at, nbytes in stretches:
        refuse_start(path, name, at, nbytes, IN_PLACE)
    for name in names_in(path):
        if _OF_WEIGHTS.fullmatch(name):
            refuse_start(os.path.join(path, *name.split("/")), name, codes=IN_PLACE)


def names_in(path: str, deep: int = 3) -> list[str]:
    """The files in the folder at `path`, and in folders within it, `deep` of them: hidden ones are left out, but for `.metadata`."""
    found: list[str] = []
    try:
        inside = sorted(os.scandir(path), key=lambda each: each.name) if os.path.isdir(path) else []
        for each in inside[:_MOST_NAMES]:
            if each.name.startswith(".") and each.name not in _HIDDEN:
                continue
            if each.is_file():
                found.append(each.name)
            elif deep and each.is_dir():
                found += [f"{each.name}/{name}" for name in names_in(each.path, deep - 1)]
    except OSError:
        pass  # who reads the folder says so
    return found


def refuse_adapter(path: str, entries: Sequence[Entry]) -> None:
    """Raises `Fault` where tensors are those of an adapter, alone or beside a model's weights."""
    kinds = _kinds(entries)
    for sign in ADAPTERS:
        found = _named(sign, entries, kinds)
        if found:
            beside = len(found) < len(entries)
            title = f"`{path}` holds {sign.title}" + (" that is not merged into the weights beside it" if beside else " and no model")
            raise Fault("adapter-beside" if beside else sign.code, title, notes=(sign.why, *_few([e.name for e in found], "such as ")), help=sign.help)


def refuse_quantized(path: str, entries: Sequence[Entry], settings: Mapping[str, Any]) -> None:
    """Raises `Fault` where tensors are a quantized model's. The model's config says the scheme, or else the tensors do."""
    kinds = _kinds(entries)
    for sign in QUANTIZED:
        found = _named(sign, entries, kinds)
        if found:
            said = scheme(settings)
            title = _GPTQ_OR_AWQ.get(_packing(entries), sign.title) if sign.tensor == _PACKED else sign.title
            notes = (sign.why, *((f"the config says that it is {said}",) if said else ()), *_few([f"{e.name} ({e.dtype} {list(e.shape)})" for e in found], "such as "))
            raise Fault(sign.code, f"`{path}` {title}", notes=notes, help=sign.help)


def refuse_undecoded(path: str, problems: Sequence[str]) -> None:
    """Raises `Fault` where tensors are stored as codes and scales that do not fit each other."""
    if problems:
        raise Fault(
            "bad-scales", f"`{path}` holds quantized weights whose scales do not fit them", notes=few(problems),
            help="download or save the checkpoint again; the blocks of FP8 are those of `weight_block_size` in its config.json, or 128 x 128",
        )  # fmt: skip


def refuse_quantized_config(path: str, settings: Mapping[str, Any]) -> None:
    """Raises `Fault` where a config says that the weights are quantized, whatever their tensors look like."""
    said = scheme(settings)
    if said:
        raise Fault(
            "quantized-checkpoint", f"`{path}` says in its `quantization_config` that the weights are quantized: {said}",
            notes=("ckptc does not decode such weights; of those that it does, with their scales, it found none among the tensors",),
            help="take the model's repository without quantization; if the weights are plain already, remove `quantization_config` from the config",
        )  # fmt: skip


def refuse_other(path: str, entries: Sequence[Entry], settings: Mapping[str, Any]) -> None:
    """Raises `Fault` where tensors, or the class that a config of NeMo names, are those of another kind of model."""
    target = settings.get("target")
    if isinstance(target, str):
        name = target.rpartition(".")[2]
        kind = next((what for part, what in TARGETS.items() if part in name.lower()), "")
        if kind:
            raise Fault(
                "other-model", f"`{path}` is {kind}: its config names the class {name:.80} as its `target`", notes=("ckptc has mappings of decoders alone",),
                help="write a mapping of its family and name it with --mapping",
            )  # fmt: skip
    kinds = _kinds(entries)
    for sign in OTHERS:
        if found := _named(sign, entries, kinds):
            raise _fault(sign, f"`{path}` {sign.title}", _few([e.name for e in found], "such as "))


def scheme(settings: Mapping[str, Any]) -> str:
    """What a config says that its weights are quantized with; "" for plain weights."""
    said = settings.get("quantization_config") or settings.get("compression_config")
    if not isinstance(said, Mapping):
        return ""
    method = said.get("quant_method") or ("bitsandbytes" if said.get("load_in_4bit") or said.get("load_in_8bit") else "")
    if not isinstance(method, str) or not method:
        return "an unnamed scheme"
    further = [said[key] for key in ("format", "fmt", "bnb_4bit_quant_type", "quant_algo") if isinstance(said.get(key), str)]
    bits = said.get("bits") or said.get("w_bit")
    further += [f"{bits} bit"] if type(bits) is int else []
    return f"{METHODS.get(method.lower(), method):.80}" + (f" ({', '.join(f'{each:.40}' for each in further)})" if further else "")


_NUMBER = re.compile(r"\.\d+\.")
_PACKED = r"\.q(?:weight|zeros)$"
_GPTQ_OR_AWQ = {"GPTQ": "is quantized with GPTQ", "AWQ": "is quantized with AWQ"}


def _packing(entries: Sequence[Entry]) -> str:
    """GPTQ packs the rows of a transposed weight, [in/8, out], AWQ its columns, [in, out/8]; both have scales [groups, out]."""
    shapes = {entry.name: entry.shape for entry in entries}
    for name, shape in shapes.items():
        scales = shapes.get(name.removesuffix("qweight") + "scales")
        if name.endswith(".qweight") and scales is not None and len(shape) == len(scales) == 2:
            return "GPTQ" if shape[1] == scales[1] else "AWQ"
    return ""


def _kinds(entries: Sequence[Entry]) -> set[str]:
    """Their names, of all layers and experts one: a thousand times fewer to look at."""
    return {_NUMBER.sub(".0.", entry.name) for entry in entries}


def _named(sign: Sign, entries: Sequence[Entry], kinds: Iterable[str]) -> list[Entry]:
    form = re.compile(sign.tensor)
    if not any(map(form.search, kinds)):
        return []
    return [e for e in entries if form.search(e.name) and e.dtype.startswith(sign.dtype) and (not sign.dtype or len(e.shape) > 1)]


def _few(names: Sequence[str], before: str) -> tuple[str, ...]:
    more = f", and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return (before + ", ".join(names[:_SHOWN]) + more,) if names else ()


def _fault(sign: Sign, title: str, more: tuple[str, ...] = ()) -> Fault:
    return Fault(sign.code, title, notes=(sign.why, *more), help=sign.help)
