"""Megatron-core's module of linear attention, filled from a distributed checkpoint that ckptc wrote, computes what transformers' does.

The model of which it is a layer needs Transformer Engine and a GPU. The module runs on the CPU with a local linear layer and a
plain norm, which hold their weights under the same names; the norm before it is the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize, rms_norm

import ckptc
from tests import real_megatron
from tests.held import read

from . import run
from .models import MODELS

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.transformers, pytest.mark.megatron]
ROWS = [model for model in MODELS if model.name in ("qwen3_next", "qwen3_5", "qwen3_5_moe")]


class Norm(torch.nn.Module):
    """A norm whose weight is stored around zero."""

    def __init__(self, hidden_size: int, eps: float, **_: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(hidden_size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.weight.shape, 1 + self.weight, self.eps)


def module_of(config: Any) -> Any:
    from megatron.core.models.backends import LocalSpecProvider
    from megatron.core.process_groups_config import ProcessGroupCollection
    from megatron.core.ssm.gated_delta_net import GatedDeltaNet, GatedDeltaNetSubmodules
    from megatron.core.transformer.transformer_config import TransformerConfig

    names = ("linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim", "linear_num_key_heads", "linear_num_value_heads")
    own = TransformerConfig(
        num_layers=1, hidden_size=config.hidden_size, num_attention_heads=config.num_attention_heads, layernorm_epsilon=config.rms_norm_eps, normalization="RMSNorm",
        activation_func=torch.nn.functional.silu, experimental_attention_variant="gated_delta_net", linear_attention_freq=4, deterministic_mode=True, use_cpu_initialization=True,
        params_dtype=torch.float32, perform_initialization=False, gradient_accumulation_fusion=False, add_bias_linear=False, **{name: getattr(config, name) for name in names},
    )  # fmt: skip
    local = LocalSpecProvider()
    parts = GatedDeltaNetSubmodules(in_proj=local.column_parallel_linear(), out_norm=Norm, out_proj=local.row_parallel_linear())
    return GatedDeltaNet(own, parts, 1, pg_collection=ProcessGroupCollection.use_mpu_process_groups()).eval()


@pytest.mark.parametrize("model", ROWS, ids=lambda model: model.name)
def test_megatron_core_s_linear_attention_computes_what_transformers_does(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_megatron.checkpointing()
    gated = pytest.importorskip("megatron.core.ssm.gated_delta_net")
    made = run.make(model, tmp_path / "hf")
    real_megatron.without_gpu(monkeypatch)
    monkeypatch.setattr(gated, "HAVE_FLA", True)
    monkeypatch.setattr(gated, "l2norm", lambda x, **_: normalize(x, dim=-1, eps=1e-3), raising=False)
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron")
    layer = made.model.layers[1]
    states = torch.randn(2, 17, made.config.hidden_size, generator=torch.Generator().manual_seed(7))
    with real_megatron.on_one_rank(tmp_path), torch.compiler.set_stance("force_eager"), torch.no_grad():
        module = module_of(made.config)
        prefix = "decoder.layers.1.self_attention."
        wanted = {name: x for name, x in module.sharded_state_dict(prefix).items() if not name.endswith("_extra_state")}
        loaded = real_megatron.checkpointing().load(wanted, str(tmp_path / "out/release"))
        left = module.load_state_dict({name.removeprefix(prefix): x for name, x in loaded.items() if name.startswith(prefix)}, strict=False)
        before = read(tmp_path / "out")[f"{prefix}in_proj.layer_norm_weight"]
        normed = rms_norm(states, before.shape, 1 + before, made.config.rms_norm_eps)
        found = module(normed.transpose(0, 1), None)[0].transpose(0, 1)
        expected = layer.linear_attn(layer.input_layernorm(states))
    assert not [name for name in (*left.missing_keys, *left.unexpected_keys) if not name.endswith("_extra_state")]
    assert (found - expected).abs().max() < 1e-4
    assert expected.abs().max() > 1e-2
