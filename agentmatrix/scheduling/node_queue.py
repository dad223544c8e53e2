"""Nodes that are to be looked at, each once, in their canonical order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

__all__ = ["NodeQueue"]


class NodeQueue:
    """A priority queue of nodes; one that waits already is not added again.

    Args:
        places: by node, its place in the order.
    """

    def __init__(self, places: Mapping[str, int]) -> None:
        self._places = places
        self._waiting: set[str] = set()
        self._heap: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._heap)

    def add(self, node: str) -> None:
        """Have a node looked at."""
        if node not in self._waiting:
            self._waiting.add(node)
            heapq.heappush(self._heap, (self._places[node], node))

    def update(self, nodes: Iterable[str]) -> None:
        """Have several nodes looked at."""
        for node in nodes:
            self.add(node)

    @property
    def first(self) -> str:
        """The node that comes first. It stays in the queue."""
        return self._heap[0][1]

    def pop(self) -> str:
        """Take the node that comes first."""
        _, node = heapq.heappop(self._heap)
        self._waiting.remove(node)
        return node
