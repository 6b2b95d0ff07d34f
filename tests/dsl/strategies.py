"""Random syntax trees that the grammar can express, for the laws of parser and formatter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from ckptc.dsl import tree
from ckptc.dsl.dtypes import SHORT_NAMES

names = st.sampled_from(
    [
        "a",
        "b",
        "layer",
        "hidden",
        "tp",
        "q_norm",
        "copy",
        "rest",
        "first",
        "last",
        "key",
        "rank",
        "shared",
        "format",
        "files",
        "to",
        "zero",
        "on",
        "stages",
        "state",
        "when_",
        "x1",
        "A",
        "all",
        "over",
        "default",
    ]
)
model_names = st.sampled_from(["embed", "q", "k", "gate_up", "copy", "first", "norm_1"])
layout_names = st.sampled_from(["hf", "nxdt", "nxdt-megatron", "nemo2", "a-1-b"])
strings = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12) | st.sampled_from(
    ['a"b', "\\", "# no", "{}"]
)
opt = lambda strategy: st.none() | strategy  # noqa: E731


def _tuple(strategy: st.SearchStrategy[Any], least: int = 0, most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


refs = st.builds(tree.Ref, names)
numbers = st.builds(
    tree.Literal, st.integers(0, 10**17) | st.floats(min_value=0, allow_nan=False, allow_infinity=False)
)
literals = numbers | st.builds(tree.Literal, strings | st.sampled_from([True, False, None]))
OPERATORS = ["or", "and", "==", "!=", "<", "<=", ">", ">=", "in", "??", "+", "-", "*", "/", "%"]


plain = numbers | st.builds(tree.Literal, strings | st.sampled_from([True, False, None]) | st.integers(-(10**9), -1))


def _exprs(leaves: st.SearchStrategy[Any], matches: bool = True) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(tree.Unary, st.sampled_from(["not", "-"]), inner)
            | st.builds(tree.Binary, st.sampled_from(OPERATORS), inner, inner)
            | st.builds(tree.Call, names, _tuple(inner))
            | st.builds(tree.Conditional, inner, inner, inner)
            | (st.builds(tree.Match, inner, _tuple(st.builds(tree.Pair, plain, inner), 1)) if matches else st.nothing())
        ),
        max_leaves=6,
    )


config_keys = st.builds(
    lambda first, rest: tree.Key((first, *rest)),
    names | st.sampled_from(["odd name", "a-b", "0"]),
    st.lists(names | st.sampled_from(["0", "12", "x y"]), max_size=2),
)
exprs = _exprs(literals | refs | config_keys)
stringless = _exprs(refs | st.builds(tree.Literal, st.integers(0, 99)), matches=False)

axis_refs = st.builds(tree.AxisRef, names)


def _terms(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(tree.Term, opt(names), _tuple(inner, 1))


indices = st.recursive(
    axis_refs | st.builds(tree.One) | st.builds(tree.Copies, exprs),
    lambda inner: (
        st.builds(tree.Sum, _tuple(_terms(inner), 1))
        | st.builds(tree.Slice, inner, names)
        | st.builds(tree.Pad, inner, exprs, st.booleans(), st.sampled_from(["zero", "repeat last", "mean"]) | names)
    ),
    max_leaves=6,
)

holes = st.builds(tree.Hole, names, opt(names), opt(stringless), st.integers(0, 99))


def _pattern(parts: list[Any]) -> tree.Pattern:
    kept: list[Any] = []
    for part in parts:  # neighbouring texts would be read as one
        if part != "" and not (kept and isinstance(part, str) and isinstance(kept[-1], str)):
            kept.append(part)
    return tree.Pattern(tuple(kept))


patterns = st.lists(strings | holes, max_size=4).map(_pattern)
settings = st.builds(tree.Setting, names, exprs)
model_settings = st.builds(tree.Setting, names, exprs, opt(exprs)) | st.builds(tree.Setting, names, exprs, st.none(), st.just(True))
axes = st.builds(tree.AxisDecl, names)
refines = st.builds(tree.Refine, names, _tuple(names, 1), _tuple(settings, 0, 2), opt(exprs), st.booleans())
requires = st.builds(tree.Require, exprs, strings, strings, opt(exprs))
tensors = st.builds(tree.TensorDecl, model_names, _tuple(axes), st.booleans(), opt(model_names), opt(exprs), opt(names), opt(names))
selects = st.builds(tree.Select, names, names, exprs)
models = st.builds(
    tree.Model,
    model_names,
    opt(model_names),
    _tuple(axes),
    _tuple(model_settings).map(lambda found: tuple(sorted(found, key=lambda s: s.hint))),
    _tuple(refines),
    _tuple(requires),
    _tuple(tensors),
    _tuple(selects),
    _tuple(st.builds(tree.Part, names, names, st.booleans(), opt(names), opt(names))),
)


def _choices(name: str, choices: tuple[str, ...], asked: bool) -> tree.Param:
    return tree.Param(name, tree.Ref(choices[0]), False, choices, asked=asked)


def _choices_by(name: str, choices: tuple[str, ...], default: tree.Expr) -> tree.Param:
    return tree.Param(name, default, False, choices)


params = st.builds(tree.Param, names, exprs, st.booleans()) | st.builds(tree.Param, names, exprs, st.just(True), st.just(()), st.booleans()) | st.builds(_choices, names, _tuple(names, 2), st.booleans()) | st.builds(_choices_by, names, _tuple(names, 2), exprs)
elementwise = st.builds(tree.Elementwise, st.sampled_from("+-*"), exprs)


def _with_bar(rule: tree.Rule, bar: int) -> tree.Rule:
    return replace(rule, bar=bar) if bar <= len(rule.dims) else rule


plain_rules = st.builds(
    tree.Rule,
    _tuple(patterns, 1),
    opt(model_names),
    _tuple(indices),
    _tuple(st.builds(tree.Rename, names, names), 0, 2),
    _tuple(elementwise, 0, 2),
    opt(st.sampled_from(sorted(SHORT_NAMES))),
    opt(st.sampled_from(["first", "last", "all"])),
    st.booleans(),
    st.booleans(),
    opt(exprs),
    st.none(),
    opt(st.builds(tree.Call, names, _tuple(exprs, 0, 2))),
    _tuple(indices),
)
rules = plain_rules | st.builds(_with_bar, plain_rules, st.integers(0, 3))
rule_choices = st.lists(rules, min_size=2, max_size=3).map(lambda found: tree.Choices(tuple(replace(x, names=found[0].names, copy=found[0].copy) for x in found)))
ignores = st.builds(tree.Ignore, _tuple(patterns, 1), opt(exprs)) | st.builds(tree.Ignore, _tuple(patterns, 1), opt(exprs), st.none(), st.just(True))
prefixes = st.builds(tree.Prefix, patterns, opt(exprs)) | st.builds(tree.Prefix, patterns, opt(exprs), names)
rule_items = st.recursive(
    rules | rule_choices | ignores,
    lambda inner: st.builds(tree.Under, _tuple(prefixes, 1, 2), _tuple(inner)),
    max_leaves=3,
)
values = plain | _tuple(exprs)
config_items = st.one_of(
    st.builds(tree.Bind, names, exprs, st.booleans()),
    st.builds(tree.Bind, names, st.none()),
    st.builds(tree.Fixed, config_keys, exprs | _tuple(exprs), opt(exprs)),
    st.builds(tree.Only, exprs, _tuple(values, 1), strings, opt(exprs)),
    st.builds(tree.Unused, _tuple(strings, 1)),
    st.builds(tree.Identity, config_keys, _tuple(values, 1)),
)
sometimes = st.builds(tree.Sometimes, _tuple(st.tuples(patterns, opt(exprs)), 2, 3)) | st.builds(tree.Sometimes, _tuple(st.tuples(patterns, exprs), 1, 1))
files = st.builds(tree.Files, _tuple(patterns | sometimes, 1, 2), opt(exprs))
lets = st.builds(tree.Let, names, indices, opt(exprs))
items = st.one_of(
    files,
    st.builds(tree.Choices, _tuple(files, 2, 3)),
    st.lists(lets, min_size=2, max_size=3).map(lambda found: tree.Choices(tuple(replace(x, name=found[0].name) for x in found))),
    st.builds(tree.NamedPrefix, names, _tuple(prefixes, 1, 2)),
    st.builds(tree.PartLayout, names, layout_names, _tuple(prefixes, 0, 2), st.just(()) | config_keys.map(lambda key: key.path)),
    st.builds(tree.Omit, _tuple(names, 1), opt(exprs)),
    st.builds(tree.Text, strings, strings, opt(exprs)),
    st.builds(tree.Note, strings, opt(exprs)),
    st.builds(tree.Formats, _tuple(names, 1), st.booleans()),
    st.builds(tree.Config, strings.filter(bool) | st.just(""), _tuple(config_items), opt(strings), st.booleans(), st.booleans()),
    st.builds(tree.Carry, _tuple(strings, 1)),
    st.builds(tree.Stages, names, names, opt(names), opt(st.sampled_from(["first", "last"])), opt(names)),
    st.builds(tree.State, patterns, names, opt(exprs)),
    refines,
    lets,
    requires,
    rule_items,
)
bases = st.builds(tree.Base, layout_names, opt(patterns), st.none(), st.just(()) | config_keys.map(lambda key: key.path))
layouts = st.builds(tree.Layout, layout_names, model_names, _tuple(bases, 0, 2), _tuple(params), _tuple(items, 0, 5), st.booleans())
mappings = st.builds(
    tree.Mapping, _tuple(st.builds(tree.Use, strings), 0, 2), _tuple(models, 0, 2), _tuple(layouts, 0, 2)
)
