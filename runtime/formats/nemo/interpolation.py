"""Interpolations of OmegaConf, in which NeMo's configs are written: a tree of plain values in, with them worked out.

    max_position_embeddings: ${.encoder_seq_length}      of the mapping that it stands in; each further dot is one up
    seq_length: ${model.encoder_seq_length}              from the root
    ffn_hidden_size: ${multiply:4, ${.hidden_size}}      a resolver, of values or of texts

Resolvers here are arithmetic that NeMo and what is built on it register (nemo/core/config/hydra_runner.py, NeMo-Aligner,
NeMo-Framework-Launcher), and oc.select. Nothing is looked up outside the tree: oc.env and the like are not resolved. What
cannot be worked out faults only where it is asked for: many a config says things that nobody here reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...fault import Fault

MARK = "${"
ROOTS = ("model",)  # what a saved config was part of: its own root is that node
DEPTH, LENGTH, TRIES = 40, 65_536, 10_000  # of nested references; of a text; of references in all
LARGEST = 1 << 63
_PATH = re.compile(r"(\.*)([\w\-]+(?:\.[\w\-]+|\[[\w\-]+\])*)?")
_NAME = re.compile(r"[A-Za-z_][\w.]*:")
_INT, _FLOAT = re.compile(r"[+-]?\d+(_\d+)*"), re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}


class Unresolved(str):
    """The text of a value that could not be worked out, and why."""

    why: str

    def __new__(cls, text: str, why: str) -> Unresolved:
        made = super().__new__(cls, text)
        made.why = why
        return made


class Settings(dict[str, Any]):
    """A mapping of a config at `place`. Asked for a value that could not be worked out, it raises `Fault`."""

    place: str = "the config"

    def __getitem__(self, key: str) -> Any:
        return self._known(key, super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        return self._known(key, super().get(key, default))

    def _known(self, key: str, value: Any) -> Any:
        if isinstance(value, Unresolved):
            raise Fault(
                "unresolved-setting", f"`{key}` of {self.place} is `{value}`, which cannot be worked out: {value.why}",
                help="write the value in its place in a copy of the config, and pass that with --config",
            )  # fmt: skip
        return value


def plain(value: Any) -> Any:
    """The value in dicts and lists of Python's own; what could not be worked out is the text that it was."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Unresolved) else value


class _Failed(Exception):
    """Why an interpolation has no value."""


def resolve(tree: Mapping[str, Any], place: str) -> Settings:
    """The tree with all interpolations worked out, of the config at `place`."""
    return _Resolver(tree, place).whole()


