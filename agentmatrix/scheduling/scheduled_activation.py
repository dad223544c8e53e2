"""One run of a node, from the moment that the rules start it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langgraph.types import Send

from agentmatrix.scheduling.source_queues import Delivery

__all__ = ["Order", "ScheduledActivation", "Write"]

Write = tuple[str, Any]
Order = tuple[Any, ...]

_LONGEST = 120
"""How many characters of a key the name of a receiver has at most."""
_DEEPEST = 8
"""How many Sends in a chain a place in an order has one within the other."""


def _depth(order: Order) -> int:
    depth = 0
    while order[0] == 1 and order[1]:
        order, depth = order[1], depth + 1
    return depth


@dataclass(eq=False, slots=True)
class ScheduledActivation:
    """A node that is to run, is at work, or has been held back.

    Attributes:
        node: the node.
        ancestors: the entries of the log that it sees, as a bit set.
        depth: one more than the depth of its deepest cause. All writes of one depth reach a channel in one update.
        order: its place among the activations of its depth: nodes by name, then Sends by sender and number.
        name: what tells it from every other activation of the run, whatever the timing; "" for the only one of a node
            that no `Send` has started.
        number: which activation of its node it is, from 1.
        send: the `Send` that starts it, or None.
        position: the number of that `Send` among those of its sender.
        group: the name of the trigger group that started it, or None.
        items: by label of the source, what it has delivered.
        rounds: by node, how often that node has run in the chain of activations that led here; in graphs with loops.
        error: what it raises in place of running.
        is_ticked: whether nothing but timers that fire again and again has led to it, directly or through others.
        after: the nodes that led to it, for breakpoints.
        task_id: the id of its task, once that is made.
        message: what an actor reads; None for a node's activation.
    """

    node: str
    ancestors: int = 0
    depth: int = 0
    order: Order = field(kw_only=True)
    name: str = ""
    number: int = 1
    send: Send | None = None
    position: int = 0
    group: str | None = None
    items: Mapping[str, Delivery] = field(default_factory=dict)
    rounds: Mapping[str, int] = field(default_factory=dict)
    error: Exception | None = None
    is_ticked: bool = False
    after: tuple[str, ...] = ()
    task_id: str = ""
    message: Any = None

    @property
    def key(self) -> str:
        """What tells it from every other activation of the run that its node has, and from those of other nodes."""
        if self.name or self.send is None:
            return self.name or self.node
        return f"~{self.position}"

    @property
    def path(self) -> str:
        """The node, or the actor as a `Send` names it."""
        return self.node if self.message is None else str(self.message.path)

    @property
    def sender_key(self) -> str:
        """Its key, as the names of those have it that its Sends start: a chain of Sends has no names that grow."""
        key = self.key
        if len(key) <= _LONGEST:
            return key
        return f"{key[: _LONGEST // 2]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def given(self) -> dict[str, Any]:
        """By label of the source, what it has delivered, for the node to keep or to change."""
        return {label: delivery.given() for label, delivery in self.items.items()}

    def sent(self, send: Send, position: int, ancestors: int) -> ScheduledActivation:
        """The activation that a `Send` of this one starts.

        Args:
            send: the `Send`.
            position: its number among those that this activation sends.
            ancestors: what the receiver sees, as a bit set.
        """
        return ScheduledActivation(
            send.node,
            ancestors,
            self.depth + 1,
            f"{self.sender_key}.{position}",
            order=(1, self.order if _depth(self.order) < _DEEPEST else (0, self.sender_key), position),
            send=send,
            position=position,
            after=(self.node,),
        )
