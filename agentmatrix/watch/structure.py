"""The drawing of a watched graph: as JSON, and small enough to look at."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final

from agentmatrix.display.drawing import Drawing, Edge, Node

__all__ = ["MOST_MEMBERS", "collapsed", "drawing_from_json", "drawing_to_json", "without_outer_box"]

MOST_MEMBERS: Final = 60
"""A graph of more nodes is one box with counters."""
MOST_NODES: Final = 100
"""Of a drawing with more nodes the largest nested graphs are closed."""


def without_outer_box(drawing: Drawing) -> Drawing:
    """The drawing of a remote agent as that of the graph there: paths of its nodes begin inside."""
    only = drawing.nodes[0] if len(drawing.nodes) == 1 else None
    if only is None or only.kind != "remote" or only.inner is None:
        return drawing
    return _shortened(only.inner, len(only.id) + 1)


def _shortened(drawing: Drawing, length: int) -> Drawing:
    nodes = tuple(
        replace(node, id=node.id[length:], inner=_shortened(node.inner, length) if node.inner else None)
        for node in drawing.nodes
    )
    edges = tuple(replace(edge, source=edge.source[length:], target=edge.target[length:]) for edge in drawing.edges)
    return Drawing(drawing.label, nodes, edges)


def collapsed(drawing: Drawing) -> Drawing:
    """The drawing with large graphs closed: each is one box."""
    if len(drawing.nodes) > MOST_MEMBERS:
        # Its counters are those of the nodes that have no nodes around them.
        return Drawing(drawing.label, (Node("", drawing.label, "group"),))
    drawing = _closed(drawing, lambda node: len(node.inner.nodes) > MOST_MEMBERS if node.inner else False)
    while sum(1 for _ in drawing.walk()) > MOST_NODES:
        nested = [node for node in drawing.walk() if node.inner]
        if not nested:
            break
        largest = max(nested, key=lambda node: (_size(node), node.id.count("|")))
        drawing = _closed(drawing, lambda node, id=largest.id: node.id == id)
    return drawing


def _closed(drawing: Drawing, is_closed: Any) -> Drawing:
    nodes = []
    for node in drawing.nodes:
        if node.inner is not None:
            node = replace(node, inner=None if is_closed(node) else _closed(node.inner, is_closed))
        nodes.append(node)
    return replace(drawing, nodes=tuple(nodes))


def _size(node: Node) -> int:
    return sum(1 for _ in node.inner.walk()) if node.inner else 0


def drawing_to_json(drawing: Drawing) -> dict[str, Any]:
    """The drawing as JSON types."""
    return asdict(drawing)


def drawing_from_json(value: Any) -> Drawing:
    """The drawing of what `drawing_to_json` has made.

    Raises:
        ValueError: it is no drawing.
    """
    try:
        nodes = tuple(
            Node(**{**node, "inner": drawing_from_json(node["inner"]) if node.get("inner") else None})
            for node in value["nodes"]
        )
        return Drawing(str(value["label"]), nodes, tuple(Edge(**edge) for edge in value["edges"]))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is no drawing: {error}") from None
