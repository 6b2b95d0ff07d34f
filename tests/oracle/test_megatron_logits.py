"""Megatron-core's own model, where it is installed, loaded from what is converted, gives transformers' logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from tests import real_megatron

from .megatron_cases import MEGATRON

TWIN = MEGATRON / "hf_v0.20dev_dense_tp1_fp32"
pytestmark = [
    pytest.mark.megatron,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not TWIN.is_dir(), reason=f"no oracle data: {MEGATRON} is absent"),
]


def network() -> Any:
    """The model of the oracle's twin, of Megatron-core's local layers, in float32 on the CPU."""
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_config import TransformerConfig

    config = TransformerConfig(
        num_layers=4, hidden_size=64, num_attention_heads=8, num_query_groups=2, ffn_hidden_size=176, gated_linear_unit=True,
        activation_func=torch.nn.functional.silu, normalization="RMSNorm", add_bias_linear=False, hidden_dropout=0.0, attention_dropout=0.0,
        use_cpu_initialization=True, params_dtype=torch.float32, bias_activation_fusion=False, masked_softmax_fusion=False,
        persist_layer_norm=False, gradient_accumulation_fusion=False, apply_rope_fusion=False, bias_dropout_fusion=False,
    )  # fmt: skip
    spec = get_gpt_layer_local_spec(normalization="RMSNorm")
    return GPTModel(config, spec, 128, 64, share_embeddings_and_output_weights=False, position_embedding_type="rope")


def test_the_logits_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_megatron.checkpointing()
    real_megatron.without_gpu(monkeypatch)
    ckptc.convert(TWIN, tmp_path / "out", to="megatron")
    wanted = torch.load(TWIN / "logits.pt", weights_only=True)
    tokens = wanted["tok"]
    mask = torch.triu(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool), 1)[None, None]
    with real_megatron.on_one_rank(tmp_path), torch.no_grad():
        model = network().eval()
        real_megatron.load(model, tmp_path / "out/release")
        logits = model(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), mask)
    assert logits.shape == wanted["logits"].shape
    assert (logits - wanted["logits"]).abs().max() < 1e-4
