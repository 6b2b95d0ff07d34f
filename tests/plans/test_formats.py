"""Every container in and out: whole round trips through HuggingFace's own readers, shards, casts and side files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import ckptc
from tests.asked import asked
from tests.held import files_of, same

from .llama import SIDE_FILES, Llama, rank_files, read, to_hf, to_nxdt, write

MODEL = Llama()


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("formats") / "hf", MODEL, shards=3)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("back", ["safetensors", "bin"])
def test_each_container_goes_to_rank_files_and_back(kind: str, shards: int, back: str, tmp_path: Path) -> None:
    source = write(tmp_path / "hf", MODEL, kind=kind, shards=shards)
    to_nxdt(source, tmp_path / "nxdt", tp=3, pp=2)
    assert set(rank_files(tmp_path / "nxdt")) == set(files_of(tmp_path / "nxdt"))  # no config, no tokenizer
    to_hf(tmp_path / "nxdt", tmp_path / "again", config=source / "config.json", format=back)
    assert same(read(tmp_path / "again"), MODEL.tensors())
    carried = files_of(tmp_path / "again")
    assert carried.pop("model.safetensors" if back == "safetensors" else "pytorch_model.bin")
    assert carried == SIDE_FILES | {"config.json": (source / "config.json").read_bytes()}


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_many_shards_have_a_true_index(format: str, hf: Path, tmp_path: Path) -> None:
    to_hf(hf, tmp_path / "out", format=format, max_shard_size=9000)
    stem = "model" if format == "safetensors" else "pytorch_model"
    index = json.loads((tmp_path / "out" / f"{stem}.{format}.index.json").read_text())
    held = MODEL.tensors()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in held.values())
    assert set(index["weight_map"]) == set(held)
    shards = sorted(set(index["weight_map"].values()))
    assert shards == [f"{stem}-{i + 1:05}-of-{len(shards):05}.{format}" for i in range(len(shards))]
    assert len(shards) > 20
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*shards, f"{stem}.{format}.index.json", "config.json", *SIDE_FILES}
    for file in shards:
        names = {n for n, f in index["weight_map"].items() if f == file}
        if format == "safetensors":
            with safe_open(tmp_path / "out" / file, "pt") as opened:
                assert opened.metadata() == {"format": "pt"}
                assert set(opened.keys()) == names
        else:
            assert set(torch.load(tmp_path / "out" / file, weights_only=True)) == names
        size = sum(held[n].nbytes for n in names)
        assert size <= 9000 or len(names) == 1
    assert same(read(tmp_path / "out"), held)


def test_other_files_of_the_source_stay_where_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", MODEL)
    for name in ("notes.txt", "README.md", "optimizer.bin", "training_args.bin", ".gitattributes"):
        (source / name).write_text("mine")
    (source / "runs").mkdir()
    to_hf(source, tmp_path / "out")
    assert set(files_of(tmp_path / "out")) == {"model.safetensors", "config.json", *SIDE_FILES}


def test_side_files_come_from_beside_the_config_where_the_source_has_none(hf: Path, tmp_path: Path) -> None:
    to_nxdt(hf, tmp_path / "nxdt")
    (tmp_path / "nxdt/tokenizer.json").write_text("the source's own")
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=hf)
    held = files_of(tmp_path / "out")
    assert held["tokenizer.json"] == b"the source's own"
    assert held["tokenizer.model"] == SIDE_FILES["tokenizer.model"]
    assert held["config.json"] == (hf / "config.json").read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_casts_are_those_of_torch(stored: torch.dtype, dtype: str, tmp_path: Path) -> None:
    held = {n: t.float() for n, t in replace(MODEL, dtype=stored).tensors().items()}
    odd = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-8, 6e-5, 65504.0, 65520.0, 1e30, 1.00390625, 1.01171875])
    held["model.embed_tokens.weight"].view(-1)[: len(odd)] = odd
    held = {n: t.to(stored) for n, t in held.items()}
    source = write(tmp_path / "hf", MODEL, held)
    to_nxdt(source, tmp_path / "nxdt", tp=3, dtype=dtype)
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=source)
    result = read(tmp_path / "out")
    wanted = {n: t.to(getattr(torch, dtype)) for n, t in held.items()}
    assert {n: t.dtype for n, t in result.items()} == {n: t.dtype for n, t in wanted.items()}
    for name, tensor in wanted.items():
        assert torch.equal(result[name].nan_to_num(7.0, posinf=8.0, neginf=9.0), tensor.nan_to_num(7.0, posinf=8.0, neginf=9.0))
        assert torch.equal(result[name].isnan(), tensor.isnan())
        assert torch.equal(result[name].signbit() & ~tensor.isnan(), tensor.signbit() & ~tensor.isnan())


def test_a_cast_leaves_whole_numbers_alone(tmp_path: Path) -> None:
    held = MODEL.tensors()
    held["model.norm.weight"] = torch.arange(48)
    to_hf(write(tmp_path / "hf", MODEL, held), tmp_path / "out", dtype="float32")
    result = read(tmp_path / "out")
    assert torch.equal(result["model.norm.weight"], torch.arange(48))
    assert result["lm_head.weight"].dtype == torch.float32


def test_resharding_hf_gives_equal_tensors(hf: Path, tmp_path: Path) -> None:
    to_hf(hf, tmp_path / "bin", format="bin", max_shard_size="20KB")
    to_hf(tmp_path / "bin", tmp_path / "one", format="safetensors")
    assert same(read(tmp_path / "one"), MODEL.tensors())


DEGREES: list[dict[str, Any]] = [
    {"tp": 1}, {"tp": 3, "pp": 2}, {"tp": 3, "pp": 2, "vpp": 2}, {"tp": 2, "kv_multiplier": 2, "pp": 4},
    {"tp": 6, "kv_multiplier": 2}, {"tp": 6, "kv_multiplier": 2, "hw": "trn2"}, {"tp": 6, "kv_multiplier": 2, "qkv": "fused", "pp": 3},
    {"tp": 3, "qkv": "split"}, {"tp": 3, "qkv": "fused", "pp": 2},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(DEGREES)))
def test_degrees_change_directly_as_through_hf(number: int, hf: Path, tmp_path: Path) -> None:
    one, two = DEGREES[number], DEGREES[(number + 4) % len(DEGREES)]
    to_nxdt(hf, tmp_path / "one", **one)
    options = {"from_settings": {"hw": one.get("hw", "trn1")}}
    plan = ckptc.plan(tmp_path / "one", to="nxdt", from_="nxdt", config=hf, **asked(**{"tp": 1, "pp": 1, "vpp": 1, "kv_multiplier": 1, "hw": "trn1", "qkv": "linear", **two}, **options))
    plan.run(tmp_path / "direct")
    to_nxdt(hf, tmp_path / "through", **two)
    assert files_of(tmp_path / "direct") == files_of(tmp_path / "through")


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"pp": 3}, [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]),
        ({"pp": 2, "vpp": 2}, [[0, 1, 5, 6, 7], [2, 3, 4, 8, 9, 10]]),
        ({"pp": 3, "stages": [[0], [1, 2, 3, 4, 5, 6, 7, 8, 9], [10]]}, [[0], list(range(1, 10)), [10]]),
        ({"pp": 2, "stages": [[0, 10, 3], [1, 2, 4, 5, 6, 7, 8, 9]]}, [[0, 3, 10], [1, 2, 4, 5, 6, 7, 8, 9]]),
    ],
)
def test_stages_are_written_as_asked_and_read_from_the_files(options: dict[str, Any], stages: list[list[int]], tmp_path: Path) -> None:
    model = Llama(layers=11)
    source = write(tmp_path / "hf", model, shards=2)
    to_nxdt(source, tmp_path / "nxdt", tp=3, **options)
    for rank, tensors in rank_files(tmp_path / "nxdt").items():
        stage = int(rank.split("pp_rank_")[1][:2])
        layers = list(dict.fromkeys(int(n.split(".")[2]) for n in tensors if ".layers." in n))
        assert layers == stages[stage]  # also in numeric order within the file
        assert ("model.embed_tokens.weight" in tensors) == (stage == 0)
        assert ("lm_head.weight" in tensors) == (stage == len(stages) - 1)
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=source)
    assert same(read(tmp_path / "out"), model.tensors())


def test_layers_from_10_on_come_in_numeric_order(tmp_path: Path) -> None:
    to_hf(write(tmp_path / "hf", Llama(layers=11)), tmp_path / "out", format="bin")
    names = list(torch.load(tmp_path / "out/pytorch_model.bin", weights_only=True))
    layers = list(dict.fromkeys(int(n.split(".")[2]) for n in names if ".layers." in n))
    assert layers == list(range(11))
    assert names[0] == "model.embed_tokens.weight"
    assert names[-1] == "lm_head.weight"


# --- tied heads ------------------------------------------------------------------------------------


def tied(folder: Path, key: bool | None, head: str, kind: str = "safetensors") -> tuple[Path, dict[str, torch.Tensor]]:
    """`head`: none, equal, other."""
    model = replace(MODEL, head=head != "none", extra={} if key is None else {"tie_word_embeddings": key})
    held = model.tensors()
    if head == "equal":
        held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
    source = write(folder, model, held, kind=kind)
    if key is None:
        config = json.loads((source / "config.json").read_text())
        config.pop("tie_word_embeddings")
        (source / "config.json").write_text(json.dumps(config))
    return source, held


@pytest.mark.parametrize(("key", "head"), [(True, "none"), (True, "equal"), (None, "none")])
def test_tied_heads_go_there_and_back(key: bool | None, head: str, tmp_path: Path) -> None:
    source, held = tied(tmp_path / "hf", key, head)
    to_nxdt(source, tmp_path / "nxdt", tp=3, pp=2)
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=source)
    result = read(tmp_path / "out")
    held.pop("lm_head.weight", None)
    assert same({n: t for n, t in result.items() if n != "lm_head.weight"}, held)
    assert "lm_head.weight" not in result or torch.equal(result["lm_head.weight"], held["model.embed_tokens.weight"])


@pytest.mark.parametrize("key", [False, None])
def test_heads_that_are_not_tied_stay_their_own(key: bool | None, tmp_path: Path) -> None:
    source, held = tied(tmp_path / "hf", key, "other")
    to_nxdt(source, tmp_path / "nxdt", tp=3, pp=2)
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=source)
    assert same(read(tmp_path / "out"), held)


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    source, _ = tied(tmp_path / "hf", True, "other")
    with pytest.raises(ckptc.Fault, match="copies-differ"):
        to_nxdt(source, tmp_path / "out")


def test_an_untied_head_that_is_missing_is_refused(tmp_path: Path) -> None:
    source, _ = tied(tmp_path / "hf", False, "none")
    with pytest.raises(ckptc.Fault, match="missing-tensor") as fault:
        to_nxdt(source, tmp_path / "out")
    assert fault.value.notes[0] == "lm_head.weight"


@pytest.mark.parametrize("key", [True, False])
def test_a_head_that_shares_the_storage_of_the_embedding_is_read(key: bool, tmp_path: Path) -> None:
    held = MODEL.tensors()
    held["lm_head.weight"] = held["model.embed_tokens.weight"]
    source = write(tmp_path / "hf", replace(MODEL, extra={"tie_word_embeddings": key}), held, kind="bin")
    assert (source / "pytorch_model.bin").stat().st_size < sum(t.nbytes for t in held.values()) + 8000  # stored once
    to_nxdt(source, tmp_path / "nxdt", tp=3)
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=source)
    result = read(tmp_path / "out")
    result.setdefault("lm_head.weight", result["model.embed_tokens.weight"])
    assert same(result, held)


def test_windows_of_larger_storages_are_read(tmp_path: Path) -> None:
    """Transposed, sliced, offset and overlapping tensors in a .bin, as a training script may leave them."""
    held = MODEL.tensors()
    whole = torch.randn(84 + 84, 48).to(torch.bfloat16)
    held["model.layers.0.mlp.gate_proj.weight"], held["model.layers.0.mlp.up_proj.weight"] = whole[:84], whole[84:]
    held["model.layers.0.mlp.down_proj.weight"] = torch.randn(84, 48).to(torch.bfloat16).T
    held["model.layers.2.self_attn.o_proj.weight"] = torch.randn(48, 99).to(torch.bfloat16)[:, 17:77]
    held["model.layers.3.input_layernorm.weight"] = torch.randn(48, 3).to(torch.bfloat16)[:, 1]
    held["model.norm.weight"] = torch.ones(1, dtype=torch.bfloat16).expand(48)
    held["model.layers.1.mlp.up_proj.weight"] = whole[::2]
    source = write(tmp_path / "hf", MODEL, {}, kind="bin")
    torch.save(held, source / "pytorch_model.bin")
    to_nxdt(source, tmp_path / "nxdt", tp=3, memory=40_000)
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=source)
    assert same(read(tmp_path / "out"), held)


MODELS = {
    "attention biases": Llama(attention_bias=True),
    "mlp biases": Llama(mlp_bias=True),
    "both": Llama(attention_bias=True, mlp_bias=True),
    "inv_freq": Llama(inv_freq=True),
    "no explicit head_dim": Llama(hidden=60, extra={"head_dim": None}),
    "as many groups as heads": Llama(groups=6, extra={"num_key_value_heads": None}),
}


@pytest.mark.parametrize("name", MODELS)
def test_variants_of_the_model_go_there_and_back(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    source = write(tmp_path / "hf", model, shards=2)
    to_nxdt(source, tmp_path / "nxdt", tp=3, pp=2)
    to_hf(tmp_path / "nxdt", tmp_path / "out", config=source)
    assert same(read(tmp_path / "out"), model.tensors())