class _Resolver:
    def __init__(self, tree: Mapping[str, Any], place: str) -> None:
        self.root, self.place = tree, place
        self.tries = 0

    def whole(self) -> Settings:
        made = self._copy(self.root, (), {})
        assert isinstance(made, Settings)
        return made

    def _copy(self, node: Any, at: tuple[Any, ...], made: dict[int, Any]) -> Any:
        if isinstance(node, str):
            if MARK not in node:
                return node
            try:
                return self._plain(self._text(node, at[:-1], 0), at)
            except _Failed as why:
                return Unresolved(node, str(why))
        if not isinstance(node, dict | list) or id(node) in made:
            return made.get(id(node), node)
        if len(at) > DEPTH:
            return Unresolved("...", "the config is nested too deeply")
        if isinstance(node, list):
            items = made[id(node)] = []
            items.extend(self._copy(item, (*at, i), made) for i, item in enumerate(node))
            return items
        out = made[id(node)] = Settings()
        out.place = self.place
        for key, value in node.items():
            dict.__setitem__(out, key, self._copy(value, (*at, key), made))
        return out

    def _plain(self, value: Any, at: tuple[Any, ...]) -> Any:
        """A value that an interpolation gave; where that is a mapping or a list, with those in it worked out."""
        return self._copy(value, at, {}) if isinstance(value, dict | list) and len(at) <= DEPTH // 2 else value

    # --- texts ---

    def _text(self, text: str, parent: tuple[Any, ...], depth: int) -> Any:
        """The value of a text that stands in the mapping at `parent`: that of the interpolation which it is, or a text."""
        self.tries += 1
        if depth > DEPTH or self.tries > TRIES:
            raise _Failed("it refers to itself, or through too many others")
        parts: list[Any] = []
        i = 0
        while i < len(text):
            start = text.find(MARK, i)
            if start < 0:
                parts.append(text[i:])
                break
            slashes = start - len(text[:start].rstrip("\\"))
            parts.append(text[i : start - slashes] + "\\" * (slashes // 2))
            if slashes % 2:
                parts.append(MARK)
                i = start + len(MARK)
                continue
            end = _closing(text, start + len(MARK))
            parts.append(_Value(self._inner(text[start + len(MARK) : end], parent, depth + 1)))
            i = end + 1
        kept = [part for part in parts if part != ""]
        if len(kept) == 1 and isinstance(kept[0], _Value):
            return kept[0].value
        if any(isinstance(part, _Value) and isinstance(part.value, dict | list) for part in kept):
            raise _Failed("a mapping or a list stands within a text")
        made = "".join(str(part.value) if isinstance(part, _Value) else part for part in kept)
        if len(made) > LENGTH:
            raise _Failed("it becomes too long")
        return made

    def _inner(self, inner: str, parent: tuple[Any, ...], depth: int) -> Any:
        inner = inner.strip()
        named = _NAME.match(inner)
        if named:
            name = named[0][:-1]
            return self._call(name, [part.strip() for part in _split(inner[named.end() :])], parent, depth)
        path = str(self._text(inner, parent, depth)) if MARK in inner else inner
        return self._at(path, parent, depth)

    def _call(self, name: str, parts: list[str], parent: tuple[Any, ...], depth: int) -> Any:
        if name == "oc.select" and 1 <= len(parts) <= 2:
            try:
                return self._at(str(self._argument(parts[0], parent, depth)), parent, depth)
            except _Absent:
                return self._argument(parts[1], parent, depth) if len(parts) == 2 else None
        if name == "oc.env":
            raise _Failed(f"it takes {parts[0] if parts else 'a variable'} from the environment, which is not read")
        if name not in RESOLVERS:
            raise _Failed(f"there is no resolver `{name}` here (there are {', '.join(sorted(RESOLVERS))} and oc.select)")
        values = [self._argument(part, parent, depth) for part in parts]
        if len(values) != 2 or any(type(value) not in (int, float) for value in values):
            raise _Failed(f"`{name}` takes two numbers, not {', '.join(map(repr, values)) or 'nothing'}")
        try:
            made = RESOLVERS[name](*values)
        except (ArithmeticError, ValueError):
            raise _Failed(f"`{name}` has no value for {values[0]} and {values[1]}") from None
        if not -LARGEST < made < LARGEST:
            raise _Failed(f"`{name}` has a value that is too large")
        return made

    def _argument(self, text: str, parent: tuple[Any, ...], depth: int) -> Any:
        if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
            return self._text(text[1:-1], parent, depth)
        return self._text(text, parent, depth) if MARK in text else _word(text)

    # --- references ---

    def _at(self, path: str, parent: tuple[Any, ...], depth: int) -> Any:
        """The value at a path: from the root, or with dots before it from the mapping at `parent`, or above."""
        found = _PATH.fullmatch(path)
        if found is None or not (found[1] or found[2]):
            raise _Failed(f"`{path}` is no path")
        up, keys = len(found[1]), [key for key in re.split(r"[.\[\]]", found[2] or "") if key]
        if up > len(parent) + 1:
            raise _Failed(f"`{path}` goes above the root")
        start = parent[: len(parent) - up + 1] if up else ()
        try:
            return self._walk((*start, *keys), path, depth)
        except _Absent:
            if up or len(keys) < 2 or keys[0] not in ROOTS or keys[0] in self.root:
                raise
            return self._walk(tuple(keys[1:]), path, depth)

    def _walk(self, keys: tuple[Any, ...], path: str, depth: int) -> Any:
        node: Any = self.root
        for i, key in enumerate(keys):
            if isinstance(node, list) and str(key).isdecimal() and int(key) < len(node):
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                raise _Absent(f"there is no `{path}` in it")
            if isinstance(node, str) and MARK in node:
                node = self._text(node, keys[:i], depth + 1)
        if node == "???":
            raise _Failed(f"`{path}` is ???, which is to be filled in")
        return node


class _Value:
    """What an interpolation within a text gave."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Absent(_Failed):
    """That a path leads nowhere."""


def _closing(text: str, start: int) -> int:
    """The place of the brace that closes the interpolation which begins before `start`."""
    open_, quote, i = 1, "", start
    while i < len(text):
        if quote:
            quote = "" if text[i] == quote else quote
        elif text[i] in "'\"":
            quote = text[i]
        elif text[i] in "{}":
            open_ += 1 if text[i] == "{" else -1
            if open_ == 0:
                return i
        i += 1
    raise _Failed("a brace is not closed")


def _split(text: str) -> list[str]:
    """Arguments at commas that stand in no braces, brackets or quotes."""
    parts, begin, open_, quote = [], 0, 0, ""
    for i, each in enumerate(text):
        if quote:
            quote = "" if each == quote else quote
        elif each in "'\"":
            quote = each
        elif each in "{[(":
            open_ += 1
        elif each in "}])":
            open_ -= 1
        elif each == "," and open_ == 0:
            parts.append(text[begin:i])
            begin = i + 1
    return [*parts, text[begin:]] if text.strip() else []


def _word(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if len(text) < 40 and _INT.fullmatch(text):
        return int(text)
    return float(text) if len(text) < 40 and _FLOAT.fullmatch(text) else text


def _exactly(x: int | float, y: int | float) -> int | float:
    """A quotient that no one rounds: some register `div` as x / y, others as x // y."""
    if x % y:
        raise ValueError
    return x // y


RESOLVERS: dict[str, Callable[[Any, Any], Any]] = {
    "multiply": lambda x, y: x * y,
    "mul": lambda x, y: x * y,
    "sum": lambda x, y: x + y,
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "sub": lambda x, y: x - y,
    "div": _exactly,
    "divide": _exactly,
    "int_div": lambda x, y: x // y,
    "divide_floor": lambda x, y: x // y,
    "divide_ceil": lambda x, y: -(-x // y),
}
