"""NeMo 1's converters through `ckptc compat`, on small models of pairwise distinct sizes.

What comes out is opened with tarfile and torch alone, and compared with what plain torch makes of the weights.
"""

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
from safetensors.torch import load_file, save_file

from tests.face.sentencepiece_models import load, trained

LAYERS, HIDDEN, FFN, HEADS, GROUPS, VOCAB = 2, 24, 40, 6, 2, 29
DIM, PIECES = HIDDEN // HEADS, b"pieces" * 37
LAYER = "model.layers.{}."
Tensors = dict[str, torch.Tensor]


def made(groups: int = GROUPS, biases: bool = False) -> Tensors:
    torch.manual_seed(7)
    held = {"model.embed_tokens.weight": torch.randn(VOCAB, HIDDEN), "model.norm.weight": torch.randn(HIDDEN)}
    held["lm_head.weight"] = torch.randn(VOCAB, HIDDEN)
    rows = {"q": HEADS * DIM, "k": groups * DIM, "v": groups * DIM}
    for i in range(LAYERS):
        at = LAYER.format(i)
        held |= {f"{at}self_attn.{x}_proj.weight": torch.randn(n, HIDDEN) for x, n in rows.items()}
        held |= {f"{at}self_attn.{x}_proj.bias": torch.randn(n) for x, n in rows.items() if biases}
        held |= {f"{at}mlp.{x}_proj.weight": torch.randn(FFN, HIDDEN) for x in ("gate", "up")}
        held |= {f"{at}self_attn.o_proj.weight": torch.randn(HIDDEN, HEADS * DIM), f"{at}mlp.down_proj.weight": torch.randn(HIDDEN, FFN)}
        held |= {f"{at}{x}_layernorm.weight": torch.randn(HIDDEN) for x in ("input", "post_attention")}
    return held


