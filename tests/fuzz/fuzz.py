"""`python -m tests.fuzz.fuzz [--seconds S] [--seed K] [TARGET...]`: mutated inputs go to every reader, within a time budget.

Each must be read or end in a diagnostic. Another exception, more than a gigabyte of memory, or more than ten seconds is a finding: the
input is kept in `--keep` (a folder), and the exit code is 1. Findings become cases of `tests/hostile`.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ckptc
from ckptc.library.mapping_files import families, shipped_names
from ckptc.runtime.journal import fingerprint, records
from ckptc.runtime.manifest.check import check_manifest
from tests.hostile import archive_cases, doors, text_cases, torch_cases
from tests.hostile.doors import DIAGNOSTICS, MOST_BYTES, MOST_SECONDS, llama

from .mutate import mutate

BATCH = 150  # inputs of a child process
SIZES = {"n": 6, "vocab": 96, "layer": 2, "hidden": 8, "group": 2, "share": 2, "dim": 4, "ffn": 8, "expert": 4, "expert_ffn": 4}  # of axes, where a model has them
UNSIZED = (  # mappings that these sizes, or Megatron, are not enough for
    "clip", "cohere", "cohere2", "dbrx", "exaone4", "gemma", "gemma2", "gemma3", "glm4", "glm4_moe", "glm4_moe_lite", "gpt2", "gpt_bigcode",
    "kimi_k2", "minimax_m2", "olmo2", "olmo3", "olmoe", "qwen2_moe", "qwen3_5", "qwen3_5_moe", "qwen3_next", "youtu",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """`seeds` are sound inputs: `read` takes each as it is. A mutated one is written to `file` in a folder that `prepare` filled, and
    `read` is given the folder. `odd` inputs are mutated, too, and need not be sound."""

    seeds: list[bytes]
    file: str
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: None
    odd: tuple[bytes, ...] = ()


def _tensors(path: Path) -> None:
    held = ckptc.open(path)
    for tensor in list(held)[:40]:
        tensor.read()


def _small_safetensors() -> bytes:
    header = b'{"__metadata__":{"a":"b"},"model.norm.weight":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]},"x":{"dtype":"U8","shape":[3],"data_offsets":[64,67]}}'
    return len(header).to_bytes(8, "little") + header + bytes(range(67))


def _copied(name: str, layout: str, skip: str) -> Callable[[Path], object]:
    """The demo's checkpoint in another format, all files linked but those called `skip`."""
    source = archive_cases.made(name, layout)

    def prepare(folder: Path) -> None:
        for path in sorted(source.rglob("*")):
            place = folder / path.relative_to(source)
            if path.is_dir():
                place.mkdir()
            elif path.name == skip:
                shutil.copy(path, place)
            else:
                place.symlink_to(path)

    return prepare


def _in(name: str, layout: str, file: str) -> tuple[str, bytes]:
    source = archive_cases.made(name, layout)
    path = sorted(source.rglob(file))[0]
    return path.relative_to(source).as_posix(), path.read_bytes()


def _linked(folder: Path) -> None:
    for path in llama().iterdir():
        if not path.name.endswith(".index.json"):
            (folder / path.name).symlink_to(path)


def _mapping(folder: Path) -> None:
    for family in families(folder / "x.ckmap")[:3]:
        names = [layout.name for layout in family.layouts]
        sizes = {axis.name: SIZES[axis.name] for axis in family.model.axes if axis.name in SIZES}
        from_, to = (next((name for name in wanted if name in names), "none") for wanted in (("hf", *names[:1]), ("megatron", *names[1:2])))
        ckptc.compile(folder / "x.ckmap", from_=from_, to=to, family=family.name, settings=sizes)


def _pickle(folder: Path) -> None:
    torch_cases.torch_file((folder / "p").read_bytes()[:5000])(folder)
    _tensors(folder / "pytorch_model.bin")


def _yaml(folder: Path) -> None:
    ckptc.compile("llama", from_="nemo", to="hf", config=folder / "c.yaml", settings={"vocab": 96})


def _journal(folder: Path) -> None:
    records.read(str(folder), [3, 5])


