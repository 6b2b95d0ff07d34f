"""An open file in: what the file system below it can do for a copy. Linux alone tells; elsewhere nothing is assumed."""

from __future__ import annotations

import ctypes
import errno
from functools import cache
from typing import Any

# Magic numbers as statfs(2) lists them.
_SERVERS = {0x6969, 0xFF534D42, 0xFE534D42, 0x00C36400}  # nfs, cifs, smb2, ceph: bytes need not pass this machine
_SHARES = {0x9123683E, 0x58465342, 0xCA451A4E, 0x7461636F, 0x2FC12FC1}  # btrfs, xfs, bcachefs, ocfs2, zfs: blocks are shared
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: a file is as long as what has been written to it

BLOCK = 4096  # blocks are shared only where both ends are multiples of this


@cache
def _libc() -> Any:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        libc.fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]
    except (OSError, AttributeError, TypeError):
        return None
    return libc


def _kind(number: int) -> int:
    """The magic number of the file system that an open file is on; 0 where it is not told."""
    libc, facts = _libc(), (ctypes.c_long * 64)()
    if libc is None or libc.fstatfs(number, facts):
        return 0
    return facts[0] & 0xFFFFFFFF


def copies_itself(number: int) -> int:
    """How a file system copies what lies in it without moving the bytes: 0 not at all, 1 anything, `BLOCK` whole blocks.

    Where it does not, `copy_file_range` goes page by page, and is slower than to read and write through a buffer.
    """
    kind = _kind(number)
    return 1 if kind in _SERVERS else BLOCK if kind in _SHARES else 0


def reserve(number: int, at: int, size: int) -> None:
    """Has the file system set blocks aside for the bytes [at, at + size) of an open file, so that writes find them.

    Where it cannot, nothing happens. Raises `OSError` where the disk has not so much room.
    """
    libc = _libc()
    if libc is None or size < BLOCK or not libc.fallocate(number, _KEEP_SIZE, at, size):
        return
    problem = ctypes.get_errno()
    if problem in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(problem, "No space left on device" if problem == errno.ENOSPC else "Disk quota exceeded")