def write_hf(folder: Path, weights: Tensors, kind: str = "llama", groups: int = GROUPS) -> None:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    config = {
        "model_type": kind, "vocab_size": VOCAB, "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN,
        "num_attention_heads": HEADS, "num_key_value_heads": groups, "tie_word_embeddings": False, "max_position_embeddings": 71,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(PIECES)


def interleaved(weights: Tensors, layer: int, kind: str, groups: int = GROUPS) -> torch.Tensor:
    """For each group its query heads, its key head, its value head."""
    q, k, v = (weights[f"{LAYER.format(layer)}self_attn.{x}_proj.{kind}"] for x in "qkv")
    each = HEADS // groups * DIM
    parts = [(q[g * each : (g + 1) * each], k[g * DIM : (g + 1) * DIM], v[g * DIM : (g + 1) * DIM]) for g in range(groups)]
    return torch.cat([part for group in parts for part in group])


def nemo(weights: Tensors, legacy: bool = False, tp: int = 1, pp: int = 1, groups: int = GROUPS) -> dict[tuple[int, int], Tensors]:
    """What NeMo's module has on each rank."""
    top = "model.language_model." if legacy else "model."
    inner = "encoder." if legacy else "decoder."
    qkv, proj, fc1, fc2, norm1, norm2 = (
        ("self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "input_layernorm.weight", "post_attention_layernorm.weight")
        if legacy
        else ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2", "self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight")
    )  # fmt: skip
    out: dict[tuple[int, int], Tensors] = {}
    for t in range(tp):
        for p in range(pp):
            rank: Tensors = {}
            padded = {x: torch.nn.functional.pad(weights[x], (0, 0, 0, -len(weights[x]) % tp)).chunk(tp)[t] for x in ("model.embed_tokens.weight", "lm_head.weight")}
            if p == 0:
                rank[f"{top}embedding.word_embeddings.weight"] = padded["model.embed_tokens.weight"]
            if p == pp - 1:
                rank[f"{top}output_layer.weight"] = padded["lm_head.weight"]
                rank[f"{top}{inner}final_layernorm.weight"] = weights["model.norm.weight"]
            for i in range(LAYERS // pp):
                at, hf = f"{top}{inner}layers.{i}.", LAYER.format(p * LAYERS // pp + i)
                layer = p * LAYERS // pp + i
                rank[f"{at}{qkv}.weight"] = interleaved(weights, layer, "weight", groups).chunk(tp)[t]
                if f"{hf}self_attn.q_proj.bias" in weights:
                    rank[f"{at}{qkv}.bias"] = interleaved(weights, layer, "bias", groups).chunk(tp)[t]
                rank[f"{at}{proj}.weight"] = weights[f"{hf}self_attn.o_proj.weight"].chunk(tp, 1)[t]
                rank[f"{at}{fc1}.weight"] = torch.cat([weights[f"{hf}mlp.{x}_proj.weight"].chunk(tp)[t] for x in ("gate", "up")])
                rank[f"{at}{fc2}.weight"] = weights[f"{hf}mlp.down_proj.weight"].chunk(tp, 1)[t]
                rank[f"{at}{norm1}"] = weights[f"{hf}input_layernorm.weight"]
                rank[f"{at}{norm2}"] = weights[f"{hf}post_attention_layernorm.weight"]
            if legacy:
                rank[f"{top}rotary_pos_emb.inv_freq"] = 1 / 10000.0 ** (torch.arange(0, DIM, 2).float() / DIM)
            out[t, p] = rank
    return out


def folder_of(t: int, p: int, tp: int, pp: int) -> str:
    return f"tp_rank_{t:02}_pp_rank_{p:03}/" if pp > 1 else f"mp_rank_{t:02}/" if tp > 1 else ""


def opened(path: Path | str) -> dict[str, bytes]:
    with tarfile.open(path, "r:") as archive:
        return {info.name.removeprefix("./"): archive.extractfile(info).read() for info in archive if info.isfile()}  # type: ignore[union-attr]


def config_in(path: Path | str) -> dict[str, Any]:
    return dict(yaml.safe_load(opened(path)["model_config.yaml"]))


def check(path: Path | str, wanted: dict[tuple[int, int], Tensors], dtype: torch.dtype) -> None:
    held = opened(path)
    tp, pp = (max(r[i] for r in wanted) + 1 for i in (0, 1))
    files = {f"{folder_of(t, p, tp, pp)}model_weights.ckpt": tensors for (t, p), tensors in wanted.items()}
    assert {name for name in held if name.endswith(".ckpt")} == set(files)
    for name, tensors in files.items():
        there = torch.load(io.BytesIO(held[name]), weights_only=True)
        assert set(there) == set(tensors)
        for key, tensor in tensors.items():
            cast = tensor if key.endswith("inv_freq") else tensor.to(dtype)  # a buffer, which is no weight, is not rounded
            assert there[key].dtype == cast.dtype
            assert torch.equal(there[key], cast), key
    config = config_in(path)
    assert (config["tensor_model_parallel_size"], config["pipeline_model_parallel_size"]) == (tp, pp)


def write_nemo(path: Path, wanted: dict[tuple[int, int], Tensors], **more: Any) -> None:
    tp, pp = (max(r[i] for r in wanted) + 1 for i in (0, 1))
    config = {**settings(tp, pp), **more}
    with tarfile.open(path, "w:") as archive:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        add("model_config.yaml", yaml.safe_dump(config).encode())
        add(f"{'a' * 32}_old.model", PIECES)
        for (t, p), tensors in wanted.items():
            stream = io.BytesIO()
            torch.save(tensors, stream)
            add(f"{folder_of(t, p, tp, pp)}model_weights.ckpt", stream.getvalue())


def settings(tp: int, pp: int) -> dict[str, Any]:
    return {
        "mcore_gpt": True, "transformer_engine": True, "micro_batch_size": 4, "global_batch_size": 6, "precision": "bf16", "tensor_model_parallel_size": tp,
        "pipeline_model_parallel_size": pp, "virtual_pipeline_model_parallel_size": None, "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": FFN,
        "num_attention_heads": HEADS, "num_query_groups": GROUPS, "max_position_embeddings": 71, "normalization": "rmsnorm", "bias": False,
        "activation": "fast-swiglu", "position_embedding_type": "rope", "share_embeddings_and_output_weights": False, "make_vocab_size_divisible_by": 1,
        "tokenizer": {"library": "sentencepiece", "model": f"nemo:{'a' * 32}_old.model", "vocab_file": None}, "note": "kept",
        "target": "nemo.collections.nlp.models.language_modeling.megatron_gpt_model.MegatronGPTModel",
    }  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """The weights of HF, a folder in the working directory, and of source.nemo."""
    monkeypatch.chdir(tmp_path)
    weights = made()
    write_hf(Path("HF"), weights)
    write_nemo(Path("source.nemo"), nemo(weights))
    return weights


def hparams(**model: Any) -> Path:
    Path("base.yaml").write_text(yaml.safe_dump({"trainer": {"devices": 1}, "model": model}))
    return Path("base.yaml")


@pytest.mark.parametrize(
    ("words", "dtype", "precision"),
    [
        ("convert_llama_hf_to_nemo.py --input_name_or_path=HF --output_path=x.nemo", "float16", 16),
        ("convert_hf_llama_to_nemo --in-file=./HF/ --out-file=x.nemo", "float32", 32),
    ],
)
def test_llama_to_nemo_is_cast_as_the_script_does(words, dtype, precision, here, ckptc):
    done = ckptc("compat", *words.split())
    assert done.code == 0, done.err
    assert f"cast to {dtype}" in done.err
    assert done.out.startswith("ckptc convert ")
    check("x.nemo", nemo(here), getattr(torch, dtype))
    config, files = config_in("x.nemo"), opened("x.nemo")
    assert (config["precision"], config["mcore_gpt"], config["num_query_groups"], config["max_position_embeddings"]) == (precision, True, GROUPS, 71)
    assert files[config["tokenizer"]["model"].removeprefix("nemo:")] == PIECES


@pytest.mark.parametrize(("precision", "dtype", "said"), [("32", "float32", 32), ("16-mixed", "float16", "16-mixed"), ("bf16", "bfloat16", "bf16")])
def test_precisions(precision, dtype, said, here, ckptc):
    done = ckptc("compat", "convert_llama_hf_to_nemo", "--input_name_or_path", "HF", "--output_path", "x.nemo", "--precision", precision)
    assert done.code == 0, done.err
    check("x.nemo", nemo(here), getattr(torch, dtype))
    assert config_in("x.nemo")["precision"] == said


def test_hparams_are_the_base_of_the_config(here, ckptc):
    base = hparams(mcore_gpt=True, transformer_engine=True, hidden_size=999, seed=42, optim={"name": "other"}, tokenizer={"sentencepiece_legacy": True})
    done = ckptc("compat", "convert_llama_hf_to_nemo", "--input_name_or_path", "HF", "--output_path", "x.nemo", "--hparams_file", base, "--precision", 32)
    assert done.code == 0, done.err
    check("x.nemo", nemo(here), torch.float32)
    config = config_in("x.nemo")
    assert (config["seed"], config["optim"], config["hidden_size"]) == (42, {"name": "other"}, HIDDEN)
    assert config["tokenizer"]["sentencepiece_legacy"] is True
    assert config["tokenizer"]["model"] in {f"nemo:{name}" for name in opened("x.nemo")}


def test_legacy_by_hparams_then_tp_2(tmp_path, monkeypatch, ckptc):
    """Llama-2's way: each query head has its key/value head."""
    monkeypatch.chdir(tmp_path)
    weights = made(HEADS)
    write_hf(Path("HF"), weights, groups=HEADS)
    base = hparams(mcore_gpt=False, transformer_engine=False)
    done = ckptc("compat", "convert_hf_llama_to_nemo.py", "--in-file=./HF/", "--out-file=x.nemo", "--hparams_file", base, "--precision=32")
    assert done.code == 0, done.err
    check("x.nemo", nemo(weights, legacy=True, groups=HEADS), torch.float32)
    Path("tokenizer.model").write_bytes(PIECES[::-1])
    done = ckptc(
        "compat", "megatron_change_num_partitions.py", "--model_file=x.nemo", "--target_file=y.nemo", "--tensor_model_parallel_size=1",
        "--target_tensor_model_parallel_size=2", "--pipeline_model_parallel_size=1", "--target_pipeline_model_parallel_size=1", "--tp_conversion_only",
        "--model_class=nemo.collections.nlp.models.language_modeling.megatron_gpt_model.MegatronGPTModel", "--tokenizer_model_path=tokenizer.model", "--precision=32",
    )  # fmt: skip
    assert done.code == 0, done.err
    check("y.nemo", nemo(weights, legacy=True, tp=2, groups=HEADS), torch.float32)
    files, config = opened("y.nemo"), config_in("y.nemo")
    assert files[config["tokenizer"]["model"].removeprefix("nemo:")] == PIECES[::-1]
    assert [name for name in files if name.endswith(".model")] == [config["tokenizer"]["model"].removeprefix("nemo:")]


def test_shared_key_value_heads_in_legacy_are_said(here, ckptc):
    done = ckptc("compat", "convert_llama_hf_to_nemo", "--input_name_or_path", "HF", "--output_path", "x.nemo", "--hparams_file", hparams(mcore_gpt=False))
    assert done.code == 0, done.err
    assert "NeMo will not load the result" in done.err
    check("x.nemo", nemo(here, legacy=True), torch.float16)


def test_qwen2(tmp_path, monkeypatch, ckptc):
    monkeypatch.chdir(tmp_path)
    weights = made(biases=True)
    write_hf(Path("HF"), weights, "qwen2")
    done = ckptc("compat", "convert_qwen2_hf_to_nemo.py", "--input_name_or_path", "HF", "--output_path", "x.nemo", "--precision", "bf16")
    assert done.code == 0, done.err
    check("x.nemo", nemo(weights), torch.bfloat16)
    config = config_in("x.nemo")
    assert (config["bias"], config["qkv_bias"], config["tokenizer"]["library"], config["tokenizer"]["type"]) == (False, True, "huggingface", "HF")
    assert (config["override_vocab_size"], config["tokenizer"]["trust_remote_code"]) == (VOCAB, True)
    done = ckptc(*change("--model_file=x.nemo", "--precision=bf16-mixed", *ONE))
    assert done.code == 0, done.err
    check("target.nemo", nemo(weights, tp=2), torch.bfloat16)
    config = config_in("target.nemo")
    assert (config["precision"], config["qkv_bias"], config["override_vocab_size"]) == ("bf16-mixed", True, VOCAB)


ONE = ["--target_tensor_model_parallel_size=2", "--target_pipeline_model_parallel_size=1"]


def change(*words: object) -> list[object]:
    return ["compat", "examples/nlp/language_modeling/megatron_change_num_partitions.py", "--target_file=target.nemo", *words]


@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2), (1, 1)])
def test_partitions_and_back(tp, pp, here, ckptc):
    degrees = [f"--target_tensor_model_parallel_size={tp}", f"--target_pipeline_model_parallel_size={pp}"]
    done = ckptc(*change("--model_file=source.nemo", "--precision=32", *degrees))
    assert done.code == 0, done.err
    check("target.nemo", nemo(here, tp=tp, pp=pp), torch.float32)
    config = config_in("target.nemo")
    assert (config["precision"], config["note"], config["global_batch_size"]) == (32, "kept", 4 * tp * pp)
    assert opened("target.nemo")[f"{'a' * 32}_old.model"] == PIECES
    Path("target.nemo").rename("source.nemo")
    given = [f"--tensor_model_parallel_size={tp}", f"--pipeline_model_parallel_size={pp}"]
    back = ["--target_tensor_model_parallel_size=1", "--target_pipeline_model_parallel_size=1"]
    done = ckptc(*change("--model_file=source.nemo", "--precision=bf16", *given, *back))
    assert done.code == 0, done.err
    there = torch.load(io.BytesIO(opened("target.nemo")["model_weights.ckpt"]), weights_only=True)
    for name, tensor in nemo(here)[0, 0].items():
        assert torch.equal(there[name][: len(tensor)], tensor.bfloat16())


@pytest.mark.parametrize(("given", "said"), [((-1, -1), ""), ((-1, 3), "degree 3 is not looked at"), ((4, 1), "--tensor_model_parallel_size is 4, but source.nemo holds files of 2"), ((2, 1), "")])
def test_the_files_decide_which_degrees_the_source_has(given, said, here, ckptc):
    """Whatever the command and the archive's own config say."""
    write_nemo(Path("source.nemo"), nemo(here, tp=2), tensor_model_parallel_size=8, pipeline_model_parallel_size=2)
    degrees = [f"--{name}_model_parallel_size={degree}" for name, degree in zip(("tensor", "pipeline"), given, strict=True)]
    done = ckptc(*change("--model_file=source.nemo", "--precision=32", *degrees, "--target_tensor_model_parallel_size=1", "--target_pipeline_model_parallel_size=2"))
    assert done.code == 0, done.err
    padded = {name: torch.nn.functional.pad(here[name], (0, 0, 0, 1)) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    check("target.nemo", nemo(here | padded, pp=2), torch.float32)
    assert said in done.err
    assert ("holds files of" in done.err) == ("holds files of" in said)
    assert done.out.startswith("ckptc convert source.nemo target.nemo --to nemo --dtype float32 --tp 1 --pp 2 --set-config global_batch_size=8\n")


@pytest.mark.parametrize(("pieces", "left"), [(33, 33), (32, 34)])
def test_padding_goes_where_the_tokenizer_and_the_rows_prove_it(pieces, left, here, ckptc):
    """34 rows at TP 2: 33 tokens are padded to that many; 32 would not be, so of these two rows none is known to be padding."""
    Path("new.model").write_bytes(trained("bpe", pieces))
    assert len(load("new.model")) == pieces
    ends = {name: torch.randn(34, HIDDEN) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    write_nemo(Path("source.nemo"), nemo(here | ends, tp=2))
    words = ["--target_tensor_model_parallel_size=1", "--target_pipeline_model_parallel_size=1", "--precision=32"]
    done = ckptc(*change("--model_file=source.nemo", "--tokenizer_model_path=new.model", *words))
    assert done.code == 0, done.err
    check("target.nemo", nemo(here | {name: rows[:left] for name, rows in ends.items()}), torch.float32)
    assert ("--set vocab=33" in done.out + done.err) == (pieces == 33)


def test_rows_in_blocks_are_cut_in_blocks(tmp_path, monkeypatch, ckptc):
    """What models with megatron_legacy have: all queries, all keys, all values."""
    monkeypatch.chdir(tmp_path)
    weights = made(HEADS)
    qkv = "model.language_model.encoder.layers.{}.self_attention.query_key_value.weight"
    blocks = [[weights[f"{LAYER.format(i)}self_attn.{x}_proj.weight"] for x in "qkv"] for i in range(LAYERS)]
    whole, two = nemo(weights, True, groups=HEADS), nemo(weights, True, 2, groups=HEADS)
    for i, parts in enumerate(blocks):
        whole[0, 0][qkv.format(i)] = torch.cat(parts)
        for t in range(2):
            two[t, 0][qkv.format(i)] = torch.cat([part.chunk(2)[t] for part in parts])
    write_nemo(Path("source.nemo"), whole, mcore_gpt=False, transformer_engine=False, num_query_groups=None)
    done = ckptc(*change("--model_file=source.nemo", "--megatron_legacy", "--precision=32", *ONE))
    assert done.code == 0, done.err
    check("target.nemo", two, torch.float32)


def test_a_tied_model_of_stages_keeps_its_copy_of_the_embedding(here, ckptc):
    tensors = nemo(here, pp=2)
    tensors[0, 1]["model.output_layer.weight"] = tensors[0, 0]["model.embedding.word_embeddings.weight"]
    write_nemo(Path("source.nemo"), tensors, share_embeddings_and_output_weights=True)
    words = ["--target_tensor_model_parallel_size=1", "--target_pipeline_model_parallel_size=1", "--precision=32"]
    done = ckptc(*change("--model_file=source.nemo", *words))
    assert done.code == 0, done.err
    one = nemo(here)
    del one[0, 0]["model.output_layer.weight"]
    check("target.nemo", one, torch.float32)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model_file=source.nemo", "--target_tensor_model_parallel_size=2", "--target_pipeline_model_parallel_size=2", "--tp_conversion_only"], "excludes pipeline stages"),
        (["--model_file=source.nemo", "--target_pipeline_model_parallel_split_rank=1", *ONE], "encoder-decoder"),
        (["--model_file=source.nemo", "--precision=7", *ONE], "--precision is `7`"),
        (["--model_file=source.nemo", "--target_file=target", *ONE], "must end in .nemo"),
        (["--model_file=source.nemo", "--tokenizer_model_path=nowhere", *ONE], "no file `nowhere`"),
        (["--model_file=source.nemo", "--target_tensor_model_parallel_size=3", "--target_pipeline_model_parallel_size=1"], "a part of a key/value group"),
        (["--model_file=nowhere.nemo", *ONE], "nowhere.nemo"),
        (["--model_file=org/nowhere", *ONE], "org/nowhere"),
        (ONE, "--model_file is needed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(words, sentence, here, ckptc):
    done = ckptc(*change(*words))
    assert done.code in (1, 2)
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert not Path("target.nemo").exists()


def test_llama_back_to_huggingface(here, ckptc):
    write_nemo(Path("two.nemo"), nemo(here, tp=2))
    words = "--input_name_or_path two.nemo --output_path out/weights.bin --hf_input_path HF --hf_output_path whole --cpu-only --precision 32"
    done = ckptc("compat", "convert_llama_nemo_to_hf", *words.split())
    assert done.code == 0, done.err
    for there in (torch.load("out/weights.bin", weights_only=True), load_file("whole/model.safetensors")):
        assert set(there) == set(here)
        assert all(torch.equal(there[name], here[name]) for name in here)
    assert [p.name for p in Path("out").iterdir()] == ["weights.bin"]
    assert json.loads(Path("whole/config.json").read_text())["vocab_size"] == VOCAB
    words = "--in-file two.nemo --out-file more.bin --hf-in-path HF --precision bf16"
    done = ckptc("compat", "convert_llama_nemo_to_hf.py", *words.split())
    assert done.code == 0, done.err
    there = torch.load("more.bin", weights_only=True)
    assert all(torch.equal(there[name], here[name].bfloat16()) for name in here)


def test_llama_back_to_huggingface_is_cast_to_the_configs_precision(here, ckptc):
    """`precision = model.cfg.precision` without --precision (NeMo convert_llama_nemo_to_hf.py:132-142)."""
    write_nemo(Path("two.nemo"), nemo(here, tp=2))
    done = ckptc("compat", "convert_llama_nemo_to_hf", "--input_name_or_path", "two.nemo", "--output_path", "weights.bin", "--hf_input_path", "HF")
    assert done.code == 0, done.err
    assert "tensors are cast to bfloat16, as the script does without --precision: the config's precision is bf16" in done.err
    there = torch.load("weights.bin", weights_only=True)
    assert all(torch.equal(there[name], here[name].bfloat16()) for name in here)


def test_the_tokenizer_goes_along_to_huggingface(here, ckptc):
    """The archive's own, or one that is named; settings that are there stay."""
    words = "--input_name_or_path source.nemo --output_path out/weights.bin --hf_input_path HF --hf_output_path whole --hf_output_tokenizer whole/tokenizer"
    done = ckptc("compat", "convert_llama_nemo_to_hf", *words.split())
    assert done.code == 0, done.err
    assert "tokenizer.model is written to whole/tokenizer" in done.err
    assert Path("whole/tokenizer/tokenizer.model").read_bytes() == PIECES
    assert json.loads(Path("whole/tokenizer/tokenizer_config.json").read_text()) == {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    Path("whole/tokenizer/tokenizer_config.json").write_text("{}")
    Path("new.model").write_bytes(b"other")
    for named, content in (("new.model", b"other"), ("HF", PIECES)):
        words = f"--in-file source.nemo --out-file out/weights.bin --hf-in-path HF --hf_output_tokenizer whole/tokenizer --input_tokenizer {named}"
        done = ckptc("compat", "convert_llama_nemo_to_hf", *words.split())
        assert done.code == 0, done.err
        assert Path("whole/tokenizer/tokenizer.model").read_bytes() == content
    assert Path("whole/tokenizer/tokenizer_config.json").read_text() == "{}"

    done = ckptc("compat", "convert_llama_nemo_to_hf", *words.replace("tokenizer HF", "tokenizer nowhere").split())
    assert (done.code, "no file `nowhere`" in done.err) == (1, True)
    write_nemo(Path("source.nemo"), nemo(here), tokenizer={"library": "huggingface", "type": "HF", "model": None})
    done = ckptc("compat", "convert_llama_nemo_to_hf", *words.replace("--input_tokenizer HF", "").replace("whole/", "more/").split())
    assert done.code == 0, done.err
    assert "--hf_output_tokenizer is not written: source.nemo holds no SentencePiece model" in done.err
    assert not Path("more").exists()


def write_run(weights: Tensors, tp: int, pp: int, legacy: bool) -> None:
    shutil.rmtree("run", ignore_errors=True)
    config = {**settings(tp, pp), "mcore_gpt": not legacy, "transformer_engine": not legacy, "tokenizer": {"library": "sentencepiece", "model": None}}
    for (t, p), tensors in nemo(weights, legacy, tp, pp).items():
        path = Path("run") / folder_of(t, p, tp, pp) / "last.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": tensors, "hyper_parameters": {"cfg": config}, "epoch": 1, "global_step": 3, "pytorch-lightning_version": "2.0.7"}, path)


def run_words(script: str, tp: int, pp: int, *more: object) -> list[object]:
    return ["compat", script, "--checkpoint_folder=run", "--checkpoint_name=last.ckpt", f"--tensor_model_parallel_size={tp}", f"--pipeline_model_parallel_size={pp}", *more]


@pytest.mark.parametrize(("tp", "pp", "legacy"), [(1, 1, False), (2, 1, True), (1, 2, True), (2, 2, False)])
def test_a_training_run_to_nemo(tp, pp, legacy, here, ckptc):
    write_run(here, tp, pp, legacy)
    done = ckptc(*run_words("megatron_ckpt_to_nemo.py", tp, pp, "--nemo_file_path=x.nemo", "--gpus_per_node=2", "--model_type=gpt", "--bcp"))
    assert done.code == 0, done.err
    check("x.nemo", nemo(here, legacy, tp, pp), torch.float32)
    assert config_in("x.nemo")["note"] == "kept"


def test_sft_and_hparams_and_no_archive(here, ckptc):
    write_run(here, 2, 1, False)
    Path("hparams.yaml").write_text(yaml.safe_dump({"cfg": {**settings(2, 1), "note": "of the file", "tokenizer": {"library": "huggingface", "model": None}}}))
    more = ["--nemo_file_path=x/y.nemo", "--gpus_per_node=2", "--model_type=sft", "--hparams_file=hparams.yaml", "--no_pack_nemo_file"]
    done = ckptc(*run_words("megatron_ckpt_to_nemo", 2, 1, *more))
    assert done.code == 0, done.err
    config = yaml.safe_load(Path("x/model_config.yaml").read_text())
    assert config["note"] == "of the file"
    assert config["target"].endswith(".MegatronGPTSFTModel")
    for (t, _), tensors in nemo(here, tp=2).items():
        there = torch.load(f"x/mp_rank_{t:02}/model_weights.ckpt", weights_only=True)
        assert all(torch.equal(there[name], tensors[name]) for name in tensors)


def test_other_models_and_other_degrees_are_not_converted(here, ckptc):
    write_run(here, 2, 1, False)
    done = ckptc(*run_words("examples/multimodal/convert_ckpt_to_nemo.py", 2, 1, "--nemo_file_path=x.nemo", "--model_type=megatron_clip"))
    assert done.err.startswith("error[not-yet]: models of type megatron_clip")
    done = ckptc(*run_words("megatron_ckpt_to_nemo", 1, 1, "--nemo_file_path=x.nemo", "--gpus_per_node=2", "--model_type=gpt"))
    assert done.err.startswith("error[degree-disagrees]")
    assert not Path("x.nemo").exists()
    done = ckptc(*run_words("convert_ckpt_to_nemo", 2, 1, "--nemo_file_path=x.nemo", "--model_type=gpt"))
    assert done.code == 0, done.err
    check("x.nemo", nemo(here, tp=2), torch.float32)
    done = ckptc(*run_words("examples/multimodal/convert_ckpt_to_nemo.py", 2, 1, "--nemo_file_path=y.nemo"))  # as the files are
    assert done.code == 0, done.err
    check("y.nemo", nemo(here, tp=2), torch.float32)


def test_a_cast_is_said_in_the_config(here, ckptc):
    assert ckptc("convert", "source.nemo", "x.nemo", "--to", "nemo", "--dtype", "float16").code == 0
    assert config_in("x.nemo")["precision"] == 16
    assert ckptc("convert", "source.nemo", "y.nemo", "--to", "nemo").code == 0
    assert config_in("y.nemo")["precision"] == "bf16"
