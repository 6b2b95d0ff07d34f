"""The real megatron-core, where it is installed, loads the torch_dist checkpoints that are written here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from ckptc.runtime.engine import engine
from ckptc.runtime.plan.plan import Plan, Stored
from tests import real_megatron

from .distributed_plans import OBJECT_KEYS, Axes, Tensors, bound_to, copying, family, model, stacked, with_objects

pytestmark = [pytest.mark.megatron, pytest.mark.filterwarnings("ignore")]
LAYERS = (("layer", 3),)
HIDDEN, HEADS, GROUPS, FFN, VOCAB, EXPERTS = 48, 6, 2, 88, 96, 5


@pytest.fixture(scope="module")
def mcore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """megatron.core.dist_checkpointing, in a process group of one."""
    found = real_megatron.checkpointing()
    with real_megatron.on_one_rank(tmp_path_factory.mktemp("group")):
        yield found


def test_sharded_tensors_and_objects_load_in_default_strict_mode(mcore: Any, tmp_path: Path) -> None:
    families, tensors = model()
    engine.run(bound_to(with_objects(copying(families, "torch_dist")), tensors, tmp_path, 5_000), tmp_path / "out", workers=2)
    asked: dict[str, Any] = {}
    for name, tensor in tensors.items():
        indices = [int(i) for i in re.findall(r"\[(\d)\]", name)]
        where = [(axis, i, extent) for axis, (i, extent) in enumerate(zip(indices, (4, 3), strict=False))]
        key, empty = re.sub(r"\[\d\]", "", name), torch.full_like(tensor, 7)
        asked[name] = mcore.ShardedTensor.from_rank_offsets(key, empty, *where, prepend_axis_num=len(where))
    objects = {key: mcore.mapping.ShardedObject.empty_from_unique_key(key) for key in OBJECT_KEYS}
    asked.update((key, replace(each, data=b"?")) for key, each in objects.items())
    loaded = mcore.load(asked, str(tmp_path / "out"))
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name
    assert all(loaded[key] is None for key in OBJECT_KEYS)
    assert (loaded["checkpoint_version"], loaded["iteration"]) == (3.0, 0)
    plain = mcore.load_plain_tensors(str(tmp_path / "out"))
    assert all(torch.equal(plain[name], tensor) for name, tensor in stacked(tensors).items())


def gpt(experts: int) -> Any:
    """Megatron's own model, built of its local layers on the CPU."""
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_config import TransformerConfig

    of_experts = {"num_moe_experts": experts, "moe_router_topk": 2, "moe_ffn_hidden_size": FFN} if experts else {}
    config = TransformerConfig(
        num_layers=3, hidden_size=HIDDEN, num_attention_heads=HEADS, num_query_groups=GROUPS, ffn_hidden_size=FFN,
        gated_linear_unit=True, activation_func=torch.nn.functional.silu, normalization="RMSNorm", add_bias_linear=False,
        use_cpu_initialization=True, params_dtype=torch.bfloat16, pipeline_dtype=torch.bfloat16, bf16=True,
        bias_activation_fusion=False, masked_softmax_fusion=False, persist_layer_norm=False,
        gradient_accumulation_fusion=False, apply_rope_fusion=False, bias_dropout_fusion=False, **of_experts,
    )  # fmt: skip
    spec = get_gpt_layer_local_spec(num_experts=experts or None, moe_grouped_gemm=False, normalization="RMSNorm")
    return GPTModel(config, spec, VOCAB, 64, share_embeddings_and_output_weights=False, position_embedding_type="rope")


