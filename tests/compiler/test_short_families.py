"""A family is one short file, and says nothing that what it extends says already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptc.dsl.formatting.show import show
from ckptc.dsl.tree import Config, Layout, Mapping, Rule
from ckptc.dsl.walk import walk
from ckptc.library.mapping_files import SHIPPED, read_mapping

# Statements, without comments and closing braces. gpt2 has two lines for each linear layer, whose weights are transposed; dbrx
# has the names of two frameworks.
MOST = {
    "llama": 10, "mistral": 10, "qwen2": 10, "qwen3": 13, "qwen3_moe": 11, "qwen2_moe": 18, "mixtral": 30, "nemotron": 30, "gpt_neox": 42,
    "gpt2": 52, "dbrx": 68, "deepseek": 116, "neva": 118,
    "gemma2": 42, "gemma3": 45, "olmo2": 12, "olmo3": 17, "olmoe": 19, "glm4": 19, "exaone4": 21, "minimax_m2": 34, "gpt_oss": 58, "cohere": 23, "cohere2": 20,
    "qwen3_next": 16, "qwen3_5": 36, "qwen3_5_moe": 14,
}  # fmt: skip


def statements(path: Path) -> int:
    """Lines that begin a statement: not those that go on with one, close a block or comment."""
    lines = [line for line in path.read_text().split("\n") if not re.fullmatch(r"\s*(#.*|[)}]\s*\{?|)", line)]
    return sum(not re.match(r"\s+(else |\"[^\"]*\"(,| \"|$)|if |\S.*\]$(?<!\]))", line) or "=" in line for line in lines)


def families() -> list[Path]:
    return [path for path in sorted(SHIPPED.glob("*.ckmap")) if any(model.name == path.stem for model in read_mapping(path).models)]


@pytest.mark.parametrize("name", MOST)
def test_a_family_is_short(name: str) -> None:
    assert statements(SHIPPED / f"{name}.ckmap") <= MOST[name]


def _closure(path: Path, seen: dict[Path, Mapping]) -> dict[Path, Mapping]:
    if path not in seen:
        seen[path] = read_mapping(path)
        for use in seen[path].uses:
            _closure(SHIPPED / use.file, seen)
    return seen


def _said_before(layout: Layout, layouts: dict[tuple[str, str], list[Layout]], models: dict[str, str | None]) -> Iterator[Layout]:
    """The layouts that it extends, at any depth."""
    chain = [layout.model]
    while models.get(chain[-1]):
        chain.append(str(models[chain[-1]]))
    for base in layout.extends:
        found = next((each for model in chain for each in layouts.get((base.name, model), ()) if each is not layout), None)
        if found is not None and not base.keys and base.under is None:
            yield found
            yield from _said_before(found, layouts, models)


@pytest.mark.parametrize("path", families(), ids=lambda path: path.stem)
def test_no_family_restates_what_it_extends(path: Path) -> None:
    files = _closure(path, {})
    models = {model.name: model.extends for mapping in files.values() for model in mapping.models}
    layouts: dict[tuple[str, str], list[Layout]] = {}
    for mapping in files.values():
        for layout in mapping.layouts:
            layouts.setdefault((layout.name, layout.model), []).append(layout)
    for layout in read_mapping(path).layouts:
        before: dict[str, str] = {}  # by what an entry is about: a base's own word stands over those of what it extends
        for base in reversed(list(_said_before(layout, layouts, models))):
            said = [show(entry) for item in base.items if isinstance(item, Config) for entry in item.items]
            said += [show(rule) for item in base.items for rule in walk(item) if isinstance(rule, Rule)]
            before |= {re.split(" (?:=|<-) ", text)[0]: text for text in said}
        own = [show(entry) for item in layout.items if isinstance(item, Config) for entry in item.items]
        own += [show(rule) for item in layout.items if isinstance(item, Rule) for rule in (item,)]
        assert [each for each in own if each in before.values() and not each.startswith(("unused", "is "))] == [], layout.name