def targets() -> dict[str, Target]:
    folder = Path(tempfile.mkdtemp(prefix="ckptc-fuzz-", dir=llama().parent))
    zipped = torch_cases.torch_file(torch_cases.tensor(), "seed.bin")(folder).read_bytes()
    tar = archive_cases.members(({"name": "./model_weights.ckpt"}, zipped), ({"name": "./tokenizer.model"}, b"t"))(folder).read_bytes()
    metadata, described = _in("torch_dist", "megatron", ".metadata"), _in("zarr", "megatron", ".zarray")
    head = records.Head("0" * 64, (fingerprint.Source("/a", 1, 2, "0" * 64),))
    journal = records.line({"journal": 1, "plan": head.plan, "sources": []}) + records.line({"done": [[0, 1, 2], [1, 4, 5]]}) + records.line({"whole": True})
    ckptc.plan(llama(), to="nxdt").run(folder / "manifest", manifest=True)
    ckptc.plan(llama(), to="nemo").run(folder / "nemo")
    yaml = (folder / "nemo/model_config.yaml").read_bytes()
    small = [path for path in shipped_paths() if path.stat().st_size < 4000]
    mappings = [b'model m { axes { n }  w [n] }\nlayout a of m { "w" = w [n] }\nlayout b of m ( rank tp = 2 ) { files "r{tp}.pt"  format pt  "w" = w [pad(n, 4)/tp] }\n']
    mappings += [path.read_bytes() for path in small if path.stem not in UNSIZED]
    return {
        "safetensors": Target([_small_safetensors()], "model.safetensors", lambda f: _tensors(f / "model.safetensors")),
        "index": Target([(llama() / "model.safetensors.index.json").read_bytes()], "model.safetensors.index.json", _tensors, _linked),
        "torch": Target([zipped], "m.bin", lambda f: _tensors(f / "m.bin")),
        "pickle": Target([torch_cases.tensor()], "p", _pickle, odd=tuple(torch_cases._LIES.values())[-12:]),
        "tar": Target([tar], "x.nemo", lambda f: _tensors(f / "x.nemo")),
        "metadata": Target([metadata[1]], metadata[0], _tensors, _copied("torch_dist", "megatron", ".metadata")),
        "zarr": Target([described[1]], described[0], _tensors, _copied("zarr", "megatron", ".zarray")),
        "json config": Target([(llama() / "config.json").read_bytes()], "config.json", lambda f: doors.config(f / "config.json", f)),
        "yaml config": Target([yaml], "c.yaml", _yaml),
        "plan": Target([text_cases.sound_plan().encode()], "x.ckplan", lambda f: ckptc.load_plan(f / "x.ckplan")),
        "mapping": Target(mappings, "x.ckmap", _mapping, odd=tuple(path.read_bytes() for path in small if path.stem in UNSIZED)),
        "manifest": Target([(folder / "manifest/ckptc-manifest.json").read_bytes()], "ckptc-manifest.json", check_manifest),
        "journal": Target([journal], "journal", _journal),
    }


def shipped_paths() -> list[Path]:
    """The mapping files that ship."""
    return sorted((Path(ckptc.__file__).parent / "mappings").glob("*.ckmap"))


def read_seeds(target: Target) -> None:
    """Each seed as it is. What is wrong with one stops everything: mutations of what is refused at once would find nothing."""
    for seed in target.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            target.prepare(folder)
            place = folder / target.file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(seed)
            target.read(folder)


def batch(target: Target, chance: random.Random, until: float, keep: Path, name: str) -> tuple[int, str]:
    """Runs inputs in a child process: how many, and what went wrong with the last one, or ""."""
    seed = chance.randrange(1 << 62)
    reader, writer = os.pipe()
    folder = Path(tempfile.mkdtemp(prefix="ckptc-fuzz-"))
    process = os.fork()
    if process == 0:
        os.close(reader)
        _child(target, seed, until, folder, writer)
    os.close(writer)
    said = b""
    while part := os.read(reader, 1 << 16):
        said += part
    os.close(reader)
    _, status = os.waitpid(process, 0)
    count, _, wrong = said.decode(errors="replace").partition("#")
    done = count.count(".")
    if os.waitstatus_to_exitcode(status) == -signal.SIGALRM:
        wrong = f"more than {MOST_SECONDS} seconds"
    elif status and not wrong:
        wrong = f"the process ended with status {status}"
    if wrong:
        keep.mkdir(exist_ok=True)
        shutil.copy(folder / target.file, keep / f"{name.replace(' ', '-')}-{seed}-{done}")
    shutil.rmtree(folder, ignore_errors=True)
    return done, wrong


def _child(target: Target, seed: int, until: float, folder: Path, writer: int) -> None:
    chance = random.Random(seed)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    target.prepare(folder)
    place = folder / target.file
    place.parent.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    code, inputs = 0, [*target.seeds, *target.odd]
    for _ in range(BATCH):
        if time.monotonic() > until:
            break
        place.write_bytes(mutate(chance.choice(inputs), inputs, chance))
        signal.alarm(MOST_SECONDS)
        try:
            target.read(folder)
        except DIAGNOSTICS:
            pass
        except BaseException:
            os.write(writer, b"#" + traceback.format_exc()[-3000:].encode())
            code = 1
            break
        signal.alarm(0)
        os.write(writer, b".")
    os._exit(code)


def main() -> None:
    given = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[2])
    given.add_argument("--seconds", type=float, default=300.0)
    given.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    given.add_argument("targets", nargs="*")
    asked = given.parse_args()
    os.environ["CKPTC_NO_CACHE"] = "1"
    assert shipped_names()
    known = targets()
    names = asked.targets or list(known)
    chance = random.Random(asked.seed)
    print(f"seed {asked.seed}", flush=True)
    for name in names:  # what is imported now need not be by each child
        read_seeds(known[name])
    findings = 0
    for i, name in enumerate(names):
        until = time.monotonic() + asked.seconds / len(names)
        done, seen = 0, set[str]()
        while time.monotonic() < until:
            count, wrong = batch(known[name], chance, until, asked.keep, name)
            done += count + bool(wrong)
            last = wrong.strip().rpartition("\n")[2]
            if wrong and last not in seen:
                seen.add(last)
                print(f"{name}: {wrong}", flush=True)
        findings += len(seen)
        print(f"{i + 1:2} {name:12} {done:7} inputs {len(seen):3} findings", flush=True)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
