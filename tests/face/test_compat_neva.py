"""NeMo 1's converters of LLaVA to NeVA through `ckptc compat`, and the way from Llama-2 to NeVA, command by command.

What comes out is opened with tarfile and torch alone, and compared with what plain torch makes of the weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.face.sentencepiece_models import load, trained
from tests.face.test_compat_nemo import (
    DIM,
    GROUPS,
    HEADS,
    HIDDEN,
    LAYERS,
    Tensors,
    check,
    config_in,
    hparams,
    made,
    nemo,
    opened,
    settings,
    write_hf,
)

VOCAB, VISION, TOKENS = 36, 10, [f"<extra_id_{i}>" for i in range(8)]  # 4 is the largest power of two that divides 36
ENDS = ("model.embed_tokens.weight", "lm_head.weight")
ADAPTER = "embedding.word_embeddings.adapter_layer.mm_projector_adapter.mm_projector."


def llama(groups: int = HEADS) -> Tensors:
    weights = made(groups)
    return weights | {name: torch.randn(VOCAB, HIDDEN) for name in ENDS}


def adapter(deep: bool = True) -> Tensors:
    torch.manual_seed(11)
    if not deep:
        return {"weight": torch.randn(HIDDEN, VISION), "bias": torch.randn(HIDDEN)}
    shapes = {"0.weight": (HIDDEN, VISION), "0.bias": (HIDDEN,), "2.weight": (HIDDEN, HIDDEN), "2.bias": (HIDDEN,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def write_llava(folder: Path, weights: Tensors, deep: bool = True, **more: Any) -> None:
    """LLaVA as its authors publish it, with the rotary frequencies of old, and what there is of a vision tower."""
    write_hf(folder, weights, groups=HEADS)
    held = weights | {f"model.mm_projector.{name}": t for name, t in adapter(deep).items()}
    held["model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"] = torch.randn(VISION)
    held |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": 1 / 10000.0 ** (torch.arange(0, DIM, 2).float() / DIM) for i in range(LAYERS)}
    save_file(held, folder / "model.safetensors")
    said = json.loads((folder / "config.json").read_text()) | {"model_type": "llava", "vocab_size": VOCAB, "mm_hidden_size": VISION}
    said |= {"mm_projector_type": "mlp2x_gelu"} if deep else {}
    (folder / "config.json").write_text(json.dumps({**said, **more}))


def write_hf_llava(folder: Path, weights: Tensors, image: int = 336) -> None:
    """HuggingFace's own form, with key/value heads that are shared."""
    folder.mkdir()
    held = {f"language_model.{name}": t for name, t in weights.items()}
    held |= {f"multi_modal_projector.linear_{int(name[0]) // 2 + 1}.{name[2:]}": t for name, t in adapter().items()}
    held["vision_tower.vision_model.embeddings.class_embedding"] = torch.randn(VISION)
    save_file(held, folder / "model.safetensors")
    text = {"model_type": "llama", "vocab_size": VOCAB, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "hidden_size": HIDDEN}
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text, "vision_config": {"hidden_size": VISION, "image_size": image}}))


