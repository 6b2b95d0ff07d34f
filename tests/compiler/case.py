"""A mapping with its sizes and degrees in comments, in; what the compiler makes of it, out.

    # config: {"hidden_size": 8}      keys of the config file, read by the first layout that has a `config` block
    # set: hidden=8 group=2           axes and settings, as the command line gives them
    # from: hf                        the source layout, its parameters after it; by default the first one
    # to: other tp=2                  the target layout; by default the last one
    # stages: [[0], [1, 2]]           the target's stages
    # stored: head                    the tensors that the checkpoint has; by default all
    # check                           only the check without sizes
    # family: llama                   by default the last one of the file

`use` takes mappings that ship.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ckptc.compiler.check.check import check
from ckptc.compiler.check.check_keys import odd_keys
from ckptc.compiler.identify.match import may_be_absent
from ckptc.compiler.link.link import link
from ckptc.compiler.pipeline import Compiled, compile_sides
from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.said import check_said
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.dsl.diagnostic import Diagnostic, MappingError
from ckptc.dsl.parsing.parse import parse
from ckptc.library import mapping_files as library

FILE = "x.ckmap"


@dataclass(frozen=True)
class Case:
    title: str
    text: str

    def header(self, name: str) -> str | None:
        found = re.search(rf"^# {name}:? ?(.*)$", self.text, re.MULTILINE)
        return found[1] if found else None

    @property
    def expected(self) -> set[tuple[str, int]]:
        """(code, line): line 0 for a fault without a place, which is expected in the header."""
        out = set()
        for number, line in enumerate(self.text.split("\n"), 1):
            for code in re.findall(r"# expect: ([a-z -]+)$", line):
                out |= {(c, 0 if line.startswith("# expect") else number) for c in code.split()}
        return out


def cases(text: str) -> list[Case]:
    """The cases of a file; each begins with `# ==== title`."""
    parts = re.split(r"^# ==== (.*)\n", text, flags=re.MULTILINE)
    return [Case(title, body.rstrip() + "\n") for title, body in zip(parts[1::2], parts[2::2], strict=True)]


def value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings(text: str) -> dict[str, Any]:
    return {k: value(v) for k, _, v in (word.partition("=") for word in text.split())}


def compile_case(case: Case, **more: Any) -> Compiled:
    """Raises `MappingError`, also for what only the check without sizes finds."""
    mapping = parse(case.text, FILE)
    used = library.load([library.SHIPPED / use.file for use in mapping.uses])
    families = used or link([mapping])
    if case.header("check") is not None:
        found = (*check(families), *odd_keys(mapping, (), families))
        if found:
            raise MappingError(*found)
    family = next((f for f in families if f.name == case.header("family")), families[-1])
    layouts = [x.name for x in family.layouts]
    from_, *source = (case.header("from") or layouts[0]).split()
    to, *target = (case.header("to") or layouts[-1]).split()
    configured = next((x for x in family.layouts if (c := x.config) and c.file == "config.json"), None)
    keys = json.loads(case.header("config") or "{}")
    stored = case.header("stored")
    known = {t.name for t in family.model.tensors} if stored is None else set(stored.split())
    given, absent = settings(case.header("set") or ""), may_be_absent(family.layout(from_))
    sizes = bind_sizes(family, configured, keys, given, known.__contains__, "config.json", absent)
    stages = case.header("stages")
    left = resolve(family, from_, sizes, settings(" ".join(source)))
    right = resolve(
        family, to, sizes, settings(" ".join(target)), format=case.header("format"),
        stages=tuple(map(tuple, json.loads(stages))) if stages else None,
    )  # fmt: skip
    if case.header("said") is not None:
        check_said(right, family, ())
    return compile_sides(left, right, **more)


def faults(case: Case) -> tuple[Diagnostic, ...]:
    try:
        compile_case(case)
    except MappingError as error:
        return error.diagnostics
    return ()
