"""What a pause keeps of activations, as plain values: savers must take them."""

from __future__ import annotations

from typing import Any

from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Delivery, Numbers, bits_of

__all__ = ["ordered", "plain_activation", "restored_activation"]


def plain_activation(activation: ScheduledActivation, numbers: Numbers, untracked: frozenset[str]) -> dict[str, Any]:
    """An activation as plain values, without its `Send`.

    Args:
        activation: the activation.
        numbers: gives the entries of a bit set the numbers under which the pause keeps them.
        untracked: the keys whose values are never stored.
    """
    plain: dict[str, Any] = {
        "node": activation.node,
        "known": numbers(activation.ancestors),
        "depth": activation.depth,
        "order": list(activation.order),
        "name": activation.name,
        "number": activation.number,
        "position": activation.position,
        "after": list(activation.after),
    }
    if activation.is_ticked:
        plain["is_ticked"] = True
    if activation.group is not None:
        plain["group"] = activation.group
    if activation.items:
        plain["items"] = {label: item.plain(_no_numbers, untracked) for label, item in activation.items.items()}
    if activation.rounds:
        plain["rounds"] = dict(activation.rounds)
    return plain


def restored_activation(plain: dict[str, Any]) -> ScheduledActivation:
    """The activation out of plain values; the numbers of entries are bits now."""
    return ScheduledActivation(
        plain["node"],
        bits_of(plain["known"]),
        plain["depth"],
        ordered(plain["order"]),
        plain["name"],
        plain["number"],
        position=plain["position"],
        group=plain.get("group"),
        items={label: Delivery.of(item) for label, item in plain.get("items", {}).items()},
        rounds=plain.get("rounds", {}),
        after=tuple(plain["after"]),
        is_ticked=plain.get("is_ticked", False),
    )


def ordered(plain: Any) -> Any:
    """A place in an order out of plain values: lists are tuples."""
    return tuple(map(ordered, plain)) if isinstance(plain, list | tuple) else plain


def _no_numbers(bits: int) -> list[int]:
    # What an activation sees is said of the activation itself.
    return []
