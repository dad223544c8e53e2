"""The activations that the Sends of a node of a Dag start."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from langgraph.types import Send

from agentmatrix.scheduling.scheduled_activation import ScheduledActivation

__all__ = ["numbered_sends"]


def numbered_sends(
    sender: ScheduledActivation,
    sends: Sequence[Send],
    ancestors: int,
    *,
    nodes: Container[str],
    numbers: dict[str, int],
    recorded: Mapping[str, int],
) -> tuple[list[ScheduledActivation], dict[str, int]]:
    """Number the activations of each node in the order of the Sends, behind those that the node has had.

    Args:
        sender: the activation that sends.
        sends: its Sends.
        ancestors: what the receivers see, as a bit set.
        nodes: the nodes that may start; other Sends are passed over.
        numbers: by node, the number of its last activation; changed.
        recorded: by node, the first number where it is to be repeated.

    Returns:
        The activations, and by node the first of their numbers.
    """
    activations: list[ScheduledActivation] = []
    first: dict[str, int] = {}
    following: dict[str, int] = {}
    for position, send in enumerate(sends):
        node = send.node
        if node not in nodes:
            continue
        activation = sender.sent(send, position, ancestors)
        activation.number = number = following.get(node) or recorded.get(node) or numbers.get(node, 0) + 1
        first.setdefault(node, number)
        following[node] = number + 1
        numbers[node] = max(number, numbers.get(node, 0))
        activations.append(activation)
    return activations, first
