"""A tree and the text it was parsed from in; the one canonical text out, with every comment kept."""

from __future__ import annotations

from .. import tree
from ..parsing.parse import parse
from .arrange import LONGEST, STEP, WIDTH, Arrange, Block, Line
from .comments import Source, Spot


def format_text(text: str, file: str = "<text>") -> str:
    """The canonical form of a mapping file. Raises `MappingError` when it does not parse."""
    return format_mapping(parse(text, file), text)


def format_mapping(mapping: tree.Mapping, text: str = "") -> str:
    """The canonical text of `mapping`; with the `text` it came from, comments and blank lines are kept.

    Laws: `parse(format_mapping(m, t)) == m`, and formatting its own output changes nothing.
    """
    top, left = Arrange(Source(text)).mapping(mapping)
    out = _body(top, "")
    for blank, comment in left:
        out += ["", comment] if blank and out else [comment]
    return "\n".join(out) + "\n" if out else ""


def _body(nodes: list[Line | Block], indent: str) -> list[str]:
    out: list[str] = []
    texts = _aligned(nodes, indent)
    for index, node in enumerate(nodes):
        spot = node.spot
        apart = indent == "" and index > 0 and (isinstance(node, Block) or isinstance(nodes[index - 1], Block))
        comments = [*spot.leading, (spot.blank_before, None)]
        for number, (blank, comment) in enumerate(comments):
            if out and (blank or (apart and number == 0)) and out[-1] != "":
                out.append("")
            if comment is not None:
                out.append(indent + comment)
        out += _block_text(node, indent) if isinstance(node, Block) else texts[id(node)]
    return out


def _block_text(block: Block, indent: str) -> list[str]:
    lines = [child for row in block.rows for child in row]
    quiet = (
        not block.spot.trailing
        and not block.close.leading
        and all(not (x.spot.leading or x.spot.trailing) for x in lines)
    )
    if len(block.rows) == 1 and block.gap and quiet:
        row = f"{indent}{block.head} {{ " + block.gap.join(" ".join(line.cells) for line in lines) + " }"
        if len(row) <= WIDTH:
            return [_trail(row, block.close)]
    if (one := _in_one_line(block)) is not None and "\n" not in one and len(indent + one) <= LONGEST:
        return [_trail(indent + one, block.close)]
    empty = not block.children and not block.close.leading and not block.spot.trailing
    if empty:
        return [_trail(f"{indent}{block.head} {{}}", block.close)]
    head = (indent + block.head.replace("\n", "\n" + indent) + " {").split("\n")
    head[-1] = _trail(head[-1], block.spot)
    inner = indent + STEP
    body = _filled(block, inner) if block.head == "axes" else _body(block.children, inner)
    for blank, comment in block.close.leading:
        body += ["", inner + comment] if blank and body else [inner + comment]
    return [*head, *body, _trail(indent + "}", block.close)]


def _in_one_line(block: Block) -> str | None:
    """A block of one statement on one line, if it was written so, and has no comment within."""
    if len(block.children) != 1 or block.spot.trailing or block.close.leading or block.spot.end[0] != block.close.start[0]:
        return None
    (child,) = block.children
    if child.spot.leading or (isinstance(child, Line) and child.spot.trailing):
        return None
    inner = _plain(child) if isinstance(child, Line) else _one_row(child) or _in_one_line(child)
    return None if inner is None else f"{block.head} {{ {inner} }}"


def _one_row(block: Block) -> str | None:
    if len(block.rows) != 1 or not block.gap or block.close.trailing:
        return None
    return f"{block.head} {{ " + block.gap.join(" ".join(line.cells) for line in block.rows[0]) + " }"


def _filled(block: Block, indent: str) -> list[str]:
    """Axes as many to a line as they had, and no more than fit; a comment ends its line."""
    out: list[str] = []
    for row in block.rows:
        text = ""
        for line in row:
            if text and (line.spot.leading or len(text) + 1 + len(line.cells[0]) > WIDTH):
                out.append(text)
                text = ""
            for blank, comment in [*line.spot.leading, (line.spot.blank_before, None)]:
                if blank and out and not text and out[-1] != "":
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


def _aligned(nodes: list[Line | Block], indent: str) -> dict[int, list[str]]:
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
        fitting = [line for line in run if not (line.wrapped or line.parts) or len(indent + _plain(line)) <= WIDTH]
        widths = [
            max((len(line.cells[column]) for line in fitting if len(line.cells) > column + 1), default=0)
            for column in range(2)
        ]
        for line in run:
            if line.parts and len(indent + _plain(line)) > WIDTH:
                texts[id(line)] = _broken(line, indent)
            elif line in fitting:
                text = indent + " ".join(
                    f"{cell:<{width}}" for cell, width in zip(line.cells[:-1], widths, strict=False)
                )
                text = (
                    (text + " " if line.cells[:-1] else text) + line.cells[-1] + (f"  {line.tail}" if line.tail else "")
                )
                if len(text) > WIDTH:  # the neighbours' width would not leave room
                    text = indent + _plain(line)
                texts[id(line)] = [_trail(text, line.spot)]
            else:
                head = _plain(line).removesuffix(line.wrapped).rstrip() if line.kind == "entry" else line.cells[0]
                texts[id(line)] = [indent + head, _trail(indent + STEP * 2 + line.wrapped, line.spot)]
    return texts


def _broken(line: Line, indent: str) -> list[str]:
    """The parts of a line that is too long, as many to a line as fit."""
    out = [indent + line.parts[0]]
    for part in line.parts[1:]:
        if len(out[-1]) + 1 + len(part) > WIDTH:
            out.append(indent + STEP * 2 + part)
        else:
            out[-1] += f" {part}"
    return [*out[:-1], _trail(out[-1], line.spot)]


def _plain(line: Line) -> str:
    return " ".join(line.cells) + (f"  {line.tail}" if line.tail else "")


def _trail(text: str, spot: Spot) -> str:
    return f"{text}  {spot.trailing}" if spot.trailing else text
