"""A file and the stretches of it that are tensors in, SHA-256 digests of all of it and of each out: read once, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..fault import Fault

CHUNK = 4 << 20


def digests(path: str, stretches: Sequence[tuple[int, int]] = ()) -> tuple[int, str, list[str]]:
    """Size and digest of the file at `path`, and the digest of each stretch (first byte, bytes), in ascending order.

    A stretch that the file ends before has the digest of what there is.
    """
    whole, at = hashlib.sha256(), 0
    parts = [hashlib.sha256() for _ in stretches]
    first = 0
    buffer = memoryview(bytearray(CHUNK))
    try:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                data = buffer[:got]
                whole.update(data)
                while first < len(parts) and sum(stretches[first]) <= at:
                    first += 1
                for number in range(first, len(parts)):
                    begin, size = stretches[number]
                    if begin >= at + got:
                        break
                    parts[number].update(data[max(0, begin - at) : max(0, begin + size - at)])
                at += got
    except OSError as error:
        raise Fault("read-failed", f"{path}: {error.strerror}") from None
    return at, whole.hexdigest(), [part.hexdigest() for part in parts]
