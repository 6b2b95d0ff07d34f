"""gpt-oss as it is published, in MXFP4: transformers' own dequantised loading of it holds what ckptc writes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ckptc
from tests.held import same
from tests.plans.test_gpt_oss import VOCAB, published

from . import run

pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]


def test_transformers_decodes_the_same_model(tmp_path: Path) -> None:
    transformers = run.transformers()
    published(tmp_path / "mxfp4")
    ckptc.convert(tmp_path / "mxfp4", tmp_path / "hf", to="hf", verify=True)
    load = transformers.AutoModelForCausalLM.from_pretrained
    theirs = load(tmp_path / "mxfp4", quantization_config=transformers.Mxfp4Config(dequantize=True), dtype=torch.bfloat16, attn_implementation="eager").eval()
    ours, found = load(tmp_path / "hf", dtype=torch.bfloat16, attn_implementation="eager", output_loading_info=True)
    assert not any(found.values()), found
    assert same(theirs.state_dict(), load_file(tmp_path / "hf/model.safetensors"))
    with torch.no_grad():
        assert torch.equal(theirs(run.TOKENS % VOCAB).logits, ours.eval()(run.TOKENS % VOCAB).logits)
