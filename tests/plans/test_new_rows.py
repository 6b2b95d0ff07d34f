"""Rows that a vocabulary is filled up with: zeros, or the mean of the rows that are there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import ckptc
from ckptc.compiler.say.emit import emit_python

from . import llama

MODEL = llama.Llama(vocab=37, layers=2, groups=2, heads=4)
ROWS = ("model.embed_tokens.weight", "lm_head.weight")
NAMES = ("embedding.word_embeddings.weight", "output_layer.weight")


def joined(folder: Path) -> dict[str, torch.Tensor]:
    ranks = [torch.load(p, weights_only=False)["model"] for p in sorted(folder.glob("release/mp_rank_*/model_optim_rng.pt"))]
    return {name: torch.cat([rank[name] for rank in ranks]) for name in NAMES}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_new_rows_are_the_mean_of_the_others(tmp_path: Path, dtype: torch.dtype) -> None:
    model = llama.Llama(vocab=37, layers=2, groups=2, heads=4, dtype=dtype)
    source = llama.write(tmp_path / "hf", model)
    ckptc.plan(source, to="megatron-legacy", tp=2, settings={"pad_vocab_to": 8, "new_rows": "mean"}).run(tmp_path / "out")
    held = joined(tmp_path / "out")
    for name, own in zip(NAMES, ROWS, strict=True):
        rows = model.tensors()[own]
        assert held[name].shape == (48, 48)
        assert torch.equal(held[name][:37], rows)
        mean = rows.double().mean(0)
        torch.testing.assert_close(held[name][37:].double(), mean.to(dtype).double().expand(11, 48), rtol=0, atol=1e-12 if dtype == torch.float64 else 0)


def test_padding_and_ranks_of_the_source_do_not_count(tmp_path: Path) -> None:
    source = llama.write(tmp_path / "hf", MODEL)
    ckptc.plan(source, to="megatron-legacy", tp=2, settings={"pad_vocab_to": 8}).run(tmp_path / "ranks")  # 11 rows of zeros
    ckptc.plan(tmp_path / "ranks", to="nemo", config=source / "config.json", family="llama", settings={"vocab": 37, "padded_vocab": 50, "new_rows": "mean"}).run(tmp_path / "nemo")
    held = torch.load(tmp_path / "nemo/model_weights.ckpt", weights_only=True)["model.embedding.word_embeddings.weight"]
    rows = MODEL.tensors()[ROWS[0]]
    assert torch.equal(held, torch.cat([rows, rows.double().mean(0).bfloat16().expand(13, 48)]))


def test_a_mean_is_worked_out_within_the_memory(tmp_path: Path) -> None:
    model = llama.Llama(vocab=20_237, layers=1, groups=2, heads=4)
    plan = ckptc.plan(llama.write(tmp_path / "hf", model), to="megatron-legacy", settings={"pad_vocab_to": 16, "new_rows": "mean"})
    report = plan.run(tmp_path / "out", memory=1_500_000, workers=1)
    rows = model.tensors()[ROWS[0]]
    assert rows.nbytes > 1_500_000 >= report.peak_buffer_bytes
    assert report.bytes_read >= 4 * rows.nbytes  # both matrices, for the mean and for the rows
    assert torch.equal(joined(tmp_path / "out")[NAMES[0]][20_237:], rows.double().mean(0).bfloat16().expand(3, 48))


def test_saved_streamed_and_emitted_plans_hold_it(tmp_path: Path) -> None:
    source = llama.write(tmp_path / "hf", MODEL)
    plan = ckptc.plan(source, to="megatron-legacy", settings={"pad_vocab_to": 8, "new_rows": "mean"})
    mean = MODEL.tensors()[ROWS[0]].double().mean(0).bfloat16()
    streamed = dict(plan.stream())
    assert torch.equal(streamed[NAMES[0]][37:], mean.expand(3, 48))
    plan.save(tmp_path / "plan.ckplan")
    ckptc.load_plan(tmp_path / "plan.ckplan").run(tmp_path / "loaded", source=source)
    assert torch.equal(joined(tmp_path / "loaded")[NAMES[0]][37:], mean.expand(3, 48))
    (tmp_path / "emitted.py").write_text(emit_python(plan.data))
    spec = importlib.util.spec_from_file_location("emitted", tmp_path / "emitted.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert plan.data == module.PLAN


def test_it_is_padding_when_read(tmp_path: Path) -> None:
    source = llama.write(tmp_path / "hf", MODEL)
    ckptc.plan(source, to="megatron-legacy", tp=2, settings={"pad_vocab_to": 8, "new_rows": "mean"}).run(tmp_path / "out")
    ckptc.plan(tmp_path / "out", to="hf", config=source / "config.json", settings={"vocab": 37}).run(tmp_path / "back")
    held = llama.read(tmp_path / "back")
    assert held.keys() == MODEL.tensors().keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in MODEL.tensors().items())


def test_whole_numbers_have_no_mean_to_fill_up_with(tmp_path: Path) -> None:
    (tmp_path / "m.ckmap").write_text(
        """model m { axes { a b }  w [a, b] }
        layout one of m { files "one.pt"  format pt  "w" = w [a, b] }
        layout two of m { files "two.pt"  format pt  "w" = w [pad(a, 4, mean), b] }"""
    )
    (tmp_path / "one").mkdir()
    torch.save({"w": torch.arange(15).reshape(5, 3)}, tmp_path / "one/one.pt")
    with pytest.raises(ckptc.Fault, match="cannot be worked out from int64"):
        ckptc.plan(tmp_path / "one", from_="one", to="two", mapping=tmp_path / "m.ckmap").run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_optimizers_state_has_zeros_for_new_rows(tmp_path: Path) -> None:
    """Its rules are the parameters' own, but for that: new rows have no history."""
    from ckptc.compiler.algebra.lower import lower
    from ckptc.compiler.settle.optimizer_states import cut_state
    from ckptc.compiler.settle.resolve import resolve
    from ckptc.compiler.settle.sizes import bind_sizes
    from ckptc.library import mapping_files as library

    family = next(f for f in library.families(None) if f.name == "llama")
    keys = llama.Llama(vocab=37, layers=2, groups=2, heads=4).config()
    sizes = bind_sizes(family, family.layout("hf"), keys, {}, lambda name: name not in ("q_bias", "k_bias", "v_bias", "q_norm", "k_norm", "router_bias"))
    side = resolve(family, "nxdt-megatron", sizes, {"tp": 2, "pad_vocab_to": 8, "new_rows": "mean"})
    assert any(piece.mean for item in lower(side) for piece in item.pieces)
    state = cut_state(side, {"exp_avg": "float32"}, 2, frozenset())
    assert not any(piece.mean for item in lower(state) for piece in item.pieces)
