"""What runs if it is unpickled by Python, and the watch over it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RAN = "ran"


class Bomb:
    """Makes a folder, if it is unpickled by Python."""

    def __reduce__(self) -> Any:
        return os.mkdir, (RAN,)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In every module that imports it."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / RAN).exists()
