"""What a graph with loops remembers of its run, and what a pause keeps of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.types import Send

from agentmatrix.scheduling.group_rules import GroupRules
from agentmatrix.scheduling.log import ActivationLog, Rebase
from agentmatrix.scheduling.rules import Delivered, NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Delivery, Numbers, bits_of
from agentmatrix.scheduling.topology import Topology, join_key
from agentmatrix.triggers import Every

__all__ = ["SendBatch", "LoopState", "LastActivation", "sender_of"]


@dataclass(eq=False, slots=True)
class LastActivation:
    """What a node has done last: its next activation comes after it."""

    key: str
    ancestors: int
    depth: int


@dataclass(eq=False, slots=True)
class SendBatch:
    """The activations that one sender has started at one node: what they lead to is delivered together."""

    left: int = 0
    outcomes: list[tuple[Delivery, NodeResult]] = field(default_factory=list)


class LoopState(GroupRules):
    """The state of `LoopRules`: how often each node has run, what its next activation comes after, open batches."""

    def __init__(self, topology: Topology, log: ActivationLog) -> None:
        super().__init__(topology, log)
        self._indices: dict[str, int] = {}
        self._busy: dict[str, int] = {}
        # By node: its last activation that no Send has started, and its last batch.
        self._pasts: dict[str, LastActivation] = {}
        self._batch_pasts: dict[str, LastActivation] = {}
        self._batches: dict[tuple[str, str], SendBatch] = {}
        # Whether something has been at work since idle() fired last, other than what that has started; how often it
        # has fired.
        self._has_worked, self._idle_count = True, 0
        self._joins = {node: [(join_key(join, node), join) for join in joins] for node, joins in topology.joins.items()}
        # While choices are repeated: all pasts by key, Sends that come after one that is not known yet, and what was
        # cancelled before it started.
        self._known_pasts: dict[str, LastActivation] = {}
        self._unsent: list[tuple[ScheduledActivation, Sequence[Send], int]] = []
        self._lost: set[str] = set()
        self._dropped: set[tuple[str, str, str]] = set()

    def skip_reason(self, node: str) -> str | None:
        return None

    def closed_targets(self) -> Mapping[str, str]:
        open = [*self.topology.signals] if self.inputs.open else []
        if not self.inputs.ended:
            timers = self.topology.timers
            open += [t.name for t in timers if isinstance(t, Every) or t.name in self.inputs.pending]
        alive = {node for label in open for node in self.topology.listeners[label]}
        alive |= {activation.node for activation in self.at_work} | {*self.queues.left()}
        alive |= self.topology.descendants(alive)
        return {node: f"nothing starts {node!r} any more" for node in self.topology.nodes if node not in alive}

    # the log

    def waiting(self) -> Mapping[str, Delivered]:
        return {}

    def joined(self) -> Mapping[str, frozenset[str]]:
        arrived: dict[str, frozenset[str]] = {}
        for node, joins in self._joins.items():
            for key, sources in joins:
                if came := frozenset(s for s in sources if self.queues.length(node, f"{key}|{s}")):
                    arrived[key] = came
        return arrived

    def pinned(self) -> Iterator[Delivered]:
        for activation in self.at_work:
            yield activation.ancestors, activation.depth
        for delivery in self.queues.pinned():
            yield delivery.ancestors, delivery.depth
        for batch in self._batches.values():
            for delivery, _ in batch.outcomes:
                yield delivery.ancestors, delivery.depth

    def deliveries(self) -> Iterator[Delivery]:
        yield from super().deliveries()
        for batch in self._batches.values():
            yield from (delivery for delivery, _ in batch.outcomes)

    def rebase(self, rebase: Rebase) -> None:
        super().rebase(rebase)
        pasts = (*self._pasts.values(), *self._batch_pasts.values())
        for past in {id(past): past for past in pasts}.values():
            past.ancestors, past.depth = rebase.bits(past.ancestors), rebase.depth(past.depth)

    def pause(self, numbers: Numbers, untracked: frozenset[str]) -> Any:
        def pasts(found: Mapping[str, LastActivation]) -> dict[str, Any]:
            return {node: [past.key, numbers(past.ancestors), past.depth] for node, past in found.items()}

        return {
            "failed": sorted(self.failed),
            "indices": dict(self._indices),
            "times": dict(self._times),
            "groups": dict(self._groups_of),
            "pasts": pasts(self._pasts),
            "batch_pasts": pasts(self._batch_pasts),
            "batches": [
                [sender, node, batch.left, [_plain_outcome(*outcome, numbers, untracked) for outcome in batch.outcomes]]
                for (sender, node), batch in self._batches.items()
            ],
            "inputs": self.inputs.plain(),
            "queues": self.queues.plain(numbers, untracked),
            "idle": [self._has_worked, self._idle_count],
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self._has_worked, self._idle_count = saved.get("idle", (True, 0))
        self._indices = dict(saved["indices"])
        self._times, self._groups_of = dict(saved["times"]), dict(saved["groups"])
        for pasts, kept in ((self._pasts, saved["pasts"]), (self._batch_pasts, saved["batch_pasts"])):
            pasts.update(
                {node: LastActivation(key, bits_of(known), depth) for node, (key, known, depth) in kept.items()}
            )
        for sender, node, left, outcomes in saved["batches"]:
            self._batches[sender, node] = SendBatch(left, list(map(_outcome_of, outcomes)))
        self.inputs.restore(saved["inputs"])
        self.queues.restore(saved["queues"])


def sender_of(activation: ScheduledActivation) -> str:
    """The key of the activation that has sent this one; "" where an earlier step has."""
    return activation.name.rpartition(".")[0]


def _plain_outcome(delivery: Delivery, result: NodeResult, numbers: Numbers, untracked: frozenset[str]) -> list[Any]:
    joins = [list(join) for join in result.joins]
    return [delivery.plain(numbers, untracked), list(result.targets), joins, result.delivers]


def _outcome_of(plain: list[Any]) -> tuple[Delivery, NodeResult]:
    delivery, targets, joins, delivers = plain
    known = NodeResult(targets=targets, joins=[(key, node) for key, node in joins], delivers=delivers)
    return Delivery.of(delivery), known
