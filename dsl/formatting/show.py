"""One node in, its text on one line out: what the formatter and every printout are made of."""

from __future__ import annotations

import re
from typing import TypeAlias

from .. import tree
from ..dtypes import SHORT_NAMES
from ..tree import Expr, Index

Node: TypeAlias = (
    Expr
    | Index
    | tree.Term
    | tree.Hole
    | tree.Pattern
    | tree.Rule
    | tree.Base
    | tree.Ignore
    | tree.Choices
    | tree.NamedPrefix
    | tree.PartLayout
    | tree.Part
    | tree.Sometimes
    | tree.Let
    | tree.Files
    | tree.Prefix
    | tree.Text
    | tree.Omit
    | tree.Note
    | tree.Formats
    | tree.Carry
    | tree.Stages
    | tree.State
    | tree.Refine
    | tree.Select
    | tree.Require
    | tree.Setting
    | tree.ConfigItem
    | tree.Pair
    | tree.Param
    | tree.TensorDecl
    | tree.AxisDecl
    | tree.Rename
    | tree.Elementwise
    | tree.Use
)

_LEVELS = (("or",), ("and",), ("not",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("??",), ("+", "-"), ("*", "/", "%"))
_LEVEL = {op: level for level, ops in enumerate(_LEVELS, 1) for op in ops}
_COMPARISON, _DEFAULT, _ARITH, _NEGATED = _LEVEL["=="], _LEVEL["??"], _LEVEL["+"], 8


def show(node: Node) -> str:
    """The node as a mapping file writes it, on one line; `parse` reads the same node back."""
    match node:
        case tree.Literal() | tree.Ref() | tree.Key() | tree.Unary() | tree.Binary() | tree.Call() | tree.Conditional() | tree.Match():
            return _expr(node, 0)
        case tree.AxisRef(name) | tree.AxisDecl(name):
            return name
        case tree.One():
            return "1"
        case tree.Sum(terms):
            return f"({_terms(terms)})"
        case tree.Term(label, factors):
            return (f"{label}: " if label else "") + " ".join(map(show, factors))
        case tree.Slice(operand, rank):
            return f"{show(operand)}/{rank}"
        case tree.Pad():
            return _pad(node)
        case tree.Copies(count):
            return f"copies({show(count)})"
        case tree.Pattern(parts):
            return quote("".join(show(p) if isinstance(p, tree.Hole) else _braces(p) for p in parts))
        case tree.Hole():
            return _hole(node)
        case tree.Rule():
            return f"{rule_head(node)} = {stored(node)}"
        case tree.Choices(items):
            return show(items[0]) + "".join(f", {choice(item)}" for item in items[1:])
        case tree.NamedPrefix(name, prefixes):
            return f"prefix {name} = " + ", ".join(map(show, prefixes))
        case tree.PartLayout(name, layout, prefixes, keys):
            text = f"part {name} as {layout}" + (" under " + ", ".join(map(show, prefixes)) if prefixes else "")
            return text + (f" keys {show(tree.Key(keys))}" if keys else "")
        case tree.Part(name, model, optional, before, after):
            places = "".join(f" {word} {axis}" for word, axis in (("before", before), ("after", after)) if axis)
            return f"part {name} = {model}" + " optional" * optional + places
        case tree.Sometimes(parts):
            return " + ".join(show(text) if when is None else f"({show(text)} when {show(when)})" for text, when in parts)
        case tree.TensorDecl():
            return " ".join(filter(None, (node.name, tensor_axes(node), tensor_tail(node))))
        case tree.Base(name, under, when, keys):
            text = name + (f" under {show(under)}" if under else "") + (f" when {show(when)}" if when is not None else "")
            return text + (f" keys {show(tree.Key(keys))}" if keys else "")
        case tree.Ignore(names, when, empty=empty):
            return ("object " if empty else "ignore ") + " or ".join(map(show, names)) + _when(when)
        case tree.Let(name):
            return f"let {name} = {choice(node)}"
        case tree.Files():
            return f"files {choice(node)}"
        case tree.Prefix(text, when, name):
            return " + ".join(filter(None, (name or "", show(text) if text.parts or name is None else ""))) + _when(when)
        case tree.Omit(tensors, when):
            return f"omit ({' '.join(tensors)})" + _when(when)
        case tree.Text(file, content, when):
            return f"text {quote(file)} {quote(content)}" + _when(when)
        case tree.Formats(names, read_only):
            return "format " + " | ".join(names) + " read only" * read_only
        case tree.Carry(globs):
            return "carry " + " ".join(map(quote, globs))
        case tree.Stages(axis, rank, interleave, remainder, beyond):
            words = (("interleave", interleave), ("remainder", remainder), ("beyond", beyond))
            tail = "".join(f" {word} {value}" for word, value in words if value)
            return f"stages {axis} over {rank}{tail}"
        case tree.State(file, rank, when):
            return f"state {show(file)} over {rank}" + _when(when)
        case tree.Refine(axis, names, sizes, when, padded):
            tail = " with " + ", ".join(map(show, sizes)) if sizes else ""
            return f"axis {axis} = {'pad' * padded}({' '.join(names)}){tail}" + _when(when)
        case tree.Select(name, axis, value):
            return f"{name}[{axis}] = {show(value)}"
        case tree.Require(test, message, help, when):
            return f"require {show(test)} else {quote(message)}" + (f", {quote(help)}" if help else "") + _when(when)
        case tree.Setting(name, value, when):
            return f"{name} = {show(value)}" + _when(when)
        case tree.Bind(name, bound, reads):
            return f"{name} {'<-' if reads else '='} {'none' if bound is None else show(bound)}"
        case tree.Fixed(key, fixed, when):
            return f"{show(key)} = {show_value(fixed)}" + _when(when)
        case tree.Only(value, values, effect, when):
            return f"only {show(value)} is {_one_of(values)}" + (f" else {quote(effect)}" if effect else "") + _when(when)
        case tree.Unused(globs):
            return "unused " + " ".join(map(quote, globs))
        case tree.Identity(key, values):
            return f"is {show(key)} {_one_of(values)}"
        case tree.Pair(value, result):
            return f"{show(value)}: {show(result)}"
        case tree.Note(text, when):
            return f"note {quote(text)}" + _when(when)
        case tree.Param(name, default, rank_param, choices, shared, asked):
            head = "asked " * asked + "shared " * shared + "rank " * rank_param
            by = f" default {show(default)}" if choices and default != tree.Ref(choices[0]) else ""
            return f"{head}{name} = " + (" | ".join(choices) + by or show(default))
        case tree.Rename(label, tensor):
            return f"{label}: {tensor}"
        case tree.Elementwise(op, amount):
            plain = isinstance(amount, tree.Ref) or (
                isinstance(amount, tree.Literal)
                and isinstance(amount.value, int | float)
                and not isinstance(amount.value, bool)
            )
            return f"{op} {show(amount)}" if plain else f"{op} ({show(amount)})"
        case tree.Use(file):
            return f"use {quote(file)}"


def quote(text: str) -> str:
    """A string token that reads as `text`."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def show_value(value: Expr | tuple[Expr, ...]) -> str:
    """A value of a config file: an expression, or a list of them."""
    return "[" + ", ".join(map(show, value)) + "]" if isinstance(value, tuple) else show(value)


def _one_of(values: tuple[tree.Literal | tuple[Expr, ...], ...]) -> str:
    return " or ".join(map(show_value, values))


def rule_head(rule: tree.Rule) -> str:
    """What stands before a rule's `=`."""
    return ("copy " if rule.copy else "") + " or ".join(map(show, rule.names))


def stored(rule: tree.Rule) -> str:
    """What stands behind a rule's `=`."""
    return " ".join(filter(None, (rule.tensor, rule_dims(rule), rule_tail(rule))))


def choice(node: tree.Files | tree.Let | tree.Rule) -> str:
    """One of several choices of a statement, without what stands before all of them."""
    match node:
        case tree.Files(names, when):
            return " or ".join(map(show, names)) + _when(when)
        case tree.Let(_, value, when):
            return show(value) + _when(when)
        case tree.Rule():
            return stored(node)


def rule_dims(rule: tree.Rule) -> str:
    if rule.bar is None:
        return "[" + ", ".join(map(show, rule.dims)) + "]"
    before, after = (", ".join(map(show, dims)) for dims in (rule.dims[: rule.bar], rule.dims[rule.bar :]))
    return f"[{before} | {after}]" if after else f"[{before} |]"


def rule_tail(rule: tree.Rule) -> str:
    """A rule's modifiers in their fixed order: with, elementwise, as, on, optional, made, view, when."""
    words = []
    if rule.renames:
        words.append("with (" + ", ".join(map(show, rule.renames)) + ")")
    words += map(show, rule.elementwise)
    if rule.dtype:
        words.append("as " + SHORT_NAMES.get(rule.dtype, rule.dtype))
    if rule.on:
        words.append("on " + rule.on)
    if rule.optional:
        words.append("optional")
    if rule.made:
        words.append("made " + show(rule.made))
    if rule.view:
        words.append("view [" + ", ".join(map(show, rule.view)) + "]")
    return (" ".join(words) + _when(rule.when)).strip()


def tensor_axes(tensor: tree.TensorDecl) -> str:
    return "[" + ", ".join(axis.name for axis in tensor.axes) + "]"


def tensor_tail(tensor: tree.TensorDecl) -> str:
    """A model tensor's modifiers in their fixed order: optional, tied to, before, after, when."""
    said = (("tied to", tensor.tied_to), ("before", tensor.before), ("after", tensor.after))
    words = ["optional"] * tensor.optional + [f"{word} {name}" for word, name in said if name]
    return (" ".join(words) + _when(tensor.when)).strip()


def _when(when: Expr | None) -> str:
    return "" if when is None else f" when {show(when)}"


def _terms(terms: tuple[tree.Term, ...]) -> str:
    return " + ".join(map(show, terms))


def _pad(node: tree.Pad) -> str:
    operand = node.operand
    bare = (
        isinstance(operand, tree.Sum)
        # A single plain factor in parentheses keeps them: without them it would be that factor itself.
        and (len(operand.terms) > 1 or operand.terms[0].label is not None or len(operand.terms[0].factors) > 1)
    )
    inner = _terms(operand.terms) if isinstance(operand, tree.Sum) and bare else show(operand)
    amount = show(node.amount)
    if re.match(r"to\b", amount):
        amount = f"({amount})"
    fill = "" if node.fill == "zero" else f", {node.fill}"
    return f"pad({inner}, {'to ' if node.exact else ''}{amount}{fill})"


def _hole(hole: tree.Hole) -> str:
    text = hole.axis + (f"/{hole.rank}" if hole.rank else "")
    if hole.offset is not None:
        offset = show(hole.offset)
        text += f" - {offset[1:]}" if offset.startswith("-") else f" + {offset}"
    return "{" + text + (f":0{hole.width}" if hole.width else "") + "}"


def _braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _expr(node: Expr, level: int) -> str:
    """`node` where only what binds at least as tightly as `level` may stand bare."""
    match node:
        case tree.Literal(value):
            if isinstance(value, str):
                return quote(value)
            return (
                {True: "true", False: "false", None: "null"}[value]
                if value is None or isinstance(value, bool)
                else re.sub(r"e([+-])0", r"e\1", repr(value))
            )
        case tree.Ref(name):
            return name
        case tree.Key(path):
            return "".join("." + (part if _plain_part(part, at) else f'"{part}"') for at, part in enumerate(path))
        case tree.Match(subject, pairs):
            return f"match({', '.join(map(show, (subject, *pairs)))})"
        case tree.Call(function, args):
            return f"{function}({', '.join(map(show, args))})"
        case tree.Conditional(test, yes, no):
            mine, text = 0, f"if {show(test)} then {show(yes)} else {show(no)}"
        case tree.Unary("-", operand):
            mine, text = _NEGATED, "-" + _expr(operand, _NEGATED)
        case tree.Unary(_, operand):
            mine, text = _LEVEL["not"], "not " + _expr(operand, _LEVEL["not"])
        case tree.Binary("??", left, right):
            mine, text = _DEFAULT, f"{_expr(left, _DEFAULT)} ?? {_default(right)}"
        case tree.Binary(op, left, right):
            mine = _LEVEL[op]
            text = f"{_expr(left, mine + (mine == _COMPARISON))} {op} {_expr(right, mine + 1)}"
    return text if mine >= level else f"({text})"


def _plain_part(part: str, at: int) -> bool:
    """Whether a part of a key needs no quotes; the first may not begin with a digit."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*" if at == 0 else r"[A-Za-z0-9_]+", part) is not None


def _default(node: Expr) -> str:
    """The right side of `??`, where a `not` may stand bare."""
    if isinstance(node, tree.Unary) and node.op == "not":
        return "not " + _default(node.operand)
    return _expr(node, _ARITH)
