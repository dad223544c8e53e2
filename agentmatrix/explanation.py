"""What a graph says of a thread: `explain(config)`, the state of each node and why it is in that state, and
`actors(config)`, who its actors are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

__all__ = ["ActorSnapshot", "Explanation", "NodeState", "NodeStatus"]

NodeState = Literal["ran", "ready", "paused", "failed", "skipped", "waiting"]


@dataclass(frozen=True)
class NodeStatus:
    """The status of one node.

    Attributes:
        node: the name of the node.
        state: "ran"; "ready", which may also mean that it runs and its result is not saved yet; "paused" by an
            interrupt; "failed"; "skipped"; or "waiting".
        times: the number of finished activations.
        why: the cause of its last activation, the node that skipped it, or the source and group that it waits for.
    """

    node: str
    state: NodeState
    times: int = 0
    why: str = ""

    def __str__(self) -> str:
        often = f" {self.times} times" if self.times > 1 else ""
        state = f"ran{often}" if self.state == "ran" else self.state
        before = f"ran{often} before" if self.times and self.state != "ran" else ""
        return f"{self.node}: {', '.join(filter(None, (state, before, self.why)))}"


class Explanation(Mapping[str, NodeStatus]):
    """The status of each node of a graph, by name. As text, one line for each node.

    Args:
        nodes: the nodes, in the order of `add_node`.
    """

    def __init__(self, nodes: Mapping[str, NodeStatus]) -> None:
        self._nodes = dict(nodes)

    def __getitem__(self, node: str) -> NodeStatus:
        return self._nodes[node]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __str__(self) -> str:
        return "\n".join(map(str, self._nodes.values()))

    def __repr__(self) -> str:
        return f"Explanation({', '.join(f'{status.node}: {status.state}' for status in self._nodes.values())})"

    def to_dict(self) -> dict[str, Any]:
        """The explanation as plain values, which the wire takes."""
        return {node: asdict(status) for node, status in self._nodes.items()}

    @classmethod
    def from_dict(cls, nodes: Mapping[str, Any]) -> Self:
        """The explanation that `to_dict` has made plain."""
        return cls({node: NodeStatus(**values) for node, values in nodes.items()})


@dataclass(frozen=True)
class ActorSnapshot:
    """One actor.

    Attributes:
        path: its name in a `Send`, `"staff/ann"`.
        key: `"ann"`.
        values: its state, with all messages that it has read.
        count: how many messages it has read.
        unread: the messages that it has not read, in order.
        at_work: whether it reads one, or has paused in one.
        hired_by: the path of whoever has sent its first message; None for the run's input.
        depth: how many actors have hired each other in the chain that ends with it.
        dismissed: whether it takes no more messages.
    """

    path: str
    key: str
    values: Mapping[str, Any]
    count: int = 0
    unread: tuple[Any, ...] = ()
    at_work: bool = False
    hired_by: str | None = None
    depth: int = 1
    dismissed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as plain values, which the wire takes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """The snapshot that `to_dict` has made plain."""
        return cls(**{**plain, "unread": tuple(plain["unread"])})
