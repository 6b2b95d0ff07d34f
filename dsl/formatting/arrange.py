"""A tree and its source text in; lines and blocks, each with its comments, out.

The next module only has to print them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from .. import tree
from ..tree import Span
from .comments import Source, Spot
from .show import choice, quote, rule_dims, rule_head, rule_tail, show, tensor_axes, tensor_tail

WIDTH = 110
LONGEST = 120  # of a block on one line
STEP = "  "


@dataclass
class Line:
    """One statement: `cells` are aligned over neighbours of the same `kind`; `tail` is not."""

    spot: Spot
    kind: str
    cells: tuple[str, ...]
    tail: str = ""
    wrapped: str = ""  # what goes to a line of its own when the whole is too long
    parts: tuple[str, ...] = ()  # or all of it, in parts of which each line takes as many as fit


@dataclass
class Block:
    """A head, statements, and a closing brace. `words` blocks may stand on one line."""

    spot: Spot
    head: str
    children: list[Line | Block]
    close: Spot
    gap: str = ""  # what separates children on one line; "" never on one line
    rows: list[list[Line]] = field(default_factory=list)  # children that share a line


class Arrange:
    """Makes the lines and blocks of one file and places its comments on them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.spots: list[Spot] = []

    def spot(self, span: Span) -> Spot:
        self.spots.append(Spot((span.line, span.column), (span.end_line, span.end_column)))
        return self.spots[-1]

    def line(
        self,
        node: tree.Setting | tree.AxisDecl | tree.Use | tree.LayoutItem | tree.ConfigItem | tree.Select | tree.TensorDecl | tree.Part,
        kind: str,
        cells: tuple[str, ...],
        tail: str = "",
        wrapped: str = "",
        parts: tuple[str, ...] = (),
    ) -> Line:
        return Line(self.spot(node.span), kind, cells, tail, wrapped, parts)

    def block(self, span: Span, head: str, children: list[Line | Block], gap: str = "") -> Block:
        """A block that ends where `span` ends."""
        found = self.source.block_closing((span.end_line, span.end_column - 1))
        opens, closes = found or ((span.line, span.column), (span.end_line, span.end_column))
        return self._block((span.line, span.column), opens, closes, head, children, gap)

    def words(self, nodes: tuple[tree.AxisDecl, ...] | tuple[tree.Setting | tree.Select, ...], head: str, gap: str) -> Block:
        """The block `axes` or `settings`, which has no node of its own: its place is around its first word."""
        first = nodes[0].span
        around = self.source.block_around((first.line, first.column)) if first.line else None
        opens, closes = around or ((first.line, first.column), (first.line, first.column))
        start = opens
        if around:  # from the keyword on: it stands before the brace, alone or on the lines above
            row, line = opens[0], self.source.lines[opens[0] - 1][: opens[1] - 1]
            while head not in line and row > 1:
                row, line = row - 1, self.source.lines[row - 2]
            start = (row, line.rfind(head) + 1)
        children: list[Line | Block] = []
        for node in nodes:
            name, _, value = show(node).partition(" = ")
            cells = (node.name,) if isinstance(node, tree.AxisDecl) else (name, f"= {value}")
            children.append(self.line(node, head, cells))
        block = self._block(start, opens, closes, head, children, gap)
        lines = [child for child in children if isinstance(child, Line)]
        block.rows = [[line] for line in lines]
        if opens[0] == closes[0]:
            block.rows = [lines]
        elif head == "axes":
            block.rows = [list(row) for _, row in groupby(lines, lambda line: line.spot.start[0])]
        return block

    def _block(
        self,
        start: tuple[int, int],
        opens: tuple[int, int],
        closes: tuple[int, int],
        head: str,
        children: list[Line | Block],
        gap: str,
    ) -> Block:
        spot, close = Spot(start, (opens[0], opens[1] + 1)), Spot(closes, (closes[0], closes[1] + 1))
        self.spots += [spot, close]
        return Block(spot, head, children, close, gap)

    def model(self, model: tree.Model) -> Block:
        children: list[Line | Block] = []
        if model.axes:
            children.append(self.words(model.axes, "axes", " "))
        for head, hint in (("settings", False), ("hints", True)):
            each: list[tree.Setting | tree.Select] = [*(s for s in model.settings if s.hint == hint), *(() if hint else model.selects)]
            if found := tuple(sorted(each, key=lambda node: (node.span.line, node.span.column))):
                children.append(self.words(found, head, "  "))
        rest: list[tree.Refine | tree.Part | tree.Require | tree.TensorDecl] = [*model.refinements, *model.parts, *model.requires, *model.tensors]
        for node in sorted(rest, key=lambda node: (node.span.line, node.span.column)):
            if isinstance(node, tree.TensorDecl):
                children.append(self.line(node, "tensor", (node.name, tensor_axes(node)), tensor_tail(node)))
            else:
                children.append(self.require(node) if isinstance(node, tree.Require) else self.line(node, "", (show(node),)))
        extends = f" extends {model.extends}" if model.extends else ""
        return self.block(model.span, f"model {model.name}{extends}", children)

    def layout(self, layout: tree.Layout) -> Block:
        head = "base " * layout.base + f"layout {layout.name} of {layout.model}" + (f" extends {', '.join(map(show, layout.extends))}" if layout.extends else "")
        params = [show(param) for param in layout.params]
        if params and len(head) + len(", ".join(params)) + 5 > WIDTH:
            head += " (\n" + "".join(f"{STEP * 2}{param},\n" for param in params).removesuffix(",\n") + "\n)"
        elif params:
            head += f" ({', '.join(params)})"
        return self.block(layout.span, head, [self.item(item) for item in layout.items])

    def item(self, item: tree.LayoutItem) -> Line | Block:
        match item:
            case tree.Rule():
                tensor = f"= {item.tensor}" if item.tensor else "="
                dims, tail = rule_dims(item), rule_tail(item)
                wrapped = " ".join(filter(None, (tensor, dims))) + (f"  {tail}" if tail else "")
                if item.tensor:
                    return self.line(item, "rule", (rule_head(item), tensor, dims), tail, wrapped)
                return self.line(item, "rule", (rule_head(item), f"= {dims}"), tail, wrapped)
            case tree.Choices(items):
                first = show(items[0])
                more = tuple(f"{each}," for each in map(choice, items[1:-1]))
                return self.line(item, "", (show(item),), parts=(f"{first},", *more, choice(items[-1])))
            case tree.Under(prefixes, items):
                head = "under " + ", ".join(map(show, prefixes))
                return self.block(item.span, head, [self.item(inner) for inner in items])
            case tree.Config(file, inner, template, read_only, partial):
                head = f"config {quote(file)}" if file else "config"
                head += " partial" * partial + " read only" * read_only + (f" template {quote(template)}" if template is not None else "")
                return self.block(item.span, head, [self.config_item(each) for each in inner])
            case tree.Require():
                return self.require(item)
            case _:
                return self.line(item, "", (show(item),))

    def config_item(self, item: tree.ConfigItem) -> Line:
        """Bindings are aligned; what is too long is broken between its parts."""
        match item:
            case tree.Bind(name, value):
                told = show(item).removeprefix(f"{name} ")
                sign, _, text = told.partition(" ")
                parts = (f"match({show(value.subject)},", *(f"{show(p)}," for p in value.pairs)) if isinstance(value, tree.Match) else ()
                parts = (*parts[:-1], f"{parts[-1][:-1]})") if parts else ()
                return self.line(item, "entry", (name, told), wrapped=text, parts=(f"{name} {sign}", *parts) if parts else ())
            case tree.Fixed(key):
                return self.line(item, "fixed", (show(key), show(item).removeprefix(f"{show(key)} ")))
            case tree.Unused(globs):
                return self.line(item, "unused", (show(item),), parts=("unused", *map(quote, globs)))
            case tree.Only():
                head, _, words = show(item).partition(" else ")
                return self.line(item, f"only {id(item)}", (head, f"else {words}") if words else (head,), wrapped=f"else {words}" if words else "")
            case _:
                return self.line(item, "", (show(item),))

    def require(self, node: tree.Require) -> Line:
        """On one line, or the words on a second. Requirements are not aligned with each other: each is its own kind."""
        head, words = f"require {show(node.test)}", show(node).removeprefix(f"require {show(node.test)} ")
        return self.line(node, f"require {id(node)}", (head, words), wrapped=words)

    def mapping(self, mapping: tree.Mapping) -> tuple[list[Line | Block], list[tuple[bool, str]]]:
        """The top of the file, and the comments after its end."""
        top: list[Line | Block] = [self.line(use, "use", (show(use),)) for use in mapping.uses]
        top += [self.model(model) for model in mapping.models]
        top += [self.layout(layout) for layout in mapping.layouts]
        return top, self.source.attach([spot for spot in self.spots if spot.start[0]])
