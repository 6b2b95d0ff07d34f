"""The codes of all diagnostics, read from the sources of the compiler and of what chooses mappings."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "compiler").rglob("*.py")), ROOT / "ckptc/library/mapping_files.py", ROOT / "ckptc/identify/choose.py"]
MAKERS = {"fault", "_fault", "Diagnostic", "unknown"}


def raised_codes() -> dict[str, list[str]]:
    """code -> the places (file, line, title) that make it."""
    out: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS and node.args):
                continue
            code = node.args[0]
            if isinstance(code, ast.Constant):
                title = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
                out[str(code.value)].append(f"{path.name}:{node.lineno}: {title}")
            else:
                assert isinstance(code, ast.Name), f"{path.name}:{node.lineno}: a code must be written out"
                assert code.id == "code", f"{path.name}:{node.lineno}: a code must be written out"
    return out
