"""Llama from HuggingFace to NeMo 1 and back: every case of the oracle, its configuration and its archive."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ckptc

from .nemo_cases import ORACLE, Case, Held, contents

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

IMPORTS = {path.name: "nemo" if "mcore" in path.name else "nemo-legacy" for path in sorted(ORACLE.glob("hf_llama_*_to_nemo_*"))}
BACK = "nemo_mcore_to_hf_llama_gqa_v123"
INV_FREQ = "model.language_model.rotary_pos_emb.inv_freq"

# Where the files differ from the reference's memory: the archive is made without NeMo, so the run's own settings are
# those of the framework's default file, and its version and class stand in the config as in an archive that it saves.
OURS = {"nemo_version", "target", "tokenizer", "megatron_amp_O2"}
V24 = {"restore_from_path", "micro_batch_size", "apply_rope_fusion", "seq_len_interpolation_factor", "restore_from_ckpt"}


def expected(case: Case) -> dict[str, Held]:
    found = {t["name"]: (tuple(t["shape"]), t["dtype"], t.get("correct_sha256") or t["sha256"]) for t in case.spec["tensors"]}
    return {name.replace("model.module.", "model."): held for name, held in found.items()}  # O2 wraps the model in memory only


def folder(case: Case, place: Path) -> Path:
    place.mkdir()
    shutil.copy(case.folder / "hf_model.safetensors", place / "model.safetensors")
    shutil.copy(case.folder / "config.json", place / "config.json")
    (place / "tokenizer.model").write_bytes(b"pieces")
    return place


def unpacked(archive: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, bytes]]:
    """The weights, the configuration and the other members, as tarfile and torch read them."""
    with tarfile.open(archive) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    weights = torch.load(io.BytesIO(members.pop("./model_weights.ckpt")), weights_only=True)
    return weights, yaml.safe_load(members.pop("./model_config.yaml")), members


def test_all_imports_are_here() -> None:
    assert len(IMPORTS) == 5
    assert set(IMPORTS.values()) == {"nemo", "nemo-legacy"}


@pytest.mark.parametrize("name", IMPORTS)
def test_import_equals_the_reference(name: str, tmp_path: Path) -> None:
    case = Case(name)
    half = "fp16" in name
    ckptc.plan(
        folder(case, tmp_path / "hf"), to=IMPORTS[name], settings={"precision": "16" if half else "32"}, dtype="float16" if half else None
    ).run(tmp_path / "out.nemo")  # fmt: skip
    found = {t: held for (_, t), held in contents(tmp_path / "out.nemo").items()}
    inv_freq = None if INV_FREQ in expected(case) else found.pop(INV_FREQ, None)
    assert found == expected(case)
    weights, config, artifacts = unpacked(tmp_path / "out.nemo")
    if inv_freq is not None:
        # the legacy model registers it; by the formula of the rotary embedding, independent of ours
        dim = config["hidden_size"] // config["num_attention_heads"]
        assert torch.allclose(weights[INV_FREQ].double(), 10000.0 ** -(torch.arange(0, dim, 2).double() / dim), rtol=1e-6, atol=0)
    want = yaml.safe_load((case.folder / "nemo_config_after_load_config.yaml").read_text())
    differs = {k for k in config.keys() | want.keys() if config.get(k) != want.get(k)}
    assert differs <= (OURS | V24 if "v24" in name else OURS)
    [(artifact, content)] = artifacts.items()
    assert config["tokenizer"]["model"] == f"nemo:{artifact.removeprefix('./')}"
    assert content == b"pieces"
    assert {k: v for k, v in config["tokenizer"].items() if k != "model"} == {k: v for k, v in want["tokenizer"].items() if k != "model"}


@pytest.mark.parametrize("name", IMPORTS)
def test_back_again_holds_what_was_there(name: str, tmp_path: Path) -> None:
    case = Case(name)
    source = folder(case, tmp_path / "hf")
    ckptc.plan(source, to=IMPORTS[name], tp=2, pp=2).run(tmp_path / "out.nemo")
    vocab = json.loads((source / "config.json").read_text())["vocab_size"]
    ckptc.plan(tmp_path / "out.nemo", to="hf", settings={"vocab": vocab}).run(tmp_path / "back")
    back = load_file(tmp_path / "back/model.safetensors")
    there = {k: v for k, v in load_file(source / "model.safetensors").items() if "inv_freq" not in k}
    assert {k for k in back if "inv_freq" not in k} == set(there)
    assert all(torch.equal(back[k].view(torch.uint8), v.view(torch.uint8)) for k, v in there.items())
    assert (tmp_path / "back/tokenizer.model").read_bytes() == b"pieces"


def test_export_equals_the_reference(tmp_path: Path) -> None:
    case = Case(BACK)
    source = tmp_path / "nemo"
    source.mkdir()
    torch.save(load_file(case.folder / "nemo_model_weights.safetensors"), source / "model_weights.ckpt")
    llama = {
        "activation": "fast-swiglu", "normalization": "rmsnorm", "bias": False, "mcore_gpt": True, "position_embedding_type": "rope",
        "share_embeddings_and_output_weights": False, "make_vocab_size_divisible_by": 2,
    }  # fmt: skip
    (source / "model_config.yaml").write_text(yaml.safe_dump(case.model | llama))
    ckptc.plan(source, to="hf").run(tmp_path / "out")
    assert {t: held for (_, t), held in contents(tmp_path / "out").items()} == expected(case)
