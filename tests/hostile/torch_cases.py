"""Hostile torch files: pickles that would run code, lie or explode, and zips that do."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from .doors import CANARY, Case, Make, convert

RUN = f"touch {CANARY}".encode()


def torch_file(pickled: bytes, name: str = "pytorch_model.bin", method: int = zipfile.ZIP_STORED, more: dict[str, bytes] | None = None) -> Make:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w", method) as file:
            file.writestr("archive/data.pkl", pickled)
            for record, data in (more or {"archive/data/0": bytes(64), "archive/version": b"3\n"}).items():
                file.writestr(record, data)
        return folder / name

    return make


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(raw)) + raw


def tensor(size: bytes = b"(K\4K\4t", stride: bytes = b"(K\4K\1t", offset: bytes = b"K\0", count: bytes = b"K\x10", kind: bytes = b"ctorch\nFloatStorage\n", key: bytes | None = None) -> bytes:
    """The opcodes of a dict with one tensor, in the words of torch.save."""
    storage = b"(" + text("storage") + kind + (text("0") if key is None else key) + text("cpu") + count + b"tQ"
    return b"\x80\x02}" + text("model.norm.weight") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + size + stride + b"\x89ccollections\nOrderedDict\n)RtRs."


def called(function: str, *args: bytes) -> bytes:
    module, _, name = function.rpartition(".")
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + b"(" + b"".join(args) + b"tR."


class _Reduce:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os

        return os.system, (RUN.decode(),)


_CODE = {
    "os.system": called("os.system", text(RUN.decode())), "posix.system": called("posix.system", text(RUN.decode())), "protocol 4": pickle.dumps(_Reduce(), 4), "protocol 5": pickle.dumps({"a": _Reduce()}, 5),
    "eval": called("builtins.eval", text(f"open('{CANARY}', 'w')")), "exec": called("builtins.exec", text(f"open('{CANARY}', 'w')")), "getattr": called("builtins.getattr", text("a"), text("b")),
    "open": called("builtins.open", text(CANARY), text("w")), "subprocess": called("subprocess.Popen", text("id")), "runpy": called("runpy.run_path", text("x.py")),
    "torch.load": called("torch.serialization.load", text("x")), "torch.hub": called("torch.hub.load", text("x"), text("y")), "importlib": called("importlib.import_module", text("antigravity")),
    "numpy's loader": called("numpy.core.multiarray._reconstruct", text("a")), "INST": b"(" + text(RUN.decode()) + b"ios\nsystem\n.", "OBJ": b"(cos\nsystem\n" + text(RUN.decode()) + b"o.",
    "NEWOBJ": b"\x80\x02cos\nsystem\n" + text(RUN.decode()) + b"\x85\x81.", "NEWOBJ_EX": b"\x80\x04cos\nsystem\n" + text(RUN.decode()) + b"\x85}\x92.", "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + text(RUN.decode()) + b"\x85R.",
    "BUILD with a setstate": b"\x80\x02ccollections\nOrderedDict\n)R}" + text("__setstate__") + b"cos\nsystem\nsb" + text(RUN.decode()) + b"b.",
    "a name with dots": b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + text(RUN.decode()) + b"\x85R.", "the extension registry": b"\x80\x02\x82\x01.", "a persistent id": b"Pstorage\n.", "an odd persistent id": b"\x80\x02(" + text("module") + text("x") + b"tQ.",
    "out of band": b"\x80\x05\x97.", "an allowed name, called oddly": called("collections.OrderedDict", b"cos\nsystem\n"), "a rebuilt parameter of code": called("torch._utils._rebuild_parameter", b"cos\nsystem\n", b"\x88", b"}"),
}  # fmt: skip

_TWICE = b"\x80\x02]" + b"q\0" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)) + b"."
_LIES = {
    "empty": b"", "no stop": b"\x80\x02}", "a text that is longer than the file": b"\x80\x02X\xff\xff\xff\x7fabc.", "bytes of 8 exabytes": b"\x80\x04\x8e" + b"\xff" * 8 + b".", "a byte array of 8 exabytes": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
    "a number of two billion bytes": b"\x80\x02\x8b\xff\xff\xff\x7f1.", "a memo of a huge number": b"\x80\x02}r\xff\xff\xff\xff.", "a memo that is not there": b"\x80\x02h\x07.", "a text memo of a million digits": b"}p" + b"9" * 1_000_000 + b"\n.",
    "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.", "deep lists": b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b".", "deep tuples": b"\x80\x02N" + b"\x85" * 500_000 + b".", "a laugh of a billion": _TWICE,
    "a dict in itself": b"\x80\x02}q\0" + text("a") + b"h\0s.", "a list in itself": b"\x80\x02]q\0h\0a.", "a key that cannot be one": b"\x80\x02}]Ns.", "a list at the top": b"\x80\x02].", "nothing at the top": b"\x80\x02N.", "protocol 9": b"\x80\x09}.",
    "a storage larger than its record": tensor(count=number(1 << 40)), "a storage beyond numbers": tensor(count=number(1 << 900)), "a storage of negative size": tensor(count=number(-1)), "a storage of text": tensor(count=text("16")), "a storage without a record": tensor(key=text("7")), "a storage from outside": tensor(key=text("../0")),
    "a shape beyond its storage": tensor(size=b"(K\xffK\xfft"), "a huge shape": tensor(size=b"(" + number(1 << 62) + number(1 << 62) + b"t"), "a huge shape over one element": tensor(size=b"(" + number(1 << 50) + b"t", stride=b"(K\0t"), "a negative shape": tensor(size=b"(" + number(-4) + number(-4) + b"t"), "a negative stride": tensor(stride=b"(" + number(-4) + b"K\1t"),
    "a negative offset": tensor(offset=number(-8)), "an offset beyond": tensor(offset=number(1 << 40)), "more strides than axes": tensor(stride=b"(K\4K\1K\1t"), "ten thousand axes": tensor(size=b"(" + b"K\1" * 10_000 + b"t", stride=b"(" + b"K\1" * 10_000 + b"t"), "a shape that is a list": tensor(size=b"]"), "a dtype that is none": tensor(kind=b"ctorch\nQInt8Storage\n"), "a dtype that is a text": tensor(kind=text("FloatStorage")),
}  # fmt: skip


def damaged(change: Callable[[bytearray], object]) -> Make:
    def make(folder: Path) -> Path:
        path = torch_file(tensor())(folder)
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
        return path

    return make


def put(data: bytearray, mark: bytes, offset: int, value: bytes, last: bool = True) -> None:
    at = (data.rfind if last else data.find)(mark) + offset
    data[at : at + len(value)] = value


_ZIPS: dict[str, Make] = {
    "a bomb": torch_file(bytes(1 << 26), method=zipfile.ZIP_DEFLATED), "compressed tensors": torch_file(tensor(), method=zipfile.ZIP_DEFLATED), "two pickles": torch_file(tensor(), more={"archive/data.pkl": b"N."}),
    "a record outside": torch_file(tensor(), more={"../../escape": b"x", "archive/data/0": bytes(64)}), "no folder": torch_file(tensor(), more={"data/0": bytes(64)}), "a torchscript program": torch_file(tensor(), more={"archive/constants.pkl": b"N.", "archive/data/0": bytes(64)}),
    "cut off": damaged(lambda d: d.__delitem__(slice(len(d) - 30, None))), "cut in the middle": damaged(lambda d: d.__delitem__(slice(len(d) // 2, None))), "something that follows": damaged(lambda d: d.extend(b"more")), "no beginning": damaged(lambda d: d.__delitem__(slice(0, 4))),
    "a directory of 4 GB": damaged(lambda d: put(d, b"PK\5\6", 12, b"\xff\xff\xff\xfe")), "a directory elsewhere": damaged(lambda d: put(d, b"PK\5\6", 16, b"\xff\xff\xff\x7f")), "65,535 records": damaged(lambda d: put(d, b"PK\5\6", 8, b"\xff\xff\xff\xff")), "another disk": damaged(lambda d: put(d, b"PK\5\6", 4, b"\1\0")),
    "a record of 4 GB": damaged(lambda d: put(d, b"PK\1\2", 20, b"\xfe\xff\xff\xff" * 2)), "a record elsewhere": damaged(lambda d: put(d, b"PK\1\2", 42, b"\xfe\xff\xff\xff")), "an encrypted record": damaged(lambda d: put(d, b"PK\1\2", 8, b"\1\0")), "another name at the data": damaged(lambda d: put(d, b"PK\3\4", 31, b"Z", False)),
    "records that overlap": damaged(lambda d: put(d, b"PK\1\2", 42, b"\0\0\0\0")), "torch's old format": lambda f: (p := f / "pytorch_model.bin", p.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02M\xe9\x03."))[0], "a bare pickle that runs": lambda f: (p := f / "pytorch_model.bin", p.write_bytes(_CODE["os.system"]))[0],
}  # fmt: skip

CASES = {f"pickle: {name}": Case(torch_file(data), convert) for name, data in (_CODE | _LIES).items()}
CASES |= {f"zip: {name}": Case(make, convert) for name, make in _ZIPS.items()}
CASES["pickle: a key that cannot be one"] = Case(torch_file(_LIES["a key that cannot be one"]), convert)
