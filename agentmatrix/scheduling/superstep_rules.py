"""The rules of LangGraph's supersteps, for a graph with loops and edges only.

What a step leads to starts together once all of the step has finished, each node once, and each `Send` once. All of it
sees everything that has run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langgraph.types import Send

from agentmatrix.scheduling.bounds import bound_error
from agentmatrix.scheduling.log import ActivationLog
from agentmatrix.scheduling.paused import finished_numbers, ordered, tracked
from agentmatrix.scheduling.rules import ChoiceFreeRules, Delivered, NodeResult, Opening
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Numbers
from agentmatrix.scheduling.topology import Topology, join_key

__all__ = ["SuperstepRules"]


class SuperstepRules(ChoiceFreeRules):
    """Nothing of the next step is ready before this one has ended."""

    def __init__(self, topology: Topology, log: ActivationLog) -> None:
        super().__init__(topology, log)
        self._at_work: dict[ScheduledActivation, None] = {}
        self._times: dict[str, int] = {}
        self._done: frozenset[str] = frozenset()
        # The nodes that have run in this step, how often each has before it; a fan-out counts once.
        self._ran: set[str] = set()
        self._rounds: dict[str, int] = {}
        # What the next step is: its nodes with those that lead to them, and its Sends by place of the sender.
        self._targets: dict[str, list[str]] = {}
        self._sends: list[tuple[tuple[Any, ...], Send, str]] = []
        self._deferred: dict[str, list[str]] = {}
        self._joins = {
            join_key(join, node): (frozenset(join), node) for node, joins in topology.joins.items() for join in joins
        }
        self._arrived: dict[str, set[str]] = {}

    def open(self, opening: Opening) -> None:
        self._done = frozenset(opening.done)
        if (saved := opening.saved) is not None:
            self._rounds, self.numbers = dict(saved["rounds"]), dict(saved["numbers"])
            self._times, self._ran = dict(saved["times"]), {*saved["ran"]}
            self._targets = {node: list(after) for node, after in saved["targets"].items()}
            self._sends = [(ordered(order), Send(node, arg), after) for order, node, arg, after in saved["sends"]]
        joined = opening.joined or (saved["joined"] if saved is not None else {})
        self._arrived = {key: {*nodes} for key, nodes in joined.items() if key in self._joins}
        activations = [*opening.ready.values(), *opening.sends]
        eager = [activation for activation in activations if activation.node not in self.topology.deferred]
        started = [a for a in activations if a.send is not None or a in eager or not eager]
        self._deferred = {a.node: list(a.after) for a in activations if a not in started}
        for activation in started:
            self._begin(activation)

    def _begin(self, activation: ScheduledActivation) -> None:
        node = activation.node
        self.numbers[node] = activation.number = self.numbers.get(node, 0) + 1
        mend = "its router a way to '__end__' that it takes"
        activation.error = bound_error(self.topology, node, self._rounds, mend)
        self._at_work[activation] = None
        self.ready.append(activation)

    def check(self, activation: ScheduledActivation, result: NodeResult) -> None:
        """A node may lead wherever there is a node."""

    def finish(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        node = activation.node
        del self._at_work[activation]
        self._ran.add(node)
        self._times[node] = self._times.get(node, 0) + 1
        for target in result.targets:
            into = self._deferred if target in self.topology.deferred else self._targets
            into.setdefault(target, []).append(node)
        for position, send in enumerate(result.sends):
            self._sends.append(((activation.order, position), send, node))
        for key, target in result.joins:
            arrived = self._arrived.setdefault(key, set())
            arrived.add(node)
            if arrived == self._joins[key][0]:
                into = self._deferred if target in self.topology.deferred else self._targets
                into.setdefault(target, []).append(node)
        if not self._at_work:
            self._next_step()

    def _next_step(self) -> None:
        for node in self._ran:
            self._rounds[node] = self._rounds.get(node, 0) + 1
        self._ran = set()
        if not self._targets:
            # As in LangGraph, Sends alone do not keep a deferred node waiting.
            self._targets, self._deferred = self._deferred, {}
        known, depth = self.log.all, len(self.log.levels)
        places, members = self.topology.places, self.topology.members
        nodes = sorted(self._targets.keys() & places.keys(), key=places.__getitem__)
        for node in (*nodes, *sorted(self._targets.keys() & members.keys())) if members else nodes:
            self._use_joins(node)
            after = tuple(dict.fromkeys(self._targets[node]))
            self._begin(ScheduledActivation(node, known, depth, order=(0, node), after=after))
        sends = sorted(self._sends, key=lambda sent: sent[0])
        for position, (_, send, sender) in enumerate(sends):
            activation = ScheduledActivation(
                send.node, known, depth, order=(1, (), position), send=send, position=position, after=(sender,)
            )
            self._begin(activation)
        self._targets, self._sends = {}, []

    def _use_joins(self, node: str) -> None:
        """A join that is complete is used up when its node starts."""
        for key, (sources, target) in self._joins.items():
            if target == node and sources.issubset(self._arrived.get(key, ())):
                del self._arrived[key]

    def waiting(self) -> Mapping[str, Delivered]:
        nodes = {*self._targets, *self._deferred, *(self._joins[key][1] for key in self._arrived)}
        return {node: (self.log.all, len(self.log.levels)) for node in self.topology.nodes if node in nodes}

    def joined(self) -> Mapping[str, frozenset[str]]:
        return {key: frozenset(nodes) for key, nodes in self._arrived.items()}

    def is_quiescent(self) -> bool:
        return not (self.ready or self._at_work)

    def pinned(self) -> Iterator[Delivered]:
        return ((activation.ancestors, activation.depth) for activation in self._at_work)

    def rebase(self, rebase: Any) -> None:
        for activation in self._at_work:
            activation.ancestors = rebase.bits(activation.ancestors)
            activation.depth = rebase.depth(activation.depth)

    def pause(self, numbers: Numbers, untracked: frozenset[str]) -> Any:
        return {
            "rounds": dict(self._rounds),
            "numbers": finished_numbers(self.numbers, self._at_work),
            "times": dict(self._times),
            "ran": sorted(self._ran),
            "joined": {key: sorted(nodes) for key, nodes in self._arrived.items()},
            "targets": {node: list(after) for node, after in self._targets.items()},
            "sends": [
                [_listed(order), send.node, tracked(send.arg, untracked), after] for order, send, after in self._sends
            ],
        }

    def times(self, node: str) -> int:
        members = self.topology.members
        names = [node, *(name for name in self._times if members.get(name) == node)]
        return sum(self._times.get(name, 0) for name in names) or int(node in self._done)

    def skip_reason(self, node: str) -> str | None:
        return None

    def closed_targets(self) -> Mapping[str, str]:
        alive = {a.node for a in self._at_work} | {*self._targets, *self._deferred}
        alive |= {send.node for _, send, _ in self._sends}
        frontier = list(alive)
        while frontier:
            follow = self.topology.follow[self.topology.node_of(frontier.pop())]
            fresh = [node for node in follow if node not in alive]
            alive.update(fresh)
            frontier += fresh
        return {node: f"nothing starts {node!r} any more" for node in self.topology.nodes if node not in alive}

    def waits_for(self, node: str) -> str:
        return ""


def _listed(order: Any) -> Any:
    return [_listed(part) for part in order] if isinstance(order, tuple) else order
