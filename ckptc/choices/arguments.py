"""What callers of the Python face pass: checked, and turned into what the rooms take."""

from __future__ import annotations

from typing import Any

from ..dsl.nearest import nearest
from ..runtime.fault import Fault
from ..runtime.files.dtypes import FLOATING


def parse_size(size: int | str) -> int:
    """Bytes from a number or a text: "512MiB", "5GB", "1.5 GiB"."""
    if isinstance(size, int) and size > 0:
        return size
    text = str(size).strip().replace("_", "").lower()
    units = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12}
    units |= {"ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20, "gi": 2**30, "gib": 2**30, "ti": 2**40, "tib": 2**40}
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ").strip()
    unit = text[len(digits) :].strip()
    try:
        bytes_ = int(float(digits) * units[unit])
        if bytes_ < 1:
            raise ValueError
        return bytes_
    except (ValueError, LookupError, OverflowError):
        raise Fault("bad-size", f"`{size}` is not a size", help="write a number of bytes with a unit, such as 512MiB or 5GB") from None


# Other names that are in use for dtypes.
DTYPES = {
    "bf16": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16", "fp32": "float32", "f32": "float32",
    "float": "float32", "fp64": "float64", "f64": "float64", "double": "float64",
}  # fmt: skip


def dtype_name(dtype: Any) -> str | None:
    """The name of a floating dtype, of whatever was given for one: a name, also a short one, or a dtype of torch or numpy.

    Raises `Fault` for what is no floating dtype."""
    if dtype is None:
        return None
    text = str(dtype).strip().lower().removeprefix("torch.")
    name = DTYPES.get(text, text)
    if name not in FLOATING:
        near = nearest(name, FLOATING)
        raise Fault(
            "unknown-dtype", f"floating tensors cannot be cast to `{dtype}`", notes=(f"there are {', '.join(FLOATING)}",),
            help=f"did you mean `{near}`?" if near else "",
        )  # fmt: skip
    return name


def at_least_one(workers: int) -> int:
    if workers < 1:
        raise Fault("bad-workers", f"{workers} workers do no work", help="use --workers 1 or more")
    return workers
