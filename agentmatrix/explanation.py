"""Where each node of a graph stands and why: the first question of whoever writes an event-driven graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

__all__ = ["Explanation", "NodeStatus", "State"]

State = Literal["ran", "ready", "paused", "failed", "skipped", "waiting"]


@dataclass(frozen=True)
class NodeStatus:
    """Where one node stands.

    Attributes:
        node: the node.
        state: "ran"; "ready", or at work and not finished as far as is saved; "paused" by an interrupt; "failed";
            "skipped"; or "waiting".
        times: how often it has run.
        why: what started it, who skipped it, or which source of which group it waits for.
    """

    node: str
    state: State
    times: int = 0
    why: str = ""

    def __str__(self) -> str:
        often = f" {self.times} times" if self.times > 1 else ""
        state = f"ran{often}" if self.state == "ran" else self.state
        before = f"ran{often} before" if self.times and self.state != "ran" else ""
        return f"{self.node}: {', '.join(filter(None, (state, before, self.why)))}"


class Explanation(Mapping[str, NodeStatus]):
    """Where each node of a graph stands, by name. As text, a line a node.

    Args:
        nodes: the nodes, in the order of add_node.
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

    def plain(self) -> dict[str, Any]:
        """As plain values, to cross to another machine."""
        return {node: asdict(status) for node, status in self._nodes.items()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Out of what `plain` gave."""
        return cls({node: NodeStatus(**values) for node, values in plain.items()})
