"""What the benchmark runs: for each framework the way there and back, by ckptc and, where one is written, by plain torch."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TP, PP, KV_MULTIPLIER = 4, 2, 2
HERE = Path(__file__).resolve().parent
OWN = [sys.executable, "-m", "ckptc", "convert"]


@dataclass(frozen=True)
class Run:
    """One row: what it writes, the command, the row of plain torch that does the same, and the most that it may take of
    `cp -r` (0: no target)."""

    name: str
    out: Path
    command: list[str]
    beside: str = ""
    target: float = 0.0


def back(root: Path, source: Path, name: str, *options: str, beside: str = "", target: float) -> Run:
    config = str(root / "hf" / "config.json")
    return Run(f"{name} to HF", root / f"hf-from-{name}", [*OWN, str(source), str(root / f"hf-from-{name}"), "--to", "hf", "--config", config, *options], beside, target)


def nxdt(root: Path, layers: int, target: float) -> list[Run]:
    hf, own, plain = root / "hf", root / "nxdt", root / "nxdt-torch"
    numbers = [str(n) for n in (TP, PP, KV_MULTIPLIER, layers)]
    script = [sys.executable, str(HERE / "plain_torch.py")]
    there = ["--to", "nxdt", "--tp", str(TP), "--pp", str(PP), "--set", f"kv_multiplier={KV_MULTIPLIER}"]
    return [
        Run("HF to nxdt", own, [*OWN, str(hf), str(own), *there], "torch HF to nxdt", target),
        Run("torch HF to nxdt", plain, [*script, "to-ranks", str(hf), str(plain), *numbers]),
        back(root, own, "nxdt", "--from-set", f"kv_multiplier={KV_MULTIPLIER}", "--from-set", "hw=trn1", beside="torch nxdt to HF", target=target),
        Run("torch nxdt to HF", root / "hf-torch", [*script, "to-hf", str(own), str(root / "hf-torch"), *numbers]),
    ]


def megatron(root: Path, layers: int, target: float) -> list[Run]:
    hf, own, plain = root / "hf", root / "torch_dist", root / "torch_dist-torch"
    script = [sys.executable, str(HERE / "plain_dist.py")]
    return [
        Run("HF to torch_dist", own, [*OWN, str(hf), str(own), "--to", "megatron"], "torch HF to torch_dist", target),
        Run("torch HF to torch_dist", plain, [*script, "to-dist", str(hf), str(plain), str(layers)]),
        back(root, own, "torch_dist", beside="torch torch_dist to HF", target=target),
        Run("torch torch_dist to HF", root / "hf-torch", [*script, "to-hf", str(plain), str(root / "hf-torch"), str(layers)]),
    ]


def legacy(root: Path, layers: int, target: float) -> list[Run]:
    hf, own = root / "hf", root / "legacy"
    there = ["--to", "megatron-legacy", "--tp", str(TP), "--pp", str(PP)]
    return [Run("HF to legacy", own, [*OWN, str(hf), str(own), *there], target=target), back(root, own, "legacy", target=target)]


def nemo(root: Path, layers: int, target: float) -> list[Run]:
    hf, own = root / "hf", root / "model.nemo"
    return [Run("HF to nemo", own, [*OWN, str(hf), str(own), "--to", "nemo", "--tp", "2"], target=target), back(root, own, "nemo", target=target)]


def renamed(root: Path, layers: int, target: float) -> list[Run]:
    """Nothing but other files: at most what `cp` takes, at any size. The peer loads and saves."""
    hf, own, peer = root / "hf", root / "hf-again", root / "hf-transformers"
    runs = [Run("HF to HF", own, [*OWN, str(hf), str(own), "--to", "hf"], target=1.0)]
    if version("transformers"):
        runs.append(Run("transformers HF to HF", peer, [sys.executable, str(HERE / "peer_transformers.py"), str(hf), str(peer)]))
    return runs


FRAMEWORKS: dict[str, Callable[[Path, int, float], list[Run]]] = {
    "nxdt": nxdt, "megatron": megatron, "megatron-legacy": legacy, "nemo": nemo, "hf": renamed,
}  # fmt: skip


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def peers() -> str:
    """Which peers run, with their versions, and why the others do not."""
    found = version("transformers")
    lines = [
        f"torch {version('torch')} and torch.distributed.checkpoint: the rows that begin with `torch`",
        f"transformers {found}: from_pretrained and save_pretrained" if found else "transformers: not installed (pip install transformers), so it does not run",
        "mergekit: its passthrough merges HuggingFace checkpoints into HuggingFace checkpoints, and makes no layout of ranks, so it does not run",
    ]
    return "\n".join(f"peer: {line}" for line in lines)
