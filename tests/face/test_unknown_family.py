"""Models that no family here is: what is said of them, by their config and by the names of their tensors.

Names are those of transformers 5's classes, as their save_pretrained writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import ckptc
from ckptc.compiler.identify.detect import find_layouts
from ckptc.compiler.identify.match import Found
from ckptc.identify.identity import families_of, identity_of, said_by
from ckptc.identify.unknown_family import unknown_family
from ckptc.library import mapping_files as library
from ckptc.runtime.fault import Fault

L = "model.layers.0."
ATTENTION = tuple(f"{L}self_attn.{x}_proj.weight" for x in "qkvo")
GATED = tuple(f"{L}mlp.{x}_proj.weight" for x in ("gate", "up", "down"))
NORMS = (f"{L}input_layernorm.weight", f"{L}post_attention_layernorm.weight", "model.norm.weight")
LLAMA = ("model.embed_tokens.weight", *ATTENTION, *GATED, *NORMS, "lm_head.weight")
QKV_BIAS = tuple(f"{L}self_attn.{x}_proj.bias" for x in "qkv")
HEAD_NORMS = tuple(f"{L}self_attn.{x}_norm.weight" for x in "qk")
EXPERTS = (f"{L}mlp.gate.weight", *(f"{L}mlp.experts.0.{x}_proj.weight" for x in ("gate", "up", "down")))
SHARED = tuple(f"{L}mlp.shared_experts.{x}_proj.weight" for x in ("gate", "up", "down"))
POST_NORMS = tuple(f"{L}{x}_feedforward_layernorm.weight" for x in ("pre", "post"))
LATENT = tuple(f"{L}self_attn.{x}.weight" for x in ("q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj"))
B = "transformer.h.0."
GPT2 = (
    "transformer.wte.weight", "transformer.wpe.weight", *(f"{B}{x}.{y}" for x in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj") for y in ("weight", "bias")),
    "transformer.ln_f.weight", "transformer.ln_f.bias",
)  # fmt: skip


def without(names: tuple[str, ...], *ends: str) -> tuple[str, ...]:
    return tuple(name for name in names if not name.endswith(ends))


NO_QKV, FUSED = ("q_proj.weight", "k_proj.weight", "v_proj.weight"), (f"{L}self_attn.qkv_proj.weight", f"{L}mlp.gate_up_proj.weight")
NO_GATED = without(LLAMA, "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")


@dataclass(frozen=True)
class Case:
    """A model's tensors; the family that they are most like, if any is; what it has beside that, and lacks."""

    names: tuple[str, ...]
    near: str | None = None
    beside: tuple[str, ...] = field(default=())
    lacking: tuple[str, ...] = field(default=())


