"""Progress on a terminal and off it, and sizes for people."""

from __future__ import annotations

import pytest

from ckptc.choices.arguments import parse_size
from ckptc.meter import Meter, resident_bytes, size
from ckptc.runtime.fault import Fault
from ckptc.runtime.progress import Progress


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (904_336, "904 kB"),
        (12_345_678, "12.3 MB"),
        (999_999, "1.00 MB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_have_three_digits(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("text", "count"), [("512MiB", 512 << 20), ("5GB", 5 * 10**9), ("1.5 GiB", 3 << 29), (77, 77), ("300k", 300_000)]
)
def test_sizes_are_read(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["1e400", "1e400GB", "inf", "nan", "-1", "0", "0.5", "", "5 miles", "GB", 0, -3, float("inf")])
def test_what_is_no_size_is_said(text):
    with pytest.raises(Fault) as fault:
        parse_size(text)
    assert (fault.value.code, fault.value.title) == ("bad-size", f"`{text}` is not a size")


def test_off_a_terminal_plain_lines_come_now_and_then(capsys):
    with Meter(every_seconds=0.0) as meter:
        meter(Progress("compare", 10, 40, 1 << 20, 1.0))
        meter(Progress("write", 3 * 10**9, 9 * 10**9, 1 << 20, 2.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("comparing copies: 10 bytes of 40 bytes")
    assert lines[1].startswith("writing: 3.00 GB of 9.00 GB, 1.50 GB/s, 1.05 MB buffers, ")
    assert lines[1].endswith(" resident, 4 s left")


def test_nothing_is_said_in_between_or_when_not_wanted(capsys):
    with Meter(every_seconds=60.0) as meter:
        meter(Progress("write", 1, 2, 3, 0.1))
    with Meter(shown=False, every_seconds=0.0) as meter:
        meter(Progress("write", 1, 2, 3, 0.1))
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Meter() as meter:
        assert meter.bar is not None
        meter(Progress("write", 1, 2, 3, 0.1))
        assert [task.completed for task in meter.bar.tasks] == [1]


def test_the_process_knows_its_memory():
    assert resident_bytes() > 1 << 20
