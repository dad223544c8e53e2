"""The model of a drawing: nodes and edges, nested, independent of any notation.

The three notations (Mermaid, SVG, text) read this model and nothing else. It is made from the graph alone: no socket is
opened, no model is called, no node runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from langchain_core.runnables.graph import Edge as RunnableEdge
from langchain_core.runnables.graph import Graph
from langgraph.constants import END, START
from langgraph.pregel import Pregel

from agentmatrix.pregel.compiled_graph import HIDDEN, MEMBERS

__all__ = ["NAMELESS", "NOT_REACHED", "Drawing", "Edge", "Kind", "Node", "back_edges", "drawing_of"]

Kind = Literal["start", "end", "node", "group", "remote", "junction", "members"]

NAMELESS: Final = "(a graph without a name)"
NOT_REACHED: Final = "not reached"
"""The note at a remote node whose host has not answered yet."""


class Drawable(Protocol):
    """The methods of a graph that a drawing needs."""

    def get_graph(self) -> Graph: ...

    def get_subgraphs(self) -> Iterable[tuple[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Node:
    """One box.

    Attributes:
        id: the path of names from the outermost graph, joined by `|` as in LangGraph's namespaces; unique in a drawing.
        label: the name to show.
        kind: `group` is a graph in this process, `remote` one on a host, `junction` a node that no stream shows, such
            as the one of a chat group that chooses who speaks next, `members` stands for so many that they have no
            room.
        address: where a remote node runs, `"gpu-box:50051"`, with `"/agent"` after it when the agent's name there is
            not the name of the node; `""` for other kinds.
        note: a remark, such as `"not reached"`.
        inner: the drawing of the node's own graph, where it is known and asked for.
    """

    id: str
    label: str
    kind: Kind = "node"
    address: str = ""
    note: str = ""
    inner: Drawing | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow between two nodes of one level, by their ids."""

    source: str
    target: str
    label: str = ""
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """The nodes and edges of one level, in the order in which they were added."""

    label: str
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    def walk(self) -> Iterator[Node]:
        """Yield every node of every level, parents before children."""
        for node in self.nodes:
            yield node
            if node.inner:
                yield from node.inner.walk()


def drawing_of(graph: Drawable, *, xray: bool | int = True) -> Drawing:
    """Read a graph's structure.

    Args:
        graph: a compiled graph, from LangGraph or AgentMatrix, or a remote agent.
        xray: how many levels of nested graphs to open; True for all.

    Returns:
        The drawing. A remote agent that was not reached yet is one closed node with the note `"not reached"`.
    """
    depth = (2**31 if xray else 0) if isinstance(xray, bool) else max(xray, 0)
    label = _name(graph)
    if _is_remote(graph):
        return Drawing(label, (_nested_node(label, label, graph, depth + 1),))
    return _level(graph, label, "", depth)


def _level(graph: Drawable, label: str, path: str, depth: int, host: str = "") -> Drawing:
    """Read one level; `host` is the URL where its graphs run, "" for this process."""
    drawn = graph.get_graph()
    inner = _subgraphs(graph)
    prefix = f"{path}|" if path else ""
    nodes = []
    for name, node in drawn.nodes.items():
        if name in inner:
            nodes.append(_nested_node(prefix + name, name, inner[name], depth, host))
        else:
            nodes.append(_leaf(prefix + name, name, node.metadata or {}))
    nodes.sort(key=lambda node: (node.kind == "end") - (node.kind == "start"))
    place = {node.id: index for index, node in enumerate(nodes)}
    edges = [_edge(edge, prefix) for edge in drawn.edges]
    return Drawing(label, tuple(nodes), tuple(sorted(edges, key=lambda edge: (place[edge.source], place[edge.target]))))


def _leaf(path: str, name: str, metadata: dict[str, Any]) -> Node:
    if name in (START, END):
        return Node(path, "START" if name == START else "END", "start" if name == START else "end")
    if metadata.get(HIDDEN):
        return Node(path, name, "junction")
    if metadata.get(MEMBERS):
        count = f"{metadata[MEMBERS]:,} members"
        return Node(path, name if name.endswith(count) else f"{name}: {count}", "members")
    pause = metadata.get("__interrupt")
    return Node(path, name, note=f"pauses {pause.replace(',', ' and ')}" if pause else "")


