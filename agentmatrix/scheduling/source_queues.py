"""What the sources of trigger groups have delivered, and what nobody has used yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentmatrix.scheduling.log import ActivationLog, Rebase, entries_of
from agentmatrix.scheduling.topology import Topology
from agentmatrix.triggers import Group, label_of

__all__ = ["Delivery", "SourceQueues", "bits_of", "merged", "updates_of"]

Numbers = Callable[[int], list[int]]
"""Gives the entries of a bit set the numbers under which a pause keeps them."""


@dataclass(eq=False, slots=True)
class Delivery:
    """What a source has delivered: the update of a node, the updates of a fan-out, a signal or a tick.

    Attributes:
        id: what tells it from the other deliveries of its source, whatever the timing.
        source: the label of the source.
        ancestors: the entries of the log that whoever takes it will see, as a bit set.
        depth: the least depth of whoever takes it.
        value: the update of a node, a list of updates, or what came from outside.
        is_update: whether nodes of this graph have made the value.
        order: the place among the deliveries of its depth.
        is_sent: whether a `Send` has started the node.
        rounds: by node, how often that node has run in the chain of activations that led here.
        place: the place in the order of arrival.
        is_ticked: see `ScheduledActivation`.
    """

    id: str
    source: str
    ancestors: int = 0
    depth: int = 0
    value: Any = None
    is_update: bool = True
    order: tuple[Any, ...] = ()
    is_sent: bool = False
    rounds: Mapping[str, int] = field(default_factory=dict)
    place: int = 0
    is_ticked: bool = False

    def given(self) -> Any:
        """The value, for a node that may do with it as it likes."""
        if not self.is_update:
            return self.value
        return [dict(update) for update in self.value] if isinstance(self.value, list) else dict(self.value)

    def rebase(self, rebase: Rebase) -> None:
        """The beginning of the log has been folded for good."""
        self.ancestors, self.depth = rebase.bits(self.ancestors), rebase.depth(self.depth)

    def plain(self, numbers: Numbers, untracked: frozenset[str]) -> list[Any]:
        """As plain values.

        Args:
            numbers: see `Numbers`.
            untracked: the keys whose values are never stored.
        """
        value = self.value
        if self.is_update and untracked:
            value = [_without(u, untracked) for u in value] if isinstance(value, list) else _without(value, untracked)
        known, place = numbers(self.ancestors), self.place
        return [
            self.id,
            self.source,
            known,
            self.depth,
            value,
            self.is_update,
            list(self.order),
            self.is_sent,
            dict(self.rounds),
            place,
            self.is_ticked,
        ]

    @classmethod
    def of(cls, plain: list[Any]) -> Delivery:
        """Out of plain values; the numbers of entries are bits now."""
        id, source, known, depth, value, is_update, order, *rest = plain
        return cls(id, source, bits_of(known), depth, value, is_update, _ordered(order), *rest)


def _without(update: Mapping[str, Any], untracked: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in update.items() if key not in untracked}


def _ordered(plain: Any) -> Any:
    return tuple(map(_ordered, plain)) if isinstance(plain, list | tuple) else plain


def bits_of(numbers: Iterable[int]) -> int:
    """A bit set of these numbers."""
    return sum(1 << number for number in numbers)


def merged(deliveries: Iterable[Delivery], id: str = "") -> Delivery:
    """One delivery of what a source has done several times: by Sends a list, in their order.

    Args:
        deliveries: at least one.
        id: the id of the whole; by default that of the first.
    """
    parts = list(deliveries)
    if len(parts) == 1 and not parts[0].is_sent:
        one = parts[0]
        return Delivery(
            id or one.id,
            one.source,
            one.ancestors,
            one.depth,
            one.value,
            order=one.order,
            rounds=one.rounds,
            is_ticked=one.is_ticked,
        )
    parts.sort(key=lambda part: part.order)
    first, ancestors, depth = parts[0], 0, 0
    rounds: dict[str, int] = {}
    for part in parts:
        ancestors |= part.ancestors
        depth = max(depth, part.depth)
        join_rounds(rounds, part.rounds)
    several = any(part.is_sent for part in parts)
    value = [part.value for part in parts] if several else first.value
    ticked = all(part.is_ticked for part in parts)
    return Delivery(
        id or first.id, first.source, ancestors, depth, value, True, first.order, False, rounds, is_ticked=ticked
    )


def join_rounds(rounds: dict[str, int], others: Mapping[str, int]) -> None:
    """Several chains of activations meet: of each node the greater count goes on."""
    for node, count in others.items():
        if count > rounds.get(node, 0):
            rounds[node] = count


class SourceQueues:
    """One queue for each node and each of the sources that it consumes from; and of each source what came last.

    Args:
        topology: says which nodes consume what.

    Attributes:
        newest: by label, what came last.
        arrived: how many deliveries have come.
    """

    def __init__(self, topology: Topology) -> None:
        self._queues: dict[tuple[str, str], deque[Delivery]] = {}
        self._consumed, self._optional = topology.consumed, topology.optional
        self.newest: dict[str, Delivery] = {}
        self.arrived = 0

    def arrives(self, delivery: Delivery) -> Delivery:
        """The delivery has its place in the order of arrival from here on."""
        self.arrived += 1
        delivery.place = self.arrived
        return delivery

    def consumes(self, node: str, label: str) -> bool:
        """Whether some group of the node consumes deliveries of this source, rather than only reads the newest."""
        return label in self._consumed.get(node, ())

    def put(self, node: str, label: str, delivery: Delivery) -> None:
        """A delivery for one node."""
        queue = self._queues.get((node, label))
        if queue is None:
            queue = self._queues[node, label] = deque()
        queue.append(delivery)

    def first(self, node: str, label: str) -> Delivery | None:
        """What the node would take next of a source."""
        queue = self._queues.get((node, label))
        return queue[0] if queue else None

    def length(self, node: str, label: str) -> int:
        """How much the node has not used of a source."""
        return len(self._queues.get((node, label), ()))

    def pop(self, node: str, label: str) -> Delivery | None:
        """Take what comes next of a source."""
        queue = self._queues.get((node, label))
        return queue.popleft() if queue else None

    def find(self, node: str, label: str, id: str) -> Delivery | None:
        """A delivery that waits, wherever it stands in its queue."""
        return next((delivery for delivery in self._queues.get((node, label), ()) if delivery.id == id), None)

    def remove(self, node: str, label: str, delivery: Delivery) -> None:
        """Take a delivery, wherever it stands in its queue. One that is not there changes nothing."""
        queue = self._queues.get((node, label))
        if queue and delivery in queue:
            queue.remove(delivery)

    def clear(self, node: str, label: str) -> list[str]:
        """Drop what waits for a node. Returns the ids."""
        return [delivery.id for delivery in self._queues.pop((node, label), ())]

    def drop(self, labels: Iterable[str]) -> None:
        """Drop what has come of these sources, for every node."""
        dropped = {*labels}
        self._queues = {key: queue for key, queue in self._queues.items() if key[1] not in dropped}

    def left(self) -> Iterator[str]:
        """The nodes that something waits for."""
        return (node for (node, _), queue in self._queues.items() if queue)

    def pinned(self) -> Iterator[Delivery]:
        """What may still start a node. What is optional only adds to what another delivery starts."""
        for (node, label), queue in self._queues.items():
            if label not in self._optional.get(node, ()):
                yield from queue

    def deliveries(self) -> Iterator[Delivery]:
        """All of them, some more than once."""
        for queue in self._queues.values():
            yield from queue
        yield from self.newest.values()

    def choose(self, group: Group, have: Mapping[str, Delivery]) -> dict[str, Delivery]:
        """What a complete group consumes and reads.

        Args:
            group: the group.
            have: by label, what each of its sources has.

        Returns:
            By label: of the regular sources those that came first, as many as are needed; all gates; what there is of
            the rest.
        """
        if len(group.labelled) == 1:
            return dict(have)
        regular = [label for label in map(label_of, group.regular) if label in have]
        first = sorted(regular, key=lambda label: have[label].place)[: group.need]
        others = [label_of(source) for source in (*group.gates, *group.optional, *group.latest)]
        return {label: have[label] for label in (*first, *others) if label in have}

    # what a pause keeps

    def plain(self, numbers: Numbers, untracked: frozenset[str]) -> dict[str, Any]:
        """As plain values; each delivery once."""
        known: dict[int, int] = {}
        kept: list[list[Any]] = []

        def place(delivery: Delivery) -> int:
            if id(delivery) not in known:
                known[id(delivery)] = len(kept)
                kept.append(delivery.plain(numbers, untracked))
            return known[id(delivery)]

        queues = [[node, label, list(map(place, queue))] for (node, label), queue in self._queues.items() if queue]
        newest = {label: place(delivery) for label, delivery in self.newest.items()}
        return {"deliveries": kept, "queues": queues, "newest": newest, "arrived": self.arrived}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Out of plain values."""
        known = [Delivery.of(delivery) for delivery in plain["deliveries"]]
        self._queues = {(node, label): deque(known[i] for i in queue) for node, label, queue in plain["queues"]}
        self.newest = {label: known[i] for label, i in plain["newest"].items()}
        self.arrived = plain["arrived"]


def updates_of(log: ActivationLog, nodes: Collection[str], entries: int) -> dict[str, Delivery]:
    """By node, its updates among some entries of the log, as what it has delivered."""
    found: dict[str, list[Delivery]] = {}
    for entry in entries_of(entries & log.all):
        if (node := log.nodes[entry]) in nodes:
            order = log.orders[entry]
            part = Delivery(node, node, value=dict(log.writes[entry]), order=order, is_sent=order[0] == 1)
            found.setdefault(node, []).append(part)
    return {node: merged(parts) for node, parts in found.items()}
