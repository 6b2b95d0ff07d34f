"""What an ended run has left in; nothing, or a fault, out: every byte that would be kept is read back and held to the journal."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ..binding.bind import Bound
from ..fault import Fault
from ..files.crc import combine, crc32
from ..inside import place
from .records import Known

_CHUNK = 4 << 20


def refuse_other(bound: Bound, root: str, known: Known, out: str, workers: int, also: tuple[str, ...] = ()) -> None:
    """Raises `partial-changed` where the files in `root` are not what the journal says they are.

    Files that the run has not finished are only held to their names and sizes: they are written again. Where all was whole,
    files may stand in `out` already. `also` are names of files that are neither tensors nor known beforehand.
    """
    for name, size in _files(root):
        most = bound.sizes.get(name)
        if most is None and name not in also:
            raise _changed(os.path.join(root, name), "this conversion writes no such file")
        if most is not None and size > most:
            raise _changed(os.path.join(root, name), f"it has {size:,} bytes, more than the {most:,} that it will have")
    regions: dict[int, list[int]] = defaultdict(list)
    for file, region in sorted(known.done):
        regions[file].append(region)

    def check(file: int) -> None:
        if not known.whole or os.path.lexists(place(root, bound.files[file].name)):
            _check(bound, file, regions[file], root, known)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for _ in pool.map(check, regions):
            pass


def _files(root: str) -> Iterator[tuple[str, int]]:
    """Names, with `/`, and sizes of the files below `root`, which must be plain ones."""
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
                raise _changed(path, "it is neither a file nor a folder")
            if stat.S_ISREG(facts.st_mode):
                yield os.path.relpath(path, root).replace(os.sep, "/"), facts.st_size


def _check(bound: Bound, number: int, regions: list[int], root: str, known: Known) -> None:
    """Reads the finished regions of a file, and what stands around them."""
    target, path = bound.files[number], place(root, bound.files[number].name)
    layout = target.layout
    crcs = [known.done[number, region] for region in regions]
    try:
        with open(path, "rb", buffering=0) as file:
            for i, crc in zip(regions, crcs, strict=True):
                region, at = layout.regions[i], target.at + layout.regions[i].at
                trail = layout.trail(i, crc)
                if (
                    _read(file.fileno(), at - len(region.lead), len(region.lead)) != region.lead
                    or _crc(file.fileno(), at, region.nbytes) != crc
                    or _read(file.fileno(), at + region.nbytes, len(trail)) != trail
                ):
                    raise _changed(path, f"`{region.name}` is not as it was written")
            if len(regions) == len(layout.regions):
                tail = layout.tail(crcs)
                if _read(file.fileno(), target.at + layout.size - len(tail), len(tail)) != tail:
                    raise _changed(path, "its end is not as it was written")
    except FileNotFoundError:
        raise _changed(path, "it is gone") from None
    except OSError as error:
        raise Fault("read-failed", f"{path}: {error.strerror}") from None


def _read(number: int, at: int, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (more := os.pread(number, size - len(found), at + len(found))):
        found += more
    return bytes(found)


def _crc(number: int, at: int, size: int) -> int | None:
    """The CRC-32 of `size` bytes; None where the file ends before."""
    found, buffer = 0, memoryview(bytearray(min(size, _CHUNK)))
    while size:
        got = os.preadv(number, [buffer[: min(size, len(buffer))]], at)
        if not got:
            return None
        found = combine(found, crc32(buffer[:got]), got)
        at, size = at + got, size - got
    return found


def _changed(path: str, how: str) -> Fault:
    return Fault(
        "partial-changed", f"{path}, which an earlier run has left half written, was changed since: {how}",
        help="start over: run it without --resume and with --overwrite",
    )  # fmt: skip