def _edge(edge: RunnableEdge, prefix: str) -> Edge:
    label = "" if edge.data is None else str(edge.data)
    return Edge(prefix + edge.source, prefix + edge.target, label, edge.conditional)


def _subgraphs(graph: Drawable) -> dict[str, Any]:
    found = dict(graph.get_subgraphs())
    # LangGraph leaves out graphs that were compiled with checkpointer=False; a reader wants to see them.
    for name, node in (getattr(graph, "nodes", None) or {}).items():
        bound = getattr(node, "bound", None)
        if name not in found and isinstance(bound, Pregel):
            found[name] = bound
    return found


def _nested_node(path: str, name: str, graph: Any, depth: int, host: str = "") -> Node:
    if not _is_remote(graph):
        # LangGraph's RemoteGraph and the like are no Pregel, and would ask their server for their nodes.
        kind: Kind = "group" if isinstance(graph, Pregel) else "remote"
        known = kind == "group" and depth > 0
        inner = _level(graph, _name(graph), path, depth - 1) if known else None
        return Node(path, name, kind, "" if kind == "group" else type(graph).__name__, inner=inner)
    # A subgraph of a remote agent is remote too, but for a reader it is a group on the same host.
    kind, address = ("group", "") if graph.url == host else ("remote", _address(graph, name))
    if not graph.reached:
        return Node(path, name, kind, address, NOT_REACHED)
    if depth < 1:
        return Node(path, name, kind, address)
    try:
        return Node(path, name, kind, address, inner=_level(graph, _name(graph), path, depth - 1, graph.url))
    except Exception:
        # The structure came from a host. A wrong one is no reason not to draw the rest.
        return Node(path, name, kind, address, "not drawn")


def _is_remote(graph: object) -> bool:
    return bool(getattr(type(graph), "is_remote", False))


def _address(remote: Any, name: str) -> str:
    address = str(remote.url).partition("://")[2] or str(remote.url)
    address = address.rstrip("/").removesuffix(f"/{remote.agent}")
    return address if remote.agent == name else f"{address}/{remote.agent}"


def _name(graph: Any) -> str:
    if _is_remote(graph):
        return str(graph.agent)
    name = str(getattr(graph, "name", None) or type(graph).__name__)
    return NAMELESS if name == "LangGraph" else name


def back_edges(drawing: Drawing) -> frozenset[Edge]:
    """Return the back edges of a drawing's outermost level; without them it has no cycle.

    Nodes are ranked by their distance from START, then as they were added. An edge is a back edge if it goes up in
    that order and closes a cycle with the other edges.
    """
    rank = _ranks(drawing)
    after: dict[str, list[str]] = {node.id: [] for node in drawing.nodes}
    upward = []
    for edge in drawing.edges:
        if rank[edge.source] < rank[edge.target]:
            after[edge.source].append(edge.target)
        else:
            upward.append(edge)
    back = set()
    for edge in sorted(upward, key=lambda edge: rank[edge.source] - rank[edge.target]):
        if edge.source in _reached(edge.target, after):
            back.add(edge)
        else:
            after[edge.source].append(edge.target)
    return frozenset(back)


def _ranks(drawing: Drawing) -> dict[str, int]:
    after: dict[str, list[str]] = {node.id: [] for node in drawing.nodes}
    for edge in drawing.edges:
        after[edge.source].append(edge.target)
    found = dict.fromkeys(node.id for node in drawing.nodes if node.kind == "start")
    queue = list(found)
    for node in queue:
        fresh = [target for target in dict.fromkeys(after[node]) if target not in found]
        found.update(dict.fromkeys(fresh))
        queue += fresh
    return {name: rank for rank, name in enumerate([*found, *(n.id for n in drawing.nodes if n.id not in found)])}


def _reached(start: str, after: dict[str, list[str]]) -> set[str]:
    reached, queue = {start}, [start]
    for node in queue:
        fresh = set(after[node]) - reached
        reached |= fresh
        queue += fresh
    return reached
