"""Grammar rules in, tree nodes out: one method per rule or alias of `grammar.lark`.

A method takes the place of the rule and its finished children. Faults are collected, not raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from .. import tree
from ..diagnostic import MappingError
from ..dtypes import TORCH_NAMES
from ..nearest import nearest
from ..tree import Expr, Span
from .build_expressions import BuildExpressions, Place, name_of
from .modifiers import PLACEMENTS, Modifier, sort_modifiers
from .pattern import parse_pattern

Node = TypeVar("Node", tree.Files, tree.Let, tree.Rule)


class Build(BuildExpressions):
    """Makes the nodes of one file; `parse_expr` reads the expressions inside name patterns."""

    def __init__(self, file: str, parse_expr: Callable[[str, Span], Expr]) -> None:
        super().__init__(file)
        self._parse_expr = parse_expr

    def _pattern(self, token: Any) -> tree.Pattern:
        self.text(token)
        try:
            return parse_pattern(token, self.span(token), self._parse_expr)
        except MappingError as error:
            self.faults.extend(error.diagnostics)
            return tree.Pattern((), self.span(token))

    def _axes(self, tokens: list[Any]) -> tuple[tree.AxisDecl, ...]:
        return tuple(tree.AxisDecl(str(token), self.span(token)) for token in tokens if token is not None)

    # --- file and model

    def mapping(self, at: Place, parts: list[Any]) -> tree.Mapping:
        return tree.Mapping(
            tuple(part for part in parts if isinstance(part, tree.Use)),
            tuple(part for part in parts if isinstance(part, tree.Model)),
            tuple(part for part in parts if isinstance(part, tree.Layout)),
            self.span(at),
        )

    def use(self, at: Place, parts: list[Any]) -> tree.Use:
        return tree.Use(self.text(parts[0]), self.span(at))

    def model(self, at: Place, parts: list[Any]) -> tree.Model:
        name, extends, *items = parts
        flat: list[Any] = [node for item in items for node in (item if isinstance(item, tuple) else (item,))]

        def pick(kind: type) -> Any:
            return tuple(node for node in flat if isinstance(node, kind))

        return tree.Model(
            str(name),
            name_of(extends),
            pick(tree.AxisDecl),
            pick(tree.Setting),
            pick(tree.Refine),
            pick(tree.Require),
            pick(tree.TensorDecl),
            pick(tree.Select),
            pick(tree.Part),
            self.span(at),
        )

    def part(self, at: Place, parts: list[Any]) -> tree.Part:
        name, model, optional, before, after = parts
        return tree.Part(str(name), str(model), optional is not None, name_of(before), name_of(after), self.span(at))

    def optional(self, at: Place, parts: list[Any]) -> bool:
        return True

    def axes(self, at: Place, parts: list[Any]) -> tuple[tree.AxisDecl, ...]:
        return self._axes(parts)

    tensor_axes = parts = axes

    def settings(self, at: Place, parts: list[Any]) -> tuple[Any, ...]:
        return tuple(part for part in parts if part is not None)

    sizes = params = dims = values = settings

    def entry(self, at: Place, parts: list[Any]) -> tree.Setting:
        return tree.Setting(str(parts[0]), parts[1], span=self.span(at))

    def setting(self, at: Place, parts: list[Any]) -> tree.Setting | tree.Select:
        name, axis, value, when = parts
        if axis is None:
            return tree.Setting(str(name), value, when, span=self.span(at))
        if when is not None:
            self.fault("syntax", "a setting of each index has no `when`", self.span(at), help="write the condition into its value, joined by `and`")
        return tree.Select(str(name), str(axis), value, self.span(at))

    def hints(self, at: Place, parts: list[Any]) -> tuple[tree.Setting, ...]:
        return tuple(replace(part, hint=True) for part in parts)

    def entry_name(self, at: Place, parts: list[Any]) -> str:
        return str(parts[0])

    tensor_name = end = element_op = entry_name

    def refine(self, at: Place, parts: list[Any]) -> tree.Refine:
        axis, padded, names, sizes, when = parts
        parts_of = tuple(part.name for part in names)
        return tree.Refine(str(axis), parts_of, sizes or (), when, padded is not None, self.span(at))

    def padded(self, at: Place, parts: list[Any]) -> bool:
        return True

    def require(self, at: Place, parts: list[Any]) -> tree.Require:
        test, message, help, when = parts
        return tree.Require(test, self.text(message), "" if help is None else self.text(help), when, self.span(at))

    def tensor(self, at: Place, parts: list[Any]) -> tree.TensorDecl:
        name, axes, *modifiers = parts
        found = sort_modifiers(modifiers, self.faults)
        return tree.TensorDecl(
            str(name), axes, "optional" in found, found.get("tied to"), found.get("when"), found.get("before"), found.get("after"), span=self.span(at)
        )

    # --- layout

    def layout(self, at: Place, parts: list[Any]) -> tree.Layout:
        base, name, model, extends, params, *items = parts
        return tree.Layout(str(name), str(model), extends or (), params or (), self._carried(items), base is not None, self.span(at))

    def base_only(self, at: Place, parts: list[Any]) -> bool:
        return True

    def bases(self, at: Place, parts: list[Any]) -> tuple[tree.Base, ...]:
        return tuple(parts)

    def base(self, at: Place, parts: list[Any]) -> tree.Base:
        name, under, when, keys = parts
        prefix = () if keys is None else self._key(keys).path
        return tree.Base(str(name), None if under is None else self._pattern(under), when, prefix, self.span(at))

    def _carried(self, items: list[Any]) -> tuple[tree.LayoutItem, ...]:
        """Give each bare string to the `carry` that it follows."""
        kept: list[Any] = []
        for item in items:
            if not isinstance(item, tree.Use):
                kept.append(item)
            elif kept and isinstance(kept[-1], tree.Carry):
                last, end = kept[-1].span, item.span
                span = Span(self.file, last.line, last.column, end.end_line, end.end_column)
                kept[-1] = tree.Carry((*kept[-1].globs, item.file), span)
            else:
                self.fault("syntax", "expected `=` after a stored tensor's name", item.span, "a rule starts here")
        return tuple(kept)

    def bare(self, at: Place, parts: list[Any]) -> tree.Use:
        return self.use(at, parts)  # only a carrier for text and place; `_carried` removes it

    def carry(self, at: Place, parts: list[Any]) -> tree.Carry:
        return tree.Carry((self.text(parts[0]),), self.span(at))

    def param(self, at: Place, parts: list[Any]) -> tree.Param:
        return tree.Param(str(parts[0]), parts[1], span=self.span(at))

    def rank_param(self, at: Place, parts: list[Any]) -> tree.Param:
        shared, name, default = parts
        return tree.Param(str(name), default, True, (), shared is not None, span=self.span(at))

    def shared(self, at: Place, parts: list[Any]) -> bool:
        return True

    def default_by(self, at: Place, parts: list[Any]) -> tree.Expr:
        return cast(tree.Expr, parts[0])

    def choice_param(self, at: Place, parts: list[Any]) -> tree.Param:
        asked, name, *choices, by = parts
        default = by if by is not None else tree.Ref(str(choices[0]), self.span(choices[0]))
        return tree.Param(str(name), default, False, tuple(map(str, choices)), asked=asked is not None, span=self.span(at))

    def asked(self, at: Place, parts: list[Any]) -> bool:
        return True

    def note(self, at: Place, parts: list[Any]) -> tree.Note:
        return tree.Note(self.text(parts[0]), parts[1], self.span(at))

    def files(self, at: Place, parts: list[Any]) -> tree.Files | tree.Choices:
        return self._choices(at, parts)

    def file_choice(self, at: Place, parts: list[Any]) -> tree.Files:
        *names, when = parts
        return tree.Files(tuple(names), when, self.span(at))

    def file_name(self, at: Place, parts: list[Any]) -> tree.Pattern | tree.Sometimes:
        if len(parts) == 1 and not isinstance(parts[0], tuple):
            return self._pattern(parts[0])
        told = tuple(part if isinstance(part, tuple) else (self._pattern(part), None) for part in parts)
        return tree.Sometimes(told, self.span(at))

    def sometimes(self, at: Place, parts: list[Any]) -> tuple[tree.Pattern, Expr]:
        return self._pattern(parts[0]), parts[1]

    def part_layout(self, at: Place, parts: list[Any]) -> tree.PartLayout:
        name, layout, *prefixes, keys = parts
        found = tuple(each for each in prefixes if each is not None)
        return tree.PartLayout(str(name), str(layout), found, () if keys is None else self._key(keys).path, self.span(at))

    def named_prefix(self, at: Place, parts: list[Any]) -> tree.NamedPrefix:
        return tree.NamedPrefix(str(parts[0]), tuple(parts[1:]), self.span(at))

    def _choices(self, at: Place, parts: list[Node]) -> Node | tree.Choices:
        """The one node, or a statement of several choices."""
        return parts[0] if len(parts) == 1 else tree.Choices(cast(Any, tuple(parts)), self.span(at))

    def omit(self, at: Place, parts: list[Any]) -> tree.Omit:
        names, when = parts
        return tree.Omit(tuple(axis.name for axis in names), when, self.span(at))

    def text_file(self, at: Place, parts: list[Any]) -> tree.Text:
        return tree.Text(self.text(parts[0]), self.text(parts[1]), parts[2], self.span(at))

    def formats(self, at: Place, parts: list[Any]) -> tree.Formats:
        *names, read_only = parts
        return tree.Formats(tuple(map(str, names)), read_only is not None, self.span(at))

    def config(self, at: Place, parts: list[Any]) -> tree.Config:
        file, partial, read_only, template, *items = parts
        named = None if template is None else self.text(template)
        name = "" if file is None else self.text(file)
        return tree.Config(name, tuple(items), named, read_only is not None, partial is not None, self.span(at))

    def partial(self, at: Place, parts: list[Any]) -> bool:
        return True

    def bind(self, at: Place, parts: list[Any]) -> tree.Bind:
        return tree.Bind(parts[0], parts[1], span=self.span(at))

    def reads(self, at: Place, parts: list[Any]) -> tree.Bind:
        return tree.Bind(parts[0], parts[1], True, self.span(at))

    def unbind(self, at: Place, parts: list[Any]) -> tree.Bind:
        return tree.Bind(parts[0], None, span=self.span(at))

    def fixed(self, at: Place, parts: list[Any]) -> tree.Fixed:
        key, value, when = parts
        return tree.Fixed(self._key(key), value, when, self.span(at))

    def only(self, at: Place, parts: list[Any]) -> tree.Only:
        value, values, effect, when = parts
        return tree.Only(value, values, "" if effect is None else self.text(effect), when, self.span(at))

    def unused(self, at: Place, parts: list[Any]) -> tree.Unused:
        return tree.Unused(tuple(map(self.text, parts)), self.span(at))

    def identity(self, at: Place, parts: list[Any]) -> tree.Identity:
        return tree.Identity(self._key(parts[0]), parts[1], self.span(at))

    def one_of(self, at: Place, parts: list[Any]) -> tuple[Any, ...]:
        return tuple(parts)

    def read_only(self, at: Place, parts: list[Any]) -> bool:
        return True

    def stages(self, at: Place, parts: list[Any]) -> tree.Stages:
        axis, rank, interleave, remainder, beyond = parts
        return tree.Stages(str(axis), str(rank), name_of(interleave), remainder, name_of(beyond), self.span(at))

    def state(self, at: Place, parts: list[Any]) -> tree.State:
        return tree.State(self._pattern(parts[0]), str(parts[1]), parts[2], self.span(at))

    def let(self, at: Place, parts: list[Any]) -> tree.Let | tree.Choices:
        name, *choices = parts
        return self._choices(at, [replace(each, name=str(name), span=self.span(at) if len(choices) == 1 else each.span) for each in choices])

    def let_choice(self, at: Place, parts: list[Any]) -> tree.Let:
        return tree.Let("", parts[0], parts[1], self.span(at))

    def rule(self, at: Place, parts: list[Any], copy: bool = False) -> tree.Rule | tree.Choices:
        names, *choices = parts
        return self._choices(at, [replace(each, names=names, copy=copy, span=self.span(at) if len(choices) == 1 else each.span) for each in choices])

    def bar(self, at: Place, parts: list[Any]) -> tuple[Any, ...]:
        return cast(tuple[Any, ...], parts[0])

    def stored(self, at: Place, parts: list[Any]) -> tree.Rule:
        tensor, dims, bar, *modifiers = parts
        found = sort_modifiers(modifiers, self.faults)
        return tree.Rule(
            (),
            name_of(tensor),
            dims + (bar or ()),
            found.get("with", ()),
            tuple(modifier.value for modifier in modifiers if modifier.word == "elementwise"),
            found.get("as"),
            found.get("on"),
            "optional" in found,
            False,
            found.get("when"),
            made=found.get("made"),
            view=found.get("view", ()),
            bar=None if bar is None else len(dims),
            span=self.span(at),
        )

    def copy_rule(self, at: Place, parts: list[Any]) -> tree.Rule | tree.Choices:
        return self.rule(at, parts, copy=True)

    def ignore(self, at: Place, parts: list[Any]) -> tree.Ignore:
        return tree.Ignore(parts[0], parts[1], span=self.span(at))

    def object(self, at: Place, parts: list[Any]) -> tree.Ignore:
        return tree.Ignore(parts[0], parts[1], empty=True, span=self.span(at))

    def under(self, at: Place, parts: list[Any]) -> tree.Under:
        prefixes = tuple(part for part in parts if isinstance(part, tree.Prefix))
        return tree.Under(prefixes, self._carried(parts[len(prefixes) :]), self.span(at))

    def prefix_text(self, at: Place, parts: list[Any]) -> tree.Prefix:
        return tree.Prefix(self._pattern(parts[0]), parts[1], span=self.span(at))

    def prefix_name(self, at: Place, parts: list[Any]) -> tree.Prefix:
        name, text, when = parts
        return tree.Prefix(tree.Pattern(()) if text is None else self._pattern(text), when, str(name), self.span(at))

    def names(self, at: Place, parts: list[Any]) -> tuple[tree.Pattern, ...]:
        return tuple(self._pattern(part) for part in parts)

    def m_with(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("with", tuple(parts), self.span(at))

    def m_when(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("when", parts[0], self.span(at))

    def m_before(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("before", str(parts[0]), self.span(at))

    def m_after(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("after", str(parts[0]), self.span(at))

    def m_view(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("view", parts[0], self.span(at))

    def m_optional(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("optional", True, self.span(at))

    def m_made(self, at: Place, parts: list[Any]) -> Modifier:
        function, *args = parts
        call = tree.Call(str(function), tuple(a for a in args if a is not None), self.span(at))
        return Modifier("made", call, self.span(at))

    def m_tied(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("tied to", str(parts[0]), self.span(at))

    def m_elementwise(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("elementwise", tree.Elementwise(parts[0], parts[1], self.span(at)), self.span(at))

    def m_as(self, at: Place, parts: list[Any]) -> Modifier:
        word = str(parts[0])
        if word not in TORCH_NAMES:
            short = next((short for short, torch in TORCH_NAMES.items() if torch == word), None)
            guess = short or nearest(word, TORCH_NAMES)
            help = f"write `as {guess}`" if guess else "the dtypes are " + " ".join(TORCH_NAMES)
            self.fault("unknown-dtype", f"`{word}` is not a dtype", self.span(parts[0]), help=help)
        return Modifier("as", TORCH_NAMES.get(word, word), self.span(at))

    def m_on(self, at: Place, parts: list[Any]) -> Modifier:
        word = str(parts[0])
        if word not in PLACEMENTS:
            help = "write `on first`, `on last`, `on beyond` or `on all`"
            self.fault("mixed-placement", f"`{word}` is not a pipeline placement", self.span(parts[0]), help=help)
        return Modifier("on", word, self.span(at))

    def rename(self, at: Place, parts: list[Any]) -> tree.Rename:
        return tree.Rename(str(parts[0]), str(parts[1]), self.span(at))
