"""Whatever is wrong with a checkpoint, a setting or a disk: one error that names it, and nothing left that looks like output."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from ckptc import Fault, MappingError
from tests.asked import asked

from .llama import Llama, read, to_nxdt, write

MODEL = Llama()
SHARD = "model-00002-of-00003.safetensors"
RANK = "model/dp_rank_00_tp_rank_01_pp_rank_00.pt"
Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("failures")
    made = {"safetensors": write(root / "safetensors", MODEL, shards=3), "bin": write(root / "bin", MODEL, kind="bin")}
    made["nxdt"] = to_nxdt(made["safetensors"], root / "nxdt", tp=3, pp=2)
    return made


@dataclass(frozen=True)
class Case:
    """`said` are texts that the error's title and notes hold."""

    code: str
    said: tuple[str, ...] = ()
    change: Change = lambda folder: None
    origin: str = "safetensors"
    options: dict[str, Any] = field(default_factory=dict)
    dst: Callable[[Path], Path] = lambda root: root / "out"


def config(**keys: Any) -> Change:
    def change(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text()) | keys
        (folder / "config.json").write_text(json.dumps({k: v for k, v in held.items() if v is not ...}))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def rewrite(folder: Path) -> None:
        held = read(folder)
        change(held)
        shutil.rmtree(folder)
        write(folder, MODEL, held, shards=3)

    return rewrite


def cut(name: str, size: int) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def lie(folder: Path) -> None:
    """One more row in the header than there are data for."""
    data = (folder / SHARD).read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    header["model.layers.1.mlp.up_proj.weight"]["shape"][0] += 1
    text = json.dumps(header).encode()
    (folder / SHARD).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n :])


def lie_in_torch(folder: Path) -> None:
    """Storages that are larger than their records."""
    data = (folder / "pytorch_model.bin").read_bytes()
    number = (72 * 48).to_bytes(2, "little")
    assert b"M" + number in data
    (folder / "pytorch_model.bin").write_bytes(data.replace(b"M" + number, b"M" + (72 * 49).to_bytes(2, "little")))


def remove(*names: str) -> Change:
    return lambda folder: [(folder / n).unlink() for n in names]


def taken(root: Path) -> Path:
    (root / "taken").mkdir()
    (root / "taken/thesis.txt").write_text("mine")
    return root / "taken"


def a_file(root: Path) -> Path:
    (root / "taken").write_text("mine")
    return root / "taken"


def below_a_file(root: Path) -> Path:
    return a_file(root) / "out"


def beside_config(root: Path) -> Path:
    return root / "hf"


