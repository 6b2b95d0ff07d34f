"""The mappings in, pages of documentation out: for each framework, what becomes of each setting of its config.

`python -m ckptc.library.settings_page docs` writes them; a test holds them to the mappings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..compiler.link.flat import Family
from ..dsl.formatting.show import show, show_value
from ..dsl.tree import Bind, Config, Expr, Fixed, Identity, Literal, Only, Unused
from . import mapping_files as library

# A page's name, its heading, and the layouts on it with the family that each is shown for; None: each family's own.
PAGES: tuple[tuple[str, str, tuple[tuple[str, str | None], ...]], ...] = (
    ("settings-huggingface.md", "HuggingFace's config.json", (("hf", None), ("llava", "neva"))),
    ("settings-megatron.md", "Megatron-LM's arguments", (("megatron", "llama"), ("megatron-lm", "llama"), ("megatron", "deepseek"))),
    ("settings-nemo1.md", "NeMo 1's model_config.yaml", (("nemo", "llama"), ("nemo-legacy", "llama"), ("nemo", "neva"), ("nemo", "vit"))),
    ("settings-nemo2.md", "NeMo 2's model.yaml", (("nemo2", "llama"),)),
    ("settings-nxdt.md", "NxD Training's config.yaml", (("nxdt", "llama"), ("nxdt-megatron", "llama"))),
)
HEAD = """# Settings: {title}

This page is made from the mappings by `python -m ckptc.library.settings_page docs`. A *carried* setting becomes a setting of the
model, and is written to the target's config. A *checked* one must have one of the values given, or be absent; any other
value is refused, and `--accept KEY` goes on in spite of it. *Without effect* are keys that change nothing that a model
computes from its weights. A key that is on no list gets a note. What the target's config cannot say is refused before
anything is written.
"""


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    families = {family.name: family for family in library.families(None)}
    return {name: _page(title, layouts, families) for name, title, layouts in PAGES}


def _page(title: str, layouts: tuple[tuple[str, str | None], ...], families: dict[str, Family]) -> str:
    parts, before = [HEAD.format(title=title)], frozenset[str]()
    for layout_name, family_name in layouts:
        shown = [families[family_name]] if family_name else sorted(families.values(), key=lambda f: (f.name != "llama", f.name))
        for family in shown:
            layout = next((x for x in family.layouts if x.name == layout_name), None)
            block = layout.config if layout is not None else None
            if layout is None or block is None or not ({layout_name} & family.own or family_name):
                continue
            lines = tuple(_lines(block))
            parts.append(_section(f"`{layout_name}` of {family.name}", block, before))
            before = before or frozenset(lines)
    return "\n".join(parts)


def _lines(block: Config) -> Iterator[str]:
    for item in block.items:
        yield show(item)


def _section(heading: str, block: Config, known: frozenset[str]) -> str:
    """One layout's tables; entries that the page's first layout has word for word are left out."""
    items = [x for x in block.items if show(x) not in known]
    out = [f"\n## {heading}\n"]
    if known:
        out.append("As above, but for:\n" if items else "As above.\n")
    carried = [f"| {_code(x.value)} | `{x.name}`{' (read)' if x.reads else ''} |" for x in items if isinstance(x, Bind) and x.value is not None]
    checked = [f"| {_code(x.value)} | {_values(x)} | {x.effect}{' when ' + _code(x.when) if x.when is not None else ''} |" for x in items if isinstance(x, Only)]
    fixed = [f"| `{'.'.join(x.key.path)}` | `{show_value(x.value)}`{' when ' + _code(x.when) if x.when is not None else ''} |" for x in items if isinstance(x, Fixed)]
    named = [f"| `{'.'.join(x.key.path)}` | {_values(x)} |" for x in items if isinstance(x, Identity)]
    unused = sorted({glob for x in items if isinstance(x, Unused) for glob in x.globs})
    for title, head, rows in (
        ("Carried", "| config | model |", carried),
        ("Checked", "| config | may be | sets |", checked),
        ("Written", "| config | value |", fixed),
        ("Which model it is", "| config | value |", named),
    ):
        if rows:
            out += [f"### {title}\n", head, "|" + "---|" * (head.count("|") - 1), *rows, ""]
    if unused:
        out += ["### Without effect\n", ", ".join(f"`{glob}`" for glob in unused), ""]
    return "\n".join(out)


def _values(item: Only | Identity) -> str:
    return " or ".join(f"`{show_value(v) if not isinstance(v, Literal) else show(v)}`" for v in item.values)


def _code(expr: Expr) -> str:
    return "`" + show(expr).replace("|", "\\|") + "`"


if __name__ == "__main__":
    for name, text in pages().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
