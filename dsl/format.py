"""A tree and the text it was parsed from in; the one canonical text out, with every comment kept.

The tree is laid out as lines and blocks; comments and single blank lines come back from the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from . import tree
from .comments import Source, Spot
from .parse import parse
from .show import quote, rule_dims, rule_head, rule_tail, show, tensor_axes, tensor_tail
from .tree import Span

_WIDTH = 110
_STEP = "  "


@dataclass
class Line:
    """One statement: `cells` are aligned over neighbours of the same `kind`; `tail` is not."""

    spot: Spot
    kind: str
    cells: tuple[str, ...]
    tail: str = ""
    wrapped: str = ""  # what goes to a line of its own when the whole is too long


@dataclass
class Block:
    """A head, statements, and a closing brace. `words` blocks may stand on one line."""

    spot: Spot
    head: str
    children: list[Line | Block]
    close: Spot
    gap: str = ""  # what separates children on one line; "" never on one line
    rows: list[list[Line]] = field(default_factory=list)  # children that share a line


def format_text(text: str, file: str = "<text>") -> str:
    """The canonical form of a mapping file. Raises `MappingError` when it does not parse."""
    return format_mapping(parse(text, file), text)


def format_mapping(mapping: tree.Mapping, text: str = "") -> str:
    """The canonical text of `mapping`; with the `text` it came from, comments and blank lines are kept.

    Laws: `parse(format_mapping(m, t)) == m`, and formatting its own output changes nothing.
    """
    return _Formatter(Source(text)).mapping(mapping)


class _Formatter:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.spots: list[Spot] = []

    def mapping(self, mapping: tree.Mapping) -> str:
        top: list[Line | Block] = [self.line(use, "use", (show(use),)) for use in mapping.uses]
        top += [self.model(model) for model in mapping.models]
        top += [self.layout(layout) for layout in mapping.layouts]
        left = self.source.attach([spot for spot in self.spots if spot.start[0]])
        out = self.body(top, "")
        for blank, comment in left:
            out += ["", comment] if blank and out else [comment]
        return "\n".join(out) + "\n" if out else ""

    # --- the tree as lines and blocks

    def spot(self, span: Span) -> Spot:
        self.spots.append(Spot((span.line, span.column), (span.end_line, span.end_column)))
        return self.spots[-1]

    def line(self, node: tree.Setting | tree.AxisDecl | tree.Use | tree.LayoutItem | tree.TensorDecl, kind: str, cells: tuple[str, ...], tail: str = "", wrapped: str = "") -> Line:
        return Line(self.spot(node.span), kind, cells, tail, wrapped)

    def block(self, span: Span, head: str, children: list[Line | Block], gap: str = "") -> Block:
        """A block that ends where `span` ends."""
        found = self.source.block_closing((span.end_line, span.end_column - 1))
        opens, closes = found or ((span.line, span.column), (span.end_line, span.end_column))
        return self._block((span.line, span.column), opens, closes, head, children, gap)

    def words(self, nodes: tuple[tree.AxisDecl, ...] | tuple[tree.Setting, ...], head: str, gap: str) -> Block:
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
            cells = (node.name,) if isinstance(node, tree.AxisDecl) else (f"{node.name}", f"= {show(node.value)}")
            children.append(self.line(node, head, cells))
        block = self._block(start, opens, closes, head, children, gap)
        lines = [child for child in children if isinstance(child, Line)]
        block.rows = [[line] for line in lines]
        if opens[0] == closes[0]:
            block.rows = [lines]
        elif head == "axes":
            block.rows = [list(row) for _, row in groupby(lines, lambda line: line.spot.start[0])]
        return block

    def _block(self, start: tuple[int, int], opens: tuple[int, int], closes: tuple[int, int], head: str, children: list[Line | Block], gap: str) -> Block:
        spot, close = Spot(start, (opens[0], opens[1] + 1)), Spot(closes, (closes[0], closes[1] + 1))
        self.spots += [spot, close]
        return Block(spot, head, children, close, gap)

    def model(self, model: tree.Model) -> Block:
        children: list[Line | Block] = []
        if model.axes:
            children.append(self.words(model.axes, "axes", " "))
        if model.settings:
            children.append(self.words(model.settings, "settings", "  "))
        rest: list[tree.Refine | tree.Require | tree.TensorDecl] = [*model.refinements, *model.requires, *model.tensors]
        for node in sorted(rest, key=lambda node: (node.span.line, node.span.column)):
            if isinstance(node, tree.TensorDecl):
                children.append(self.line(node, "tensor", (node.name, tensor_axes(node)), tensor_tail(node)))
            else:
                children.append(self.line(node, "", (show(node),)))
        extends = f" extends {model.extends}" if model.extends else ""
        return self.block(model.span, f"model {model.name}{extends}", children)

    def layout(self, layout: tree.Layout) -> Block:
        head = f"layout {layout.name} of {layout.model}" + (f" extends {layout.extends}" if layout.extends else "")
        params = [show(param) for param in layout.params]
        if params and len(head) + len(", ".join(params)) + 5 > _WIDTH:
            head += " (\n" + "".join(f"{_STEP * 2}{param},\n" for param in params).removesuffix(",\n") + "\n)"
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
            case tree.Under(prefix, items, when):
                guard = f" when {show(when)}" if when is not None else ""
                return self.block(item.span, f"under {show(prefix)}{guard}", [self.item(inner) for inner in items])
            case tree.Config(file, entries, template):
                named = f" template {quote(template)}" if template is not None else ""
                lines: list[Line | Block] = [self.line(entry, "entry", (entry.name, f"= {show(entry.value)}")) for entry in entries]
                return self.block(item.span, f"config {quote(file)}{named}", lines)
            case _:
                return self.line(item, "", (show(item),))

    # --- lines and blocks as text

    def body(self, nodes: list[Line | Block], indent: str) -> list[str]:
        out: list[str] = []
        texts = self.aligned(nodes, indent)
        for index, node in enumerate(nodes):
            spot = node.spot
            apart = indent == "" and index > 0 and (isinstance(node, Block) or isinstance(nodes[index - 1], Block))
            comments = [*spot.leading, (spot.blank_before, None)]
            for number, (blank, comment) in enumerate(comments):
                if out and (blank or (apart and number == 0)) and out[-1] != "":
                    out.append("")
                if comment is not None:
                    out.append(indent + comment)
            out += self.block_text(node, indent) if isinstance(node, Block) else texts[id(node)]
        return out

    def block_text(self, block: Block, indent: str) -> list[str]:
        lines = [child for row in block.rows for child in row]
        quiet = not block.spot.trailing and not block.close.leading and all(not (x.spot.leading or x.spot.trailing) for x in lines)
        if len(block.rows) == 1 and block.gap and quiet:
            one = f"{indent}{block.head} {{ " + block.gap.join(" ".join(line.cells) for line in lines) + " }"
            if len(one) <= _WIDTH:
                return [_trail(one, block.close)]
        empty = not block.children and not block.close.leading and not block.spot.trailing
        if empty:
            return [_trail(f"{indent}{block.head} {{}}", block.close)]
        head = (indent + block.head.replace("\n", "\n" + indent) + " {").split("\n")
        head[-1] = _trail(head[-1], block.spot)
        inner = indent + _STEP
        body = self.filled(block, inner) if block.head == "axes" else self.body(block.children, inner)
        for blank, comment in block.close.leading:
            body += ["", inner + comment] if blank and body else [inner + comment]
        return [*head, *body, _trail(indent + "}", block.close)]

    def filled(self, block: Block, indent: str) -> list[str]:
        """Axes as many to a line as they had, and no more than fit; a comment ends its line."""
        out: list[str] = []
        for row in block.rows:
            text = ""
            for line in row:
                if text and (line.spot.leading or len(text) + 1 + len(line.cells[0]) > _WIDTH):
                    out.append(text)
                    text = ""
                for number, (blank, comment) in enumerate([*line.spot.leading, (line.spot.blank_before, None)]):
                    if blank and out and not text and (number == 0 or comment is not None or True) and out[-1] != "":
                        out.append("")
                    if comment is not None:
                        out.append(indent + comment)
                text = f"{text} {line.cells[0]}" if text else indent + line.cells[0]
                if line.spot.trailing:
                    out.append(_trail(text, line.spot))
                    text = ""
            if text:
                out.append(text)
        return out

    def aligned(self, nodes: list[Line | Block], indent: str) -> dict[int, list[str]]:
        """The text of every line; neighbours of one kind without a blank line between are aligned."""
        texts: dict[int, list[str]] = {}
        runs: list[list[Line]] = []
        before: Line | Block | None = None
        for node in nodes:
            if isinstance(node, Line):
                broken = node.spot.blank_before or any(blank for blank, _ in node.spot.leading)
                if isinstance(before, Line) and before.kind == node.kind and not broken:
                    runs[-1].append(node)
                else:
                    runs.append([node])
            before = node
        for run in runs:
            fitting = [line for line in run if not line.wrapped or len(indent + _plain(line)) <= _WIDTH]
            widths = [max((len(line.cells[column]) for line in fitting if len(line.cells) > column + 1), default=0) for column in range(2)]
            for line in run:
                if line in fitting:
                    text = indent + " ".join(f"{cell:<{width}}" for cell, width in zip(line.cells[:-1], widths, strict=False))
                    text = (text + " " if line.cells[:-1] else text) + line.cells[-1] + (f"  {line.tail}" if line.tail else "")
                    if len(text) > _WIDTH:  # the neighbours' width would not leave room
                        text = indent + _plain(line)
                    texts[id(line)] = [_trail(text, line.spot)]
                else:
                    texts[id(line)] = [indent + line.cells[0], _trail(indent + _STEP * 2 + line.wrapped, line.spot)]
        return texts


def _plain(line: Line) -> str:
    return " ".join(line.cells) + (f"  {line.tail}" if line.tail else "")


def _trail(text: str, spot: Spot) -> str:
    return f"{text}  {spot.trailing}" if spot.trailing else text
