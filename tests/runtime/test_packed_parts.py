"""Parts of packed weights of any shape and dtype: each is decoded, left as it is or named, and nothing else happens."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ckptc
from ckptc.runtime.checking.elements import Files, take
from ckptc.runtime.checkpoint.checkpoint import Tensor
from ckptc.runtime.files.window import row_major

from ..packed_weights import gpt_oss, integers, modelopt, mxfp4, nvfp4

SCHEMES = ((gpt_oss, (2, 64, 3)), (integers(32), (5, 64)), (integers(0, torch.float32), (5, 13)), (nvfp4, (4, 32)), (modelopt, (4, 32)), (mxfp4, (3, 64)))
DTYPES = (torch.uint8, torch.int8, torch.int32, torch.int64, torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def other_shape(shape: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    extents = list(shape)
    for _ in range(rng.randint(1, 2)):
        what = rng.randrange(5)
        if what == 0 and extents:
            extents.pop(rng.randrange(len(extents)))
        elif what == 1:
            extents.insert(rng.randint(0, len(extents)), rng.choice((0, 1, 2, 16)))
        elif extents:
            at = rng.randrange(len(extents))
            extents[at] = max(0, rng.choice((0, 1, extents[at] - 1, extents[at] + 1, extents[at] * 2, 16)))
    return tuple(extents)


def bytes_of(tensor: Tensor) -> bytes:
    """The elements as the checker reads them."""
    window = tensor.entry.window
    with Files() as files:
        return take(files, window, 0, [np.arange(n, dtype=np.int64) * step for n, step in zip(window.shape, row_major(window.shape), strict=True)]).tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_parts_of_any_shape_and_dtype(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    decoded = named = 0
    for number in range(60):
        scheme, shape = rng.choice(SCHEMES)
        stored = dict(scheme("weight", shape, torch.Generator().manual_seed(number)).stored)
        for name in rng.sample(sorted(stored), rng.randint(1, len(stored))):
            what = rng.randrange(4)
            if what == 0:
                del stored[name]
            elif what == 1:
                stored[name] = torch.zeros(stored[name].shape, dtype=rng.choice(DTYPES))
            elif what == 2:
                stored[name] = torch.zeros(other_shape(tuple(stored[name].shape), rng), dtype=stored[name].dtype)
            elif name.endswith("_shape"):
                stored[name] = torch.tensor([rng.choice((-3, 0, 1, 5, 13, 64, 1 << 62)) for _ in range(rng.randint(0, 3))], dtype=torch.int64)
        if not stored:
            continue
        save_file(stored, tmp_path / "model.safetensors")
        held = ckptc.open(tmp_path)
        named += bool(held.undecoded)
        for tensor in held:
            decoded += tensor.entry.window.coded is not None
            assert tensor.read().flatten().view(torch.uint8).numpy().tobytes() == bytes_of(tensor)
    assert decoded
    assert named
