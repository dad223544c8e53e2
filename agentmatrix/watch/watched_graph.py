"""What a watcher knows of a run that is under way: its graph, and large values that cross."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentmatrix.watch.run_event import node_path

__all__ = ["Transfer", "WatchedGraph"]


@dataclass(slots=True)
class WatchedGraph:
    """The graph of a run that was started in the block.

    Attributes:
        run: the id of the run.
        graph: the compiled graph or remote agent; None where something else was started.
        config: names its thread, to go on from there.
        prefix: what the namespaces of its nodes begin with, where it runs inside of a node.
        seen: the ids of the messages that have been said.
    """

    run: str
    graph: Any = None
    config: Any = None
    prefix: str = ""
    seen: set[str] = field(default_factory=set)

    def path(self, namespace: str) -> str:
        """The path of a node in this graph."""
        own = namespace.removeprefix(self.prefix) if self.prefix else namespace
        return node_path(own.lstrip("|"))


class Transfer(NamedTuple):
    """A large value on its way to or from a host.

    Attributes:
        path: of the node there.
        kind: `received` or `to send`.
        done: bytes that have come, or that wait to be sent.
        size: bytes that were announced; 0 where that is not known.
    """

    path: str
    kind: str
    done: int
    size: int

    def __str__(self) -> str:
        of = f" of {self.size / 1e6:.0f}" if self.size else ""
        return f"{self.done / 1e6:.0f}{of} MB {self.kind}"
