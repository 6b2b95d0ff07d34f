"""How hostile inputs get in: each door is a function of a folder and an output place, which ends in a diagnostic if all is well."""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ckptc
from ckptc import failure
from ckptc.demo import write_llama
from ckptc.failure import UsageError
from ckptc.library.mapping_files import families

MOST_BYTES, MOST_SECONDS, MOST_LETTERS = 1 << 30, 10, 8000
DIAGNOSTICS = (ckptc.Fault, ckptc.MappingError, UsageError)
CANARY = "canary"  # what hostile code would make

Make = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """`make` writes the input into a folder and gives its path; `door` lets it in. What it ends in stands in reasons.py."""

    make: Make
    door: Callable[[Path, Path], object]


@cache
def llama() -> Path:
    """A sound checkpoint, to be damaged."""
    folder = Path(tempfile.mkdtemp(prefix="ckptc-hostile-"))
    atexit.register(shutil.rmtree, folder, True)
    write_llama(folder / "hf")
    return folder / "hf"


def convert(path: Path, out: Path, to: str = "nxdt") -> None:
    """A checkpoint with the demo's config."""
    held = ckptc.open(path)
    for tensor in held:
        tensor.read()
    ckptc.plan(path, to=to, config=llama() / "config.json").run(out)


def archive(path: Path, out: Path) -> None:
    """A `.nemo` archive with its own config."""
    ckptc.plan(path, to="hf", settings={"vocab": 96}).run(out)


def config(path: Path, out: Path) -> None:
    ckptc.compile("llama", from_="hf", to="nxdt", config=path)


def nemo_config(path: Path, out: Path) -> None:
    ckptc.compile("llama", from_="nemo", to="hf", config=path, settings={"vocab": 96})


def own_config(path: Path, out: Path) -> None:
    """A folder with the demo's weights and a config of its own."""
    for each in llama().iterdir():
        if not (path / each.name).exists():
            (path / each.name).symlink_to(each)
    ckptc.plan(path, to="nemo").run(out)


def saved_plan(path: Path, out: Path) -> None:
    ckptc.load_plan(path).run(out, source=llama())


def mapping(path: Path, out: Path) -> None:
    families(path)
    ckptc.compile(path, from_="a", to="b", settings={"n": 6})


def tokenizer(path: Path, out: Path) -> None:
    ckptc.add_special_tokens(path, out, ["<x>"])


def run(case: Case, folder: Path) -> dict[str, Any]:
    """What became of a case, in a process of its own that has a gigabyte and ten seconds more."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        os.write(writer, json.dumps(_within(case, folder)).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    said = b""
    while part := os.read(reader, 1 << 16):
        said += part
    os.close(reader)
    _, status = os.waitpid(process, 0)
    left = sorted(p.name for p in folder.rglob(CANARY))
    return {**(json.loads(said) if said else {"kind": f"ended with status {status}"}), "canary": left, "out": (folder / "out").exists()}


def _within(case: Case, folder: Path) -> Mapping[str, Any]:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    os.chdir(folder)
    path = case.make(folder)
    began = time.monotonic()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(MOST_SECONDS)
        case.door(path, folder / "out")
        said = {"kind": "read", "text": "", "code": "read", "title": ""}
    except DIAGNOSTICS as fault:
        text = failure.text(fault)
        first = fault.diagnostics[0] if isinstance(fault, ckptc.MappingError) else fault
        said = {"kind": "diagnostic" if len(text) <= MOST_LETTERS else "long diagnostic", "text": text[:MOST_LETTERS], "code": first.code, "title": first.title[:1000]}
    except BaseException as problem:
        import traceback

        said = {"kind": type(problem).__name__, "text": "".join(traceback.format_exception(problem))[-3000:]}
    return {**said, "seconds": time.monotonic() - began}


def main() -> None:
    """Runs the cases named on standard input, one a line, and prints a line of JSON for each."""
    from . import archive_cases, text_cases
    from .cases import CASES

    with tempfile.TemporaryDirectory(prefix="ckptc-hostile-") as folder:  # what is imported now need not be by each child
        convert(llama(), Path(folder, "out"))
        saved_plan(text_cases.file("x.ckplan", text_cases.sound_plan())(Path(folder)), Path(folder, "out2"))
        nemo_config(text_cases.yaml()(Path(folder)), Path(folder))
        mapping(text_cases.file("x.ckmap", text_cases._MODEL % '"w" = w [n]')(Path(folder)), Path(folder))
        for each in archive_cases.SOUND.items():
            archive_cases.made(*each)
    for name in map(str.strip, sys.stdin):
        with tempfile.TemporaryDirectory(prefix="ckptc-hostile-") as folder:
            print(json.dumps({"name": name, **run(CASES[name], Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
