"""A drawing as text for a terminal: a tree of nodes, each with the targets of its edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentmatrix.display.drawing import Drawing, Edge, Node, back_edges

__all__ = ["text_of"]


@dataclass(frozen=True, slots=True)
class _Signs:
    branch: str
    last: str
    pipe: str
    edge: str
    conditional: str
    loop: str


_UNICODE = _Signs("├─ ", "└─ ", "│  ", "→", "⇢", "↺")
_ASCII = _Signs("|- ", "`- ", "|  ", "->", "..>", "(loop)")


def text_of(drawing: Drawing, *, ascii: bool = False) -> str:
    """Return the tree. Conditional edges have an arrow of their own, back edges a mark behind the name.

    Args:
        drawing: what to draw.
        ascii: True for a terminal that has only ASCII; other characters in names become `\\uXXXX` escapes.
    """
    signs = _ASCII if ascii else _UNICODE
    text = "\n".join([_one_line(drawing.label), *_level(drawing, signs, "")]) + "\n"
    return text.encode("ascii", "backslashreplace").decode("ascii") if ascii else text


def _level(drawing: Drawing, signs: _Signs, indent: str) -> Iterator[str]:
    lines = [node for node in drawing.nodes if node.kind != "end"]
    if not lines:
        yield f"{indent}{signs.last}(empty)"
    labels = {node.id: _label(node) for node in drawing.nodes}
    back = back_edges(drawing)
    for node in lines:
        last = node is lines[-1]
        out = [edge for edge in drawing.edges if edge.source == node.id]
        yield indent + (signs.last if last else signs.branch) + _title(node) + _arrows(out, labels, back, signs)
        if node.inner:
            yield from _level(node.inner, signs, indent + ("   " if last else signs.pipe))


def _label(node: Node) -> str:
    return f"({_one_line(node.label)})" if node.kind == "junction" else _one_line(node.label)


def _title(node: Node) -> str:
    words = [_label(node), node.address and f"@{node.address}", node.note and f"({node.note})"]
    return " ".join(word for word in words if word)


def _arrows(out: list[Edge], labels: dict[str, str], back: frozenset[Edge], signs: _Signs) -> str:
    words = ""
    for arrow, conditional in ((signs.edge, False), (signs.conditional, True)):
        targets = [_target(edge, labels, back, signs) for edge in out if edge.conditional == conditional]
        if targets:
            words += f" {arrow} {', '.join(targets)}"
    return words


def _target(edge: Edge, labels: dict[str, str], back: frozenset[Edge], signs: _Signs) -> str:
    label = f" [{_one_line(edge.label)}]" if edge.label else ""
    return labels[edge.target] + label + (f" {signs.loop}" if edge in back else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())
