"""Models of transformers' own classes go to every layout that holds them, and back: tensors, config and logits are the same.
Megatron-core's own model, loaded strictly from what is written, computes what transformers' does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ckptc
from ckptc.library import mapping_files as library
from tests import real_megatron

from . import run
from .models import ALL, MODELS, NOT_MADE, VOCAB, Model

pytestmark = pytest.mark.filterwarnings("ignore")
each = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
WHOLE = ("megatron", "nemo-dist", "nemo2")  # distributed checkpoints have no degrees
SAID = ("nemo", "nemo-dist", "nemo-legacy")  # layouts whose own config says the model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats are the same in one order alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_family_has_a_row() -> None:
    families = {family.name for family in library.families(None) if any(layout.own_config for layout in family.layouts)} - {"decoder"}
    assert {model.family for model in MODELS} | NOT_MADE.keys() == families


@pytest.mark.transformers
@each
def test_a_model_of_transformers_goes_to_each_layout_and_back(model: Model, tmp_path: Path) -> None:
    made = run.make(model, tmp_path / "hf")
    weights, wanted = load_file(tmp_path / "hf/model.safetensors"), run.logits(made)
    for to in ALL:
        there, back = tmp_path / to, tmp_path / f"{to}-hf"
        accept = model.accept if to.startswith("megatron") else model.accept_nemo2 if to == "nemo2" else ()
        degrees = {} if to in WHOLE else {"tp": model.tp, "pp": 1 if to == "nemo-legacy" else 2}
        if to not in model.held:
            with pytest.raises(ckptc.MappingError):
                ckptc.plan(tmp_path / "hf", to=to, **degrees)
            continue
        for unsaid in accept:
            with pytest.raises(ckptc.MappingError, match=f"cannot say that {unsaid} is"):
                ckptc.plan(tmp_path / "hf", to=to, accept=[name for name in accept if name != unsaid], **degrees)
        ckptc.convert(tmp_path / "hf", there, to=to, accept=accept, **degrees)
        if to in SAID:
            ckptc.convert(there, back, to="hf", family=model.family, settings={"vocab": VOCAB})
        else:
            order = {"qkv_order": "heads"} if to == "nxdt-megatron" else {}
            ckptc.convert(there, back, to="hf", config=tmp_path / "hf/config.json", from_settings=order)
        found = load_file(back / "model.safetensors")
        assert found.keys() == weights.keys(), to
        assert [name for name, x in weights.items() if not torch.equal(x, found[name])] == [], to
        again = run.load(back, model)
        assert type(again) is type(made)
        assert torch.equal(run.logits(again), wanted), to


@pytest.mark.transformers
@each
def test_the_config_that_is_written_of_a_model_is_that_model(model: Model, tmp_path: Path) -> None:
    made, folder = run.make(model, tmp_path / "hf"), tmp_path / "hf"
    ids = {key: value for key, value in json.loads((folder / "config.json").read_text()).items() if key.endswith("_token_id")}  # the tokenizer's
    ckptc.convert(folder, tmp_path / "out", to="hf")
    (tmp_path / "out/config.json").write_text(json.dumps(json.loads(run.written_config(folder)) | ids))
    again = run.load(tmp_path / "out", model)
    assert type(again) is type(made)
    assert torch.equal(run.logits(again), run.logits(made))
    assert set(load_file(tmp_path / "out/model.safetensors")) == set(load_file(folder / "model.safetensors"))


@pytest.mark.transformers
@pytest.mark.megatron
@each
def test_megatron_core_computes_what_transformers_does(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(model.core, str):
        pytest.skip(model.core)
    made = run.make(model, tmp_path / "hf")
    real_megatron.checkpointing()
    real_megatron.without_gpu(monkeypatch)
    monkeypatch.setattr("megatron.core.transformer.multi_latent_attention.HAVE_TE", False)  # true without it in some releases
    monkeypatch.setattr("megatron.core.transformer.moe.moe_utils.te_general_gemm", None, raising=False)
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron", settings={"spec": "local"}, accept=model.accept)
    with real_megatron.on_one_rank(tmp_path), torch.compiler.set_stance("force_eager"):
        network = run.megatron_core(model.core, made.config)
        real_megatron.load(network, tmp_path / "out/release")
        difference = (run.core_logits(network) - run.logits(made)).abs().max()
    assert difference < 1e-4
