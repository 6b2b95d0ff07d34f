"""Hostile archives and distributed checkpoints: tars, gzip files, `.metadata`, zarr."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ckptc

from .doors import Case, Make, archive, convert, llama
from .torch_cases import number, put, text

SOUND = {"sound.nemo": "nemo", "torch_dist": "megatron", "zarr": "megatron"}  # by name: the layout


@cache
def made(name: str, to: str) -> Path:
    """What the demo's checkpoint is in another layout."""
    out = llama().parent / name
    ckptc.plan(llama(), to=to, format=name if "." not in name else None).run(out)
    return out


def members(*infos: tuple[dict[str, Any], bytes]) -> Make:
    """A tar of these members, behind a sound config."""

    def make(folder: Path) -> Path:
        path = folder / "x.nemo"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for fields, data in (({"name": "./model_config.yaml"}, b"hidden_size: 4\n"), *infos):
                info = tarfile.TarInfo(fields["name"])
                info.size = len(data)
                for key, value in fields.items():
                    setattr(info, key, value)
                tar.addfile(info, io.BytesIO(data))
        return path

    return make


def nemo(change: Callable[[bytearray], object], name: str = "x.nemo") -> Make:
    def make(folder: Path) -> Path:
        data = bytearray(made("sound.nemo", "nemo").read_bytes())
        change(data)
        (folder / name).write_bytes(data)
        return folder / name

    return make


def of_bytes(data: bytes, name: str = "x.nemo") -> Make:
    return lambda folder: (path := folder / name, path.write_bytes(data))[0]


def header(at: int, value: bytes) -> Callable[[bytearray], object]:
    """A field of the third header changed, its checksum made right again."""

    def change(data: bytearray) -> None:
        begin = data.rindex(b"model_weights.ckpt\0") // 512 * 512
        block = data[begin : begin + 512]
        block[at : at + len(value)] = value
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        data[begin : begin + 512] = block

    return change


