"""NeVA: LLaVA in both its forms to NeMo's two layouts, and changes of tensor parallel ranks, hash-equal to the reference.

The reference leaves rows of the vocabulary that HuggingFace does not have as the model was initialised, which the
oracle shows as one number. Here they are zeros.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ckptc
from ckptc.main import main
from tests.archives import unpack
from tests.face.sentencepiece_models import trained

from .nemo_cases import ORACLE, Case, Held, contents, digest

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

CHANGE = "neva_legacy_tp_change"
LLAVA = ["llava_linear_to_neva_legacy", "llava_mlp2x_to_neva_legacy"]
HF = "hf_llava15_to_neva_v20"
TOWER = "vision_tower"


def tensors(case: str) -> dict[str, torch.Tensor]:
    return load_file(ORACLE / case / "hf_model.safetensors")


def filled_with_zeros(case: str) -> dict[tuple[str, str], Held]:
    """What is expected, with zeros in the rows that the reference does not write."""
    held, rows = Case(case).expected()[""], Case(case).spec["meta"]["nemo_vocab_rows"]
    by_end = {".word_embeddings.weight": "embed_tokens.weight", ".output_layer.weight": "lm_head.weight"}
    for (file, name), (shape, dtype, _) in list(held.items()):
        for end, theirs in by_end.items():
            if name.endswith(end):
                ours = next(t for n, t in tensors(case).items() if n.endswith(theirs))
                assert shape == (rows, ours.shape[1])
                padded = torch.nn.functional.pad(ours, (0, 0, 0, rows - len(ours)))
                held[file, name] = shape, dtype, digest(padded)
    return held


def hf(case: str, folder: Path) -> Path:
    """The case's HuggingFace folder: its config, or one with its sizes."""
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(ORACLE / case / "hf_model.safetensors")
    if (ORACLE / case / "config.json").is_file():
        (folder / "config.json").symlink_to(ORACLE / case / "config.json")
        return folder
    sizes = Case(case).spec["meta"]["cfg"]
    text = {"model_type": "llama", "num_attention_heads": sizes["num_attention_heads"], "num_key_value_heads": sizes["num_query_groups"]}
    text |= {"hidden_size": sizes["hidden_size"], "vocab_size": 130}
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
    return folder


@pytest.mark.parametrize("case", LLAVA)
def test_llava_to_nemo_and_back(case: str, tmp_path: Path) -> None:
    rows = Case(case).spec["meta"]["nemo_vocab_rows"]
    source = hf(case, tmp_path / "hf")
    ckptc.plan(source, to="nemo-legacy", settings={"padded_vocab": rows}).run(tmp_path / "nemo")
    got, wanted = contents(tmp_path / "nemo"), filled_with_zeros(case)
    made = {key for key in got if key[1].endswith("rotary_pos_emb.inv_freq")}  # a buffer, which the oracle has not
    assert {key: value for key, value in got.items() if key not in made} == wanted

    ckptc.plan(tmp_path / "nemo", to="llava", settings={"vocab": len(tensors(case)["lm_head.weight"])}, from_settings={"padded_vocab": rows}).run(tmp_path / "back")
    back, first = load_file(tmp_path / "back/model.safetensors"), tensors(case)
    assert back.keys() == {n for n in first if TOWER not in n}  # left out on purpose
    assert all(torch.equal(t, first[n]) for n, t in back.items())
    config = json.loads((tmp_path / "back/config.json").read_text())
    given = Case(case).spec["meta"]["hf_config"]
    same = ["mm_projector_type", "mm_vision_tower", "mm_hidden_size", "hidden_size", "num_key_value_heads", "vocab_size"]
    assert {k: config.get(k) for k in same} == {k: given[k] for k in same}


# What the script's config may say otherwise, and what ours says there.
MAY_DIFFER = {
    "tokenizer.model": "the script has a path, which becomes an artifact as it saves",
    "mm_cfg.vision_encoder.hidden_size": "the script leaves its default, 1024, whatever width the adapter takes",
    "rotary_base": "the script does not read it; what is not said there is 10000",
    "target": "written as NeMo saves",
    "nemo_version": "written as NeMo saves",
}


