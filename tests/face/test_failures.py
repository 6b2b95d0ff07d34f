"""Exit codes, and what a person or a program reads when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ckptc import __version__, failure
from ckptc import main as cli
from ckptc.dsl.diagnostic import Diagnostic, Label, MappingError
from ckptc.dsl.tree import Span
from ckptc.runtime.fault import Fault

RECORD = {"code", "severity", "title", "labels", "notes", "help"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["convert", "a", "b"], "ckptc: missing option '--to' (see `ckptc convert --help`)\n"),
        (["frobnicate"], "ckptc: no such command 'frobnicate' (see `ckptc --help`)\n"),
        (
            ["convert", "a", "b", "--to", "nxdt", "--set", "qkv"],
            "ckptc: invalid value for --set: `qkv` is not of the form key=value",
        ),
        (
            ["convert", "a", "b", "--to", "nxdt", "--tp", "2", "--set", "tp=4"],
            "ckptc: invalid value for --set: `tp` is given twice",
        ),
        (
            ["convert", "a", "b", "--to", "nxdt", "--stages", "a-b"],
            "ckptc: invalid value for --stages: `a-b` is neither of the form 0-6,7-13",
        ),
        (
            ["compile", "llama", "--from", "hf", "--to", "nxdt", "--emit", "rust"],
            "ckptc: invalid value for --emit: `rust` cannot be emitted",
        ),
        (["conver"], "ckptc: no such command 'conver' (did you mean 'convert'?) (see `ckptc --help`)\n"),
        (["xyz"], "ckptc: no such command 'xyz' (see `ckptc --help`)\n"),
        ([""], "ckptc: the name of the command is empty (see `ckptc --help`)\n"),
        (["--help=3"], "ckptc: option '--help' does not take a value (see `ckptc --help`)\n"),
        (["--version=3"], "ckptc: option '--version' does not take a value (see `ckptc --help`)\n"),
        (["tokenizer", "--help=3"], "ckptc: option '--help' does not take a value (see `ckptc tokenizer --help`)\n"),
        (["convert", "a", "b", "--to", "nxdt", "--family", ""], "ckptc: invalid value for '--family': it is empty (see `ckptc convert --help`)\n"),
        (["inspect", "a", "--config="], "ckptc: invalid value for '--config': it is empty (see `ckptc inspect --help`)\n"),
        (["verify", "a", "b", "--from", ""], "ckptc: invalid value for '--from': it is empty (see `ckptc verify --help`)\n"),
        (["convert", "", "b", "--to", "hf"], "ckptc: invalid value for 'SRC': it is empty (see `ckptc convert --help`)\n"),
        (["convert", "a", "", "--to", "hf"], "ckptc: invalid value for 'DST': it is empty (see `ckptc convert --help`)\n"),
        (["list", ""], "ckptc: invalid value for 'LAYOUT|FAMILY': it is empty (see `ckptc list --help`)\n"),
        (["convert", "a", "b", "--to", "nxdt", "--set", "=3"], "ckptc: invalid value for --set: `=3` is not of the form key=value"),
        (["convert", "a", "b", "--to", "nxdt", "--set", "qkv="], "ckptc: invalid value for --set: `qkv=` has no value"),
        (["convert", "a", "b", "--to", "nxdt", "--from-set", "qkv="], "ckptc: invalid value for --from-set: `qkv=` has no value"),
        (["convert", "a", "b", "--to", "nemo", "--artifact", "tokenizer.model="], "ckptc: invalid value for --artifact: `tokenizer.model=` has no value"),
        (["zero1", "a", "b"], "ckptc: missing option '--dp' or '--full' (see `ckptc zero1 --help`)\n"),
        (["zero1", "a", "b", "--dp", "2", "--full"], "ckptc: --dp cuts the state, and --full writes it uncut: give one of them (see `ckptc zero1 --help`)\n"),
        (["compat", "convert_gpt"], "ckptc: no script `convert_gpt` is known (there is "),
    ],
)
def test_a_usage_error_is_one_sentence_and_exit_code_2(arguments, sentence, ckptc):
    done = ckptc(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(sentence)
    assert done.err.count("\n") == 1


def test_without_arguments_the_help_is_shown(ckptc):
    done = ckptc()
    assert done.code == 2
    assert done.out.startswith("Usage: ckptc")


def test_a_runtime_fault_reads_like_a_diagnostic(llama, ckptc):
    Path("out").mkdir()
    Path("out/mine").touch()
    done = ckptc("convert", llama, "out", "--to", "nxdt")
    assert done.code == 1
    assert done.err == (
        f"error[destination-exists]: {Path('out').resolve()} exists and is not empty\n"
        "  = help: use --overwrite, or another place\n"
    )


def test_an_uneven_degree_points_at_the_mapping_and_at_the_config(llama, ckptc):
    done = ckptc("convert", llama, "out", "--to", "nxdt", "--tp", 7, "--set", "qkv=split", "--set", "hw=trn2_converter")
    assert done.code == 1
    assert "error[uneven-split]: `vocab` (320) does not divide over tp = 7" in done.err
    assert "--> mappings/nxd.ckmap:" in done.err
    assert "^" in done.err
    assert "config.json: vocab_size" in done.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["--to", "nxdtt"], "unknown-layout", "nxdt"),
        (["--to", "nxdt", "--set", "kv_multiplyer=2"], "unknown-parameter", "kv_multiplier"),
        (["--to", "nxdt", "--family", "lama"], "unknown-family", "llama"),
        (["--to", "nxdt", "--mapping", "lama"], "no-mapping", "llama"),
        (["--to", "nxdt", "--memory", "lots"], "bad-size", "512MiB"),
        (["--to", "nxdt", "--config", "none.json"], "no-config", ""),
    ],
)
def test_json_reports_an_error_as_a_record(arguments, code, hint, llama, ckptc):
    done = ckptc("convert", llama, "out", *arguments, "--json")
    assert (done.code, done.err) == (1, "")
    said = json.loads(done.out)
    assert set(said) == {"error", "others"}
    assert set(said["error"]) == RECORD
    assert said["error"]["code"] == code
    assert hint in said["error"]["help"]
    assert not Path("out").exists()


def test_json_reports_usage_errors_too(ckptc):
    done = ckptc("inspect", "--json")
    assert done.code == 2
    assert json.loads(done.out)["error"]["code"] == "usage"


def test_degrees_that_disagree_with_the_files_are_refused(llama, ckptc):
    ckptc("convert", llama, "mid", "--to", "nxdt", "--tp", 2)
    done = ckptc("convert", "mid", "out", "--to", "hf", "--config", llama, "--tp", 4)
    assert done.code == 1
    assert done.err.startswith("error[degree-disagrees]: the files are of tp = 2, not 4\n")


def test_colour_is_only_for_terminals():
    error = MappingError(Diagnostic("x-y", "a fault", (Label(Span("none.ckmap", 1, 1, 1, 2)),)))
    assert "\x1b" not in failure.text(error)
    assert "\x1b" in failure.text(error, color=True)


def fails_with(monkeypatch, error):
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "invoke", raising)


def test_the_unexpected_is_one_line_without_a_traceback(monkeypatch, ckptc):
    monkeypatch.delenv("CKPTC_DEBUG", raising=False)
    fails_with(monkeypatch, ZeroDivisionError("division\nby zero"))
    done = ckptc("version")
    assert done.code == 1
    assert done.err == "internal error: ZeroDivisionError: division by zero (set CKPTC_DEBUG=1 for the traceback)\n"


def test_debug_brings_the_traceback_back(monkeypatch):
    monkeypatch.setenv("CKPTC_DEBUG", "1")
    fails_with(monkeypatch, ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["version"])


def test_an_interrupt_is_exit_code_130(monkeypatch, ckptc):
    fails_with(monkeypatch, KeyboardInterrupt())
    done = ckptc("version")
    assert (done.code, done.err) == (130, "interrupted; nothing was left behind\n")


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_run_that_a_signal_stops_leaves_nothing_and_says_which_by_its_exit_code(signal, code, llama, tmp_path):
    script = (
        "import os, signal, time\n"
        "from ckptc import main as cli\n"
        "from ckptc.runtime.engine import engine\n"
        f"def stop(*a, **k): os.kill(os.getpid(), signal.{signal}); time.sleep(5)\n"
        "engine.work_through = stop\n"
        f"cli.main(['convert', {str(llama)!r}, 'out', '--to', 'nxdt'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr == "interrupted; nothing was left behind\n"
    assert {p.name for p in tmp_path.iterdir()} == {"llama-hf"}


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_run_that_can_be_resumed_says_so_where_a_signal_stops_it(signal, code, llama, tmp_path):
    script = (
        "import os, signal\n"
        "from ckptc import main as cli\n"
        "real, calls = os.pwritev, iter(range(99999))\n"
        "def write(*a):\n"
        f"    if next(calls) == 12: os.kill(os.getpid(), signal.{signal})\n"
        "    return real(*a)\n"
        "os.pwritev = write\n"
        f"cli.main(['convert', {str(llama)!r}, 'out', '--to', 'nxdt', '-q', '--memory', '40KiB', '--resume'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr == "interrupted; what is finished is kept: run the same with --resume to go on\n"
    assert {p.name for p in tmp_path.iterdir()} == {"llama-hf", ".out.resume"}


def test_a_reader_that_goes_away_is_no_error(llama, tmp_path):
    command = (
        f"{sys.executable} -m ckptc compile llama --from hf --to nxdt --config {llama} --tp 2 --emit python | head -n 1"
    )
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""


def test_a_fault_and_a_diagnostic_have_the_same_record():
    fault = failure.record(Fault("a-b", "title", notes=("n",), help="h"))
    other = failure.record(MappingError(Diagnostic("a-b", "title", notes=("n",), help="h")))
    assert fault == other


def test_a_signal_that_is_ignored_stays_so(llama, tmp_path):
    """As under `nohup`."""
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from ckptc import main as cli\n"
        "from ckptc.runtime.engine import engine\n"
        "real = engine.work_through\n"
        "def work(*a, **k):\n    os.kill(os.getpid(), signal.SIGHUP); return real(*a, **k)\n"
        "engine.work_through = work\n"
        f"cli.main(['convert', {str(llama)!r}, 'out', '--to', 'nxdt', '-q'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} == {"llama-hf", "out"}


@pytest.mark.parametrize("option", ["--version", "-V", "version"])
def test_the_version_is_printed(option, ckptc):
    done = ckptc(option)
    assert (done.code, done.out, done.err) == (0, f"ckptc {__version__}\n", "")
