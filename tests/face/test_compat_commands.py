"""The NxD Training commands of its conversion page, both directions and both styles, on Llama shapes scaled down.

Sizes are pairwise distinct and no weight is square. What comes out is checked against plain torch, head by head.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ckptc as face

SCRIPT = "examples/checkpoint_converter_scripts/checkpoint_converter.py"
LAYERS, HIDDEN, FFN, VOCAB, TP, PP = 5, 22, 36, 54, 2, 2
RUN = "checkpoints/hf_llama3_8B--step=5-consumed_samples=160.0.ckpt/model"


def shapes(heads: int, groups: int, dim: int) -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        out |= {
            at + "self_attn.q_proj.weight": (heads * dim, HIDDEN), at + "self_attn.k_proj.weight": (groups * dim, HIDDEN),
            at + "self_attn.v_proj.weight": (groups * dim, HIDDEN), at + "self_attn.o_proj.weight": (HIDDEN, heads * dim),
            at + "mlp.gate_proj.weight": (FFN, HIDDEN), at + "mlp.up_proj.weight": (FFN, HIDDEN),
            at + "mlp.down_proj.weight": (HIDDEN, FFN), at + "input_layernorm.weight": (HIDDEN,),
            at + "post_attention_layernorm.weight": (HIDDEN,),
        }  # fmt: skip
    return out | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


@pytest.fixture(params=[("llama-2", 6, 6, 7), ("llama-3", 12, 4, 5)], ids=lambda p: p[0])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder HF with pytorch_model.bin and config.json, in the working directory; its weights and heads."""
    _, heads, groups, dim = request.param
    at, weights = 0, {}
    for name, shape in shapes(heads, groups, dim).items():
        count = torch.Size(shape).numel()
        weights[name] = torch.arange(at, at + count, dtype=torch.float32).reshape(shape)
        at += count
    config = {
        "model_type": "llama", "vocab_size": VOCAB, "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": dim, "tie_word_embeddings": False,
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("HF").mkdir()
    torch.save(weights, "HF/pytorch_model.bin")
    Path("HF/config.json").write_text(json.dumps(config))
    return weights, heads, groups, dim


def command(words: str) -> list[str]:
    return ["compat", SCRIPT, *words.split()]


def forward(style: str, linear: str) -> list[str]:
    return command(
        f"--model_style {style} --hw_backend trn1 --input_dir HF/pytorch_model.bin --output_dir OUT --save_xser True --config HF/config.json "
        f"--tp_size {TP} --pp_size {PP} --n_layers {LAYERS} --kv_size_multiplier 1 --qkv_linear {linear} --convert_from_full_state"
    )


def back(style: str, linear: str) -> list[str]:
    return command(
        f"--model_style {style} --hw_backend trn1 --input_dir {RUN} --output_dir FULL --load_xser True --config HF/config.json "
        f"--tp_size {TP} --pp_size {PP} --kv_size_multiplier 1 --qkv_linear {linear} --convert_to_full_state"
    )


def rows(weights, layer: int, kind: str, dim: int) -> tuple[torch.Tensor, ...]:
    return weights[f"model.layers.{layer}.self_attn.{kind}_proj.weight"].split(dim)


@pytest.mark.parametrize("style", ["hf", "megatron"])
@pytest.mark.parametrize("linear", ["True", "False"])
def test_there_by_the_documented_command_and_back_from_a_training_run(style: str, linear: str, model, ckptc) -> None:
    weights, heads, groups, dim = model
    done = ckptc(*forward(style, linear))
    assert done.code == 0, done.err
    files = sorted(p.name for p in Path("OUT/model").iterdir() if p.name.endswith(("0.pt", "1.pt")))
    assert files == [f"dp_rank_00_tp_rank_{tp:02}_pp_rank_{pp:02}.pt" for tp in range(TP) for pp in range(PP)]
    assert face.open("OUT").format == "xser"
    for tensor in face.open("OUT"):
        check(tensor, weights, heads, groups, dim)
    Path(RUN).parent.mkdir(parents=True)
    Path("OUT/model").rename(RUN)
    done = ckptc(*back(style, linear))
    assert done.code == 0, done.err
    whole = torch.load("FULL/checkpoint.pt", weights_only=True)
    assert list(Path("FULL").iterdir()) == [Path("FULL/checkpoint.pt")]
    assert set(whole) == set(weights)
    assert all(torch.equal(whole[name], weights[name]) for name in weights)


def check(tensor, weights, heads: int, groups: int, dim: int) -> None:
    """A tensor of a rank, rebuilt from the whole ones by the rule of the module that reads it."""
    rank = int(tensor.file.split("tp_rank_")[1][:2])
    layer = next((int(p) for p in tensor.name.split(".") if p.isdigit()), None)
    if layer is not None:
        assert int(tensor.file.split("pp_rank_")[1][:2]) == (layer >= 2)  # 2 layers, then 3
    share = heads // groups
    mine = range(rank * groups // TP, (rank + 1) * groups // TP)
    query = [g * share + i for g in mine for i in range(share)]
    parts = tensor.name.split(".")
    kind = parts[-1] if parts[-1].startswith("weight_") else parts[-2]
    q, k, v = (rows(weights, layer, x, dim) for x in "qkv") if layer is not None else ((), (), ())
    if kind in ("weight_q", "q_proj", "query"):
        expected = torch.cat([q[h] for h in query])
    elif kind in ("weight_k", "k_proj"):
        expected = torch.cat([k[g] for g in mine])
    elif kind in ("weight_v", "v_proj"):
        expected = torch.cat([v[g] for g in mine])
    elif kind == "key_value":
        expected = torch.cat([x for g in mine for x in (k[g], v[g])])
    elif kind == "query_key_value":
        expected = torch.cat([x for g in mine for x in (q[g], k[g], v[g])])
    elif kind in ("o_proj", "dense"):
        columns = weights[f"model.layers.{layer}.self_attn.o_proj.weight"].split(dim, dim=1)
        expected = torch.cat([columns[h] for h in query], dim=1)
    elif kind in ("gate_up_proj", "dense_h_to_4h"):
        halves = [weights[f"model.layers.{layer}.mlp.{x}_proj.weight"].chunk(TP)[rank] for x in ("gate", "up")]
        expected = torch.cat(halves)
    elif kind in ("down_proj", "dense_4h_to_h"):
        expected = weights[f"model.layers.{layer}.mlp.down_proj.weight"].chunk(TP, dim=1)[rank]
    elif kind in ("embed_tokens", "word_embeddings"):
        expected = weights["model.embed_tokens.weight"].chunk(TP)[rank]
    elif kind in ("lm_head", "output_layer"):
        expected = weights["lm_head.weight"].chunk(TP)[rank]
    else:
        name = "model.norm.weight" if layer is None else f"model.layers.{layer}.{kind}.weight"
        expected = weights[name]
    assert torch.equal(tensor.read(), expected), (tensor.file, tensor.name)


def test_the_container_of_rank_files_changes_both_ways(model, ckptc) -> None:
    assert ckptc(*forward("hf", "True")).code == 0
    how = f"--hw_backend trn1 --config HF/config.json --tp_size {TP} --pp_size {PP}"
    done = ckptc(*command(f"--input_dir OUT/model --output_dir PLAIN --convert_from_xser {how}"))
    assert done.code == 0, done.err
    assert not list(Path("PLAIN").rglob("*.tensors"))
    assert ckptc(*command(f"--input_dir PLAIN/model --output_dir AGAIN --convert_to_xser {how}")).code == 0
    for file in Path("OUT/model").rglob("*.pt"):
        assert (Path("AGAIN/model") / file.relative_to("OUT/model")).read_bytes() == file.read_bytes()


def test_a_yaml_file_of_the_framework_is_a_config(model, ckptc) -> None:
    """What it does not say, such as the vocabulary, is read from shapes; a model_config in it is followed."""
    _, heads, groups, dim = model
    Path("nxdt.yaml").write_text(
        f"model:\n  num_layers: {LAYERS}\n  hidden_size: {HIDDEN}\n  num_attention_heads: {heads}\n  num_kv_heads: {groups}\n"
        f"  kv_channels: {dim}\n  encoder_seq_length: 64\n  max_position_embeddings: ${{.encoder_seq_length}}\n"
    )
    Path("hf.yaml").write_text("model:\n  model_config: HF/config.json\n  num_layers: 1\n")
    how = f"--hw_backend trn1 --input_dir HF/pytorch_model.bin --tp_size {TP} --qkv_linear True --convert_from_full_state"
    for config in ("nxdt.yaml", "hf.yaml"):
        done = ckptc(*command(f"{how} --nxdt_yaml_config {config} --output_dir {config}.out"))
        assert done.code == 0, done.err
    assert ckptc(*command(f"{how} --config HF/config.json --output_dir OUT")).code == 0
    for file in Path("OUT/model").iterdir():
        for config in ("nxdt.yaml", "hf.yaml"):
            assert (Path(f"{config}.out/model") / file.name).read_bytes() == file.read_bytes()
    assert not Path("yaml_config.json").exists()  # the script leaves one behind


@pytest.mark.parametrize("script", ["convert_checkpoints", "convert_checkpoints_llama.py", "examples/training/llama/convert_checkpoints.py"])
def test_nxds_own_script_ignores_what_it_does_not_know(script: str, model, ckptc) -> None:
    how = f"--hw_backend trn1 --input_dir HF/pytorch_model.bin --output_dir OUT --config HF/config.json --tp_size {TP} --convert_from_full_state --bogus 7"
    done = ckptc("compat", script, *how.split())
    assert done.code == 0, done.err
    assert "note: --bogus is ignored, as the script ignores it" in done.err
