"""A real host in this process, for tests and demos: the graph runs behind a gRPC server on 127.0.0.1."""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Iterable
from itertools import count
from typing import Any

from langgraph.pregel import Pregel

from agentmatrix.host import Host, graph_types
from agentmatrix.remote import RemoteAgent

__all__ = ["loopback"]

_numbers = count(1)
_lock = threading.Lock()
_host: Host | None = None
"""One host for all graphs, started by the first; `_lock` keeps two threads from starting two."""


def _shared_host() -> Host:
    global _host
    with _lock:
        if _host is None:
            _host = Host({}, tracebacks=True).start()
            atexit.register(_host.stop)
        return _host


class LoopbackAgent(RemoteAgent):
    """The remote agent of a graph of this process. It equals that graph, so that a test which looks for its graph in
    `get_subgraphs` finds it. No other remote agent can: its graph is in another process."""

    def __eq__(self, other: object) -> bool:
        return self is other or (self.config is None and self._local_graph() in (other,))

    def __hash__(self) -> int:
        return object.__hash__(self)

    def _local_graph(self) -> Any:
        graph: Any = _shared_host().graphs.get(self.agent)
        for node in self._path:
            graph = dict(graph.get_subgraphs()).get(node)
        return graph


@functools.cache
def _agent_class(graph_class: type) -> type[LoopbackAgent]:
    """The class for agents of graphs of a class, with the name of that class.

    LangGraph writes the class name of each node into a drawing. With this one the drawing of a parent is the same, be
    its subgraph local or behind `loopback`.
    """
    return type(graph_class.__name__, (LoopbackAgent,), {"__module__": graph_class.__module__})


def loopback(graph: Any, *, allow: Iterable[object] = (), **options: Any) -> RemoteAgent:
    """Host a graph on a real gRPC server on 127.0.0.1, in this process.

    Args:
        graph: a graph, or anything that `as_agent` takes.
        allow: classes, modules or names of modules that may cross, besides those of the graph's schemas.
        options: further arguments of `RemoteAgent`.

    Returns:
        Its `RemoteAgent`. It differs from one that a user makes: its card is known already, it allows the types of the
        graph's schemas, since both ends are this process, and it is equal to the graph.
    """
    host = _shared_host()
    name = f"agent-{next(_numbers)}"
    allowed = tuple(allow)
    hosted = host.add(name, graph, allow=allowed)
    assert isinstance(hosted, Pregel)
    options.setdefault("name", hosted.get_name())
    remote = _agent_class(type(hosted))(f"{host.address}/{name}", allow=(*graph_types(hosted), *allowed), **options)
    _ = remote.card  # fetched now
    return remote
