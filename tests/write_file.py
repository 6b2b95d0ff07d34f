"""A layout and the data of its regions in; a whole file out, which appears under its name only once it is whole."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable

from ckptc.runtime.fault import Fault
from ckptc.runtime.files.file_layout import FileLayout


def write_file(
    path: str | os.PathLike[str], layout: FileLayout, arrays: Iterable[bytes | bytearray | memoryview]
) -> None:
    """Writes `path` with one bytes-like of `arrays` per region, in order."""
    place = os.fspath(path)
    partial = f"{place}.partial"
    try:
        with open(partial, "wb") as stream:
            crcs: list[int] = []
            for i, (region, array) in enumerate(zip(layout.regions, arrays, strict=True)):
                data = memoryview(array)
                if data.nbytes != region.nbytes:
                    raise Fault("wrong-size", f"`{region.name}` needs {region.nbytes:,} bytes, {data.nbytes:,} came")
                stream.write(region.lead)
                stream.write(data)
                crcs.append(zlib.crc32(data) if layout.needs_crc else 0)
                stream.write(layout.trail(i, crcs[-1]))
            stream.write(layout.tail(crcs))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, place)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
