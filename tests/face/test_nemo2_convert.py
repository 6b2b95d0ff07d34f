"""Conversions to NeMo 2 and back, for every family that NeMo's import knows, on small models of pairwise distinct sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ckptc import Fault, MappingError, compile, convert, open, plan
from ckptc.nemo.nemo2_models import MODELS
from ckptc.runtime.binding.place_targets import lay_out
from ckptc.runtime.plan.expand import families
from tests.asked import asked

LAYERS, HIDDEN, FFN, HEADS, GROUPS, VOCAB, EXPERTS = 3, 24, 40, 6, 2, 29, 5
DIM = HIDDEN // HEADS
FAMILIES = ("llama", "mistral", "mixtral", "nemotron")
Tensors = dict[str, torch.Tensor]


def model(family: str) -> Tensors:
    """HuggingFace's tensors of a model of the family."""
    torch.manual_seed(11)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (VOCAB, HIDDEN))
    norms = ["model.norm"]
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        norms += [f"{at}input_layernorm", f"{at}post_attention_layernorm"]
        shapes |= {f"{at}self_attn.{x}_proj.weight": (n * DIM, HIDDEN) for x, n in (("q", HEADS), ("k", GROUPS), ("v", GROUPS))}
        shapes |= {f"{at}self_attn.o_proj.weight": (HIDDEN, HEADS * DIM)}
        if family == "mixtral":
            shapes[f"{at}block_sparse_moe.gate.weight"] = (EXPERTS, HIDDEN)
            for e in range(EXPERTS):
                shapes |= {f"{at}block_sparse_moe.experts.{e}.w{n}.weight": (HIDDEN, FFN) if n == 2 else (FFN, HIDDEN) for n in (1, 2, 3)}
        else:
            shapes |= {f"{at}mlp.{x}_proj.weight": (FFN, HIDDEN) for x in (("up",) if family == "nemotron" else ("gate", "up"))}
            shapes[f"{at}mlp.down_proj.weight"] = (HIDDEN, FFN)
    shapes |= {f"{norm}.{kind}": (HIDDEN,) for norm in norms for kind in (("weight", "bias") if family == "nemotron" else ("weight",))}
    return {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}


def write(folder: Path, family: str, **more: Any) -> Path:
    folder.mkdir()
    save_file(model(family), folder / "model.safetensors")
    config = {
        "model_type": family, "vocab_size": VOCAB, "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "tie_word_embeddings": False, "max_position_embeddings": 71,
        **({"num_local_experts": EXPERTS, "num_experts_per_tok": 3} if family == "mixtral" else {}),
        **({"sliding_window": 37} if family == "mistral" else {}), **({"partial_rotary_factor": 0.5} if family == "nemotron" else {}), **more,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"a": 1}')
    (folder / "tokenizer_config.json").write_text('{"b": 2}')
    return folder


def described(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "context/model.yaml").read_text()))


def check_is(folder: Path, wanted: Tensors) -> None:
    got = load_file(folder / "model.safetensors")
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("format", ["torch_dist", "zarr"])
@pytest.mark.parametrize("family", FAMILIES)
def test_huggingface_to_nemo_2_and_back(tmp_path: Path, family: str, format: str) -> None:
    convert(write(tmp_path / "hf", family), tmp_path / "nemo2", to="nemo2", format=format)
    said = described(tmp_path / "nemo2")
    assert said["_target_"] == f"nemo.collections.llm.gpt.model.{family}.{family.capitalize()}Model"
    assert said["tokenizer"]["pretrained_model_name"] == "nemo_tokenizer"
    assert (tmp_path / "nemo2/context/nemo_tokenizer/tokenizer.json").read_text() == '{"a": 1}'
    own: dict[str, Any] = {"mixtral": {"moe_router_topk": 3, "num_moe_experts": EXPERTS}, "mistral": {"window_size": [37, 0]}, "nemotron": {"rotary_percent": 0.5}}.get(family, {})
    assert {key: said["config"][key] for key in own} == own
    convert(tmp_path / "nemo2", tmp_path / "back", to="hf")
    check_is(tmp_path / "back", model(family))
    assert (tmp_path / "back/tokenizer_config.json").read_text() == '{"b": 2}'
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert (config["model_type"], config["num_key_value_heads"], config.get("sliding_window")) == (family, GROUPS, 37 if family == "mistral" else None)
    assert config.get("num_experts_per_tok") == (3 if family == "mixtral" else None)


