"""What a pause keeps of activations, as plain values: savers must take them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from agentmatrix.scheduling.log import ActivationLog
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Delivery, Numbers, bits_of
from agentmatrix.scheduling.topology import Topology

__all__ = [
    "finished_numbers",
    "needed_entries",
    "numbers_between_steps",
    "ordered",
    "plain_activation",
    "plain_entries",
    "restore_entries",
    "restored_activation",
    "resume_send",
    "resumed_activations",
    "whole_pause",
    "tracked",
]


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
        plain["name"],
        plain["number"],
        order=ordered(plain["order"]),
        position=plain["position"],
        group=plain.get("group"),
        items={label: Delivery.of(item) for label, item in plain.get("items", {}).items()},
        rounds=plain.get("rounds", {}),
        after=tuple(plain["after"]),
        is_ticked=plain.get("is_ticked", False),
    )


def finished_numbers(numbers: Mapping[str, int], unfinished: Iterable[ScheduledActivation]) -> dict[str, int]:
    """By node, the number of its last activation that has finished, where numbers are given at the start."""
    finished = dict(numbers)
    for activation in unfinished:
        finished[activation.node] -= 1
    return finished


def numbers_between_steps(
    topology: Topology, log: ActivationLog, numbers: Mapping[str, int], unfinished: Iterable[ScheduledActivation]
) -> dict[str, int] | None:
    """All that must be kept between two supersteps, if nobody asks for more: by node, the number of its last activation
    that has finished. None where that is not enough.

    Args:
        topology: the shape of the graph.
        log: what has run.
        numbers: by node, the number of its last activation.
        unfinished: the activations of the next superstep.
    """
    if topology.reads_items or topology.max_rounds or topology.joins or topology.deferred:
        return None
    if any(activation.send is not None or activation.ancestors != log.all for activation in unfinished):
        return None
    return finished_numbers(numbers, unfinished)


def whole_pause(nodes: Iterable[str], numbers: Mapping[str, int]) -> dict[str, Any]:
    """What a pause between two supersteps would have kept, from the numbers that it has kept instead.

    Args:
        nodes: those of the next superstep, of which each sees everything.
        numbers: by node, the number of its last activation that has finished.
    """
    none: dict[str, int] = {}
    activations = (ScheduledActivation(node, order=(0, node)) for node in nodes)
    counts = {"rounds": none, "numbers": numbers, "times": numbers}
    return {
        "entries": [],
        "base": {},
        "keys": [],
        "activations": [plain_activation(activation, _no_numbers, frozenset()) for activation in activations],
        "sends": [],
        "waiting": {},
        "depth": 0,
        "before": 0,
        "numbers": numbers,
        "rules": {**counts, "ran": [], "joined": {}, "targets": {}, "sends": []},
    }


def needed_entries(log: ActivationLog, seen: Iterable[int]) -> tuple[int, int, list[str]]:
    """What of the log a pause must keep.

    Args:
        log: the log.
        seen: what each activation to come sees at least, as a bit set of entries.

    Returns:
        The entries that all of them see, those to keep, and the keys that one of them may not see in full.
    """
    common = log.all
    for known in seen:
        common &= known
    hidden = log.all & ~common
    held = [key for key, writers in log.writers.items() if writers & hidden]
    kept = hidden & log.outside
    for key in held:
        kept |= log.writers[key]
    return common, kept, held


def restore_entries(log: ActivationLog, plain: Iterable[Sequence[Any]], keys: Collection[str]) -> None:
    """Append the entries that `plain_entries` has made plain, without the writes to other keys."""
    for node, depth, order, ancestors, writes, is_outside, is_earlier in plain:
        past = ScheduledActivation(node, bits_of(ancestors), depth, order=ordered(order))
        written = [(key, value) for key, value in writes if key in keys]
        bit = log.append(past, written, outside=bool(is_outside))
        log.earlier |= bit * is_earlier


def plain_entries(
    log: ActivationLog, entries: Iterable[int], kept: int, tracked: Collection[str], numbers: Numbers
) -> list[list[Any]]:
    """Entries of the log as plain values.

    Args:
        log: the log.
        entries: which entries.
        kept: the same as a bit set.
        tracked: the keys whose writes are kept.
        numbers: gives the entries of a bit set the numbers under which the pause keeps them.
    """
    return [
        [
            log.nodes[entry],
            log.depths[entry],
            list(log.orders[entry]),
            numbers(log.ancestors[entry]),
            [[key, value] for key, value in log.writes[entry] if key in tracked],
            log.outside >> entry & 1,
            int(bool(log.earlier >> entry & 1 or log.outside & ~kept & ~log.ancestors[entry] & ~(1 << entry))),
        ]
        for entry in entries
    ]


def resumed_activations(
    topology: Topology,
    log: ActivationLog,
    kept: Iterable[dict[str, Any]],
    runs: Sequence[str],
    updates: Mapping[str, NodeResult],
) -> tuple[list[ScheduledActivation], list[tuple[ScheduledActivation, NodeResult]]]:
    """The activations that go on, and those for which somebody has written during the pause.

    Args:
        topology: the shape of the graph.
        log: what is known of the run before the pause.
        kept: the activations, as the pause has kept them.
        runs: the nodes that are to run.
        updates: by node, what somebody has written in its name.
    """
    resumed: list[ScheduledActivation] = []
    updated: list[tuple[ScheduledActivation, NodeResult]] = []
    for activation in map(restored_activation, kept):
        if activation.node in runs:
            resumed.append(activation)
        elif topology.node_of(activation.node) in topology.follow:
            activation.ancestors, activation.depth = log.all, len(log.levels)
            updated.append((activation, updates.get(activation.node, NodeResult())))
    for node in updates:
        if topology.node_of(node) in topology.follow and all(activation.node != node for activation, _ in updated):
            led = ScheduledActivation(node, log.all, len(log.levels), order=(0, node))
            updated.append((led, updates[node]))
    return resumed, updated


def resume_send(activation: ScheduledActivation, kept: ScheduledActivation) -> None:
    """Give the activation of a Send the identity and the view that the pause has kept."""
    activation.ancestors, activation.depth, activation.order = kept.ancestors, kept.depth, kept.order
    activation.name, activation.position, activation.number = kept.name, kept.position, kept.number
    activation.rounds, activation.after = kept.rounds, kept.after


def tracked(arg: Any, untracked: frozenset[str]) -> Any:
    """What a `Send` carries, without the keys whose values are never stored."""
    if isinstance(arg, dict) and untracked:
        return {key: value for key, value in arg.items() if key not in untracked}
    return arg


def ordered(plain: Any) -> Any:
    """A place in an order out of plain values: lists are tuples."""
    return tuple(map(ordered, plain)) if isinstance(plain, list | tuple) else plain


def _no_numbers(bits: int) -> list[int]:
    # What an activation sees is said of the activation itself.
    return []
