"""Spoilt mappings, odd sizes and odd parameters through the whole compiler: nothing but diagnostics comes out, and soon."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.compiler.check.check import check
from ckptc.compiler.fit import fit_source
from ckptc.compiler.identify.detect import find_layouts
from ckptc.compiler.identify.match import Found, may_be_absent
from ckptc.compiler.link.link import link
from ckptc.compiler.pipeline import compile_sides
from ckptc.compiler.say.emit import emit_python
from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.compiler.settle.write_config import config_text
from ckptc.dsl.diagnostic import MappingError
from ckptc.dsl.parsing.parse import parse
from ckptc.dsl.render import render
from ckptc.library import mapping_files as library

from .case import cases

HERE = Path(__file__).parent
TOKEN = re.compile(r'"[^"\n]*"|\w+|\?\?|[=!<>]=|\s+|.', re.DOTALL)
LLAMA = "\n".join(re.sub(r"(?m)^use .*$", "", (library.SHIPPED / f"{n}.ckmap").read_text()) for n in ("decoder", "llama"))
TEXTS = [
    LLAMA,
    *[(HERE / "golden/invented.txt").read_text().split("----")[0]] * 4,
    *(case.text for path in sorted((HERE / "negative").glob("*.ckmap")) for case in cases(path.read_text())),
]
NUMBERS = ["0", "1", "2", "3", "7", "16", "1000003", "10000000000", "4611686018427387904", "9" * 30, "1.5", "1e300", "0.1"]
ODD = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 30, 97, 128, 10**6, 10**9, 2**62, 2**80, -1, True, None, 1.5, 1e30, "x", "", [1], {"a": 1}]
SMALL = [1, 2, 3, 4, 5, 6, 8, 12, 24]
CONFIG = ["vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"]


def spoilt(text: str, random: Random, times: int) -> str:
    """Tokens dropped, doubled, swapped, moved or replaced by others of the text, or by a number."""
    tokens = TOKEN.findall(text)
    solid = [i for i, t in enumerate(tokens) if not t.isspace()]
    for _ in range(times):
        at, other = random.choice(solid), random.choice(solid)
        match random.choice((0, 1, 2, 3, 4, 5, 5, 5, 5, 6, 6)):
            case 0:
                tokens[at] = ""
            case 1:
                tokens[at] = f"{tokens[at]} {tokens[at]}"
            case 2:
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3:
                tokens[at] = tokens[other]
            case 4:
                tokens[at] = random.choice(NUMBERS)
            case 5:
                names = [i for i in solid if re.fullmatch(r"[a-z_]\w*", tokens[i])]
                if names:
                    tokens[random.choice(names)] = tokens[random.choice(names)]
            case 6:
                numbers = [i for i in solid if tokens[i].isdigit()]
                if numbers:
                    tokens[random.choice(numbers)] = random.choice(NUMBERS)
    return "".join(tokens)


def compile_oddly(text: str, random: Random) -> None:
    """Everything that the face does with a mapping, with sizes and parameters that are sometimes odd."""
    families = link([parse(text, "x.ckmap")])
    render(check(families), {"x.ckmap": text})
    values = SMALL if random.random() < 0.7 else ODD
    for family in families[-1:]:
        keys = {k: random.choice(values) for k in CONFIG} | {"heads": random.choice(values)}
        axes = {a.name: random.choice(values) for a in family.model.axes}
        configured = next((x for x in family.layouts if x.config), None)
        known = {t.name for t in family.model.tensors if random.random() < 0.8}
        given = axes if configured is None or random.random() < 0.5 else {}
        layouts = [random.choice(family.layouts) for _ in range(2)] if family.layouts else []
        absent = may_be_absent(layouts[0]) if layouts else frozenset()
        sizes = bind_sizes(family, configured, keys, given, known.__contains__, "config.json", absent)  # type: ignore[arg-type]
        sides = []
        for layout in layouts:
            some = [p for p in layout.params if random.random() < 0.5]
            chosen = {p.name: random.choice([*p.choices] if p.choices else values) for p in some}
            sides.append(resolve(family, layout.name, sizes, chosen))  # type: ignore[arg-type]
        if not sides:
            continue
        plan = compile_sides(*sides, compare_all=True).plan
        if len(plan.steps) < 500:
            emit_python(plan)
        found = [Found("", s.name.replace("{", "").replace("}", ""), "f32", s.shape) for s in plan.source.stored]
        find_layouts(families, found)
        fit_source(family, layouts[0], sizes, found, {})
        if configured is not None:
            block = configured.config
            assert block is not None
            config_text(block, sides[1], json.dumps({"a": None, "head": 3}) if random.random() < 0.5 else None)


@settings(max_examples=600, deadline=timedelta(seconds=30), suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TEXTS), st.integers(0, 3), st.integers(0, 2**32))
def test_a_spoilt_mapping_gives_diagnostics_only(text: str, times: int, seed: int) -> None:
    random = Random(seed)
    try:
        compile_oddly(spoilt(text, random, times), random)
    except MappingError as error:
        render(error.diagnostics, {"x.ckmap": text})