UNGATED = without(LLAMA, "gate_proj.weight")
OLMO2 = (*without(LLAMA, "input_layernorm.weight"), *HEAD_NORMS, f"{L}post_feedforward_layernorm.weight")
CASES = {
    # The names of a family that there is.
    "cwm": Case(LLAMA, "llama"), "smollm3": Case(without(LLAMA, "lm_head.weight"), "llama"),
    "granite_swa": Case(LLAMA, "llama"), "diffllama_plain": Case(LLAMA, "llama"),
    "internlm": Case((*LLAMA, *QKV_BIAS, f"{L}self_attn.o_proj.bias"), "llama"),
    "glm": Case((*without(LLAMA, "gate_proj.weight", "up_proj.weight"), *QKV_BIAS, FUSED[1]), "arcee", (FUSED[1],), (f"{L}mlp.up_proj.weight",)),
    "qwen2_vl_text": Case((*LLAMA, *QKV_BIAS, "visual.merger.ln_q.weight"), "llama", ("visual.merger.ln_q.weight",)),
    "mellum": Case((*NO_GATED, *HEAD_NORMS, *EXPERTS), "olmoe"),
    "sarvam_mla": Case((*without(NO_GATED, *NO_QKV), *LATENT, *EXPERTS, *SHARED), "deepseek"),
    # A few tensors more, or less.
    "vaultgemma": Case((*without(LLAMA, "lm_head.weight", "post_attention_layernorm.weight"), POST_NORMS[0]), "cohere", (POST_NORMS[0],)),
    "gemma4_text": Case((*without(LLAMA, "lm_head.weight"), *POST_NORMS, *HEAD_NORMS, f"{L}layer_scalar"), "gemma3", (f"{L}layer_scalar",)),
    "flex_olmo": Case((*without(NO_GATED, "input_layernorm.weight"), *HEAD_NORMS, *EXPERTS, f"{L}post_feedforward_layernorm.weight"), "olmoe", (f"{L}post_feedforward_layernorm.weight",)),
    "olmo": Case(without(LLAMA, "norm.weight"), "cohere", (), (NORMS[0], NORMS[2])),
    "bitnet": Case((*LLAMA, f"{L}self_attn.attn_sub_norm.weight", f"{L}mlp.ffn_sub_norm.weight"), "llama", (f"{L}self_attn.attn_sub_norm.weight",)),
    "apertus": Case((*without(UNGATED, "layernorm.weight"), *HEAD_NORMS, f"{L}attention_layernorm.weight", f"{L}feedforward_layernorm.weight"), "cohere", (f"{L}attention_layernorm.weight",)),
    "phimoe": Case((*NO_GATED, f"{L}block_sparse_moe.gate.weight", *(f"{L}block_sparse_moe.experts.0.w{i}.weight" for i in (1, 2, 3)), "lm_head.bias"), "mixtral", ("lm_head.bias",)),
    "imagegpt": Case(without(GPT2, "ln_f.bias"), "gpt2", (), ("transformer.ln_f.bias",)),
    "bloom": Case(tuple(f"transformer.h.0.self_attention.{x}.weight" for x in ("query_key_value", "dense")), None),
    # Other layers, and what is no decoder.
    "mamba2": Case(("backbone.embeddings.weight", "backbone.layers.0.mixer.A_log", "backbone.layers.0.mixer.D", "backbone.norm_f.weight"), None),
    "rwkv": Case(("rwkv.embeddings.weight", "rwkv.blocks.0.attention.time_decay", "head.weight"), None),
    "t5": Case(("shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight", "decoder.block.0.layer.0.SelfAttention.q.weight"), None),
    "bert": Case(("bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"), None),
    "whisper": Case(("model.encoder.conv1.weight", "model.decoder.layers.0.fc1.weight", "proj_out.weight"), None),
}  # fmt: skip
FAMILIES = tuple(f for f in library.families(None) if any(x.own_config for x in f.layouts))


@pytest.mark.parametrize("model_type", CASES)
def test_what_a_model_is_and_what_it_is_like_is_said(model_type: str) -> None:
    case = CASES[model_type]
    said = said_by({"model_type": model_type, "architectures": ["SomeForCausalLM"]}, "a/config.json")
    assert said is not None
    assert families_of(FAMILIES, said) == ()
    found = [Found("model.safetensors", name.replace(".0.", f".{i}."), "bfloat16", (3, 5)) for name in case.names for i in range(2 if ".0." in name else 1)]
    fault = unknown_family(said, FAMILIES, find_layouts(FAMILIES, found), found)
    assert fault.code == "unknown-family"
    assert fault.title == f'ckptc has no mapping for model_type "{model_type}" (SomeForCausalLM) yet'
    like = next(note for note in fault.notes if "tensors" in note)
    assert f"`{case.near}`" in like if case.near else "no family's tensors are like its own" in like
    beside, _, lacking = like.partition("it lacks")
    assert all(f"`{name}`" in beside for name in case.beside)
    assert all(f"`{name}`" in lacking for name in case.lacking)
    assert ("whether it computes the same" in like) == bool(case.near and not case.beside and not case.lacking)
    assert not any("--family" in each for each in (*fault.notes, fault.help))  # it would not help
    assert any(note.startswith("there are arcee, cohere, cohere2, dbrx, ") for note in fault.notes)