def gpt_plan(experts: int) -> tuple[Plan, Tensors, dict[str, str]]:
    """A plan that writes what such a model holds, its tensors, and their names in the model."""
    qkv = HIDDEN // HEADS * (HEADS + 2 * GROUPS)
    axes: Axes = (*LAYERS, ("expert", experts)) if experts else LAYERS
    inner = "mlp.experts.experts[{expert}]" if experts else "mlp"
    layer, live = "decoder.layers[{layer}]", "decoder.layers.{layer}"
    live_inner = "mlp.experts.local_experts.{expert}" if experts else "mlp"
    rows: list[tuple[str, str, tuple[int, ...], Axes]] = [
        ("embedding.word_embeddings.weight", "embedding.word_embeddings.weight", (VOCAB, HIDDEN), ()),
        (f"{layer}.self_attention.linear_qkv.layer_norm_weight", f"{live}.input_layernorm.weight", (HIDDEN,), LAYERS),
        (f"{layer}.self_attention.linear_qkv.weight", f"{live}.self_attention.linear_qkv.weight", (qkv, HIDDEN), LAYERS),
        (f"{layer}.self_attention.linear_proj.weight", f"{live}.self_attention.linear_proj.weight", (HIDDEN, HIDDEN), LAYERS),
        (f"{layer}.mlp.linear_fc1.layer_norm_weight", f"{live}.pre_mlp_layernorm.weight", (HIDDEN,), LAYERS),
        (f"{layer}.{inner}.linear_fc1.weight", f"{live}.{live_inner}.linear_fc1.weight", (2 * FFN, HIDDEN), axes),
        (f"{layer}.{inner}.linear_fc2.weight", f"{live}.{live_inner}.linear_fc2.weight", (HIDDEN, FFN), axes),
        ("decoder.final_layernorm.weight", "decoder.final_layernorm.weight", (HIDDEN,), ()),
        ("output_layer.weight", "output_layer.weight", (VOCAB, HIDDEN), ()),
    ]
    if experts:
        rows.append((f"{layer}.mlp.router.weight", f"{live}.mlp.router.weight", (experts, HIDDEN), LAYERS))
    families: list[Stored] = []
    tensors: Tensors = {}
    lives: dict[str, str] = {}
    for pattern, live_pattern, shape, its_axes in rows:
        families.append(family(pattern, shape, its_axes))
        places = [{}]
        for axis, extent in its_axes:
            places = [{**place, axis: i} for place in places for i in range(extent)]
        for place in places:
            tensors[pattern.format(**place)] = torch.randn(shape).bfloat16()
            lives[pattern.format(**place)] = live_pattern.format(**place)
    linears = [(f"{layer}.self_attention.linear_{end}", LAYERS) for end in ("qkv", "proj")]
    linears += [(f"{layer}.{inner}.linear_{end}", axes) for end in ("fc1", "fc2")]
    plan = copying(families, "torch_dist")
    objects = tuple((f"{name}._extra_state", tuple((axis, 0, extent) for axis, extent in its_axes)) for name, its_axes in linears)
    return replace(plan, target=replace(plan.target, objects=objects)), tensors, lives


@pytest.mark.parametrize("experts", [0, EXPERTS])
def test_megatrons_own_model_loads_in_default_strict_mode(mcore: Any, tmp_path: Path, experts: int) -> None:
    plan, tensors, lives = gpt_plan(experts)
    engine.run(bound_to(plan, tensors, tmp_path, 60_000), tmp_path / "out", workers=2)
    network = gpt(experts)
    loaded = mcore.load(network.sharded_state_dict(), str(tmp_path / "out"))
    state = {name: value for name, value in loaded.items() if name not in ("checkpoint_version", "iteration")}
    network.load_state_dict(state, strict=True)
    held = dict(network.named_parameters())
    assert held.keys() == set(lives.values())
    for name, tensor in tensors.items():
        assert torch.equal(held[lives[name]].to(tensor.dtype), tensor), name


def test_without_its_objects_megatrons_own_model_does_not_load(mcore: Any, tmp_path: Path) -> None:
    plan, tensors, _ = gpt_plan(0)
    bare = replace(plan, target=replace(plan.target, objects=()))
    engine.run(bound_to(bare, tensors, tmp_path), tmp_path / "out")
    with pytest.raises(CheckpointException, match=r"Missing key.*_extra_state/shard_0_3"):
        mcore.load(gpt(0).sharded_state_dict(), str(tmp_path / "out"))
