"""How many files may be open at once, for the sources and for the targets of a run."""

from __future__ import annotations

import resource

_OTHERS = 24  # what the process has open besides


def room(wanted: int) -> int:
    """Raises the soft limit where `wanted` sources and targets need it; the most that each side may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 2 * wanted + 256
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = max(soft, need if hard == resource.RLIM_INFINITY else min(hard, need))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return need if soft == resource.RLIM_INFINITY else max(4, (soft - _OTHERS) // 2)