@pytest.mark.parametrize("format", ["torch_dist", "zarr"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_distributed_archive_of_every_family(tmp_path: Path, family: str, format: str) -> None:
    convert(write(tmp_path / "hf", family), tmp_path / "it.nemo", to="nemo-dist", format=format)
    convert(tmp_path / "it.nemo", tmp_path / "nemo2", to="nemo2", model_id=family)
    held = {t.name.replace("model.", "module.", 1): t.read() for t in open(tmp_path / "it.nemo")}
    got = {t.name: t.read() for t in open(tmp_path / "nemo2")}
    assert got.keys() == held.keys()
    assert all(torch.equal(got[name], held[name]) for name in held)
    assert described(tmp_path / "nemo2")["_target_"].endswith(f"{family.capitalize()}Model")
    convert(tmp_path / "nemo2", tmp_path / "back", to="hf")
    check_is(tmp_path / "back", model(family))
    assert (tmp_path / "back/tokenizer.json").read_text() == '{"a": 1}'


@pytest.mark.parametrize(("layout", "degrees"), [("nemo", {"tp": 2, "pp": 3}), ("nemo", {}), ("nemo-legacy", {"tp": 2})])
def test_archives_of_rank_files_become_the_same(tmp_path: Path, layout: str, degrees: dict[str, Any]) -> None:
    """NeMo's own script takes distributed checkpoints alone."""
    source = write(tmp_path / "hf", "llama")
    convert(source, tmp_path / "ranks.nemo", to=layout, **asked(**degrees))
    convert(source, tmp_path / "dist.nemo", to="nemo-dist", settings={"pad_vocab_to": degrees.get("tp", 1)})
    for name in ("ranks", "dist"):
        convert(tmp_path / f"{name}.nemo", tmp_path / name, to="nemo2")
    ours, theirs = ({t.name: t.read() for t in open(tmp_path / name)} for name in ("ranks", "dist"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(ours["module.embedding.word_embeddings.weight"]) == VOCAB + degrees.get("tp", 1) - 1
    assert (tmp_path / "ranks/context/io.json").read_bytes() == (tmp_path / "dist/context/io.json").read_bytes()


def test_what_nemo_1_keeps_beside_each_module_is_there_to_be_loaded(tmp_path: Path) -> None:
    convert(write(tmp_path / "hf", "llama"), tmp_path / "out", to="nemo2")
    modules = ("linear_fc1", "linear_fc2"), ("core_attention", "linear_proj", "linear_qkv")
    wanted = {f"module.decoder.layers.{at}.{name}._extra_state/shard_{i}_3" for at, names in zip(("mlp", "self_attention"), modules, strict=True) for name in names for i in range(LAYERS)}
    wanted.add("module.decoder.final_layernorm._extra_state/shard_0_1")  # a norm of Transformer Engine 2
    assert {key for _, key in open(tmp_path / "out").others} == wanted


def test_a_family_whose_classes_are_not_known_gets_its_weights_alone(tmp_path: Path, ckptc: Callable[..., Any]) -> None:
    source = write(tmp_path / "hf", "llama", model_type="qwen2")
    rows = {"q": HEADS * DIM, "k": GROUPS * DIM, "v": GROUPS * DIM}
    biases = {f"model.layers.{i}.self_attn.{x}_proj.bias": torch.randn(n).bfloat16() for i in range(LAYERS) for x, n in rows.items()}
    save_file(model("llama") | biases, source / "model.safetensors")
    made = ckptc("convert", source, tmp_path / "out", "--to", "nemo2")
    assert (made.code, "no context folder is written" in made.err) == (0, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights"]


def test_positions_that_are_scaled_as_in_llama_3_1(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    convert(write(tmp_path / "hf", "llama", rope_scaling=scaling), tmp_path / "nemo2", to="nemo2")
    assert described(tmp_path / "nemo2")["config"]["_target_"].endswith(".Llama31Config")
    convert(tmp_path / "nemo2", tmp_path / "back", to="hf")
    assert json.loads((tmp_path / "back/config.json").read_text())["rope_scaling"] == scaling
    said = described(tmp_path / "nemo2")
    said["config"]["scale_factor"] = 32
    (tmp_path / "nemo2/context/model.yaml").write_text(yaml.safe_dump(said))
    convert(tmp_path / "nemo2", tmp_path / "other", to="hf")
    assert json.loads((tmp_path / "other/config.json").read_text())["rope_scaling"] == {**scaling, "factor": 32.0}


def sized(name: str, folder: Path, **other: int) -> Path:
    """The NeMo 1 config of a model of the id's sizes."""
    family, sizes = MODELS[name].family, {**MODELS[name].sizes, **other}
    config = {
        **sizes, "num_moe_experts": sizes["num_moe_experts"] or None, "activation": family.activations[0], "bias": False, "position_embedding_type": "rope",
        "normalization": "layernorm1p" if family.name == "nemotron" else "rmsnorm", "share_embeddings_and_output_weights": False,
    }  # fmt: skip
    path = folder / "model_config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_model_id_is_planned_from_a_config_of_its_sizes(tmp_path: Path, name: str) -> None:
    of = MODELS[name]
    made = compile(of.family.name, from_="nemo-dist", to="nemo2", config=sized(name, tmp_path), model_id=name, settings={"vocab": 32_000})
    said = yaml.safe_load(dict(made.data.files)["context/model.yaml"])
    assert (said["_target_"], said["config"]["_target_"]) == (of.family.model.dotted, of.config.dotted)
    assert dict(made.data.axes)["hidden"] == said["config"]["hidden_size"] == of.sizes["hidden_size"]
    json.loads(dict(made.data.files)["context/io.json"])
    with pytest.raises(Fault, match=f"the model has num_layers 17, and {name} has {of.sizes['num_layers']}"):
        compile(of.family.name, from_="nemo-dist", to="nemo2", config=sized(name, tmp_path, num_layers=17), model_id=name, settings={"vocab": 32_000})


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"to": "hf", "model_id": "llama"}, "not-nemo2"),
        ({"to": "megatron", "tokenizer": "t.model"}, "not-nemo2"),
        ({"to": "nemo2", "model_id": "no/such"}, "no-model-id"),
        ({"to": "nemo2", "model_id": "mistral", "family": "llama"}, "other-family"),
        ({"to": "nemo2", "model_id": "meta-llama/Llama-2-7b-hf"}, "other-sizes"),
        ({"to": "nemo2", "tokenizer": "no.model"}, "no-file"),
        ({"to": "nemo2", "tokenizer": "empty"}, "no-file"),
    ],
)
def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], code: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(Fault) as fault:
        plan(write(tmp_path / "hf", "llama"), **asked)
    assert fault.value.code == code


def test_a_tokenizer_that_is_given_takes_the_place_of_the_sources(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", "llama")
    (tmp_path / "other.model").write_bytes(b"pieces")
    convert(source, tmp_path / "out", to="nemo2", tokenizer=tmp_path / "other.model")
    assert sorted(p.name for p in (tmp_path / "out/context").iterdir()) == ["io.json", "model.yaml", "other.model"]
    assert described(tmp_path / "out")["tokenizer"]["model_path"] == "other.model"
    convert(source, tmp_path / "folder", to="nemo2", tokenizer=tmp_path / "hf")
    assert sorted(p.name for p in (tmp_path / "folder/context/nemo_tokenizer").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_a_plan_with_a_tokenizer_is_not_saved_without_it(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="not saved"):
        plan(write(tmp_path / "hf", "llama"), to="nemo2").save(tmp_path / "plan.json")


def test_what_is_left_out_is_said(tmp_path: Path, ckptc: Callable[..., Any]) -> None:
    source = write(tmp_path / "hf", "llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    made = ckptc("convert", source, tmp_path / "out", "--to", "nemo2")
    assert (made.code, "there is no tokenizer beside the source" in made.err) == (0, True)
    assert described(tmp_path / "out")["tokenizer"] is None
    again = ckptc("convert", tmp_path / "out", tmp_path / "again", "--to", "nemo2", "--model-id", "llama")
    assert (again.code, "whose context folder is copied as it is" in again.err) == (1, True)


def bare_weights(name: str, folder: Path, vocab: int) -> Path:
    """The folder model_weights of a model of the id's sizes: true headers, and files of holes. Nothing is beside it."""
    (folder / "sizes").mkdir()
    made = compile(MODELS[name].family.name, from_="nemo-dist", to="nemo-dist", config=sized(name, folder / "sizes"), format="zarr", settings={"vocab": vocab})
    targets = families(made.data.target.stored)
    names = [family.spell(family.stored.name) for family in targets]
    count = sum(map(len, names))
    laid_out = lay_out(made.data.target, targets, names, ["bfloat16"] * count, list(range(count)), 1 << 40, {}, {})
    for file in laid_out.files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            out.truncate(file.layout.size)
    for at, text in laid_out.texts:
        (folder / at).parent.mkdir(parents=True, exist_ok=True)
        (folder / at).write_bytes(text)
    return folder / "model_weights"


# The values that each class has: nemo/collections/llm/gpt/model/llama.py, mistral.py, mixtral.py, nemotron.py.
SAID: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3-8B": {
        "num_layers": 32, "hidden_size": 4096, "ffn_hidden_size": 14336, "num_attention_heads": 32, "num_query_groups": 8, "rotary_base": 500000,
        "rotary_percent": 1.0, "seq_length": 8192, "init_method_std": 0.01, "normalization": "RMSNorm", "layernorm_epsilon": 1e-5,
        "add_bias_linear": False, "share_embeddings_and_output_weights": False, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    },
    "mistralai/Mistral-7B-v0.1": {"rotary_base": 10000, "seq_length": 32768, "window_size": [4096, 0], "num_query_groups": 8, "init_method_std": 0.02},
    "mistralai/Mixtral-8x7B-v0.1": {"rotary_base": 1000000, "seq_length": 4096, "num_moe_experts": 8, "moe_router_topk": 2, "moe_router_pre_softmax": True},
    "nvidia/nemotron-3-8b-base-4k": {
        "rotary_base": 10000, "rotary_percent": 0.5, "seq_length": 4096, "init_method_std": 0.01, "normalization": "LayerNorm",
        "layernorm_zero_centered_gamma": True, "num_query_groups": 32,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_bare_weights_and_an_id_are_enough(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.model").write_bytes(b"pieces")
    weights = bare_weights(name, tmp_path, 31_872)
    made = plan(weights, to="nemo2", model_id=name, tokenizer=tmp_path / "t.model")
    said = yaml.safe_load(dict(made.data.files)["context/model.yaml"])["config"]
    assert said["_target_"] == MODELS[name].config.dotted
    assert {key: said[key] for key in SAID[name]} == SAID[name]
    assert made.values["vocab"] == 31_872
    assert any("there is no model_config.yaml" in note and MODELS[name].config.name in note for note in made.notes)
    assert made.totals().files > 0


def test_an_id_of_other_sizes_is_refused_by_the_shapes(tmp_path: Path) -> None:
    weights = bare_weights("meta-llama/Llama-2-7b-hf", tmp_path, 31_872)
    with pytest.raises((Fault, MappingError), match=r"shape|tensor"):
        plan(weights, to="nemo2", model_id="meta-llama/Llama-2-13b-hf").totals()


def test_the_family_alone_tells_no_sizes(tmp_path: Path) -> None:
    weights = bare_weights("meta-llama/Llama-2-7b-hf", tmp_path, 31_872)
    with pytest.raises(Fault, match="no-config"):
        plan(weights, to="nemo2", model_id="llama")