@pytest.mark.parametrize(("keys", "families"), [
    ({"model_type": "llama"}, {"llama"}), ({"model_type": "deepseek_v2"}, {"deepseek"}), ({"model_type": "deepseek_v3"}, {"deepseek"}), ({"model_type": "qwen2_moe"}, {"qwen2_moe"}),
    ({"model_type": "llava_llama"}, {"neva"}), ({"model_type": "vit"}, {"vit"}), ({"model_type": "Llama"}, set()),
    # Without a model_type the class tells; beside one it does not.
    ({"architectures": ["MistralForCausalLM"]}, {"mistral"}), ({"architectures": ["Qwen2MoeForCausalLM"]}, {"qwen2_moe"}), ({"architectures": ["GPT2LMHeadModel"]}, {"gpt2"}),
    ({"architectures": ["GPTNeoXForCausalLM"]}, {"gpt_neox"}), ({"architectures": ["DeepseekV3ForCausalLM"]}, {"deepseek"}), ({"architectures": ["LlamaModel"]}, {"llama"}),
    ({"architectures": ["LlavaForConditionalGeneration"]}, {"neva"}), ({"architectures": ["ViTForImageClassification"]}, {"vit"}), ({"architectures": ["BitNetForCausalLM"]}, set()), ({"architectures": ["Olmo2ForCausalLM"]}, {"olmo2"}), ({"_target_": "nemo.collections.llm.gpt.model.gemma2.Gemma2Model"}, {"gemma2"}),
    ({"model_type": "mistral", "architectures": ["LlamaForCausalLM"]}, {"mistral"}),
    # NeMo 2's classes (nemo/collections/llm/gpt/model).
    ({"_target_": "nemo.collections.llm.gpt.model.llama.LlamaModel"}, {"llama"}), ({"_target_": "nemo.collections.llm.gpt.model.qwen2.Qwen2Model"}, {"qwen2"}),
    ({"_target_": "nemo.collections.llm.gpt.model.qwen3.Qwen3Model"}, {"qwen3", "qwen3_moe"}), ({"_target_": "nemo.collections.llm.gpt.model.deepseek.DeepSeekModel"}, {"deepseek"}),
    ({"_target_": "nemo.collections.llm.gpt.model.baichuan.Baichuan2Model"}, set()), ({"_target_": "nemo.collections.llm.gpt.model.baichuan.BaichuanModel"}, set()),
    ({"_target_": "nemo.collections.llm.gpt.model.llama4.Llama4Model"}, set()), ({"_target_": "nemo.collections.llm.gpt.model.ssm.SSMModel"}, set()),
])  # fmt: skip
def test_the_families_of_what_a_config_says(keys: dict[str, Any], families: set[str]) -> None:
    said = said_by(keys, "a/config.json")
    assert said is not None
    assert {family.name for family in families_of(FAMILIES, said)} == families


@pytest.mark.parametrize("keys", [
    {}, {"model_type": None}, {"model_type": 3, "architectures": []}, {"architectures": [3]}, {"architectures": "x"}, {"num_layers": 3},
    # Classes that all decoders have, or that are of someone's own, restrict nothing.
    {"target": "nemo.collections.nlp.models.language_modeling.megatron_gpt_model.MegatronGPTModel"}, {"_target_": "megatron.bridge.models.gpt_provider.GPTModelProvider"},
    {"_target_": "my.own.Model"}, {"_target_": "nemo.collections.llm.gpt.model.base.GPTModel"},
])  # fmt: skip
def test_what_says_nothing_of_the_family_leaves_all(keys: dict[str, Any]) -> None:
    assert {f.name for f in families_of(FAMILIES, said_by(keys, "a/config.json"))} >= {"llama", "mistral", "qwen3", "gpt2"}


