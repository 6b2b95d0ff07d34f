"""A tar archive in, where each member's bytes lie out. Nothing is extracted; every header is checked.

Read are ustar, GNU long names and sizes, and PAX. Links, devices, sparse files, names that lead out of the archive and
names that occur twice are refused, as is an archive that ends before its end.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NoReturn

from ...fault import Fault
from ...files.read_window import read_descriptor

BLOCK = 512
_MOST_MEMBERS = 100_000
_LONGEST = 1 << 20  # of a name, or of the records of a PAX header
_MOST_PADDING = 1 << 20  # zeros after the end: tar fills a record of 10 KiB, or as many as it was told
_REGULAR, _FOLDER = b"\0" b"07", b"5"
_KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file",
    b"M": "a part of an archive of several volumes",
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A regular file of the archive; `at` is where its bytes begin. The name is without `./`."""

    name: str
    at: int
    nbytes: int


def read_members(path: str, called: str = "") -> dict[str, Member]:
    """The regular files of the tar at `path`, by name, in its order. Faults call the archive `called`, or its path."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as problem:
        raise Fault("unreadable-file", f"`{path}` cannot be opened: {problem.strerror}") from None
    try:
        return _Tar(descriptor, path, called or path).members()
    finally:
        os.close(descriptor)


class _Tar:
    def __init__(self, descriptor: int, path: str, called: str) -> None:
        self.descriptor, self.path, self.called = descriptor, path, called
        self.size = os.fstat(descriptor).st_size

    def members(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        seen: set[str] = set()
        said: dict[str, str] = {}
        at = 0
        while (header := self.read(at, BLOCK, "a header")) != bytes(BLOCK):
            name, kind, nbytes = self.header(header, at)
            at += BLOCK
            if kind in (b"x", b"g", b"L", b"K"):
                raw = self.read(at, nbytes, f"the header of `{name}`", _LONGEST)
                at += _padded(nbytes)
                if kind in (b"x", b"g"):
                    said |= self.records(raw, kind == b"g")
                elif kind == b"L":
                    said["path"] = self.text(raw.split(b"\0")[0])
                continue  # K is the target of a link, which is refused below
            name, nbytes = self.name(said.get("path", name)), self.number(said.get("size"), nbytes)
            if any(key.startswith("GNU.sparse") for key in said):
                kind = b"S"
            said = {}
            if kind not in _REGULAR and kind != _FOLDER:
                what = _KINDS.get(kind, f"of type {kind.decode('latin-1')!r}")
                self.refuse(f"holds `{name}`, which is {what}", "repack it with plain files alone")
            if name in seen:
                self.refuse(f"holds `{name}` twice", "repack it with one of them")
            if len(seen) == _MOST_MEMBERS:
                self.refuse(f"holds more than {_MOST_MEMBERS:,} members", "repack it without what is no part of a checkpoint")
            seen.add(name)
            if kind != _FOLDER and not (kind == b"\0" and header[:100].rstrip(b"\0").endswith(b"/")):
                found[name] = Member(name, at, nbytes)
                at += _padded(nbytes)
                if at > self.size:
                    self.end(f"`{name}`")
        if said:
            self.refuse("ends with a header of a member that does not follow")
        self.padding(at)
        return found

    def header(self, raw: bytes, at: int) -> tuple[str, bytes, int]:
        """Name, type and size of a header whose checksum is right."""
        checksum = raw[148:156].strip(b" \0")
        if not re.fullmatch(rb"[0-7]+", checksum) or int(checksum, 8) != sum(raw[:148]) + 8 * 32 + sum(raw[156:]):
            if at == 0:
                self.refuse("is no tar archive, nor a compressed one", "check that it was copied whole, and is a .nemo file at all")
            self.refuse(f"has no header at byte {at:,}, where a member begins", "copy it again")
        name, kind, size = raw[:100].split(b"\0")[0], raw[156:157], raw[124:136]
        if raw[257:263] == b"ustar\0" and raw[345:500].strip(b"\0"):
            name = raw[345:500].split(b"\0")[0] + b"/" + name
        octal = size.strip(b" \0") or b"0"
        if size[0] & 0x80:  # base 256, for what octal digits cannot say
            nbytes = int.from_bytes(bytes([size[0] & 0x7F]) + size[1:], "big")
        elif re.fullmatch(rb"[0-7]+", octal):
            nbytes = int(octal, 8)
        else:
            self.refuse(f"gives member `{self.text(name)}` a size that is no number", "copy it again")
        return self.text(name), kind, nbytes

    def records(self, raw: bytes, of_all: bool) -> dict[str, str]:
        """The `length key=value` records of a PAX header."""
        found: dict[str, str] = {}
        at = 0
        while at < len(raw):
            digits, space, _ = raw[at : at + 20].partition(b" ")
            length = int(digits) if space and digits.isdigit() else 0
            key, equals, value = raw[at + len(digits) + 1 : at + length].partition(b"=")
            if length <= len(digits) + 1 or at + length > len(raw) or not equals or not value.endswith(b"\n"):
                self.refuse("has a damaged PAX header", "copy it again")
            if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
                found[self.text(key)] = self.text(value[:-1])
            at += length
        if of_all and found:
            self.refuse("names or sizes all its members at once", "repack it")
        return found

    def name(self, raw: str) -> str:
        """A member's name without `./`, or a fault if it does not stay within the archive."""
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        if raw.startswith("/") or ".." in parts or "\0" in raw or "\\" in raw:
            self.refuse(f"holds a member called {raw!r}, which is not a place within it", "do not use it: no framework writes such a file")
        return "/".join(parts)

    def number(self, said: str | None, nbytes: int) -> int:
        if said is not None and not (said.isascii() and said.isdigit() and len(said) < 20):
            self.refuse(f"gives a member the size {said[:20]!r}", "copy it again")
        return nbytes if said is None else int(said)

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.refuse(f"holds a name that is no text: {raw[:60]!r}", "repack it under another name")

    def read(self, at: int, nbytes: int, what: str, most: int = BLOCK) -> bytes:
        if nbytes > most:
            self.refuse(f"has {nbytes:,} bytes in {what}, more than is read here", "copy it again")
        if at + nbytes > self.size:
            self.end(what)
        return bytes(read_descriptor(self.descriptor, self.path, at, nbytes))

    def padding(self, at: int) -> None:
        """Nothing but zeros follows the end, and not many."""
        rest = self.size - at
        if rest > _MOST_PADDING or any(read_descriptor(self.descriptor, self.path, at, rest)):
            self.refuse(f"goes on after its end at byte {at:,}", "copy it again, and unpack archives that were joined")

    def end(self, what: str) -> NoReturn:
        raise Fault(
            "truncated-file", f"`{self.called}` ends at byte {self.size:,}, within {what}, as after an interrupted copy",
            help="copy it again",
        )  # fmt: skip

    def refuse(self, why: str, help: str = "copy it again") -> NoReturn:
        raise Fault("bad-archive", f"`{self.called}` {why}", help=help)


def _padded(nbytes: int) -> int:
    return -(-nbytes // BLOCK) * BLOCK

