"""Standard output and error that are closed, full, or of an encoding without the letters that are printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptc.meter import Meter
from ckptc.runtime.progress import Progress

MISSING = "convert nowhere out --to hf"
NO_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = line.replace("ckptc", f"{sys.executable} -m ckptc", 1)
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment})


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("ckptc version >&-", 0, "", ""),
        ("ckptc version 2>&-", 0, "ckptc ", ""),
        ("ckptc version >&- 2>&- <&-", 0, "", ""),
        ("ckptc frobnicate 2>&-", 2, "", ""),
        ("ckptc frobnicate >&-", 2, "", "ckptc: no such command"),
        (f"ckptc {MISSING} 2>&-", 1, "", ""),
        (f"ckptc {MISSING} --json >&-", 1, "", ""),
        (f"ckptc {MISSING} --json 2>&- >&-", 1, "", ""),
        pytest.param("ckptc version >/dev/full", 1, "", "standard output cannot be written: No space left on device", marks=NO_FULL),
        pytest.param(f"ckptc {MISSING} 2>/dev/full", 1, "", "", marks=NO_FULL),
        pytest.param("ckptc frobnicate 2>/dev/full", 2, "", "", marks=NO_FULL),
        pytest.param(f"ckptc {MISSING} --json >/dev/full", 1, "", "", marks=NO_FULL),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stream_that_cannot_be_written_is_no_traceback(unbuffered: str, line: str, code: int, out: str, err: str) -> None:
    done = shell(line, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == code
    assert done.stdout.startswith(out) if out else done.stdout == ""
    assert done.stderr.startswith(err) if err else done.stderr == ""
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_what_an_encoding_does_not_have_is_escaped(llama: Path) -> None:
    Path("h\u00e9").symlink_to(llama)
    done = shell("ckptc inspect h\u00e9", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("h\\xe9\n")


def test_without_a_standard_error_no_progress_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Meter(every_seconds=0) as meter:
        meter(Progress("write", 1, 2, 0, 0.1))
    assert capsys.readouterr().out == ""
