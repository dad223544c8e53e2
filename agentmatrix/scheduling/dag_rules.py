"""The rules of a `Dag`: a node starts once, when all that may lead to it has settled and something has."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from langgraph.errors import InvalidUpdateError
from langgraph.types import Send

from agentmatrix.scheduling.log import ActivationLog
from agentmatrix.scheduling.rules import ChoiceFreeRules, Delivered, NodeResult, Opening
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.sends import numbered_sends
from agentmatrix.scheduling.topology import Topology

__all__ = ["DagRules", "check_declared", "skip_reason"]


class DagRules(ChoiceFreeRules):
    """Edges only. Counts, for each node, the sources that have not settled: O(edges) a run.

    A node settles when its sources have and nothing of it is at work. A skip needs no record of its own: it is a node
    that has settled though nothing has led to it.

    Args:
        topology: the shape of the graph.
        log: what has run.
    """

    def __init__(self, topology: Topology, log: ActivationLog) -> None:
        super().__init__(topology, log)
        self.settled: set[str] = set()
        self.started: set[str] = set()
        self.ran: set[str] = set()
        # By node: its sources that have not settled; what has led to it; how many of its activations are at work.
        self._unsettled: dict[str, int] = {}
        self._delivered: dict[str, Delivered] = {}
        self._led_by: dict[str, list[str]] = {}
        self._at_work: dict[str, int] = {}
        self._deferred: list[str] = []
        # By node, the number of an activation that goes on after a pause; by sender, those that are to be repeated.
        self._resumed: dict[str, int] = {}
        self._recorded_sends: dict[str, Mapping[str, int]] = {}

    def open(self, opening: Opening) -> None:
        self.numbers = dict(opening.numbers)
        self._resumed = {activation.node: activation.number for activation in opening.resumed}
        for activation in opening.sends:
            self.numbers[activation.node] = max(activation.number, self.numbers.get(activation.node, 0))
            self._begin(activation)
        roots = {*opening.ready, *self._at_work}
        open_nodes = roots | self.topology.descendants(roots) | {*opening.waiting}
        self.settled = {*self.topology.nodes} - open_nodes
        self._unsettled = dict.fromkeys(open_nodes, 0)
        for source in open_nodes:
            for node in self.topology.follow[source]:
                self._unsettled[node] += 1
        self.ran = {*opening.done} - opening.ready.keys()
        self.started = set(self.ran)
        self._delivered.update({node: (a.ancestors, a.depth) for node, a in opening.ready.items()})
        self._delivered.update(opening.waiting)
        for node in self.topology.nodes:
            if node in opening.called:
                self._start(node)
            elif node in open_nodes and not self._unsettled[node]:
                self._look_at(node)
        self._start_deferred()

    def check(self, activation: ScheduledActivation, result: NodeResult) -> None:
        check_declared(self.topology, activation.node, result)

    def finish(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        node, nodes = activation.node, self.topology.follow
        self.ran.add(node)
        ancestors, depth = activation.ancestors | bit, activation.depth + 1
        for target in (*result.targets, *map(itemgetter(1), result.joins)):
            if target in nodes:
                known, deepest = self._delivered.get(target, (0, 0))
                self._delivered[target] = (known | ancestors, max(deepest, depth))
                self._led_by.setdefault(target, []).append(node)
        if result.sends:
            self._send(activation, result.sends, ancestors)
        self._at_work[node] -= 1
        if not self._at_work[node]:
            self._look_at(node)
        if self._deferred:
            self._start_deferred()

    def _send(self, sender: ScheduledActivation, sends: Sequence[Send], ancestors: int) -> None:
        activations, first = numbered_sends(
            sender,
            sends,
            ancestors,
            nodes=self.topology.follow,
            numbers=self.numbers,
            recorded=self._recorded_sends.get(sender.key, {}),
        )
        for activation in activations:
            self._begin(activation)
        # Of several senders the order of ending says whose Sends are numbered first.
        if several := {node: n for node, n in first.items() if len(self.topology.edge_sources[node]) > 1}:
            self.choices.append({"sends": sender.key, "to": several})

    def remember(self, choices: Iterable[Any]) -> None:
        self._recorded_sends = {choice["sends"]: choice["to"] for choice in choices if "sends" in choice}

    def end_replay(self) -> bool:
        self.choices.clear()
        return False

    def _begin(self, activation: ScheduledActivation) -> None:
        self._at_work[activation.node] = self._at_work.get(activation.node, 0) + 1
        self.ready.append(activation)

    def _look_at(self, node: str) -> None:
        """A source of the node has settled, or an activation of its own has finished."""
        if node in self.settled or self._unsettled[node]:
            return
        if node in self._delivered and node not in self.started:
            if node not in self.topology.deferred:
                self._start(node)
            elif node not in self._deferred:
                self._deferred.append(node)
        elif not self._at_work.get(node) and node not in self._deferred:
            self._settle(node)

    def _start(self, node: str) -> None:
        ancestors, depth = self._delivered[node]
        if not (number := self._resumed.pop(node, 0)):
            self.numbers[node] = number = self.numbers.get(node, 0) + 1
        after = tuple(self._led_by.get(node, ()))
        self.started.add(node)
        self._begin(ScheduledActivation(node, ancestors, depth, order=(0, node), number=number, after=after))

    def _settle(self, node: str) -> None:
        self.settled.add(node)
        for follower in self.topology.follow[node]:
            if follower not in self.settled:
                self._unsettled[follower] -= 1
                self._look_at(follower)

    def _start_deferred(self) -> None:
        """Deferred nodes come after all else: they see everything that has run, and fold after it."""
        while self._deferred and not self.ready and not any(self._at_work.values()):
            nodes, self._deferred = self._deferred, []
            for node in nodes:
                _, depth = self._delivered[node]
                self._delivered[node] = (self.log.all, max(depth, len(self.log.levels)))
                self._start(node)

    def waiting(self) -> Mapping[str, Delivered]:
        return {n: d for n, d in self._delivered.items() if n not in self.started and n not in self.settled}

    def times(self, node: str) -> int:
        return max(len(self.log.of(node)), int(node in self.ran))

    def skip_reason(self, node: str) -> str | None:
        if node not in self.settled or node in self.ran:
            return None
        return skip_reason(self.topology, self.ran, node)

    def closed_targets(self) -> Mapping[str, str]:
        left = (targets for source, targets in self.topology.choices.items() if source in self._unsettled_nodes())
        return {
            node: f"{node!r} has ended"
            if node in self.ran
            else f"{node!r} was skipped ({skip_reason(self.topology, self.ran, node)})"
            for node in self.settled.difference(*left)
        }

    def _unsettled_nodes(self) -> set[str]:
        return {*self.topology.nodes} - self.settled

    def is_quiescent(self) -> bool:
        return not (self.ready or any(self._at_work.values()))

    def waits_for(self, node: str) -> str:
        left = [s for s in self.topology.sources[node] if s != self.topology.start and s not in self.settled]
        return f"waits for {' and '.join(left)}" if left and node not in self.ran else ""


def check_declared(topology: Topology, node: str, result: NodeResult) -> None:
    """Refuse what a node of a Dag leads to, unless it has declared it as a target.

    Raises:
        InvalidUpdateError: one of the targets is not declared.
    """
    allowed = topology.allowed[node]
    targets = [*result.targets, *[send.node for send in result.sends]] if result.sends else result.targets
    for target in targets:
        if target not in allowed:
            raise InvalidUpdateError(
                f"the node {node!r} leads to {target!r}, which is not among the targets that it declares: name them "
                "in path_map= (or Literal[...]) of a router, in destinations= (or Command[Literal[...]]) of a node"
            )


def skip_reason(topology: Topology, ran: Container[str], node: str) -> str:
    """Who decided that a node of a Dag is not to run.

    Args:
        topology: the shape of the graph.
        ran: the nodes that have run.
        node: a node that has not.
    """
    sources = topology.sources[node]
    came = [source for source in sources if source == topology.start or source in ran]
    for source in came:
        if node in topology.choices.get(source, ()):
            return f"the router or command of {source!r} led elsewhere"
    skipped = [source for source in sources if source not in came]
    return f"{skipped[0]!r} is skipped: {skip_reason(topology, ran, skipped[0])}" if skipped else "nothing started it"