def neva(weights: Tensors, rows: int, legacy: bool, tp: int = 1, deep: bool = True, groups: int = HEADS) -> dict[tuple[int, int], Tensors]:
    """What NeMo's module has on each rank: the language model with zeros in rows of its own, the adapter whole."""
    padded = weights | {name: torch.cat([weights[name], torch.zeros(rows - VOCAB, HIDDEN)]) for name in ENDS}
    top = "model.language_model." if legacy else "model."
    ranks = nemo(padded, legacy, tp, groups=groups)
    return {rank: held | {top + ADAPTER + name: t for name, t in adapter(deep).items()} for rank, held in ranks.items()}


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The bytes of tokenizer.model, in the working directory, with as many pieces as Llama has rows."""
    monkeypatch.chdir(tmp_path)
    Path("tokenizer.model").write_bytes(trained("bpe", VOCAB))
    assert len(load("tokenizer.model")) == VOCAB
    return Path("tokenizer.model").read_bytes()


def add_tokens(ckptc, tokens: list[str]) -> None:
    words = ["--input_file", "tokenizer.model", "--output_file", "neva.model", "--is_userdefined", "--tokens", *tokens]
    done = ckptc("compat", "add_special_tokens_to_sentencepiece.py", *words)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"New tokenizer vocab size: {VOCAB + len(tokens)}"
    created = [f"INFO: Created token '{token}' at ID {number}" for number, token in enumerate(tokens, VOCAB)]  # as the script logs it
    assert done.err.splitlines() == [*created, f"INFO: New tokenizer vocab size: {VOCAB + len(tokens)}", "INFO: Created new tokenizer at: neva.model"]


def tokenizer_in(path: str) -> bytes:
    files = opened(path)
    names = [name for name in files if name.endswith(".model")]
    assert config_in(path)["tokenizer"]["model"] == f"nemo:{names[0]}"
    assert len(names) == 1
    return files[names[0]]


@pytest.mark.parametrize("deep", [True, False])
def test_llava_to_neva(deep, tokenizer, ckptc):
    """43 pieces are padded to 44 rows, of which LLaVA has 36."""
    add_tokens(ckptc, TOKENS[:7])
    write_llava(Path("LLAVA"), llama(), deep)
    done = ckptc("compat", "convert_hf_llava_to_neva.py", "--in-file", "LLAVA", "--out-file", "x.nemo", "--tokenizer-model", "neva.model")
    assert done.code == 0, done.err
    check("x.nemo", neva(llama(), 44, True, deep=deep), torch.float32)
    config = config_in("x.nemo")
    assert tokenizer_in("x.nemo") == Path("neva.model").read_bytes()
    assert (config["mcore_gpt"], config["transformer_engine"], config["precision"], config["make_vocab_size_divisible_by"]) == (False, False, 32, 4)
    assert (config["data"]["conv_template"], config["mm_cfg"]["model_type"], config["mm_cfg"]["llm"]["model_type"]) == ("llama_2",) * 3
    assert (config["mm_cfg"]["vision_encoder"]["from_pretrained"], config["data"]["image_token_len"]) == ("openai/clip-vit-large-patch14", 256)
    assert config["mm_cfg"]["mm_mlp_adapter_type"] == ("mlp2x_gelu" if deep else "linear")
    assert done.out.splitlines()[0] == (
        "ckptc convert LLAVA x.nemo --to nemo-legacy --family neva --dtype float32 --set conversation=llama_2 --set padded_vocab=44 "
        "--tokenizer neva.model"
    )
    for said in ("cast to float32", "43 pieces, padded 44 rows; the 8 that LLaVA does not have are zeros", "vision tower's tensors are left out"):
        assert said in done.err


def test_llava_to_neva_by_other_words(tokenizer, ckptc):
    """Without a tokenizer it is that of the folder; with a config of Megatron-core's it is the other layout."""
    write_llava(Path("LLAVA"), llama(), mm_vision_tower="openai/clip-vit-large-patch14-336")
    Path("LLAVA/tokenizer.model").write_bytes(tokenizer)
    base = hparams(mcore_gpt=True, transformer_engine=True, seed=42, data={"num_workers": 3, "conv_template": "x"}, mm_cfg={"vision_encoder": {"freeze": False}})
    words = ["--in-file=LLAVA", "--out-file=x.nemo", "--conv-template", "v1", "--precision=bf16", "--config-file", base]
    done = ckptc("compat", "convert_hf_llava_to_neva", *words)
    assert done.code == 0, done.err
    check("x.nemo", neva(llama(), VOCAB, False), torch.bfloat16)
    config = config_in("x.nemo")
    assert tokenizer_in("x.nemo") == tokenizer
    assert config["data"] == {"num_workers": 3, "conv_template": "v1", "image_token_len": 576}
    assert config["mm_cfg"]["vision_encoder"] == {"freeze": False, "from_pretrained": "openai/clip-vit-large-patch14-336", "hidden_size": VISION}
    assert (config["seed"], config["mm_cfg"]["model_type"], config["precision"]) == (42, "v1", "bf16")
    assert "not taken from base.yaml, as they follow from the model: data.conv_template" in done.err
    assert "pieces" not in done.err


