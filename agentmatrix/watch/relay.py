"""The events of a run on a host, as its caller's watcher takes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

from agentmatrix.errors import ProtocolError
from agentmatrix.pregel.node_handler import calling_graph
from agentmatrix.watch.recorder import EventRecorder
from agentmatrix.watch.run_event import KINDS, RunEvent
from agentmatrix.watch.watched_graph import Transfer, WatchedGraph

__all__ = ["EventRelay"]

Crossing = tuple[tuple[int, int] | None, int]


class Scope(Protocol):
    """The namespaces that a host may speak for."""

    namespace: str

    def covers(self, namespace: object) -> bool: ...


class EventRelay:
    """Checks what a host tells of a run, and tells it as a part of the caller's.

    Args:
        recorder: the caller's.
        parent: the caller's run of callbacks that the host works for; None where the remote agent itself was started.
        scope: the namespaces that the host may speak for.
        host: `"host:port/agent"`, for questions that are asked there.
    """

    def __init__(self, recorder: EventRecorder, parent: UUID | None, scope: Scope, host: str = "") -> None:
        self._recorder, self._scope, self._host = recorder, scope, host
        self._parent = parent
        self._graph = recorder.graph_of(parent)
        self._started = calling_graph() if parent is None else (None, {})
        self._behind: float | None = None
        self._last = 0.0

    def take(self, several: Any) -> None:
        """Take events, in order.

        Args:
            several: a list of events, each a list of its fields.

        Raises:
            ProtocolError: one cannot be read, or speaks for another node than the host's.
        """
        if not isinstance(several, list):
            raise ProtocolError("the host sent events of a watched run that cannot be read")
        for packed in several:
            if not (isinstance(packed, list) and packed and type(packed[0]) is str and packed[0] not in KINDS):
                self._take(packed)
            # A later version tells more.

    def _take(self, packed: Any) -> None:
        try:
            event = RunEvent.from_json(packed)
        except ValueError as error:
            raise ProtocolError(f"the host sent an event of a watched run that cannot be read: {error}") from None
        if not self._scope.covers(event.namespace):
            raise ProtocolError(f"the host told of {event.namespace!r}, which is not below its node")
        graph = self._graph or self._open(event)
        at = self._local_time(event.at)
        path = graph.path(event.namespace)
        if event.kind == "ask":
            # Asked by a host of the host, it is told with that one.
            event = event._replace(data={"host": self._host, **event.data})
        self._recorder.take(event._replace(run=graph.run, path=path, at=at), graph)

    def follow(self, crossing: Callable[[], Crossing] | None) -> None:
        """Let watchers see how much of a large value has crossed, as long as the run goes on.

        Args:
            crossing: what has come of what was announced, and the room to send, which is negative for what waits.
        """
        if crossing is None:
            self._recorder.transfers.pop(id(self), None)
        else:
            self._recorder.transfers[id(self)] = self._transfer(crossing)

    def _transfer(self, crossing: Callable[[], Crossing]) -> Callable[[], Transfer | None]:
        def now() -> Transfer | None:
            arriving, room = crossing()
            graph = self._graph
            path = graph.path(self._scope.namespace) if graph is not None else ""
            if arriving is not None:
                return Transfer(path, "received", *arriving)
            return Transfer(path, "to send", -room, 0) if room < 0 else None

        return now

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

    def _local_time(self, at: float) -> float:
        """When that was by this machine's clock: the host's is behind by the least difference that an event has arrived
        with. As that shrinks, what happened later on the host stays later."""
        behind = time.time() - at
        self._behind = behind if self._behind is None else min(self._behind, behind)
        self._last = max(self._last, at + self._behind)
        return self._last
