"""The events of a run on a host, as its caller's watcher takes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from agentmatrix.errors import ProtocolError
from agentmatrix.pregel.node_handler import calling_graph
from agentmatrix.watch.recorder import EventRecorder, WatchedGraph
from agentmatrix.watch.run_event import RunEvent

__all__ = ["EventRelay"]


class EventRelay:
    """Checks what a host tells of a run, and tells it as a part of the caller's.

    Args:
        recorder: the caller's.
        parent: the caller's run of callbacks that the host works for; None where the remote agent itself was started.
        covers: says whether the host may speak for a namespace.
    """

    def __init__(self, recorder: EventRecorder, parent: UUID | None, covers: Callable[[str], bool]) -> None:
        self._recorder, self._covers = recorder, covers
        self._parent = parent
        self._graph = recorder.graph_of(parent)
        self._started = calling_graph() if parent is None else (None, {})
        self._behind: float | None = None

    def take(self, packed: Any) -> None:
        """Take an event.

        Raises:
            ProtocolError: it cannot be read, or speaks for another node than the host's.
        """
        try:
            event = RunEvent.from_json(packed)
        except ValueError as error:
            raise ProtocolError(f"the host sent an event of a watched run that cannot be read: {error}") from None
        if not self._covers(event.namespace):
            raise ProtocolError(f"the host told of {event.namespace!r}, which is not below its node")
        graph = self._graph or self._open(event)
        at = event.at + self._seconds_behind(event.at)
        path = graph.path(event.namespace)
        self._recorder.take(event._replace(run=graph.run, path=path, at=at), graph)

    def _open(self, event: RunEvent) -> WatchedGraph:
        """The graph that was started: the remote agent itself."""
        try:
            run = UUID(event.run)
        except ValueError:
            raise ProtocolError(f"the host told of the run {event.run!r}, which is no id") from None
        graph, config = self._started
        self._recorder.open_graph(run, graph, config, "")
        self._graph = self._recorder.graph_of(run)
        assert self._graph is not None
        return self._graph

    def _seconds_behind(self, at: float) -> float:
        """How far the host's clock is behind this one: the least difference that an event has arrived with."""
        behind = time.time() - at
        self._behind = behind if self._behind is None else min(self._behind, behind)
        return self._behind
