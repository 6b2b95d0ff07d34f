"""Scalar expressions: evaluate them in a scope.

A scope is a chain of places to look a name up; each value remembers where it came from, so that a
fault about a size can say which config key gave it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..dsl.diagnostic import Diagnostic, Label, MappingError
from ..dsl.nearest import nearest
from ..dsl.tree import Binary, Call, Conditional, Expr, Literal, Ref, Span, Unary
from .reads import refs

Known = bool | int | float | str | None
WRITTEN = "written"  # the name by which requirements and notes of a layout ask whether they are of a conversion's target
DEEPEST = 32  # names that are defined by names
LARGEST = 2**62  # what a size, an offset or a number of elements may be

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "gcd": math.gcd,
    "min": min,
    "max": max,
    "ceil_div": lambda a, b: -(-a // b),
    "key": lambda name: None,  # looked up in a config; `_call` does it
}


@dataclass
class Scope:
    """`names` hold values; `lazy` hold expressions still to be evaluated in this scope (each once);
    `keys` is a parsed config file, looked up last, by dotted path; `functions` are extra functions."""

    names: dict[str, Any] = field(default_factory=dict)
    lazy: dict[str, Expr] = field(default_factory=dict)
    keys: Mapping[str, Any] | None = None
    key_file: str = ""
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()  # choices, which stand for themselves
    _open: list[str] = field(default_factory=list)

    def lookup(self, ref: Ref) -> Any:
        name = ref.name
        if name in self.names:
            return self.names[name]
        if name in self.lazy:
            if name in self._open:
                cycle = " -> ".join([*self._open[self._open.index(name) :], name])
                raise fault("circular-value", f"`{name}` is defined by itself ({cycle})", ref.span, help="give one of them a value of its own")
            self._open.append(name)
            try:
                if len(self._open) > DEEPEST:
                    raise RecursionError
                value = evaluate(self.lazy[name], self)
            except RecursionError:
                raise fault("deep-value", f"`{name}` is defined through too many other names", ref.span, help="define it from fewer") from None
            finally:
                self._open.pop()
            self.names[name] = value
            self.origins.setdefault(name, self.origin_of(self.lazy[name]))
            return value
        if name in self.words:
            return name
        if self.keys is not None:
            return self.key(name)
        near = nearest(name, [*self.names, *self.lazy, *self.words])
        raise fault(
            "unknown-name",
            f"nothing here is called `{name}`",
            ref.span,
            help=f"did you mean `{near}`?" if near else "names are axes, settings and the layout's own parameters",
        )

    def key(self, path: str) -> Any:
        value: Any = self.keys
        for part in path.split("."):
            if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, Mapping) and part in value:
                value = value[part]
            else:
                return None
        return value

    def origin_of(self, expr: Expr) -> str:
        """Which keys or names of this scope gave an expression its value, for notes."""
        if isinstance(expr, Binary) and expr.op == "??":
            return self.origin_of(expr.right if evaluate(expr.left, self) is None else expr.left)
        parts: list[str] = []
        for ref in refs(expr):
            if ref in self.origins:
                parts.append(self.origins[ref])
            elif self.keys is not None and ref not in self.names and self.key(ref) is not None:
                parts.append(f"{self.key_file}: {ref}")
        return ", ".join(dict.fromkeys(parts))


def fault(code: str, title: str, span: Span, text: str = "", *, notes: tuple[str, ...] = (), help: str = "") -> MappingError:
    return MappingError(Diagnostic(code, title, (Label(span, text),), notes, help))


def evaluate(expr: Expr, scope: Scope) -> Any:
    match expr:
        case Literal(value):
            return value
        case Ref():
            return scope.lookup(expr)
        case Unary("not", operand):
            return not evaluate(operand, scope)
        case Unary(_, operand):
            return -_number(operand, scope)
        case Conditional(test, yes, no):
            return evaluate(yes if evaluate(test, scope) else no, scope)
        case Call():
            return _call(expr, scope)
        case Binary("or", left, right):
            return bool(evaluate(left, scope)) or bool(evaluate(right, scope))
        case Binary("and", left, right):
            return bool(evaluate(left, scope)) and bool(evaluate(right, scope))
        case Binary("??", left, right):
            value = evaluate(left, scope)
            return evaluate(right, scope) if value is None else value
        case Binary("==", left, right):
            return evaluate(left, scope) == evaluate(right, scope)
        case Binary("!=", left, right):
            return evaluate(left, scope) != evaluate(right, scope)
        case Binary(op, left, right):
            return _arithmetic(op, _number(left, scope), _number(right, scope), expr, scope)
    raise TypeError(f"no such expression: {expr!r}")


def _number(expr: Expr, scope: Scope) -> int | float:
    value = evaluate(expr, scope)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if value is None and scope.keys is not None:
        missing = [r for r in refs(expr) if r not in scope.names and r not in scope.lazy and scope.key(r) is None]
        if missing:
            raise fault(
                "missing-key",
                f"{scope.key_file or 'the config'} has no `{missing[0]}`",
                expr.span,
                "needed here",
                help=f"add `{missing[0]}` to the config, or pass the config of this model with --config",
            )
    raise fault("not-a-number", f"{shown(value)} is not a number", expr.span, "a number is needed here", notes=_notes(expr, scope))


def _notes(expr: Expr, scope: Scope) -> tuple[str, ...]:
    """Where the numbers that an expression reads came from."""
    found = []
    for name in dict.fromkeys(refs(expr)):
        origin = scope.origins.get(name) or (f"{scope.key_file}: {name}" if scope.keys is not None and name not in scope.names else "")
        if origin:
            value = scope.names[name] if name in scope.names else scope.key(name)
            found.append(f"{name} = {shown(value)} comes from {origin}")
    return tuple(found)


def number_of(expr: Expr, scope: Scope) -> float:
    """The value of an expression that is a number."""
    return _number(expr, scope)


def holds(when: Expr | None, scope: Scope) -> bool:
    return when is None or bool(evaluate(when, scope))


def whole_number(expr: Expr, scope: Scope, what: str, least: int = 1) -> int:
    """The value of an expression that counts something."""
    return whole_value(evaluate(expr, scope), what, expr.span, least, _notes(expr, scope))


def whole_value(value: Any, what: str, span: Span, least: int = 1, notes: tuple[str, ...] = ()) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    kind = f"a whole number from {least}" if least >= 0 else "a whole number"
    raise fault("not-whole", f"{what} is {shown(value)}, not {kind}", span, f"{kind} is needed here", notes=notes)


def _arithmetic(op: str, a: int | float, b: int | float, expr: Binary, scope: Scope) -> Any:
    out = _result(op, a, b, expr, scope)
    if (isinstance(out, int) and abs(out) > LARGEST) or (isinstance(out, float) and not math.isfinite(out)):
        raise fault("too-large", "a number here is larger than any checkpoint", expr.span, help=f"sizes go up to {LARGEST}")
    return out


def _result(op: str, a: int | float, b: int | float, expr: Binary, scope: Scope) -> Any:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "<":
            return a < b
        case "<=":
            return a <= b
        case ">":
            return a > b
        case ">=":
            return a >= b
    if b == 0:
        raise fault("division-by-zero", "division by zero", expr.right.span, "this is 0", notes=_notes(expr.right, scope))
    if op == "%":
        return a % b
    if isinstance(a, int) and isinstance(b, int):
        if a % b:
            raise fault("uneven-division", f"{a} does not divide by {b}", expr.span, "`/` is exact division", notes=_notes(expr, scope))
        return a // b
    return a / b


def _call(expr: Call, scope: Scope) -> Any:
    name, args = expr.function, expr.args
    if name == "key":
        if len(args) == 1 and isinstance(args[0], Literal) and isinstance(args[0].value, str):
            return scope.key(args[0].value) if scope.keys is not None else None
        raise fault("bad-call", '`key` takes one quoted name: key("name")', expr.span)
    if name in scope.functions:
        words = [a.name for a in args if isinstance(a, Ref)]
        if len(words) != len(args):
            raise fault("bad-call", f"`{name}` takes names", expr.span, help=f"write {name}(tensor)")
        try:
            return scope.functions[name](*words)
        except TypeError:
            raise fault("bad-call", f"`{name}` does not take {len(words)} names", expr.span, help=f"write {name}(tensor)") from None
    if name not in FUNCTIONS:
        near = nearest(name, [*FUNCTIONS, *scope.functions])
        raise fault("unknown-function", f"there is no function `{name}`", expr.span, help=f"did you mean `{near}`?" if near else "")
    values = [_number(a, scope) for a in args]
    try:
        return FUNCTIONS[name](*values)
    except (TypeError, ZeroDivisionError, ValueError, OverflowError):
        numbers = ", ".join(map(shown, values)) or "nothing"
        raise fault("bad-call", f"`{name}` cannot be called with {numbers}", expr.span, help=f"write {name}(a, b), with whole numbers") from None


def either(numbers: list[int]) -> str:
    """`1, 2, 4 or 8`: choices for a person, not too many."""
    if len(numbers) > 12:
        return ", ".join(map(str, numbers[:12])) + " ..."
    return " or ".join(filter(None, (", ".join(map(str, numbers[:-1])), str(numbers[-1]))))


def shown(value: Any) -> str:
    """As the language writes it, cut short."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
