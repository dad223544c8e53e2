"""A real host in this process, for tests and demos: the graph runs behind a gRPC server on 127.0.0.1."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterable
from itertools import count
from typing import Any

from agentmatrix.host import Host, graph_types
from agentmatrix.remote import RemoteAgent

__all__ = ["loopback"]

_numbers = count(1)
_lock = threading.Lock()
_host: Host | None = None


def _shared_host() -> Host:
    global _host
    with _lock:
        if _host is None:
            _host = Host({}).start()
            atexit.register(_host.stop)
        return _host


class _Loopback(RemoteAgent):
    """The remote agent of a graph of this process. It is equal to that graph, as no agent of a user's can be, so that
    a test which looks for its graph in `get_subgraphs` finds it."""

    def __eq__(self, other: object) -> bool:
        return self is other or (self.config is None and self._hosted() in (other,))

    def __hash__(self) -> int:
        return object.__hash__(self)

    def _hosted(self) -> Any:
        graph: Any = _shared_host().graphs.get(self.agent)
        for node in self._path:
            graph = dict(graph.get_subgraphs()).get(node)
        return graph


def loopback(graph: Any, *, allow: Iterable[object] = (), **options: Any) -> RemoteAgent:
    """Hosts a graph on a real gRPC server on loopback in this process.

    Args:
        graph: a graph, or anything that `as_agent` takes.
        allow: classes, modules or names of modules that may cross, besides those of the graph's schemas.
        options: further arguments of `RemoteAgent`.

    Returns:
        Its `RemoteAgent`. It differs from one that a user makes in that its card is known already, that it admits the
        types of the graph's schemas, since both ends are this process, and that it is equal to the graph.
    """
    host = _shared_host()
    name = f"agent-{next(_numbers)}"
    admitted = tuple(allow)
    hosted = host.add(name, graph, allow=admitted)
    options.setdefault("name", hosted.get_name())
    remote = RemoteAgent(f"{host.address}/{name}", allow=(*graph_types(hosted), *admitted), **options)
    remote.card  # noqa: B018 - fetched now
    # A drawing names the classes of its nodes; this one passes for the graph's own there.
    shown = type(hosted)
    remote.__class__ = type(shown.__name__, (_Loopback,), {"__module__": shown.__module__})
    return remote
