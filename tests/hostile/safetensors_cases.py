"""Hostile safetensors files and indices."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from .doors import Case, Make, convert, llama, own_config

NAME = "model.embed_tokens.weight"


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> Make:
    def make(folder: Path) -> Path:
        path = folder / "model.safetensors"
        path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
        return path

    return make


def header(tensors: Any, data: bytes = bytes(64)) -> Make:
    return raw(json.dumps(tensors).encode(), data)


def one(dtype: Any = "F32", shape: Any = (4, 4), offsets: Any = (0, 64), **more: Any) -> Make:
    return header({NAME: {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}})


def place(make: Make, name: str) -> Make:
    """The same under another kind of file."""

    def linked(folder: Path) -> Path:
        make(folder).rename(folder / name)
        return folder

    return linked


def odd_file(kind: str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / "model.safetensors"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "circle":
            path.symlink_to(path)
        else:
            path.symlink_to(kind)
        return folder

    return make


def indexed(change: Any) -> Make:
    """The demo's checkpoint with another index."""

    def make(folder: Path) -> Path:
        for each in llama().iterdir():
            if not each.name.endswith(".index.json"):
                (folder / each.name).symlink_to(each)
        index = folder / "model.safetensors.index.json"
        index.write_text(change if isinstance(change, str) else json.dumps(change))
        return folder

    return make


_MAKES = {
    "empty": raw(b"", b"", 0), "no header": lambda f: (p := f / "model.safetensors", p.write_bytes(b"\1\0"))[0],
    "a header longer than the file": raw(b"{}", b"", 1 << 40), "the largest length": raw(b"{}", b"", (1 << 64) - 1),
    "a header of a hundred million bytes": raw(b"{}", b"", 100_000_000), "a header that is an array": raw(b"[]"),
    "a header that is a number": raw(b"1"), "a header of lone braces": raw(b"{" * 10_000), "a header nested deep": raw(b'{"a":' * 50_000),
    "lists nested deep": raw(b'{"a":' + b"[" * 90_000 + b"]" * 90_000 + b"}"), "utf-16": raw("{}".encode("utf-16")), "a BOM": raw(b"\xef\xbb\xbf{}"),
    "bytes that are no text": raw(b'{"\xff\xfe":1}'), "a null in the middle": raw(b'{"a\0":{}}'), "a number of a million digits": raw(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "infinity": raw(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}'), "no tensors": raw(b"{}"),
    "a tensor twice": raw(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "a shape of text": one(shape="44"), "a shape of texts": one(shape=["4", "4"]), "a shape of floats": one(shape=[4.0, 4.0]),
    "a shape of booleans": one(shape=[True, True], offsets=[0, 4]), "a negative shape": one(shape=[-4, -4]), "a huge shape": one(shape=[1 << 62, 1 << 62]),
    "a shape beyond numbers": one(shape=[10**400]), "a huge shape with nothing": header({NAME: {"dtype": "F32", "shape": [1 << 40, 0], "data_offsets": [0, 0]}}, b""), "many axes": one(shape=[1] * 100_000, offsets=[0, 4]),
    "offsets that cross": one(offsets=[64, 0]), "negative offsets": one(offsets=[-64, 0]), "offsets beyond": one(offsets=[1 << 50, (1 << 50) + 64]),
    "three offsets": one(offsets=[0, 32, 64]), "offsets of null": one(offsets=None), "a dtype that is a list": one(dtype=["F32"]), "a dtype that is an object": one(dtype={"F32": 1}),
    "an unknown dtype": one(dtype="F33"), "a dtype of a megabyte": one(dtype="F" * 1_000_000), "a field more": one(more=1), "a tensor that is null": header({NAME: None}),
    "a name that is half a character": raw(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "metadata that is a list": header({"__metadata__": [1], NAME: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}),
    "metadata of numbers": header({"__metadata__": {"a": 1}, NAME: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}),
    "two that overlap": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "b": {"dtype": "F32", "shape": [14], "data_offsets": [8, 64]}}),
    "a gap": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "b": {"dtype": "F32", "shape": [4], "data_offsets": [48, 64]}}),
    "bytes that follow": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}), "a layer of a huge number": header({"model.layers.99999999999999999999.w": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}),
    "a pipe": odd_file("pipe"), "a folder": odd_file("folder"), "a link to itself": odd_file("circle"), "zeros without end": odd_file("/dev/zero"),
    "a file called a torch file": place(one(), "pytorch_model.bin"),
}  # fmt: skip

_WEIGHTS = {"model.norm.weight": "model-00001-of-00003.safetensors"}
_INDICES = {
    "an index that is no JSON": "{", "an index nested deep": "[" * 100_000, "an index that is a list": [], "no weight map": {}, "a weight map that is a list": {"weight_map": ["a"]},
    "an empty weight map": {"weight_map": {}}, "files that are numbers": {"weight_map": {"a": 1}}, "a file outside": {"weight_map": {"a": "../../etc/passwd"}},
    "an absolute file": {"weight_map": {"a": "/etc/passwd"}}, "a file with a null": {"weight_map": {"a": "x\0y"}}, "a file without a name": {"weight_map": {"a": ""}},
    "a file that is not there": {"weight_map": {"a": "b.safetensors"}}, "a file that is a folder": {"weight_map": {"a": "."}}, "tensors that are elsewhere": {"weight_map": _WEIGHTS},
    "a file that is text": {"weight_map": {"a": "config.json"}}, "a million ghosts": {"weight_map": {f"t{i}": f"model-{i}.safetensors" for i in range(200_000)}},
}  # fmt: skip

CASES = {f"safetensors: {name}": Case(make, convert) for name, make in _MAKES.items()}
CASES |= {f"index: {name}": Case(indexed(change), own_config) for name, change in _INDICES.items()}
