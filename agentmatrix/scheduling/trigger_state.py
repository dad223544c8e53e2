"""What a `Dag` with trigger groups remembers of its run, and what a pause keeps of that."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from agentmatrix.scheduling.group_rules import GroupRules
from agentmatrix.scheduling.log import ActivationLog
from agentmatrix.scheduling.paused import plain_activation, restored_activation
from agentmatrix.scheduling.rules import Delivered
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Delivery, Numbers, merged
from agentmatrix.scheduling.topology import Topology
from agentmatrix.triggers import label_of

__all__ = ["TriggeredDagState"]

_Led = dict[str, dict[str, list[Delivery]]]


class TriggeredDagState(GroupRules):
    """The state of `TriggeredDagRules`.

    Attributes:
        settled: the nodes that will not run any more.
        started: the nodes that have been started, other than by a `Send`.
        lost: the nodes that were cancelled when another source of a group with cancel_rest came first.
    """

    def __init__(self, topology: Topology, log: ActivationLog) -> None:
        super().__init__(topology, log)
        self.settled: set[str] = set()
        self.started: set[str] = set()
        self.lost: set[str] = set()
        # By node and source: what has led to it by edges and choices. By node: what its activations have done, and
        # all of that together once it has settled.
        self._led: _Led = {}
        self._outcomes: dict[str, list[Delivery]] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._deferred: dict[str, ScheduledActivation] = {}
        # By node that waits for all of several nodes, one of these that is to come: until then none of the others is
        # looked at again, unless one of them comes no more.
        self._awaited: dict[str, str] = {}
        self._ran_before: Collection[str] = frozenset()

    def _order(self, topology: Topology) -> Mapping[str, int]:
        return topology.rank

    def _may_start(self, node: str) -> bool:
        return not (node in self.started or node in self.lost or node in self.settled or node in self.failed)

    # the log

    def waiting(self) -> Mapping[str, Delivered]:
        found: dict[str, Delivered] = {}
        for node, sources in self._led.items():
            if self._may_start(node):
                whole = merged([part for parts in sources.values() for part in parts])
                found[node] = whole.ancestors, whole.depth
        return found

    def joined(self) -> Mapping[str, frozenset[str]]:
        return {}

    def pinned(self) -> Iterator[Delivered]:
        for activation in self.at_work:
            yield activation.ancestors, activation.depth
        for delivery in self._pinned():
            yield delivery.ancestors, delivery.depth

    def _pinned(self) -> Iterator[Delivery]:
        for node in self.topology.nodes:
            if self._may_start(node):
                for parts in self._led.get(node, {}).values():
                    yield from parts
                for group in self.topology.groups.get(node, ()):
                    for label in map(label_of, group.sources):
                        if label in self._deliveries:
                            yield self._deliveries[label]
                        elif (first := self.queues.first(node, label)) is not None:
                            yield first
            elif node not in self.settled:
                yield from self._outcomes.get(node, ())

    def deliveries(self) -> Iterator[Delivery]:
        yield from super().deliveries()
        yield from self._deliveries.values()
        for outcomes in self._outcomes.values():
            yield from outcomes
        for sources in self._led.values():
            for parts in sources.values():
                yield from parts

    def pause(self, numbers: Numbers, untracked: frozenset[str]) -> Any:
        def plain(delivery: Delivery) -> list[Any]:
            return delivery.plain(numbers, untracked)

        led = {node: sources for node, sources in self._led.items() if self._may_start(node)}
        needed = {
            node: delivery
            for node, delivery in self._deliveries.items()
            if any(map(self._may_start, self.topology.listeners.get(node, ())))
        }
        unsettled = {node: parts for node, parts in self._outcomes.items() if node not in self.settled}
        return {
            "settled": sorted(self.settled),
            "started": sorted(self.started),
            "lost": sorted(self.lost),
            "failed": sorted(self.failed),
            "times": dict(self._times),
            "groups": dict(self._groups_of),
            "led": {n: {s: list(map(plain, parts)) for s, parts in sources.items()} for n, sources in led.items()},
            "delivered": {node: plain(delivery) for node, delivery in needed.items()},
            "outcomes": {node: list(map(plain, parts)) for node, parts in unsettled.items()},
            "deferred": [plain_activation(activation, numbers, untracked) for activation in self._deferred.values()],
            "inputs": self.inputs.plain(),
            "queues": self.queues.plain(numbers, untracked),
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.settled, self.started, self.lost = {*saved["settled"]}, {*saved["started"]}, {*saved["lost"]}
        self._times = dict(saved["times"])
        self._groups_of = dict(saved["groups"])
        self._led = {
            node: {source: list(map(Delivery.of, parts)) for source, parts in sources.items()}
            for node, sources in saved["led"].items()
            if node in self._places
        }
        self._deliveries = {node: Delivery.of(plain) for node, plain in saved["delivered"].items()}
        self._outcomes = {node: list(map(Delivery.of, parts)) for node, parts in saved["outcomes"].items()}
        held = map(restored_activation, saved["deferred"])
        self._deferred = {activation.node: activation for activation in held if activation.node in self._places}
        self.inputs.restore(saved["inputs"])
        self.queues.restore(saved["queues"])
