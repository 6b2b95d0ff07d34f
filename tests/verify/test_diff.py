"""`ckptc.diff` by names alone, the command lines of both, and the records that they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import ckptc
from ckptc.main import main

from .plain import Model, nxdt_ranks, write_hf, write_nxdt

MODEL = Model()
UP = "model.layers.1.mlp.up_proj.weight"


def command(capfd: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    assert isinstance(stopped.value.code, int)
    out, err = capfd.readouterr()
    return stopped.value.code, out, "".join(line for line in err.splitlines(True) if not line.startswith("verifying: "))  # on slow machines


def folder(place: Path, tensors: dict[str, torch.Tensor]) -> Path:
    place.mkdir()
    save_file(tensors, place / "model.safetensors")
    return place


def test_equal_tensors_in_other_shards_and_containers_are_the_same(tmp_path: Path) -> None:
    weights = MODEL.weights()
    one, many = write_hf(tmp_path / "one", MODEL, weights), write_hf(tmp_path / "many", MODEL, weights, shards=3)
    torch.save(weights, tmp_path / "file.bin")
    for other in (many, tmp_path / "file.bin"):
        found = ckptc.diff(one, other)
        assert found.same
        assert found.tensors == len(weights)
        assert found.elements == sum(x.numel() for x in weights.values())


def test_every_kind_of_difference_is_named(tmp_path: Path) -> None:
    a = {"same": torch.arange(15).reshape(3, 5), "gone": torch.ones(2), "turned": torch.randn(4, 7), "cast": torch.randn(6, 3), "near": torch.linspace(1, 2, 77).reshape(7, 11)}
    b = {"same": a["same"], "new": torch.ones(3), "turned": a["turned"].T.contiguous(), "cast": a["cast"].bfloat16(), "near": a["near"].clone()}
    b["near"][2, 3] = torch.nextafter(torch.nextafter(a["near"][2, 3], torch.tensor(9.0)), torch.tensor(9.0))
    b["near"][5, 1] += 0.25
    found = ckptc.diff(folder(tmp_path / "a", a), folder(tmp_path / "b", b))
    assert not found.same
    assert {(d.kind, (d.target or d.source).name) for d in found.differences} == {  # type: ignore[union-attr]
        ("missing", "gone"), ("extra", "new"), ("shape", "turned"), ("dtype", "cast"), ("values", "near"),
    }  # fmt: skip
    said = {(d.target or d.source).name: d for d in found.differences}  # type: ignore[union-attr]
    assert said["turned"].explanation == "it is transposed"
    assert said["cast"].explanation == "float32 became bfloat16 (its values are equal after a cast)"
    near = said["near"]
    assert (near.different, near.compared, near.max_abs) == (2, 77, 0.25)
    assert near.source is not None
    assert near.target is not None
    assert near.source.index == near.target.index == (2, 3)
    assert near.source.value == pytest.approx(a["near"][2, 3].item())
    steps = b["near"][5, 1].view(torch.int32).item() - a["near"][5, 1].view(torch.int32).item()
    assert near.max_ulps == steps
    assert "`near`" in str(found)
    assert "2 of 77 elements differ, by at most 0.25" in str(found)


def test_rank_files_go_by_file_and_name(tmp_path: Path) -> None:
    model = Model(groups=4)
    weights = model.weights() | {n: torch.randn(80, 48).bfloat16() for n in ("model.embed_tokens.weight", "lm_head.weight")}
    ranks = nxdt_ranks(model, weights, 2)
    one = write_nxdt(tmp_path / "one", ranks)
    ranks[1] = ranks[1] | {"lm_head.weight": ranks[1]["lm_head.weight"] * 2}
    found = ckptc.diff(one, write_nxdt(tmp_path / "two", ranks))
    (only,) = found.differences
    assert only.target is not None
    assert (only.target.name, only.target.file) == ("lm_head.weight", "model/dp_rank_00_tp_rank_01_pp_rank_00.pt")
    assert only.explanation == "each element is multiplied by 2"


def test_the_commands_say_it_and_leave_with_the_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weights = MODEL.weights()
    source = write_hf(tmp_path / "source", MODEL, weights)
    same = write_hf(tmp_path / "same", MODEL, weights, shards=2)
    other = write_hf(tmp_path / "other", MODEL, weights | {UP: -weights[UP]})
    for name in ("verify", "diff"):
        code, out, err = command(capfd, name, source, same)
        assert (code, out.split()[0], err) == (0, "equal", "")
        code, out, err = command(capfd, name, source, other)
        assert (code, out.split()[0], err) == (1, "different", "")
        assert f"`{UP}`" in out
        assert "each element has the opposite sign" in out
        code, out, err = command(capfd, name, source, other, "--json", "--memory", "1MiB")
        record = json.loads(out)
        assert (code, err, record["same"]) == (1, "", False)
        (difference,) = record["differences"]
        assert difference["target"]["name"] == UP
        assert difference["target"]["index"] == difference["source"]["index"] == [0, 0]
        assert difference["target"]["value"] == -difference["source"]["value"]
        assert command(capfd, name, source, other, "--quiet") == (1, "", "")
        assert "because" not in command(capfd, name, source, other, "--no-explain")[1]
        code, out, err = command(capfd, name, source, tmp_path / "nowhere")
        assert (code, out) == (1, "")
        assert "does not exist" in err


def test_convert_verifies_before_the_result_has_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_hf(tmp_path / "source", MODEL, MODEL.weights())
    code, _, _ = command(capfd, "convert", source, tmp_path / "out", "--to", "nxdt", "--verify", "--quiet", "--set", "pp=2")
    assert code == 0
    code, _, _ = command(capfd, "convert", source, tmp_path / "one", "--to", "hf", "--single-file", "all.safetensors", "--verify", "--quiet")
    assert code == 0
    assert command(capfd, "verify", source, tmp_path / "out", "--to", "nxdt", "--from", "hf", "--pp", "2")[0] == 0


def test_one_place_is_held_against_its_own_manifest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hf = write_hf(tmp_path / "hf", MODEL, MODEL.weights())
    out = tmp_path / "out"
    ckptc.plan(hf, to="hf").run(out, manifest=True)
    code, text, _ = command(capfd, "verify", out, "--manifest")
    assert (code, text) == (0, f"equal     {out} is as its manifest says\n")
    (file,) = out.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    code, text, _ = command(capfd, "verify", "--manifest", out)
    assert code == 1
    assert text.startswith(f"different {out} is not as its manifest says\n  `{file.name}` has other bytes")
    code, text, _ = command(capfd, "verify", out, "--manifest", "--json")
    said = json.loads(text)
    assert (code, said["same"], [each["code"] for each in said["findings"]]) == (1, False, ["other-bytes"])
    code, _, error = command(capfd, "verify", hf, "--manifest")
    assert code == 1
    assert "manifest" in error
    code, _, error = command(capfd, "verify", hf, out, "--manifest")
    assert code == 2
    assert "--manifest takes one place" in error
    code, _, error = command(capfd, "verify", hf)
    assert code == 2
    assert "missing argument 'DST'" in error
