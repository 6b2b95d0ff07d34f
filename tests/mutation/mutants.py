"""The passes of the compiler's algebra in, mutants out: modules that are changed in one place, and what each is called."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

ALGEBRA = Path(__file__).resolve().parents[2] / "compiler" / "algebra"
PASSES = ("lower", "prove", "compose", "optimise", "digits", "index", "pieces")
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv,
}  # fmt: skip
RENAMED = {"min": "max", "max": "min", "any": "all", "all": "any"}
Way: TypeAlias = tuple[tuple[str, int | None], ...]  # fields from the root, and where in a list


@dataclass(frozen=True)
class Mutant:
    """`name` is the pass, the function and the change; `tree` makes the changed module."""

    name: str
    tree: Callable[[], ast.Module]


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    match node:
        case ast.Compare(left, ops, right):
            for i, op in enumerate(ops):
                yield ast.Compare(left, [*ops[:i], SWAPPED[type(op)](), *ops[i + 1 :]], right)  # type: ignore[list-item]
        case ast.BinOp(left, op, right) if type(op) in SWAPPED:
            yield ast.BinOp(left, SWAPPED[type(op)](), right)  # type: ignore[arg-type]
        case ast.BoolOp(op, values):
            yield ast.BoolOp(SWAPPED[type(op)](), values)  # type: ignore[arg-type]
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)) if value < 100:  # more is a limit, whose last digits mean nothing
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Name(name) if name in RENAMED:
            yield ast.Name(RENAMED[name], ast.Load())
        case ast.Expr(ast.Constant(str())):  # a docstring
            return
        case ast.Expr() | ast.AugAssign() | ast.Assign([ast.Subscript() | ast.Attribute()]) | ast.Raise() | ast.Return() | ast.Continue() | ast.Break():
            yield ast.Pass()


def _places(node: ast.AST, where: str, path: Way = ()) -> Iterator[tuple[str, Way, ast.AST]]:
    """(function, way from the root, node) of every node that has a meaning when the module runs."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        where = f"{where}.{node.name}"
    yield where, path, node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or (isinstance(node, ast.keyword) and node.arg == "strict"):
            continue
        for i, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, ast.AST):
                yield from _places(each, where, (*path, (field, i if isinstance(value, list) else None)))


def _at(root: ast.AST, path: Way) -> Any:
    node: Any = root
    for field, i in path:
        node = getattr(node, field) if i is None else getattr(node, field)[i]
    return node


def _replaced(root: ast.Module, path: Way, new: ast.AST) -> ast.Module:
    root, (field, i) = copy.deepcopy(root), path[-1]
    if i is None:
        setattr(_at(root, path[:-1]), field, new)
    else:
        getattr(_at(root, path[:-1]), field)[i] = new
    return ast.fix_missing_locations(root)


def mutants(name: str) -> list[Mutant]:
    """All mutants of a pass. Where one function has a change in several places, their names are numbered."""
    root = ast.parse((ALGEBRA / f"{name}.py").read_text())
    found, seen = [], Counter[str]()
    for where, path, node in _places(root, name):
        for new in changes(node):
            known = f"{where}: {_described(root, path, new)}"
            seen[known] += 1
            number = f" #{seen[known]}" if seen[known] > 1 else ""
            found.append(Mutant(known + number, lambda path=path, new=new: _replaced(root, path, new)))  # type: ignore[misc]
    return found


def _described(root: ast.Module, path: Way, new: ast.AST) -> str:
    """What is changed, and into what; of a number or a name, which say little, what it stands in."""
    way = path[:-1] if isinstance(_at(root, path), ast.Constant | ast.Name) else path
    before, after = (" ".join(ast.unparse(_at(tree, way)).split()) for tree in (root, _replaced(root, path, new)))
    return f"{before} -> {after}"


def equivalents() -> dict[str, str]:
    """The mutants that are no faults, each with why. A line is the name of a mutant, a tab, and the reason."""
    lines = (Path(__file__).parent / "equivalent.txt").read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines if line)  # type: ignore[misc]