def flat(config: dict[str, Any], at: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in config.items():
        out |= flat(value, f"{at}{key}.") if isinstance(value, dict) else {at + key: value}
    return out


def with_pieces(path: Path, pieces: int) -> Path:
    """A SentencePiece model of so many pieces."""
    path.with_suffix(".small").write_bytes(trained("bpe", 40))
    ckptc.add_special_tokens(path.with_suffix(".small"), path, [f"<{i}>" for i in range(pieces - 40)])
    return path


@pytest.mark.parametrize(("case", "pieces"), [(LLAVA[0], 137), (LLAVA[1], 136)])
def test_the_scripts_command_and_its_config(case: str, pieces: int, tmp_path: Path) -> None:
    """Rows of the vocabulary are as the tokenizer asks for, which is LLaVA's own where none is named."""
    source, target = hf(case, tmp_path / "hf"), tmp_path / "x.nemo"
    words = ["convert_hf_llava_to_neva.py", "--in-file", source, "--out-file", target, "--conv-template", Case(case).spec["meta"]["conv_template"]]
    if case == LLAVA[0]:
        words += ["--tokenizer-model", with_pieces(tmp_path / "neva.model", pieces)]
    else:
        with_pieces(source / "tokenizer.model", pieces)
    with pytest.raises(SystemExit) as stopped:
        main(["compat", *map(str, words)])
    assert not stopped.value.code
    got = contents(target)
    assert {key: value for key, value in got.items() if not key[1].endswith("rotary_pos_emb.inv_freq")} == filled_with_zeros(case)

    theirs = flat(yaml.safe_load((ORACLE / case / "nemo_config_after_load_config.yaml").read_text()))
    unpack(target, tmp_path / "open")
    ours = flat(yaml.safe_load((tmp_path / "open/model_config.yaml").read_text()))
    assert {key for key in {**theirs, **ours} if ours.get(key, "absent") != theirs.get(key, "absent")} == MAY_DIFFER.keys()
    assert (tmp_path / "open" / ours["tokenizer.model"].removeprefix("nemo:")).is_file()
    assert ours["mm_cfg.vision_encoder.hidden_size"] == Case(case).spec["meta"]["hf_config"]["mm_hidden_size"]
    assert ours["rotary_base"] == 10000
    assert ours["target"] == Case(CHANGE).model["target"]


def test_the_scripts_command_for_huggingfaces_form(tmp_path: Path) -> None:
    """To 136 rows, as the case's model has, by the base's rule of padding."""
    source, target = hf(HF, tmp_path / "hf"), tmp_path / "x.nemo"
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"model": {"mcore_gpt": True, "transformer_engine": True, "make_vocab_size_divisible_by": 8}}))
    words = ["convert_llava_hf_to_nemo.py", "--input_name_or_path", source, "--output_path", target, "--precision", "32", "--skip_verification"]
    words += ["--tokenizer_path", with_pieces(tmp_path / "neva.model", 131), "--hparams_file", tmp_path / "base.yaml"]
    with pytest.raises(SystemExit) as stopped:
        main(["compat", *map(str, words)])
    assert not stopped.value.code
    assert contents(target) == filled_with_zeros(HF)


def test_huggingface_llava_to_nemo_and_back(tmp_path: Path) -> None:
    ckptc.plan(hf(HF, tmp_path / "hf"), to="nemo", settings={"padded_vocab": 136}).run(tmp_path / "nemo")
    assert contents(tmp_path / "nemo") == filled_with_zeros(HF)

    ckptc.plan(tmp_path / "nemo", to="hf", settings={"vocab": 130}, from_settings={"padded_vocab": 136}).run(tmp_path / "back")
    back, first = load_file(tmp_path / "back/model.safetensors"), tensors(HF)
    assert back.keys() == {n for n in first if TOWER not in n}  # left out on purpose
    assert all(torch.equal(t, first[n]) for n, t in back.items())
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert (config["text_config"]["hidden_size"], config["text_config"]["num_key_value_heads"], config["vision_config"]["hidden_size"]) == (32, 2, 48)


def test_one_layer_has_no_place_in_huggingfaces_form(tmp_path: Path) -> None:
    with pytest.raises(ckptc.MappingError, match="an adapter of two layers"):
        ckptc.plan(hf(LLAVA[0], tmp_path / "hf"), to="hf")


@pytest.fixture
def nemo(tmp_path: Path) -> Path:
    case = Case(CHANGE)
    return case.make_source(tmp_path / "source", case.config() | {"mcore_gpt": False, "mm_cfg": {"mm_mlp_adapter_type": "mlp2x_gelu"}})


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_change_of_ranks_is_the_references_own(nemo: Path, tmp_path: Path, before: int, after: int) -> None:
    """With what there is of a vision tower that was trained along."""
    source, vocab = nemo, Case(CHANGE).spec["meta"]["model_cfg"]["V"]
    if before > 1:
        ckptc.plan(source, to="nemo-legacy", tp=before, settings={"vocab": vocab}).run(tmp_path / "before")
        source = tmp_path / "before"
    ckptc.plan(source, to="nemo-legacy", tp=after, settings={"vocab": vocab}).run(tmp_path / "after")
    assert contents(tmp_path / "after") == Case(CHANGE).expected()[f"tp{before}to{after}"]


@pytest.mark.parametrize("case", [*LLAVA, HF])
def test_a_vision_tower_is_carried_where_it_is_asked_for(case: str, tmp_path: Path) -> None:
    source, first = hf(case, tmp_path / "hf"), tensors(case)
    form = "hf" if case == HF else "llava"
    for layout in ("nemo", "nemo-legacy"):
        ckptc.plan(source, to=layout, settings={"tower": True, "padded_vocab": 0}).run(tmp_path / layout)
        ckptc.plan(tmp_path / layout, to=layout, tp=2, pp=2).run(tmp_path / f"{layout}-4")
        ckptc.plan(tmp_path / f"{layout}-4", to=form, settings={"vocab": len(first[next(n for n in first if n.endswith("lm_head.weight"))])}).run(tmp_path / f"{layout}-back")
        back = load_file(tmp_path / f"{layout}-back/model.safetensors")
        assert back.keys() == first.keys()
        assert all(torch.equal(t, first[n]) for n, t in back.items())


def test_both_forms_of_llava_hold_the_same_with_the_tower(tmp_path: Path) -> None:
    ckptc.plan(hf(LLAVA[1], tmp_path / "llava"), to="hf").run(tmp_path / "hf")
    held = load_file(tmp_path / "hf/model.safetensors")
    assert sum(n.startswith("vision_tower.vision_model.") for n in held) == sum(TOWER in n for n in tensors(LLAVA[1]))
    ckptc.plan(tmp_path / "hf", to="llava").run(tmp_path / "back")
    back, first = load_file(tmp_path / "back/model.safetensors"), tensors(LLAVA[1])
    assert back.keys() == first.keys()
    assert all(torch.equal(t, first[n]) for n, t in back.items())
