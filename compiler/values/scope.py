"""Scalar expressions: evaluate them in a scope.

A scope is a chain of places to look a name up; each value remembers where it came from, so that a
fault about a size can say which config key gave it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...dsl.diagnostic import Diagnostic, Label, fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import Binary, Call, Conditional, Expr, Key, Literal, Match, Ref, Span, Unary
from .walk_expr import inside, keys, refs

Known = bool | int | float | str | None
WRITTEN = "written"  # the name by which requirements and notes of a layout ask whether they are of a conversion's target
DEEPEST = 32  # names that are defined by names
MOST_ITEMS = 100_000  # of a list that an expression makes
LARGEST = 2**62  # what a size, an offset or a number of elements may be

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "gcd": math.gcd,
    "min": min,
    "max": max,
    "ceil_div": lambda a, b: -(-a // b),
    "whole": int,  # towards zero
    "has": bool,  # of a key: `_has`
    "count": len,  # of a list, as is the next: `_of_list`
    "places": len,
    "every": len,  # a list, as is the next: `_numbers`
    "marked": len,
}


@dataclass
class Scope:
    """`names` hold values; `lazy` hold expressions still to be evaluated in this scope (each once);
    `keys` is a parsed config file; `functions` are extra functions. `accepted`: keys whose values need not be known."""

    names: dict[str, Any] = field(default_factory=dict)
    lazy: dict[str, Expr] = field(default_factory=dict)
    keys: Mapping[str, Any] | None = None
    key_file: str = ""
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()  # choices, which stand for themselves
    accepted: frozenset[str] = frozenset()
    index: str = ""  # an axis whose numbers are not known yet: whoever asks for one is told no near name
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
        raise fault(
            "unknown-name",
            f"nothing here is called `{name}`",
            ref.span,
            help="" if name == self.index else did_you_mean(name, [*self.names, *self.lazy, *self.words], "names are axes, settings and the layout's own parameters"),
        )

    def key(self, path: tuple[str, ...]) -> Any:
        """The value at a path in the config file; None where there is none."""
        value: Any = self.keys
        for part in path:
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
            if self.origins.get(ref):
                parts.append(self.origins[ref])
        parts += [f"{self.key_file}: {'.'.join(path)}" for path in keys(expr) if self.key(path) is not None]
        return ", ".join(dict.fromkeys(parts))


def misplaced_keys(expr: Expr) -> Iterator[Diagnostic]:
    """The faults of keys of a config file, in an expression that stands where none is read."""
    for node in inside(expr):
        if isinstance(node, Key):
            title, help = f"`.{node.dotted}` is a key of a config file, and none is read here", "bind it to a setting in a `config` block, and name that"
            yield Diagnostic("misplaced-key", title, (Label(node.span),), help=help)


def evaluate(expr: Expr, scope: Scope) -> Any:
    match expr:
        case Literal(value):
            return value
        case Ref():
            return scope.lookup(expr)
        case Key(path):
            return scope.key(path)
        case Match():
            return _match(expr, scope)
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
        case Binary("in", left, right):
            value = evaluate(left, scope)
            return value in items_of(evaluate(right, scope), right, scope)
        case Binary(op, left, right):
            return _arithmetic(op, _number(left, scope), _number(right, scope), expr, scope)
    raise TypeError(f"no such expression: {expr!r}")


def items_of(value: Any, expr: Expr, scope: Scope) -> tuple[Any, ...]:
    """The items of a list that a config says; null has none."""
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if value is None:
        return ()
    raise fault("not-a-list", f"{shown(value)} is not a list", expr.span, "a list is needed here", notes=_notes(expr, scope))


def _number(expr: Expr, scope: Scope) -> int | float:
    value = evaluate(expr, scope)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if value is None and scope.keys is not None:
        missing = [".".join(path) for path in keys(expr) if scope.key(path) is None]
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
        if (origin := scope.origins.get(name)) and name in scope.names:
            found.append(f"{name} = {shown(scope.names[name])} comes from {origin}")
    for path in dict.fromkeys(keys(expr) if scope.keys is not None else ()):
        found.append(f"{'.'.join(path)} = {shown(scope.key(path))} comes from {scope.key_file}: {'.'.join(path)}")
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


def _of_list(expr: Call, scope: Scope) -> Any:
    """`count(list)`, `count(list, value)`: how many items a list has, or has that are so; of null there are none.
    `places(list, value)`: the numbers of those that are so, from 0; null of what is no list."""
    if len(expr.args) not in ((1, 2) if expr.function == "count" else (2,)):
        raise fault("bad-call", f"`{expr.function}` cannot be called with {len(expr.args)} values", expr.span, help=f"write {expr.function}(list, value)")
    found = evaluate(expr.args[0], scope)
    if expr.function == "places" and not isinstance(found, (list, tuple)):
        return None
    items = items_of(found, expr.args[0], scope)
    if len(expr.args) == 1:
        return len(items)
    wanted = evaluate(expr.args[1], scope)
    places = [at for at, item in enumerate(items) if same(item, wanted)]
    return len(places) if expr.function == "count" else places


def _made_list(expr: Call, scope: Scope) -> list[Any]:
    """`every(step, first, below)`: the numbers first, first + step, ... that are less than `below`.
    `marked(n, list, value, other)`: n items, `value` at the numbers that the list has and `other` elsewhere."""
    wanted = 3 if expr.function == "every" else 4
    if len(expr.args) != wanted:
        form = "every(step, first, below)" if expr.function == "every" else "marked(n, list, value, other)"
        raise fault("bad-call", f"`{expr.function}` cannot be called with {len(expr.args)} values", expr.span, help=f"write {form}")
    if expr.function == "every":
        step, first, below = (whole_number(arg, scope, "what `every` counts by", least) for arg, least in zip(expr.args, (1, 0, 0), strict=True))
        return list(range(first, _few(below, expr), step))
    count = _few(whole_number(expr.args[0], scope, "the number of items", 0), expr)
    at = items_of(evaluate(expr.args[1], scope), expr.args[1], scope)
    value, other = (evaluate(arg, scope) for arg in expr.args[2:])
    return [value if number in at else other for number in range(count)]


def _few(count: int, expr: Call) -> int:
    """The length of a list that is made here, if it is one that a config can have."""
    if count > MOST_ITEMS:
        raise fault("long-list", f"`{expr.function}` would make a list of {count} items", expr.span, help=f"lists go up to {MOST_ITEMS} items")
    return count


def _has(expr: Call, scope: Scope) -> bool:
    """`has(.key)`: whether the config has the key, be it null."""
    if len(expr.args) != 1 or not isinstance(expr.args[0], Key):
        raise fault("bad-call", "`has` takes a key of the config", expr.span, help="write has(.key)")
    *parents, last = expr.args[0].path
    found = scope.key(tuple(parents)) if parents else scope.keys
    return isinstance(found, Mapping) and last in found


def same(a: Any, b: Any) -> bool:
    """Whether two values of config files are the same: 1 is 1.0, and neither is true."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _match(expr: Match, scope: Scope) -> Any:
    value = evaluate(expr.subject, scope)
    for pair in expr.pairs:
        if same(pair.value.value, value):
            return evaluate(pair.result, scope)
    named = [".".join(path) for path in keys(expr.subject)]
    if value is None or scope.accepted & set(named):
        return None
    known = ", ".join(dict.fromkeys(shown(pair.value.value) for pair in expr.pairs))
    raise fault(
        "unknown-value", f"{scope.key_file or 'the config'}: {' / '.join(named) or 'it'} is {shown(value)}, which this layout has no meaning for",
        expr.span, "known values are here", notes=(f"it knows {known}",),
        help=f"if it makes no difference to the model, --accept {named[0]} goes on" if named else "",
    )  # fmt: skip


def _call(expr: Call, scope: Scope) -> Any:
    name, args = expr.function, expr.args
    if name in ("count", "places"):
        return _of_list(expr, scope)
    if name in ("every", "marked"):
        return _made_list(expr, scope)
    if name == "has":
        return _has(expr, scope)
    if name in scope.functions:
        words = [a.name for a in args if isinstance(a, Ref)]
        if len(words) != len(args):
            raise fault("bad-call", f"`{name}` takes names", expr.span, help=f"write {name}(tensor)")
        try:
            return scope.functions[name](*words)
        except TypeError:
            raise fault("bad-call", f"`{name}` does not take {len(words)} names", expr.span, help=f"write {name}(tensor)") from None
    if name not in FUNCTIONS:
        raise fault("unknown-function", f"there is no function `{name}`", expr.span, help=did_you_mean(name, [*FUNCTIONS, *scope.functions]))
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
