"""Each construct of the language is the tree it should be."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ckptc.dsl import MappingError, Span, parse, parse_expr
from ckptc.dsl.tree import (
    AxisDecl,
    AxisRef,
    Base,
    Binary,
    Bind,
    Call,
    Carry,
    Choices,
    Conditional,
    Config,
    Copies,
    Elementwise,
    Files,
    Fixed,
    Formats,
    Hole,
    Identity,
    Ignore,
    Key,
    Let,
    Literal,
    Mapping,
    Match,
    Model,
    NamedPrefix,
    One,
    Only,
    Pad,
    Pair,
    Param,
    Part,
    PartLayout,
    Pattern,
    Prefix,
    Ref,
    Refine,
    Rename,
    Require,
    Rule,
    Select,
    Setting,
    Slice,
    Sometimes,
    Stages,
    State,
    Sum,
    TensorDecl,
    Term,
    Text,
    Unary,
    Under,
    Unused,
    Use,
)  # fmt: skip

a, b, c = Ref("a"), Ref("b"), Ref("c")
x, y = AxisRef("x"), AxisRef("y")


def item(text: str) -> Any:
    return parse(f"layout l of m {{ {text} }}").layouts[0].items[0]


def dim(text: str) -> Any:
    return item(f'"n" = t [{text}]').dims[0]


def name(*parts: Any) -> Pattern:
    return Pattern(parts)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a or b and not c", Binary("or", a, Binary("and", b, Unary("not", c)))),
        ("not a == b", Unary("not", Binary("==", a, b))),
        ("a == b ?? c", Binary("==", a, Binary("??", b, c))),
        ("a ?? not f(b)", Binary("??", a, Unary("not", Call("f", (b,))))),
        ("a ?? b + c", Binary("??", a, Binary("+", b, c))),
        ("a - b - c", Binary("-", Binary("-", a, b), c)),
        ("a - (b - c)", Binary("-", a, Binary("-", b, c))),
        ("-a * b % c", Binary("%", Binary("*", Unary("-", a), b), c)),
        ("if a then b else c or a", Conditional(a, b, Binary("or", c, a))),
        ('.a."odd name".0', Key(("a", "odd name", "0"))),
        ('match(.act, "x": a, 2: .b, null: c)', Match(Key(("act",)), (Pair(Literal("x"), a), Pair(Literal(2), Key(("b",))), Pair(Literal(None), c)))),
        ("f(1e-5, 1.5, null, true, false)", Call("f", tuple(map(Literal, (1e-5, 1.5, None, True, False))))),
        (".rope.scaling.factor", Key(("rope", "scaling", "factor"))),
    ],
)
def test_scalar_expressions_bind_as_documented(text: str, tree: Any) -> None:
    assert repr(parse_expr(text)) == repr(tree)


@pytest.mark.parametrize("text", ["a == b == c", "a < b < c", "a // b", "a b", "a + not b", "", "1 2"])
def test_what_has_no_meaning_is_no_expression(text: str) -> None:
    with pytest.raises(MappingError):
        parse_expr(text)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("x", x),
        ("1", One()),
        ("x/tp/ep", Slice(Slice(x, "tp"), "ep")),
        ("(x)", Sum((Term(None, (x,)),))),
        ("(x y)/tp", Slice(Sum((Term(None, (x, y)),)), "tp")),
        ("(q: x/tp + y)", Sum((Term("q", (Slice(x, "tp"),)), Term(None, (y,))))),
        ("((q: x + y)/tp)", Sum((Term(None, (Slice(Sum((Term("q", (x,)), Term(None, (y,)))), "tp"),)),))),
        ("copies(a)", Copies(a)),
        ("pad(x, a)", Pad(x, a)),
        ("pad((x), to a, zero)", Pad(Sum((Term(None, (x,)),)), a, True)),
        ("pad(x y + 1, a * b, repeat last)", Pad(Sum((Term(None, (x, y)), Term(None, (One(),)))), Binary("*", a, b), False, "repeat last")),
        ("(copy rest first last key rank format files to zero on when)", Sum((Term(None, tuple(map(AxisRef, ["copy", "rest", "first", "last", "key", "rank", "format", "files", "to", "zero", "on", "when"]))),))),
    ],
)  # fmt: skip
def test_index_expressions(text: str, tree: Any) -> None:
    assert dim(text) == tree


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{layer}", (Hole("layer"),)),
        ("a.{layer/pp}.b", ("a.", Hole("layer", "pp"), ".b")),
        ("{layer + a * 2}", (Hole("layer", None, Binary("*", a, Literal(2))),)),
        ("{layer/pp - 1:03}", (Hole("layer", "pp", Unary("-", Literal(1)), 3),)),
        ("{tp:02}{pp}", (Hole("tp", None, None, 2), Hole("pp"))),
        ("{{x}}{y}", ("{x}", Hole("y"))),
        ("", ()),
    ],
)
def test_names_have_holes(text: str, parts: Any) -> None:
    assert item(f'ignore "{text}"') == Ignore((Pattern(parts),))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('files "r_{tp:02}.pt" when a', Files((name("r_", Hole("tp", width=2), ".pt"),), a)),
        ('files "a" or "b"', Files((name("a"), name("b")))),
        ('text "done" "1" when a', Text("done", "1", a)),
        ("format pt | safetensors", Formats(("pt", "safetensors"))),
        ("format pt read only", Formats(("pt",), True)),
        ('config "c.json" { x = a copy = b ?? c }', Config("c.json", (Bind("x", a), Bind("copy", Binary("??", b, c))))),
        ('config "c.yaml" read only { x = .a.b }', Config("c.yaml", (Bind("x", Key(("a", "b"))),), None, True)),
        ("config partial { x <- a  y = none }", Config("", (Bind("x", a, True), Bind("y", None)), partial=True)),
        ("config { .k.l = [a, 1] when b  .m = a }", Config("", (Fixed(Key(("k", "l")), (a, Literal(1)), b), Fixed(Key(("m",)), a)))),
        ('config { is .k "x" or 2  unused "a" "b*" }', Config("", (Identity(Key(("k",)), (Literal("x"), Literal(2))), Unused(("a", "b*"))))),
        ('config { only .k ?? a is -1 or [] else "e" when b }', Config("", (Only(Binary("??", Key(("k",)), a), (Literal(-1), ()), "e", b),))),
        ('config "c.json" template "t.j2" {}', Config("c.json", (), "t.j2")),
        ('carry "t*" "g"', Carry(("t*", "g"))),
        ("stages layer over pp", Stages("layer", "pp")),
        ("stages layer over pp interleave vpp remainder last", Stages("layer", "pp", "vpp", "last")),
        ("stages layer over pp beyond n", Stages("layer", "pp", beyond="n")),
        ('state "o_{dp}.pt" over dp when a', State(name("o_", Hole("dp"), ".pt"), "dp", a)),
        ("axis s = (copy rest) with copy = a, first = b when c", Refine("s", ("copy", "rest"), (Setting("copy", a), Setting("first", b)), c)),
        ("let h = (x y)/tp when a", Let("h", Slice(Sum((Term(None, (x, y)),)), "tp"), a)),
        ('require a == b else "no" when c', Require(Binary("==", a, b), "no", "", c)),
        ('ignore "a" or "b" when c', Ignore((name("a"), name("b")), c)),
        ('object "a" when c', Ignore((name("a"),), c, None, True)),
        ('under "p." when a { copy "n" = t [x] ignore "y" }', Under((Prefix(name("p."), a),), (Rule((name("n"),), "t", (x,), copy=True), Ignore((name("y"),))))),
        ('under "p." when a, "q." when b, "" {}', Under((Prefix(name("p."), a), Prefix(name("q."), b), Prefix(name())), ())),
        ('under top + "p." when a, block {}', Under((Prefix(name("p."), a, "top"), Prefix(name(), None, "block")), ())),
        ('prefix block = top + "p." when a, "q."', NamedPrefix("block", (Prefix(name("p."), a, "top"), Prefix(name("q."))))),
        ('part tower as hf under "p." when a, top keys .b.c', PartLayout("tower", "hf", (Prefix(name("p."), a), Prefix(name(), None, "top")), ("b", "c"))),
        ('files "a" + ("b" when a) + "c" when b, "d"', Choices((Files((Sometimes(((name("a"), None), (name("b"), a), (name("c"), None))),), b), Files((name("d"),))))),
        ("let h = x when a, y", Choices((Let("h", x, a), Let("h", y)))),
        ('"n" = t [x | y] when a, [x |]', Choices((Rule((name("n"),), "t", (x, y), when=a, bar=1), Rule((name("n"),), None, (x,), bar=1)))),
        ('"n" = t [x, y] view [(x y)]', Rule((name("n"),), "t", (x, y), view=(Sum((Term(None, (x, y)),)),))),
        ('"n" = [x] with (q: q_bias, k: k_bias)', Rule((name("n"),), None, (x,), (Rename("q", "q_bias"), Rename("k", "k_bias")))),
        ('"n" or "o" = on [] + 1 * (a + b) as f8e4m3 on last optional when c', Rule((name("n"), name("o")), "on", (), (), (Elementwise("+", Literal(1)), Elementwise("*", Binary("+", a, b))), "float8_e4m3fn", "last", True, False, c)),
    ],
)  # fmt: skip
def test_layout_items(text: str, tree: Any) -> None:
    assert item(text) == tree


def test_modifiers_may_come_in_any_order() -> None:
    assert item('"n" = t [x] optional on all when a as bool - b') == item(
        '"n" = t [x] - b as bool on all optional when a'
    )


def test_a_model_holds_axes_settings_refinements_requirements_and_tensors() -> None:
    text = """model m extends n { axes { x y } settings { s = false copy = 1 odd[x] = b } part p = q optional before x axis x = (u v) with v = 2
      require a else "e"  head [x, y] tied to embed optional when b  copy [x] after y  one [] }"""
    assert parse(text).models == (
        Model(
            "m",
            "n",
            (AxisDecl("x"), AxisDecl("y")),
            (Setting("s", Literal(False)), Setting("copy", Literal(1))),
            (Refine("x", ("u", "v"), (Setting("v", Literal(2)),)),),
            (Require(a, "e"),),
            (
                TensorDecl("head", (AxisDecl("x"), AxisDecl("y")), True, "embed", b),
                TensorDecl("copy", (AxisDecl("x"),), after="y"),
                TensorDecl("one", ()),
            ),
            (Select("odd", "x", b),),
            (Part("p", "q", True, "x"),),
        ),
    )


def test_a_layout_has_a_name_a_model_a_parent_and_parameters() -> None:
    layout = parse(
        "layout nxdt-megatron of m extends nxdt, other under \"p.\" (rank tp = 1, hw = t1 | t2, rank = a, fuse = false) {}"
    ).layouts[0]
    assert (layout.name, layout.model, layout.extends) == ("nxdt-megatron", "m", (Base("nxdt"), Base("other", name("p."))))
    assert layout.params == (
        Param("tp", Literal(1), True),
        Param("hw", Ref("t1"), False, ("t1", "t2")),
        Param("rank", a),
        Param("fuse", Literal(False)),
    )


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse("# only this\n") == Mapping((), (), ())


def test_a_file_uses_others() -> None:
    assert parse('use "a.ckmap" use "b\\\\.ckmap"').uses == (Use("a.ckmap"), Use("b\\.ckmap"))


def test_spans_are_exact_down_to_the_holes() -> None:
    rule = parse('layout l of m {\n  "a\\"{layer/pp}" = t [(x y)/tp]\n}', "f.ckmap").layouts[0].items[0]
    assert isinstance(rule, Rule)
    hole = rule.names[0].parts[1]
    assert isinstance(hole, Hole)
    assert hole.span == Span("f.ckmap", 2, 7, 2, 17)
    assert rule.dims[0].span == Span("f.ckmap", 2, 24, 2, 32)
    assert rule.span == Span("f.ckmap", 2, 3, 2, 33)


def test_the_spans_inside_a_hole_are_exact_too() -> None:
    ignore = item('ignore "a{x + b}"')
    assert ignore.names[0].parts[1].offset.span == Span("<text>", 1, 31, 1, 32)


@pytest.mark.parametrize("text", ["1" + " + 1" * 50_000, "if " * 5000, "-" * 5000 + "1", "(" * 50_000])
def test_nesting_too_deep_is_a_diagnostic(text: str) -> None:
    with pytest.raises(MappingError) as caught:
        parse_expr(text)
    assert caught.value.diagnostics[0].code in ("too-deep", "syntax")


def test_importing_the_room_does_not_import_lark() -> None:
    code = "import sys, ckptc.dsl; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