@pytest.mark.parametrize(("image", "name", "patches"), [(336, "openai/clip-vit-large-patch14-336", 576), (224, "openai/clip-vit-large-patch14", 256)])
def test_huggingface_llava_to_neva(image, name, patches, tokenizer, ckptc):
    """The script pads to 128 rows, as its config says."""
    add_tokens(ckptc, TOKENS)
    write_hf_llava(Path("HF"), llama(GROUPS), image)
    words = ["--input_name_or_path=HF", "--output_path=x.nemo", "--tokenizer_path=neva.model", "--skip_verification"]
    done = ckptc("compat", "scripts/checkpoint_converters/convert_llava_hf_to_nemo.py", *words)
    assert done.code == 0, done.err
    check("x.nemo", neva(llama(GROUPS), 128, False, groups=GROUPS), torch.bfloat16)
    config = config_in("x.nemo")
    assert tokenizer_in("x.nemo") == Path("neva.model").read_bytes()
    assert (config["mm_cfg"]["vision_encoder"]["from_pretrained"], config["data"]["image_token_len"]) == (name, patches)
    assert (config["data"]["conv_template"], config["mm_cfg"]["llm"]["model_type"], config["precision"]) == ("v1", "v1", "bf16")
    assert (config["mcore_gpt"], config["num_query_groups"], config["make_vocab_size_divisible_by"]) == (True, GROUPS, 128)
    assert "--skip_verification is not needed" in done.err
    assert "44 pieces, padded 128 rows; the 92 that LLaVA does not have are zeros" in done.err


def test_hparams_of_huggingface_llava(tokenizer, ckptc):
    """The base says to how many rows the vocabulary is padded; what the model says is not taken, and that is said."""
    add_tokens(ckptc, TOKENS)
    write_hf_llava(Path("HF"), llama(GROUPS))
    base = hparams(mcore_gpt=True, transformer_engine=True, make_vocab_size_divisible_by=5, hidden_size=7, seed=42, tokenizer={"model": "/other", "delimiter": ";"})
    words = ["--input_name_or_path=HF", "--output_path=x.nemo", "--tokenizer_path=neva.model", "--hparams_file", base, "--precision", 32]
    done = ckptc("compat", "convert_llava_hf_to_nemo", *words, "--conv_template=nvgpt")
    assert done.code == 0, done.err
    check("x.nemo", neva(llama(GROUPS), 45, False, groups=GROUPS), torch.float32)
    config = config_in("x.nemo")
    assert (config["seed"], config["hidden_size"], config["make_vocab_size_divisible_by"], config["tokenizer"]["delimiter"]) == (42, HIDDEN, 5, ";")
    assert config["data"]["conv_template"] == "nvgpt"
    assert "not taken from base.yaml, as they follow from the model: hidden_size, tokenizer.model\n" in done.err


@pytest.mark.parametrize("multiple", [0, -3, 2.5, "many", True, [4]])
def test_a_multiple_that_is_none_is_refused_by_the_name_of_its_file(multiple, tokenizer, ckptc):
    write_hf_llava(Path("HF"), llama(GROUPS))
    base = hparams(make_vocab_size_divisible_by=multiple)
    done = ckptc("compat", "convert_llava_hf_to_nemo", "--input_name_or_path=HF", "--output_path=x.nemo", f"--hparams_file={base}")
    assert done.code == 1
    assert done.err.splitlines()[0] == f"error[bad-config]: make_vocab_size_divisible_by of base.yaml is {multiple!r}, and must be a whole number from 1"