UP = "model.layers.1.mlp.up_proj.weight"
HF = {"to": "hf"}
CASES = {
    # tensors
    "missing tensor": Case("missing-tensor", (UP,), tensors(lambda t: t.pop(UP))),
    "missing tensor of its kind": Case("missing-tensor", ("model.norm.weight",), tensors(lambda t: t.pop("model.norm.weight"))),
    "missing head, not tied": Case("missing-tensor", ("lm_head.weight",), tensors(lambda t: t.pop("lm_head.weight"))),
    "missing layer": Case("missing-tensor", ("model.layers.3.",), tensors(lambda t: [t.pop(n) for n in list(t) if ".3." in n])),
    "unknown tensor": Case("unknown-tensor", ("layers.1.self_attn.z_norm.weight",), tensors(lambda t: t.update({"model.layers.1.self_attn.z_norm.weight": torch.ones(10)}))),
    "layer beyond the config": Case("unknown-tensor", ("model.layers.4.mlp.up_proj.weight",), tensors(lambda t: t.update({"model.layers.4.mlp.up_proj.weight": torch.ones(84, 48)}))),
    "bias in one layer only": Case("missing-tensor", ("layers.0.self_attn.q_proj.bias",), tensors(lambda t: t.update({"model.layers.1.self_attn.q_proj.bias": torch.ones(60)}))),
    "wrong shape": Case("wrong-shape", (UP, "[83, 48]", "[84, 48]", SHARD), tensors(lambda t: t.update({UP: torch.ones(83, 48)}))),
    "transposed": Case("wrong-shape", (UP, "[48, 84]"), tensors(lambda t: t.update({UP: t[UP].T.contiguous()}))),
    "mixed dtypes": Case("mixed-dtypes", ("model.layers.1.mlp.gate_up_proj.weight", "bfloat16", "float32"), tensors(lambda t: t.update({UP: t[UP].float()})), options={"tp": 3}),
    "tied but different": Case("copies-differ", ("lm_head.weight", "model.embed_tokens.weight"), config(tie_word_embeddings=True)),
    # configs
    "larger vocab": Case("wrong-shape", ("model.embed_tokens.weight", "[73, 48]"), config(vocab_size=73)),
    "more layers": Case("missing-tensor", ("model.layers.4.",), config(num_hidden_layers=5)),
    "fewer layers": Case("unknown-tensor", ("model.layers.3.",), config(num_hidden_layers=3)),
    "millions of layers": Case("where-size", ("is 1000000",), config(num_hidden_layers=10**6)),
    "larger hidden": Case("wrong-shape", ("[72, 48]", "[72, 49]"), config(hidden_size=49)),
    "larger ffn": Case("wrong-shape", ("mlp.up_proj", "[85, 48]"), config(intermediate_size=85)),
    "more heads": Case("wrong-shape", ("self_attn.q_proj", "[90, 48]"), config(num_attention_heads=9)),
    "heads that do not divide": Case("uneven-division", ("7 does not divide by 3",), config(num_attention_heads=7)),
    "fewer groups": Case("wrong-shape", ("self_attn.k_proj", "[20, 48]"), config(num_key_value_heads=2)),
    "no groups, so as many as heads": Case("wrong-shape", ("self_attn.k_proj", "[60, 48]"), config(num_key_value_heads=...)),
    "other head_dim": Case("wrong-shape", ("self_attn.q_proj", "[66, 48]"), config(head_dim=11)),
    "no head_dim": Case("wrong-shape", ("self_attn.q_proj", "[48, 48]"), config(head_dim=...)),
    "attention biases that are not there": Case("missing-tensor", ("q_proj.bias",), config(attention_bias=True)),
    "mlp biases that are not there": Case("missing-tensor", ("gate_proj.bias",), config(mlp_bias=True)),
    "another model": Case("unknown-family", ("bitnet", "llama"), config(model_type="bitnet")),
    "no config": Case("no-config", ("config.json",), remove("config.json")),
    "broken config": Case("bad-config", ("config.json",), lambda f: (f / "config.json").write_text("{")),
    "config that is a list": Case("bad-config", ("config.json",), lambda f: (f / "config.json").write_text("[]")),
    "config that is binary": Case("bad-config", ("config.json",), lambda f: (f / "config.json").write_bytes(b"\xff\xfe")),
    "config elsewhere that is not there": Case("no-config", ("none/config.json",), options={"config": "/none/config.json"}),
    **{f"{key} is {value!r}": Case("bad-size", ("true" if value is True else repr(value),), config(**{key: value}))
       for key in ("vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size", "head_dim") for value in (0, -3, 7.0, "x", True, [3])},
    # files
    "truncated shard": Case("bad-safetensors", (SHARD,), cut(SHARD, -10)),
    "truncated header": Case("bad-safetensors", (SHARD,), cut(SHARD, 20)),
    "empty shard": Case("bad-safetensors", (SHARD,), cut(SHARD, 0)),
    "lying header": Case("bad-safetensors", (SHARD, UP), lie),
    "missing shard": Case("missing-file", (SHARD,), remove(SHARD)),
    "missing shard and index": Case("missing-file", ("2 of 3 shards",), remove(SHARD, "model.safetensors.index.json")),
    "truncated torch file": Case("bad-torch-zip", ("pytorch_model.bin",), cut("pytorch_model.bin", -100), "bin"),
    "lying torch file": Case("bad-pickle", ("pytorch_model.bin", "model.embed_tokens.weight"), lie_in_torch, "bin"),
    "truncated rank file": Case("bad-torch-zip", (RANK,), cut(RANK, -100), "nxdt", HF),
    "missing rank file": Case("missing-file", (RANK,), remove(RANK), "nxdt", HF),
    "missing stage": Case("missing-tensor", ("model.layers.2.",), remove(*(f"model/dp_rank_00_tp_rank_0{i}_pp_rank_01.pt" for i in range(3))), "nxdt", HF),
    "missing slice": Case("wrong-shape", ("model.embed_tokens.weight",), remove(*(f"model/dp_rank_00_tp_rank_02_pp_rank_0{i}.pt" for i in range(2))), "nxdt", HF),
    "extra rank file": Case("missing-file", ("tp_rank_03_pp_rank_01",), lambda f: shutil.copy(f / RANK, f / "model/dp_rank_00_tp_rank_03_pp_rank_00.pt"), "nxdt", HF),
    "extra data parallel file": Case("extra-file", ("dp_rank_01",), lambda f: shutil.copy(f / RANK, f / "model/dp_rank_01_tp_rank_00_pp_rank_00.pt"), "nxdt", HF),
    "no such source": Case("no-checkpoint", ("does not exist",), shutil.rmtree),
    "empty source": Case("no-checkpoint", (), lambda f: (shutil.rmtree(f), f.mkdir())),
    # settings
    "tp that does not divide": Case("unmet-requirement", (), options={"tp": 5}),
    "tp that does not divide the ffn": Case("uneven-split", ("ffn", "(84)"), options={"tp": 9, "kv_multiplier": 3, "qkv": "linear", "group": 3, "hw": "trn2_converter"}),
    "negative tp": Case("bad-degree", ("tp",), options={"tp": -1}),
    "tp that is no number": Case("wrong-type", ("tp",), options={"tp": "x"}),
    "more stages than layers": Case("uneven-stages", ("layer", "(4)"), options={"pp": 5}),
    "more virtual stages than layers": Case("uneven-stages", ("layer", "(4)"), options={"pp": 2, "vpp": 3}),
    "kv_multiplier without tp": Case("unmet-requirement", (), options={"kv_multiplier": 2}),
    "kv_multiplier beyond the share": Case("uneven-refinement", ("share",), options={"tp": 12, "kv_multiplier": 4}),
    "kv_multiplier with split projections": Case("unmet-requirement", (), options={"tp": 3, "kv_multiplier": 3, "qkv": "split"}),
    "unknown parameter": Case("unknown-parameter", ("tpp",), options={"tpp": 2}),
    "unknown choice": Case("unknown-choice", ("linaer",), options={"qkv": "linaer"}),
    "unknown layout": Case("unknown-layout", ("nxtd",), options={"to": "nxtd"}),
    "unknown family": Case("unknown-family", ("lama",), options={"family": "lama"}),
    "wrong source layout": Case("unknown-layout", ("nxdt",), options={"from_": "nxdt"}),
    "unknown mapping": Case("no-mapping", ("nope",), options={"mapping": "nope"}),
    "unknown format": Case("unknown-format", ("bin",), options={"format": "bin"}),
    "unknown dtype": Case("unknown-dtype", ("int32",), options={"dtype": "int32"}),
    "wrong degree of the source": Case("degree-disagrees", ("tp = 3",), origin="nxdt", options={**HF, "from_settings": {"tp": 2}}),
    "stages that lack a layer": Case("wrong-stages", ("layer",), options={"pp": 2, "stages": [[0, 1], [2]]}),
    "stages with a layer twice": Case("wrong-stages", ("layer",), options={"pp": 2, "stages": [[0, 1], [1, 2, 3]]}),
    "stages beyond the layers": Case("wrong-stages", ("layer",), options={"pp": 2, "stages": [[0, 1], [2, 3, 4]]}),
    "negative layer": Case("wrong-stages", ("layer",), options={"pp": 2, "stages": [[0, 1], [2, 3, -1]]}),
    "other number of stages": Case("wrong-stages", ("pp = 2",), options={"pp": 2, "stages": [[0, 1, 2, 3]]}),
    "stages that are no text of any form": Case("bad-stages", ("a-b",), options={"pp": 2, "stages": "a-b"}),
    "a layout of other layers": Case("wrong-stages", ("have 5 layers",), options={"pp": 2, "stages": "Ett|tttL"}),
    "a layout of other stages": Case("wrong-stages", ("are 3 chunks",), options={"pp": 2, "stages": "Ett|t|tL"}),
    "a layout with the output first": Case("bad-stages", ("Lt",), options={"pp": 2, "stages": "Lt|tttE"}),
    "stages where there are none": Case("no-stages", ("hf",), options={**HF, "stages": [[0, 1], [2, 3]]}),
    "too little memory": Case("memory-too-small", (), options={"memory": 10}),
    "memory that is no size": Case("bad-size", ("lots",), options={"memory": "lots"}),
    "no shard size": Case("bad-size", ("0",), options={**HF, "max_shard_size": 0}),
    "no workers": Case("bad-workers", ("0",), options={"workers": 0}),
    # destinations
    "taken destination": Case("destination-exists", ("taken",), dst=taken),
    "destination that is a file": Case("destination-exists", ("taken",), dst=a_file),
    "destination below a file": Case("write-failed", ("taken",), dst=below_a_file),
    "destination is the source": Case("source-in-destination", ("source",), dst=lambda root: root / "source"),
    "overwriting the source": Case("source-in-destination", ("source",), dst=lambda root: root / "source", options={"overwrite": True}),
    "overwriting what holds the source": Case("source-in-destination", ("source",), dst=lambda root: root, options={"overwrite": True}),
    "destination inside the source": Case("destination-in-source", ("source",), dst=lambda root: root / "source/out"),
}  # fmt: skip