def test_every_family_with_a_config_of_huggingface_says_which_model_it_is() -> None:
    hf = {f.name: identity_of(f, f.layout("hf")) for f in FAMILIES if any(x.name == "hf" for x in f.layouts)}
    assert len(hf) >= 13
    assert all(identity is not None and identity[0] == "model_type" and identity[1] for identity in hf.values())


# --- by every way in --------------------------------------------------------------------------------

KEYS = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4,
    "max_position_embeddings": 99, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
SHAPES = {
    "embed_tokens": (50, 24), "lm_head": (50, 24), "q_proj": (24, 24), "k_proj": (8, 24), "v_proj": (8, 24), "o_proj": (24, 24), "gate_proj": (40, 24), "up_proj": (40, 24),
    "down_proj": (24, 40),
}  # fmt: skip


def model(folder: Path, names: tuple[str, ...] = LLAMA, **keys: Any) -> Path:
    folder.mkdir()
    every = {name.replace(".0.", f".{i}.") for name in names for i in range(2)}
    save_file({name: torch.randn(SHAPES.get(name.split(".")[-2], (24,))) for name in sorted(every)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({k: v for k, v in {**KEYS, **keys}.items() if v is not None}))
    return folder


TITLE = 'ckptc has no mapping for model_type "bitnet" (BitNetForCausalLM) yet'
SUB_NORMS = (f"{L}self_attn.attn_sub_norm.weight", f"{L}mlp.ffn_sub_norm.weight")


@pytest.mark.parametrize("words", [
    ("convert", "BITNET", "out", "--to", "megatron"), ("convert", "BITNET", "out", "--to", "hf"), ("convert", "BITNET", "out", "--to", "nemo", "--dry-run"),
    ("compat", "checkpoint_converter", "--model_style=hf", "--input_dir=BITNET", "--output_dir=out", "--convert_from_full_state", "--config=BITNET/config.json", "--tp_size=2", "--qkv_linear=1", "--hw_backend=trn1"),
    ("compat", "convert_llama_hf_to_nemo", "--input_name_or_path=BITNET", "--output_path=out.nemo"), ("inspect", "BITNET"),
])  # fmt: skip
def test_it_is_said_by_every_command(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ckptc: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "BITNET", (*LLAMA, *SUB_NORMS), model_type="bitnet", architectures=["BitNetForCausalLM"])
    done = ckptc(*words)
    said = " ".join((done.out + done.err).split())
    assert TITLE in said
    assert "ffn_sub_norm.weight" in said
    assert "another family" not in said
    assert done.code == (0 if words[0] == "inspect" else 1)
    assert not list(tmp_path.glob("out*"))


def test_inspect_says_what_the_config_says(tmp_path: Path) -> None:
    report = ckptc.inspect(model(tmp_path / "x", model_type="cwm", architectures=["CwmForCausalLM"]))
    assert (report["family"], report["says"]) == (None, {"key": "model_type", "value": "cwm", "architecture": "CwmForCausalLM"})
    assert report["notes"][0] == 'ckptc has no mapping for model_type "cwm" (CwmForCausalLM) yet'
    known = ckptc.inspect(model(tmp_path / "y", model_type="llama"))
    assert (known["family"], known["notes"]) == ("llama", [])


def test_a_config_without_a_model_type_is_read_by_its_class(tmp_path: Path) -> None:
    source = model(tmp_path / "x", architectures=["MistralForCausalLM"], sliding_window=None)
    assert ckptc.plan(source, to="megatron").data.mapping == "mistral"
    with pytest.raises(Fault, match="no mapping for CwmForCausalLM models yet"):
        ckptc.plan(model(tmp_path / "y", architectures=["CwmForCausalLM"]), to="megatron")


def test_a_family_that_is_not_the_models_is_refused_with_what_helps(tmp_path: Path) -> None:
    """A config that says so is what makes it the family's: that help works."""
    source = model(tmp_path / "x", model_type="cwm")
    with pytest.raises(Fault) as error:
        ckptc.plan(source, to="megatron", family="llama")
    assert error.value.code == "unknown-family"
    assert error.value.title.endswith('says model_type "cwm", and family `llama` is for model_type "llama"')
    assert 'a copy of the config that says model_type "llama" with --config' in error.value.help
    copy = tmp_path / "config.json"
    copy.write_text(json.dumps({**KEYS, "model_type": "llama"}))
    assert ckptc.plan(source, to="megatron", family="llama", config=copy).data.mapping == "llama"
    with pytest.raises(Fault) as error:
        ckptc.plan(model(tmp_path / "y", model_type="mistral"), to="megatron", family="llama")
    assert (error.value.code, error.value.help) == ("other-family", "--family mistral, or leave --family out")
    with pytest.raises(Fault) as error:
        ckptc.plan(model(tmp_path / "z", (*LLAMA, *SUB_NORMS), model_type="bitnet"), to="megatron", family="llama")
    assert "a copy of the config" not in error.value.help


def test_a_mapping_of_ones_own_says_which_model_it_is_for(tmp_path: Path) -> None:
    source = model(tmp_path / "x", model_type="cwm")
    mapping = tmp_path / "cwm.ckmap"
    mapping.write_text('use "llama.ckmap"\nmodel cwm extends llama {}\n')
    with pytest.raises(Fault) as error:
        ckptc.plan(source, to="megatron", mapping=mapping)
    assert error.value.title == f'{mapping} has no family for model_type "cwm"'
    assert 'its family `cwm` is for model_type "llama"' in error.value.notes
    mapping.write_text('use "llama.ckmap"\nmodel cwm extends llama {}\nlayout hf of cwm extends hf { config { is .model_type "cwm" } }\n')
    assert ckptc.plan(source, to="megatron", mapping=mapping).data.mapping == "cwm"


def test_a_plan_without_a_checkpoint_asks_its_config_as_well(tmp_path: Path) -> None:
    model(tmp_path / "x", model_type="cwm")
    with pytest.raises(Fault, match='says model_type "cwm"'):
        ckptc.compile("llama", from_="hf", to="nxdt", config=tmp_path / "x/config.json", family="llama")


def test_a_class_of_nemo_2_that_no_family_is(tmp_path: Path) -> None:
    """Its tensors have the names of all decoders, so that its class alone tells (nemo/collections/llm/gpt/model/baichuan.py)."""
    ckptc.convert(model(tmp_path / "x", model_type="llama"), tmp_path / "nemo2", to="nemo2")
    place = tmp_path / "nemo2/context/model.yaml"
    config = yaml.safe_load(place.read_text())
    place.write_text(yaml.safe_dump({**config, "_target_": "nemo.collections.llm.gpt.model.baichuan.Baichuan2Model"}))
    with pytest.raises(Fault, match=r"no mapping for `nemo\.collections\.llm\.gpt\.model\.baichuan\.Baichuan2Model` yet"):
        ckptc.plan(tmp_path / "nemo2", to="hf")


def test_a_class_of_nemo_1_whose_tensors_no_family_has(tmp_path: Path) -> None:
    """nemo/collections/nlp/models/language_modeling/megatron_t5_model.py; MegatronGPTModel is what all decoders have."""
    modules = "nemo.collections.nlp.models.language_modeling"
    torch.save({"enc_dec_model.encoder_embedding.word_embeddings.weight": torch.ones(3, 2)}, tmp_path / "model_weights.ckpt")
    for target in (f"{modules}.megatron_t5_model.MegatronT5Model", f"{modules}.megatron_gpt_model.MegatronGPTModel"):
        (tmp_path / "model_config.yaml").write_text(yaml.safe_dump({"target": target, "num_layers": 2}))
        with pytest.raises(Fault) as error:
            ckptc.plan(tmp_path, to="hf")
        assert error.value.code == "other-model"
        assert "is an encoder with a decoder" in error.value.title