_TARS: dict[str, Make] = {
    "a name that leads out": members(({"name": "../../escape"}, b"x")), "an absolute name": members(({"name": "/tmp/escape"}, b"x")), "a name with a backslash": members(({"name": "a\\b"}, b"x")), "a symbolic link": members(({"name": "./model_weights.ckpt", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, b"")),
    "a hard link": members(({"name": "./model_weights.ckpt", "type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, b"")), "a device": members(({"name": "./model_weights.ckpt", "type": tarfile.CHRTYPE}, b"")), "a pipe": members(({"name": "./model_weights.ckpt", "type": tarfile.FIFOTYPE}, b"")), "a name twice": members(({"name": "./a"}, b"x"), ({"name": "a"}, b"y")),
    "a sparse file": members(({"name": "./a", "type": b"S"}, b"x")), "a type that is none": members(({"name": "./a", "type": b"Q"}, b"x")), "no weights": members(), "weights that are text": members(({"name": "./model_weights.ckpt"}, b"hello")), "weights that are a pipe's name": members(({"name": "./model_weights.ckpt/x"}, b"x")),
    "a member longer than the file": nemo(header(124, b"77777777777\0")), "a member of a binary size": nemo(header(124, b"\x80" + b"\xff" * 11)), "a size that is no number": nemo(header(124, b"zzzzzzzzzzz\0")), "a checksum that is wrong": nemo(lambda d: d.__setitem__(slice(660, 663), b"777")), "cut in the middle": nemo(lambda d: d.__delitem__(slice(len(d) // 2, None))),
    "cut within a header": nemo(lambda d: d.__delitem__(slice(700, None))), "no end": nemo(lambda d: d.__delitem__(slice(len(d.rstrip(b"\0")) + 511 & -512, None))), "bytes that follow": nemo(lambda d: d.extend(b"x" * 512)), "zeros alone": of_bytes(bytes(10240)), "empty": of_bytes(b""), "text": of_bytes(b"hello" * 1000),
    "a PAX record that lies": members(({"name": "a", "type": b"x"}, b"99999999 path=x\n")), "a PAX record of text": members(({"name": "a", "type": b"x"}, b"x path=y\n")), "a PAX size beyond numbers": members(({"name": "a", "type": b"x"}, b"29 size=99999999999999999999\n"), ({"name": "./b"}, b"x")), "a PAX header without a member": members(({"name": "a", "type": b"x"}, b"12 path=abc\n")),
    "a PAX header of megabytes": members(({"name": "a", "type": b"x"}, b"x" * (3 << 20))), "a name of megabytes": members(({"name": "a", "type": b"L"}, b"x" * (3 << 20))), "a name that is no text": members(({"name": "a", "type": b"L"}, b"\xff\xfe\0"), ({"name": "b"}, b"x")), "gzip cut off": nemo(lambda d: (z := gzip.compress(bytes(d)), d.clear(), d.extend(z[: len(z) // 2]))),
    "gzip of noise": of_bytes(gzip.compress(b"noise" * 1000)), "gzip in gzip": nemo(lambda d: d.__setitem__(slice(None), gzip.compress(gzip.compress(bytes(d))))), "gzip damaged": of_bytes(b"\x1f\x8b\x08" + b"\xff" * 500), "many empty members": members(*(({"name": f"./{i}"}, b"") for i in range(100_010))),
}  # fmt: skip


def distributed(change: Callable[[Path], object], to: str = "torch_dist") -> Make:
    def make(folder: Path) -> Path:
        shutil.copytree(made(to, "megatron"), folder / "dist")
        change(folder / "dist")
        return folder / "dist"

    return make


def metadata(data: bytes | Callable[[bytes], bytes]) -> Make:
    def change(folder: Path) -> None:
        path = next(folder.rglob(".metadata"))
        path.write_bytes(data if isinstance(data, bytes) else data(path.read_bytes()))

    return distributed(change)


def array(field: str, value: Any, **more: Any) -> Make:
    """The first array's description, of one axis, with a field changed."""

    def change(folder: Path) -> None:
        path = sorted(folder.rglob(".zarray"))[0]
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value, **more}))

    return distributed(change, "zarr")


def described(data: str) -> Make:
    return distributed(lambda folder: sorted(folder.rglob(".zarray"))[0].write_text(data), "zarr")


_META = {
    "empty": metadata(b""), "a pickle that runs": metadata(b"\x80\x02cos\nsystem\n" + text("touch canary") + b"\x85R."), "a list": metadata(b"\x80\x02]."), "no state": metadata(b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n)\x81."), "cut in the middle": metadata(lambda d: d[: len(d) // 2]),
    "another file": metadata(lambda d: d.replace(b"__0_0.distcp", b"../../distcp")), "an absolute file": metadata(lambda d: d.replace(b"__0_0.distcp", b"/etc//passwd")), "a file that is not there": metadata(lambda d: d.replace(b".distcp", b".distcq")), "another dtype": metadata(lambda d: d.replace(b"bfloat16", b"qint8888")),
    "a deep one": metadata(b"\x80\x02" + b"(" * 300_000 + b"l" * 300_000 + b"."), "numbers of a huge width": metadata(b"\x80\x02" + number(1 << 1900) + b"."), "blobs cut off": distributed(lambda f: [p.write_bytes(p.read_bytes()[:1000]) for p in f.rglob("*.distcp")]), "blobs of zeros": distributed(lambda f: [p.write_bytes(bytes(p.stat().st_size)) for p in f.rglob("*.distcp")]),
    "blobs that are gone": distributed(lambda f: [p.unlink() for p in f.rglob("*.distcp")]), "no metadata": distributed(lambda f: next(f.rglob(".metadata")).unlink()), "a backend that is none": distributed(lambda f: next(f.rglob("metadata.json")).write_text('{"sharded_backend": "evil"}')), "a backend that is a list": distributed(lambda f: next(f.rglob("metadata.json")).write_text('{"sharded_backend": ["zarr"]}')),
}  # fmt: skip

_ZARR = {
    "an empty description": described(""), "a description that is a list": described("[]"), "a description nested deep": described("[" * 100_000), "a description of megabytes": described(" " * (3 << 20) + "{}"), "a dtype that is a list": array("dtype", ["<f4"]), "a dtype that is an object": array("dtype", {"a": 1}), "a dtype with fields": array("dtype", [["a", "<f4"]]),
    "a dtype of objects": array("dtype", "|O"), "a dtype of a megabyte": array("dtype", "<f" * 400_000), "big-endian": array("dtype", ">f4"), "a shape that is a list of lists": array("shape", [[1]]), "a shape that is an object": array("shape", {"0": 1}), "a shape beyond numbers": array("shape", [10**400]), "a shape of text": array("shape", "44"), "a negative shape": array("shape", [-4]),
    "a shape of a petabyte": array("shape", [1 << 50]), "a lying shape": array("shape", [1 << 31, 1 << 31, 96], chunks=[1 << 31, 1 << 31, 96]), "chunks of nothing": array("chunks", [0]), "chunks of a petabyte": array("chunks", [1 << 50]), "chunks of one element": array("chunks", [1]), "chunks that are null": array("chunks", None), "an order that is a list": array("order", ["C"]), "an order that is none": array("order", "Q"),
    "a separator that leads out": array("dimension_separator", "/../"), "a separator that is an object": array("dimension_separator", {}), "compressed": array("compressor", {"id": "blosc"}), "a compressor that is a huge list": array("compressor", [0] * 200_000), "filters": array("filters", [{"id": "pickle"}]), "version 3": array("zarr_format", 3), "a version that is a list": array("zarr_format", [2]),
}  # fmt: skip

CASES = {f"tar: {name}": Case(make, convert) for name, make in _TARS.items()}
CASES["tar: as it is"] = Case(nemo(lambda d: None), archive)
CASES["tar: a config that is code"] = Case(nemo(lambda d: put(d, b"mcore_gpt: true", 0, b"a: !!python/x:y")), archive)
CASES |= {f".metadata: {name}": Case(make, convert) for name, make in _META.items()}
CASES |= {f"zarr: {name}": Case(make, convert) for name, make in _ZARR.items()}
