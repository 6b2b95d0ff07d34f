"""Every command and every Python block of the README and of docs/ runs, and prints what is shown under it.

What a page shows without running it is called `text` or `sh`; mappings without a name are held against the formatter
(tests/dsl/test_format.py).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptc as api

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = ("text", "sh", "ckmap")  # kinds of blocks that are not run
ALL_RUN = ("README.md", "tutorial.md")  # pages that have none of those


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """(kind, name of the file it is, content) of each fenced block."""
    kind, name, held = "", "", None
    for line in text.splitlines(keepends=True):
        if not line.lstrip().startswith("```"):
            if held is not None:
                held.append(line)
        elif held is None:
            kind, _, name = line.strip().removeprefix("```").partition(" ")
            held = []
        else:
            assert line == "```\n", f"{line!r} within a block"
            yield kind, name, "".join(held)
            held = None
    assert held is None, "a block does not end"


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each `$ command` of a console block, and the lines that are shown under it."""
    out: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            out.append((line[2:], []))
        else:
            out[-1][1].append(line)
    return out


def check_shown(shown: list[str], printed: str) -> None:
    """The shown lines are the output, one after the other; `...` skips lines. Where none is shown, any may be printed."""
    lines, at, skipping = printed.splitlines(), 0, False
    for line in shown:
        if line == "...":
            skipping = True
            continue
        if skipping:
            assert line in lines[at:], f"{line!r} is not printed"
            at = lines.index(line, at)
        assert at < len(lines), f"{line!r} is not printed"
        assert lines[at] == line
        at, skipping = at + 1, False
    assert not shown or skipping or at == len(lines), f"{lines[at:]} is printed and not shown"


def ran(kind: str, name: str, text: str, folder: Path) -> int:
    """Runs a block in `folder`: how many commands it had. A kind that is not known here is an error."""
    if name:
        (folder / name).write_text(text)
        return 0
    if kind == "python":
        done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return 1
    if kind in SHOWN:
        return 0
    assert kind == "console", f"blocks of kind `{kind}` are neither run nor known to be shown alone"
    count = 0
    for command, shown in commands(text):
        program, *arguments = shlex.split(command)
        if program == "make":
            assert set(arguments) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            continue
        assert program == "ckptc", command
        done = subprocess.run([sys.executable, "-m", "ckptc", *arguments], cwd=folder, capture_output=True, text=True)
        fails = bool(shown) and shown[0].startswith("error[")
        assert done.returncode == fails, f"{command}\n{done.stderr}"
        check_shown(shown, done.stderr if fails else done.stdout)
        count += 1
    return count


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_a_page_shows_is_what_happens(page: Path, made_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(made_llama, tmp_path / "demo" / "llama-hf")
    found = list(blocks(page.read_text()))
    count = sum(ran(*block, tmp_path) for block in found)
    assert count or page.parent.name == "docs"
    if page.name in ALL_RUN:
        assert not [kind for kind, name, _ in found if not name and kind in SHOWN]


def links(page: Path) -> set[Path]:
    """The files that a page links to; those elsewhere in the web are not of them."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    return {(page.parent / target).resolve() for target in found if "://" not in target}


def test_every_page_is_linked_from_the_readme_and_every_link_leads_somewhere() -> None:
    assert set(PAGES[1:]) <= links(PAGES[0])
    for page in (*PAGES, ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"):
        assert not [target for target in links(page) if not target.exists()], page.name


@pytest.mark.parametrize(
    ("shown", "printed"),
    [(["a"], "b\n"), (["a", "c"], "a\nb\nc\n"), (["a"], "a\nb\n"), (["a", "b"], "a\n"), (["...", "b"], "a\nb\nc\n"), (["a", "...", "d"], "a\nb\n")],
)
def test_another_output_than_is_shown_is_found(shown: list[str], printed: str) -> None:
    with pytest.raises(AssertionError):
        check_shown(shown, printed)


@pytest.mark.parametrize(("shown", "printed"), [(["a", "b"], "a\nb\n"), (["a", "...", "c"], "a\nb\nc\n"), (["a", "..."], "a\nb\n"), (["..."], ""), ([], "a\n")])
def test_the_output_that_is_shown_passes(shown: list[str], printed: str) -> None:
    check_shown(shown, printed)


@pytest.mark.parametrize("text", ["```bash\nls\n```\n", "```\nls\n```\n", "```console\n$ ls\n```\n", "```console\n$ ckptc version\nerror[x]: y\n```\n", "```python\n", "```text\na\n```text\nb\n```\n"])
def test_a_block_of_an_unknown_kind_or_another_end_is_found(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        _ = [ran(*block, tmp_path) for block in blocks(text)]


def test_the_family_on_the_languages_first_page_is_one(ckptc, tmp_path: Path) -> None:
    text = next(text for kind, _, text in blocks((ROOT / "docs/language.md").read_text()) if kind == "ckmap")
    (tmp_path / "orca.ckmap").write_text(text)
    done = ckptc("check", "orca.ckmap")
    assert done.code == 0, done.err
    assert "orca.ckmap" not in done.err  # what is warned of are the decoder's own layouts
    write_orca(tmp_path / "orca")
    held = {tensor.name: tensor.read() for tensor in api.open(tmp_path / "orca")}
    for to, degrees in (("megatron", {}), ("nemo", {"tp": 2})):
        api.convert(tmp_path / "orca", tmp_path / to, to=to, mapping=tmp_path / "orca.ckmap", **degrees)
        api.convert(tmp_path / to, tmp_path / f"of-{to}", to="hf", mapping=tmp_path / "orca.ckmap", config=tmp_path / "orca/config.json")
        back = {tensor.name: tensor.read() for tensor in api.open(tmp_path / f"of-{to}")}
        assert back.keys() == held.keys()
        assert all(torch.equal(back[name], tensor) for name, tensor in held.items())
    norm = {tensor.name: tensor.read() for tensor in api.open(tmp_path / "megatron")}["decoder.layers.self_attention.linear_qkv.layer_norm_weight"]
    assert torch.equal(norm[1], held["model.layers.1.input_layernorm.weight"] + 1)


def write_orca(folder: Path) -> None:
    """A small checkpoint as the family's text describes it."""
    vocab, layers, hidden, ffn, groups, share, dim = 30, 2, 40, 36, 2, 3, 8
    heads = {"query": groups * share, "key": groups, "value": groups}
    shapes: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    shapes |= {f"self_attn.{name}_norm.weight": (dim,) for name in ("query", "key")}
    shapes |= {f"self_attn.{name}.weight": (count * dim, hidden) for name, count in heads.items()}
    shapes |= {f"self_attn.{name}.bias": (count * dim,) for name, count in heads.items()}
    shapes |= {"self_attn.o_proj.weight": (hidden, groups * share * dim), "mlp.down_proj.weight": (hidden, ffn)}
    shapes |= {f"mlp.{name}_proj.weight": (ffn, hidden) for name in ("gate", "up")}
    whole = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    whole |= {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
    at, tensors = 0, {}
    for name, shape in whole.items():
        count = torch.Size(shape).numel()
        tensors[name] = torch.arange(at, at + count, dtype=torch.float32).reshape(shape)
        at += count
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "orca", "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": ffn, "num_attention_heads": groups * share,
        "num_key_value_heads": groups, "head_dim": dim, "vocab_size": vocab, "rms_norm_eps": 1e-5, "hidden_act": "silu", "max_position_embeddings": 64,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
