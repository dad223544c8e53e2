"""The picture of a graph that runs: its drawing, with the state of each node as a colour and as words."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from agentmatrix.display.drawing import Drawing, Node
from agentmatrix.display.layout import Layout, layout_of
from agentmatrix.display.svg import Badge, svg_of
from agentmatrix.watch.node_record import NodeRecord, State
from agentmatrix.watch.structure import collapsed
from agentmatrix.watch.watched_graph import Transfer

__all__ = ["GraphPicture", "counters", "state_words"]

_ROOM = "waiting  00 × 00.0 s"
_ROOM_OF_COUNTERS = "000 done, 000 running, 000 waiting"
_OWN = ("start", "end", "junction")
_ORDER: tuple[State, ...] = ("running", "failed", "asking", "done", "waiting", "cut off", "skipped")


class GraphPicture:
    """Draws one graph, again and again.

    Args:
        drawing: of the graph.
        shown: what is drawn of it; by default all of it, with large graphs closed.
        is_styled: False for a page with style sheets of its own.
    """

    def __init__(self, drawing: Drawing, shown: Drawing | None = None, *, is_styled: bool = True) -> None:
        self.drawing, self._is_styled = drawing, is_styled
        self._shown = _with_room(collapsed(drawing) if shown is None else shown, drawing)
        self._layout: Layout | None = None

    def svg(self, nodes: Mapping[str, NodeRecord], transfers: Mapping[str, Transfer] | None = None) -> str:
        """The picture.

        Args:
            nodes: by path, what each has done; under `""` the graph itself.
            transfers: by path, large values on their way.
        """
        if self._layout is None:
            self._layout = layout_of(self._shown)
        badges = dict(self._badges(nodes, transfers or {}))
        return svg_of(self._shown, badges, self._layout, is_styled=self._is_styled)

    def _badges(
        self, nodes: Mapping[str, NodeRecord], transfers: Mapping[str, Transfer]
    ) -> Iterator[tuple[str, Badge]]:
        for node in self._shown.walk():
            if node.kind in _OWN:
                continue
            if node.kind == "members":
                yield node.id, self._badge_of_members(node, nodes)
                continue
            record = nodes.get(node.id.replace("|", "/"))
            state = record.state if record else "waiting"
            words = state_words(record) if record else "waiting"
            if node.kind in ("group", "remote") and node.inner is None and (inside := _inside(node.id, nodes)):
                words = counters(inside)
            elif record is not None and not record.count and (inside := _inside(node.id, nodes)):
                # The node of actors runs under their paths, `staff/ann`.
                state = next((state for state in _ORDER if any(one.state == state for one in inside)), "waiting")
                at_work = sum(one.running > 0 for one in inside)
                words = f"{len(inside):,} actors" + (f", {at_work} running" if at_work else "")
            if (transfer := transfers.get(node.id.replace("|", "/"))) is not None:
                words = str(transfer)
            yield node.id, Badge("cut" if state == "cut off" else state, words)

    def _badge_of_members(self, node: Node, nodes: Mapping[str, NodeRecord]) -> Badge:
        """Of the box that stands for the members of a group: all nodes beside it that have none of their own."""
        group = node.id.rpartition("|")[0]
        drawn = {shown.id.replace("|", "/") for shown in self._shown.walk()}
        found = [record for record in _inside(group, nodes) if record.path not in drawn]
        around = nodes.get(group.replace("|", "/"))
        count = re.search(r"([\d,]+) \w+$", node.label)
        waits = max(int(count[1].replace(",", "")) - len(found), 0) if count else 0
        if around is not None and around.state in ("running", "asking"):
            found += [NodeRecord("", "waiting")] * waits
        state = next((state for state in _ORDER if any(record.state == state for record in found)), "waiting")
        return Badge("cut" if state == "cut off" else state, counters(found) or "waiting")


def state_words(record: NodeRecord) -> str:
    """A node's state in words: `done 3 × 1.2 s`."""
    words: str = record.state
    if record.count > 1:
        words += f" {record.count} ×"
    seconds = record.seconds
    if record.running == 1 and record.first:
        # What is at work is told by this machine's clock.
        seconds += max(time.time() - max(record.first, record.last), 0.0)
    return f"{words} {seconds:.1f} s" if seconds >= 0.05 else words


def _inside(id: str, nodes: Mapping[str, NodeRecord]) -> list[NodeRecord]:
    """The nodes right inside of one, by its id in the drawing."""
    prefix = f"{id.replace('|', '/')}/" if id else ""
    return [
        record
        for path, record in nodes.items()
        if path and path.startswith(prefix) and "/" not in path.removeprefix(prefix)
    ]


def counters(records: list[NodeRecord]) -> str:
    """How many nodes are in which state: `41 done, 17 running, 6 waiting`."""
    counts = Counter[str](record.state for record in records)
    return ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])


def _with_room(drawing: Drawing, whole: Drawing) -> Drawing:
    """The drawing with room for words at each node."""
    sizes = {node.id: len(node.inner.nodes) if node.inner else 0 for node in whole.walk()}
    sizes[""] = len(whole.nodes)

    def roomy(level: Drawing) -> Drawing:
        nodes = []
        for node in level.nodes:
            if node.kind not in _OWN:
                is_closed = node.kind == "members" or (node.inner is None and sizes.get(node.id, 0) > 0)
                room = _ROOM_OF_COUNTERS if is_closed else _ROOM
                node = replace(node, note=max(node.note, room, key=len))
            nodes.append(replace(node, inner=roomy(node.inner) if node.inner else None))
        return replace(level, nodes=tuple(nodes))

    return roomy(drawing)
