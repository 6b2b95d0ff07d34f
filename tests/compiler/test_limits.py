"""How far a mapping may go when it is written out: each limit is reached, and one more is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ckptc.compiler.link import limits
from ckptc.compiler.link.link import link
from ckptc.compiler.values.lets import check_lets
from ckptc.dsl.diagnostic import MappingError
from ckptc.dsl.parsing.parse import parse
from ckptc.dsl.tree import AxisRef

MODEL = "model m { axes { n }  w [n] }\n"


def layout(items: str, name: str = "a") -> str:
    return f"{MODEL}layout {name} of m {{ {items} }}\n"


def models(n: int, said: str = "model m{} extends m{} {{}}\n") -> str:
    """A chain of so many that lead to another; the first is declared last."""
    return "model m0 { axes { n }  w [n] }\n" + "".join(said.format(i, i - 1) for i in range(1, n + 1))


def layouts(n: int) -> str:
    return layout('"w" = w [n]', "l1") + "".join(f"layout l{i} of m extends l{i - 1} {{}}\n" for i in range(2, n + 1))


def prefixes(n: int) -> str:
    return layout('prefix p0 = "x" ' + " ".join(f"prefix p{i} = p{i - 1}" for i in range(1, n + 1)) + ' "w" = w [n]')


def backwards(text: str) -> str:
    """What is declared line by line, the last first."""
    return "\n".join(reversed(text.splitlines()))


CASES: dict[str, tuple[Callable[[int], str], int, str]] = {
    "models that extend each other": (models, limits.DEEPEST, "deep-chain"),
    "models that extend each other, the last first": (lambda n: backwards(models(n)), limits.DEEPEST, "deep-chain"),
    "parts within parts": (lambda n: models(n, "model m{} {{ part a = m{} }}\n"), limits.DEEPEST, "deep-chain"),
    "parts within parts, the last first": (lambda n: backwards(models(n, "model m{} {{ part a = m{} }}\n")), limits.DEEPEST, "deep-chain"),
    "prefixes that begin with each other": (prefixes, limits.DEEPEST, "deep-chain"),
    "layouts that extend each other": (layouts, limits.MOST_LAYOUTS, "long-mapping"),
    "layouts that extend each other, the last first": (lambda n: backwards(layouts(n)), limits.MOST_LAYOUTS, "long-mapping"),
    "layouts beside each other": (
        lambda n: layout("", "base") + "layout a of m extends " + ", ".join(f'base under "x{i}."' for i in range(n - 1)) + ' { "w" = w [n] }',
        limits.MOST_LAYOUTS, "long-mapping",
    ),
    "prefixes of one name": (lambda n: layout("under " + "".join(f'"x{i}" when n > {i}, ' for i in range(n - 1)) + '"y" { "w" = w [n] }'), limits.MOST_PREFIXES, "long-mapping"),
    "conditions of one rule": (lambda n: layout('"w" = ' + "".join(f"w [n] when n == {i}, " for i in range(n)) + "w [n]"), limits.MOST_CONDITIONS, "long-mapping"),
    "names of one model": (lambda n: "model m { axes { n }  settings { " + " ".join(f"s{i} = 1" for i in range(n - 2)) + " }  w [n] }", limits.MOST_NAMES, "long-mapping"),
    "rules of one layout": (lambda n: layout(" ".join(f'"w{i}" = w [n]' for i in range(n))), limits.MOST_RULES, "long-mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_limit_is_reached_and_one_more_is_refused(name: str) -> None:
    written, most, code = CASES[name]
    link([parse(written(most))])
    with pytest.raises(MappingError) as caught:
        link([parse(written(most + 1))])
    (fault,) = caught.value.diagnostics
    assert fault.code == code
    assert f"{most:,}" in fault.title
    assert fault.help


def test_a_file_has_as_many_names_as_its_parts_that_are_there_sometimes_allow() -> None:
    def files(n: int) -> str:
        return layout('files "x" + ' + " + ".join(f'("{i}" when n > {i})' for i in range(n)) + ' "w" = w [n]')

    assert limits.MOST_FILES == 1 << 6
    (family,) = link([parse(files(6))])
    assert len(family.layout("a").files) == limits.MOST_FILES
    with pytest.raises(MappingError, match="this file has more than 64 names"):
        link([parse(files(7))])


@pytest.mark.parametrize("order", [1, -1])
def test_lets_go_40_deep_in_whatever_order_they_are_declared(order: int) -> None:
    def chain(n: int) -> dict[str, AxisRef]:
        names = [f"a{i}" for i in range(n)]
        return {name: AxisRef(below) for name, below in list(zip(names, [*names[1:], "n"], strict=True))[::order]}

    check_lets(chain(40))
    for n in (41, 2000):
        with pytest.raises(MappingError, match="is more than 40 deep"):
            check_lets(chain(n))


def test_all_that_one_run_reads_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    text = layout('"w" = w [n]') + "layout b of m extends a {}\n"  # two names; two layouts, each with a rule
    monkeypatch.setattr("ckptc.compiler.link.link.MOST_IN_ALL", 2)
    monkeypatch.setattr("ckptc.compiler.link.flatten.MOST_IN_ALL", 4)
    link([parse(text)])
    with pytest.raises(MappingError, match="all models have more than 2 names"):
        link([parse(text + "model other extends m {}\n")])
    monkeypatch.setattr("ckptc.compiler.link.flatten.MOST_IN_ALL", 3)
    with pytest.raises(MappingError, match="all layouts have more than 3 rules"):
        link([parse(text)])
