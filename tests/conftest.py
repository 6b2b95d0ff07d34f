"""What several rooms' tests share: where the frameworks' own checkpoints are."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Caches of parsed mappings go to a folder of this run, in subprocesses as well. Every plan is held against the laws of
    the compiler's passes.

    A run that was started in the background may have SIGINT ignored, and would hand that on: tests interrupt runs.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["CKPTC_LAWS"] = "1"
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="ckptc-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The folder `shared/oracle`, inside or beside the checkout; tests that need it are skipped where it is not."""
    for place in (ROOT / "shared" / "oracle", ROOT.parent / "shared" / "oracle"):
        if place.is_dir():
            return place
    pytest.skip("there is no shared/oracle here")
