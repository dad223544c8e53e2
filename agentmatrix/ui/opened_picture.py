"""The picture of a graph with the nested graphs open that the reader has opened."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import Any, Final

from agentmatrix.display.drawing import Drawing, Node
from agentmatrix.watch.picture import GraphPicture
from agentmatrix.watch.structure import collapsed

__all__ = ["opened_picture"]

MOST_OPENED: Final = 150
"""Nodes of one graph that are drawn, however many there are."""
_OWN: Final = ("start", "end", "junction")


def opened_picture(drawing: Drawing, opened: Set[str], closed: Set[str]) -> dict[str, Any]:
    """The picture, without states, and what there is to know of its nodes.

    Args:
        drawing: of the graph.
        opened: the ids of nested graphs to open that are closed by default, because they are large.
        closed: of those to close. The id of the graph itself is "".

    Returns:
        `svg`; and `nodes`, by id: `path`, `label`, `kind`, `address`, `inside` (how many nodes are in it, 0 for none),
        `isOpen`.
    """
    small = collapsed(drawing)
    by_default = {node.id for node in small.walk() if node.inner is not None}
    is_whole = "" in opened or ("" not in closed and not (len(small.nodes) == 1 and small.nodes[0].id == ""))

    def is_open(node: Node) -> bool:
        return node.id in opened or (node.id not in closed and node.id in by_default)

    def level(above: Drawing, id: str) -> Drawing:
        nodes = [
            replace(node, inner=level(node.inner, node.id))
            if node.inner and is_open(node)
            else replace(node, inner=None)
            for node in above.nodes[:MOST_OPENED]
        ]
        if (more := len(above.nodes) - MOST_OPENED) > 0:
            nodes.append(Node(f"{id}|" if id else "|", f"{more} more", "members"))
        kept = {node.id for node in nodes}
        edges = tuple(edge for edge in above.edges if edge.source in kept and edge.target in kept)
        return Drawing(above.label, tuple(nodes), edges)

    shown = level(drawing, "") if is_whole else Drawing(drawing.label, (Node("", drawing.label, "group"),))
    inside = {node.id: _own_nodes(node.inner) for node in drawing.walk() if node.inner is not None}
    inside[""] = _own_nodes(drawing)
    nodes = {
        node.id: {
            "path": node.id.replace("|", "/"),
            "label": node.label,
            "kind": node.kind,
            "address": node.address,
            "inside": inside.get(node.id, 0),
            "isOpen": node.inner is not None,
        }
        for node in shown.walk()
        if node.kind not in _OWN
    }
    return {
        "svg": GraphPicture(drawing, shown, is_styled=False).svg({}),
        "nodes": nodes,
        "addresses": _addresses(drawing),
    }


def _own_nodes(drawing: Drawing) -> int:
    return sum(1 for node in drawing.nodes if node.kind not in _OWN)


def _addresses(drawing: Drawing) -> dict[str, str]:
    """By path, the host that a node is on; of closed ones too."""
    return {node.id.replace("|", "/"): node.address for node in drawing.walk() if node.address}
