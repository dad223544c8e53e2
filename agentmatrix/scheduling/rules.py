"""What every set of rules offers to the scheduler: which node may start, and why another one may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langgraph.types import Send

from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write

__all__ = ["Delivered", "NodeResult", "Opening", "Rules"]

Delivered = tuple[int, int]
"""What a node that waits has been led to by: the entries that it will see, and the depth that it will have."""


@dataclass(slots=True)
class NodeResult:
    """What an activation has done.

    Attributes:
        writes: its writes to the state.
        targets: the nodes that its edges, routers and commands lead to.
        sends: its Sends.
        joins: the keys of joins (edges from several nodes) that it has arrived at, with the node behind each.
    """

    writes: Sequence[Write] = ()
    targets: Sequence[str] = ()
    sends: Sequence[Send] = ()
    joins: Sequence[tuple[str, str]] = ()


@dataclass(slots=True)
class Opening:
    """Where a step begins: what LangGraph's channels say is ready, and what a pause has kept.

    Attributes:
        ready: by node, the activation that a trigger of LangGraph's starts.
        sends: the activations of undelivered Sends.
        waiting: by node, what has led to it while its other sources have not settled.
        done: the nodes that have run in this run before.
        called: the ready nodes that a command from outside calls for: they start at once.
        begins: whether a run begins here, with START as the only node that has run.
        saved: what the rules have kept at a pause, or None.
    """

    ready: Mapping[str, ScheduledActivation]
    sends: Sequence[ScheduledActivation]
    waiting: Mapping[str, Delivered] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    begins: bool = False
    saved: Mapping[str, Any] | None = None


class Rules(Protocol):
    """Decides which nodes start.

    Attributes:
        ready: the activations that may start and have not been taken yet.
        cancelled: the activations that were given up since the last look.
        ran: the nodes that have run.
    """

    ready: list[ScheduledActivation]
    cancelled: list[ScheduledActivation]
    ran: set[str]

    def open(self, opening: Opening) -> None:
        """Begin where a checkpoint is. Called once."""

    def finish(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        """An activation has been recorded as the entry `bit`; its followers may become ready."""

    def check(self, activation: ScheduledActivation, result: NodeResult) -> None:
        """Whether the activation may lead where it leads. Raises InvalidUpdateError, before anything is recorded."""

    def waiting(self) -> Mapping[str, Delivered]:
        """By node that has not started: what has led to it so far."""

    def waits_for(self, node: str) -> list[str]:
        """The sources that may still lead to a node."""

    def skip_reason(self, node: str) -> str | None:
        """Why a node will not run any more; None where it has run or may."""
