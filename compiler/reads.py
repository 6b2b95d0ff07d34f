"""What a scalar expression reads: its names, config keys and functions. Nothing is evaluated."""

from __future__ import annotations

from collections.abc import Iterator

from ..dsl.tree import Binary, Call, Conditional, Expr, Literal, Ref, Unary


def inside(expr: Expr) -> Iterator[Expr]:
    """The expression and all within it, in order of appearance. What a call to `stored` or `key` names is no value."""
    yield expr
    match expr:
        case Unary(_, operand):
            yield from inside(operand)
        case Binary(_, left, right):
            yield from inside(left)
            yield from inside(right)
        case Conditional(test, yes, no):
            yield from inside(test)
            yield from inside(yes)
            yield from inside(no)
        case Call(function, args) if function not in ("stored", "key"):
            for arg in args:
                yield from inside(arg)


def refs(expr: Expr) -> list[str]:
    """The names and config keys that an expression reads, in order of appearance."""
    out = []
    for node in inside(expr):
        match node:
            case Ref(name) | Call("key", (Literal(str(name)),)):
                out.append(name)
    return out


def calls(expr: Expr) -> set[str]:
    """The functions that an expression calls."""
    return {node.function for node in inside(expr) if isinstance(node, Call)}


def reads_of_keys(expr: Expr) -> set[str]:
    """The config keys that an expression reads by `key("...")`."""
    return {str(node.args[0].value) for node in inside(expr) if isinstance(node, Call) and node.function == "key" and isinstance(node.args[0], Literal)}