def test_a_folder_of_huggingfaces_tokenizer_and_another_tower_are_named(tokenizer, ckptc):
    write_llava(Path("LLAVA"), llama())
    Path("LLAVA/tokenizer.model").unlink()
    Path("LLAVA/tokenizer.json").write_text("{}")
    more = ["--mm_vision_tower=openai/clip-vit-large-patch14-336", "--conv-template", 'a: "b']
    done = ckptc("compat", "convert_hf_llava_to_neva", "--in-file=LLAVA", "--out-file=x.nemo", *more)
    assert done.code == 0, done.err
    check("x.nemo", neva(llama(), VOCAB, True), torch.float32)
    config = config_in("x.nemo")
    assert (config["tokenizer"]["library"], config["tokenizer"]["type"]) == ("huggingface", "LLAVA")
    assert (config["mm_cfg"]["vision_encoder"]["from_pretrained"], config["data"]["image_token_len"]) == ("openai/clip-vit-large-patch14-336", 576)
    assert (config["data"]["conv_template"], config["mm_cfg"]["model_type"]) == ('a: "b', 'a: "b')
    Path("LLAVA/tokenizer.json").unlink()
    bare = ckptc("compat", "convert_hf_llava_to_neva", "--in-file=LLAVA", "--out-file=bare.nemo", *more)
    assert bare.code == 0, bare.err
    assert "the config's tokenizer is not said, as there is none beside the source" in bare.err
    assert "--tokenizer" not in bare.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tokenizer-model=small.model"], "has 32 pieces, padded 32, and the checkpoint has 36 rows: NeMo would not load it"),
        (["--tokenizer-model=LLAVA/config.json"], "is not a SentencePiece model"),
        (["--tokenizer-model=nowhere"], "no file `nowhere`"),
        (["--out-file=x"], "must end in .nemo"),
        (["--precision=7"], "--precision is `7`"),
        (["--in-file=nowhere"], "nowhere"),
        (["--config-file=nowhere.yaml"], "nowhere.yaml"),
        (["--in-file=HF"], "family `neva` is for model_type"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(words, sentence, tokenizer, ckptc):
    Path("small.model").write_bytes(trained("bpe", 32))
    write_hf(Path("HF"), llama(), groups=HEADS)
    write_llava(Path("LLAVA"), llama())
    done = ckptc("compat", "convert_hf_llava_to_neva", "--in-file=LLAVA", "--out-file=x.nemo", *words)
    assert done.code in (1, 2)
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert not list(Path().glob("x*"))


def test_from_llama_to_neva_of_two_ranks(tokenizer, ckptc):
    """The framework's own order: Llama with NeMo's own modules, cut in two; the tokenizer; LLaVA, cut in two and joined again."""
    Path("neva/checkpoints").mkdir(parents=True)
    weights = llama()
    write_hf(Path("llama-2-7b-chat-hf"), weights, groups=HEADS)
    config = json.loads(Path("llama-2-7b-chat-hf/config.json").read_text())
    Path("llama-2-7b-chat-hf/config.json").write_text(json.dumps(config | {"vocab_size": VOCAB}))
    Path("llama-2-7b-chat-hf/tokenizer.model").write_bytes(tokenizer)
    base = hparams(mcore_gpt=False, transformer_engine=False)
    done = ckptc(
        "compat", "convert_hf_llama_to_nemo.py", "--in-file=./llama-2-7b-chat-hf/", "--out-file=neva/checkpoints/llama-2-7b-chat.nemo", f"--hparams_file={base}",
    )  # fmt: skip
    assert done.code == 0, done.err
    check("neva/checkpoints/llama-2-7b-chat.nemo", nemo(weights, True, groups=HEADS), torch.float32)

    def change(source: str, target: str, tp: int, to: int, *more: str) -> None:
        done = ckptc(
            "compat", "megatron_change_num_partitions.py", f"--model_file={source}", f"--target_file={target}", f"--tensor_model_parallel_size={tp}",
            f"--target_tensor_model_parallel_size={to}", "--pipeline_model_parallel_size=1", "--target_pipeline_model_parallel_size=1",
            "--tp_conversion_only", *more,
        )  # fmt: skip
        assert done.code == 0, done.err

    gpt = "--model_class=nemo.collections.nlp.models.language_modeling.megatron_gpt_model.MegatronGPTModel"
    change("neva/checkpoints/llama-2-7b-chat.nemo", "llama-2-7b-chat-tp2.nemo", 1, 2, gpt, "--tokenizer_model_path=tokenizer.model")
    two = weights | {name: torch.cat([weights[name], torch.zeros(4, HIDDEN)]) for name in ENDS}  # 4 at each of 2 ranks: 40
    check("llama-2-7b-chat-tp2.nemo", nemo(two, True, 2, groups=HEADS), torch.float16)

    add_tokens(ckptc, TOKENS)
    weights = {name: -t for name, t in weights.items()}  # tuned
    write_llava(Path("llava-llama-2-13b-chat-lightning-preview"), weights, deep=False)
    done = ckptc(
        "compat", "convert_hf_llava_to_neva.py", "--in-file", "llava-llama-2-13b-chat-lightning-preview", "--out-file", "neva-llava.nemo",
        "--tokenizer-model", "neva.model", "--conv-template", "llama_2",
    )  # fmt: skip
    assert done.code == 0, done.err
    check("neva-llava.nemo", neva(weights, 44, True, deep=False), torch.float32)

    model = "--model_class=nemo.collections.multimodal.models.multimodal_llm.neva.neva_model.MegatronNevaModel"
    change("neva-llava.nemo", "two.nemo", 1, 2, model, "--precision=32", "--tokenizer_model_path=neva.model")
    check("two.nemo", neva(weights, 48, True, 2, deep=False), torch.float32)
    change("two.nemo", "one.nemo", 2, 1, model, "--precision=32", "--tokenizer_model_path=neva.model")
    check("one.nemo", neva(weights, 44, True, deep=False), torch.float32)
    for path, tp in (("neva-llava.nemo", 1), ("two.nemo", 2), ("one.nemo", 1)):
        assert tokenizer_in(path) == Path("neva.model").read_bytes()
        assert load(tokenizer_in(path)).piece_to_id(TOKENS) == list(range(VOCAB, VOCAB + 8))
        assert config_in(path)["tensor_model_parallel_size"] == tp
    before, after = (yaml.safe_load(opened(path)["model_config.yaml"]) for path in ("neva-llava.nemo", "one.nemo"))
    assert after | {"tokenizer": None} == before | {"tokenizer": None}


@pytest.mark.parametrize("model_type", [[], ["--model_type=neva"]])
@pytest.mark.parametrize(("tp", "legacy"), [(1, True), (2, True), (2, False)])
def test_a_training_run_of_neva_to_nemo(tp, legacy, model_type, tmp_path, monkeypatch, ckptc):
    """By the page's own command, which does not say what model it is."""
    monkeypatch.chdir(tmp_path)
    ranks = neva(llama(), 40, legacy, tp)
    config = settings(tp, 1) | {
        "mcore_gpt": not legacy, "transformer_engine": not legacy, "num_query_groups": HEADS, "make_vocab_size_divisible_by": 4,
        "mm_cfg": {"mm_mlp_adapter_type": "mlp2x_gelu"}, "tokenizer": {"library": "sentencepiece", "model": None},
    }  # fmt: skip
    for (rank, _), tensors in ranks.items():
        path = Path("run") / (f"mp_rank_{rank:02}" if tp > 1 else "") / "neva--step=3.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": tensors, "hyper_parameters": {"cfg": config}, "epoch": 1, "pytorch-lightning_version": "2.0.7"}, path)
    done = ckptc(
        "compat", "examples/multimodal/convert_ckpt_to_nemo.py", "--checkpoint_folder", "run", "--checkpoint_name", "neva--step=3.ckpt", "--nemo_file_path",
        "x.nemo", "--tensor_model_parallel_size", tp, "--pipeline_model_parallel_size", 1, *model_type,
    )  # fmt: skip
    assert done.code == 0, done.err
    check("x.nemo", ranks, torch.float32)
    assert config_in("x.nemo")["mm_cfg"] == {"mm_mlp_adapter_type": "mlp2x_gelu"}