def listing(root: Path) -> dict[str, bytes | None]:
    return {p.relative_to(root).as_posix(): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


def sentences(error: MappingError | Fault) -> tuple[set[str], str]:
    """The codes, and all that is said."""
    if isinstance(error, Fault):
        return {error.code}, "\n".join((error.title, *error.notes))
    found = error.diagnostics
    return {d.code for d in found}, "\n".join(text for d in found for text in (d.title, *d.notes))


@pytest.mark.parametrize("name", CASES)
def test_one_error_names_what_is_wrong_and_nothing_is_left(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    case = CASES[name]
    source = tmp_path / "source"
    shutil.copytree(sources[case.origin], source)
    if case.origin == "nxdt":
        shutil.copy(sources["safetensors"] / "config.json", tmp_path)
    case.change(source)
    dst = case.dst(tmp_path)
    options = {"to": "nxdt", **({"config": tmp_path / "config.json"} if case.origin == "nxdt" else {}), **case.options}
    before = listing(tmp_path)
    with pytest.raises((MappingError, Fault)) as error:
        ckptc.convert(source, dst, **asked(**options))
    codes, said = sentences(error.value)
    assert codes == {case.code}
    for text in case.said:
        assert text in said
    assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_one_fault(sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("ckptc.runtime.engine.destination.tempfile.mkdtemp", refuse)
    with pytest.raises(Fault, match=r"write-failed.*Permission denied"):
        to_nxdt(sources["safetensors"], tmp_path / "out")
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("call", ["pwritev", "pwrite", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_while_it_is_written_is_one_fault(call: str, number: int, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, real = [], getattr(os, call)

    def fail(*arguments: Any, **options: Any) -> Any:
        writing = call != "open" or (len(arguments) > 1 and arguments[1] & os.O_CREAT)
        if writing and str(tmp_path / ".out") in str(arguments[0]) + os.readlink(f"/proc/self/fd/{arguments[0]}" if isinstance(arguments[0], int) else "/proc/self/exe"):
            done.append(1)
            if len(done) > 1 or call == "open":
                raise OSError(number, os.strerror(number))
            if call == "pwrite":
                return real(*arguments, **options)
        return real(*arguments, **options)

    if call == "pwrite":  # pwrite finishes what pwritev began
        whole = os.pwritev
        monkeypatch.setattr(os, "pwritev", lambda fd, vectors, at: whole(fd, [memoryview(b"".join(vectors))[:1]], at))
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Fault) as fault:
        to_nxdt(sources["safetensors"], tmp_path / "out", tp=3)
    assert fault.value.code == ("disk-full" if number == errno.ENOSPC else "write-failed")
    assert "tp_rank_0" in fault.value.title
    monkeypatch.undo()
    assert listing(tmp_path) == {}


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptc.runtime.engine.destination.free_bytes", lambda path: 1000)
    with pytest.raises(Fault, match="disk-full"):
        to_nxdt(sources["safetensors"], tmp_path / "out")
    assert listing(tmp_path) == {}


def test_an_interruption_leaves_nothing_behind(sources: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys, time, ckptc, ckptc.runtime.engine.fill as f\n"
        "real = f.Filler.fill\n"
        "def slow(*a):\n    print('busy', flush=True); time.sleep(0.2); real(*a)\n"
        "f.Filler.fill = slow\n"
        f"ckptc.convert({str(sources['safetensors'])!r}, {str(tmp_path / 'out')!r}, to='nxdt', tp=3, memory=20_000)\n"
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline().startswith("busy")  # two threads may print at once
        assert any(p.name.startswith(".out.partial") for p in tmp_path.iterdir())
        time.sleep(0.1)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode != 0
        assert stderr.rstrip().endswith("KeyboardInterrupt")
        assert listing(tmp_path) == {}


def test_an_overwritten_destination_stays_whole_when_the_run_fails(sources: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(sources["safetensors"], tmp_path / "source")
    config(tie_word_embeddings=True)(tmp_path / "source")
    to_nxdt(sources["safetensors"], tmp_path / "out", tp=3)
    before = listing(tmp_path)
    with pytest.raises(Fault, match="copies-differ"):
        to_nxdt(tmp_path / "source", tmp_path / "out", tp=3, overwrite=True)
    assert listing(tmp_path) == before
