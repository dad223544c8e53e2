"""What the rules of all graphs with trigger groups have in common: groups, choices, and what comes from outside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from agentmatrix.errors import TriggerError
from agentmatrix.scheduling.actors import Staff
from agentmatrix.scheduling.external_inputs import ExternalInputs
from agentmatrix.scheduling.log import ActivationLog, Rebase
from agentmatrix.scheduling.mailboxes import Mailboxes
from agentmatrix.scheduling.node_queue import NodeQueue
from agentmatrix.scheduling.rules import NodeResult
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Delivery, SourceQueues
from agentmatrix.scheduling.topology import Topology
from agentmatrix.triggers import After, Group, GroupState, Signal, Source, label_of

__all__ = ["GroupRules", "ReplayPhase"]


class ReplayPhase(Enum):
    """How far the rules may decide."""

    OPENING = "opening"
    """What follows from the opening alone. It follows from it again in a resumed run, so nothing is recorded. What
    comes from outside may still come."""
    REPEATING = "repeating"
    """A node with trigger groups starts only as it is recorded. What comes from outside may still come."""
    SETTLING = "settling"
    """The same, and all events are told: what has not come from outside will not, unless the input is open."""
    DECIDING = "deciding"
    """All else, and each choice is recorded."""


class GroupRules:
    """Starts nodes by trigger groups.

    Every change ends in `_wave`, which looks at each node in `_looks`, in canonical order, until nothing changes.

    Args:
        topology: the shape of the graph.
        log: what has run.

    Attributes:
        ready, cancelled, choices, inputs, numbers: as in `Rules`.
        queues: what signals and timers, and in loops nodes, have delivered and nobody has used.
        at_work: the activations that have started and not finished, in the order of starting.
        failed: by node, the activation that raises in its place.
        phase: how far the rules may decide.
    """

    staff: Staff | None = None
    mailboxes: Mailboxes | None = None

    def __init__(self, topology: Topology, log: ActivationLog) -> None:
        self.topology, self.log = topology, log
        self.ready: list[ScheduledActivation] = []
        self.cancelled: list[ScheduledActivation] = []
        self.choices: list[Any] = []
        self.inputs = ExternalInputs(topology)
        self.numbers: dict[str, int] = {}
        self.queues = SourceQueues(topology)
        self.at_work: dict[ScheduledActivation, None] = {}
        # By node, how many of these are its own.
        self._counts_at_work: dict[str, int] = {}
        self.failed: dict[str, ScheduledActivation] = {}
        self.phase = ReplayPhase.OPENING
        self._is_open = False
        self._is_quiet = False
        self._groups_of: dict[str, str] = {}
        self._times: dict[str, int] = {}
        self._places = self._order(topology)
        self._looks = NodeQueue(self._places)
        # What is to be repeated: by key of an activation its choice, by label and id the deliveries that it may name.
        self._recorded: dict[str, Mapping[str, Any]] = {}
        self._is_repeating = False
        self._heard = 0.0
        self._recorded_sends: dict[str, Mapping[str, Any]] = {}
        self._recorded_failures: list[Mapping[str, Any]] = []
        self._known: dict[tuple[str, str], Delivery] = {}

    def _order(self, topology: Topology) -> Mapping[str, int]:
        """By node, its place in the order in which nodes are looked at."""
        return {node: place for place, node in enumerate(topology.nodes)}

    def _wave(self) -> None:
        raise NotImplementedError

    # choices

    def remember(self, choices: Iterable[Any]) -> None:
        self._is_repeating = True
        for choice in choices:
            if "start" in choice:
                self._recorded[choice["start"]] = choice
            elif "fail" in choice:
                self._recorded_failures.append(choice)
            else:
                self._recorded_sends[choice["sends"]] = choice["to"]

    def _decide_opening(self, looks: Iterable[str]) -> None:
        """The opening is read: decide what follows from it alone, then go on to what is recorded, or to all else.

        Args:
            looks: the nodes of which the opening may decide something.
        """
        self._is_open = True
        self._looks.update(looks)
        self._wave()
        self.choices.clear()
        if self._is_repeating:
            self._repeat_all()
        else:
            # Only what waits for something from outside may find that it will not come.
            self._decide_all(self.topology.external_nodes)

    def _repeat_all(self) -> None:
        self.phase = ReplayPhase.REPEATING
        self._known = {(delivery.source, delivery.id): delivery for delivery in self.deliveries()}

    def _decide_all(self, looks: Iterable[str]) -> None:
        self.phase = ReplayPhase.DECIDING
        self.choices.clear()
        self._recorded.clear()
        self._recorded_sends.clear()
        self._known.clear()
        self._fail_again()
        self._looks.update(looks)
        self._wave()

    def _fail_again(self) -> None:
        """Nodes that waited in vain before a crash do so again, beside what started with them."""
        failures, self._recorded_failures = self._recorded_failures, []
        for choice in failures:
            node = choice["fail"]
            named = (group for group in self.topology.groups.get(node, ()) if group.name == choice["group"])
            if (group := next(named, None)) is not None and node not in self.failed:
                self._fail(node, group, choice["gone"])

    def end_replay(self) -> bool:
        if self.phase is ReplayPhase.REPEATING:
            self.phase = ReplayPhase.SETTLING
            self._heard = math.inf
            self._looks.update(self.topology.nodes)
            self._wave()
            return True
        if self.phase is ReplayPhase.SETTLING:
            self._decide_all(self.topology.nodes)
            return True
        return False

    def _is_due(self, choice: Mapping[str, Any]) -> bool:
        """Whether a recorded choice may be repeated: an update from outside that came before it is seen by what it
        starts."""
        return bool(choice["heard"] <= self._heard)

    @property
    def decides(self) -> bool:
        """Whether groups may start nodes without a record of it."""
        return self.phase in (ReplayPhase.OPENING, ReplayPhase.DECIDING)

    @property
    def is_outside_settled(self) -> bool:
        """Whether `inputs` says what may still come from outside."""
        return self.phase in (ReplayPhase.SETTLING, ReplayPhase.DECIDING)

    def _arrived(self, delivery: Delivery) -> Delivery:
        """A delivery is there, and is the newest of its source."""
        self.queues.arrives(delivery)
        self.queues.newest[delivery.source] = delivery
        if not self.decides:
            self._known[delivery.source, delivery.id] = delivery
        return delivery

    # where a group stands

    def complete(self, node: str) -> tuple[Group, dict[str, Delivery]] | None:
        """The first group of the node that is complete, with the next deliveries of its sources."""
        for group, state, have, _ in self.standings(node):
            if state is GroupState.COMPLETE:
                return group, have
        return None

    def standings(self, node: str) -> Iterator[tuple[Group, GroupState, dict[str, Delivery], set[str]]]:
        """The groups of the node in their order, each with where it stands and what `standing` says of it."""
        for group in self.topology.groups.get(node, ()):
            have, gone = self.standing(node, group)
            has_all = len(have) == len(group.labelled)
            yield group, GroupState.COMPLETE if has_all else group.state(have, gone), have, gone

    def standing(self, node: str, group: Group) -> tuple[dict[str, Delivery], set[str]]:
        """What the sources of a group have for the node: the next delivery of each; and the labels of those that have
        none and can deliver none any more."""
        have: dict[str, Delivery] = {}
        gone: set[str] = set()
        for source, label in group.labelled:
            if (delivery := self.next_delivery(node, source, latest=source in group.latest)) is not None:
                have[label] = delivery
            elif not self.may_come(source):
                gone.add(label)
        return have, gone

    def next_delivery(self, node: str, source: Source, *, latest: bool) -> Delivery | None:
        """What a source has for the node."""
        label = label_of(source)
        return self.queues.newest.get(label) if latest else self.queues.first(node, label)

    def may_come(self, source: Source) -> bool:
        """Whether a source that has delivered nothing may still deliver."""
        if isinstance(source, str):
            return self.node_may_come(source)
        if not self.is_outside_settled:
            return True
        if isinstance(source, Signal):
            return self.inputs.open
        return source.name in self.inputs.pending if isinstance(source, After) else not self._is_quiet

    def node_may_come(self, node: str) -> bool:
        """Whether a node of the graph may still deliver."""
        raise NotImplementedError

    def _fail(self, node: str, group: Group, gone: Iterable[str]) -> None:
        """The node waits in vain."""
        lost = {*gone}
        skipped = tuple(label for label in group.labels if label in lost)
        why = "; ".join(f"{label!r}: {self.blame(label)}" for label in skipped)
        names = " and ".join(map(repr, skipped))
        error = TriggerError(
            f"the node {node!r} waits for {group.name}, and {names} can no longer come ({why}): let the group do "
            f'without, skipped="ok", or give the node another group',
            node,
            group.name,
            skipped,
        )
        number = self.numbers.get(node, 0) + 1
        key = self._next_key(node)
        name = "" if key == node else key
        known, depth = self.log.all, len(self.log.levels)
        failed = ScheduledActivation(node, known, depth, name, order=(0, node), number=number)
        failed.group = group.name
        failed.error = error
        self.failed[node] = failed
        self.ready.append(failed)
        self.choices.append({"fail": node, "group": group.name, "gone": sorted(lost)})

    def _next_key(self, node: str) -> str:
        """The key of the next activation of the node, other than by a `Send`."""
        return node

    def blame(self, label: str) -> str:
        """Why a source has not delivered."""
        if label in self.topology.signals:
            live = "signals come only in a live run, graph.live(...), until its input is closed"
            return "the run has ended" if self.inputs.ended else live
        if label not in self.topology.nodes:
            return "the timer does not fire any more"
        return self.blame_node(label)

    def blame_node(self, node: str) -> str:
        """Why a node has not delivered."""
        raise NotImplementedError

    # events

    def hear(self, number: int) -> None:
        self._heard = max(self._heard, number)
        if self._is_open and self.phase is ReplayPhase.REPEATING:
            self._looks.update(self.topology.nodes)
            self._wave()

    def receive(self, label: str, id: str, value: Any, bit: int, depth: int) -> None:
        keeps_one = self.inputs.repeats(label)
        delivery = self._arrived(Delivery(id, label, self.log.all, depth + 1, value, False, is_ticked=keeps_one))
        for node in self.topology.listeners.get(label, ()):
            if self.queues.consumes(node, label) and not (keeps_one and self.queues.length(node, label)):
                self.queues.put(node, label, delivery)
            self._looks.add(node)
        self._wave()

    def set_input_open(self, open: bool) -> None:
        self.inputs.open = open and not self.inputs.ended
        if self._is_open:
            self._looks.update(self.topology.nodes)
            self._wave()

    def unread(self, label: str) -> int:
        return max((self.queues.length(node, label) for node in self.topology.listeners.get(label, ())), default=0)

    def is_going(self) -> bool:
        return True

    def is_idle_due(self) -> bool:
        return False

    def fire_idle(self, id: str, bit: int, depth: int) -> None:
        """Nobody has it as a source."""

    def is_quiescent(self) -> bool:
        return not (self.ready or self.at_work or self.failed)

    # activations

    def _begin(self, activation: ScheduledActivation) -> None:
        self._add_at_work(activation)
        self.ready.append(activation)
        self._is_quiet = False

    def _add_at_work(self, activation: ScheduledActivation) -> None:
        self.at_work[activation] = None
        self._counts_at_work[activation.node] = self._counts_at_work.get(activation.node, 0) + 1

    def _remove_at_work(self, activation: ScheduledActivation) -> None:
        del self.at_work[activation]
        self._counts_at_work[activation.node] -= 1

    def _cancel(self, losers: Iterable[ScheduledActivation]) -> None:
        for loser in losers:
            self._remove_at_work(loser)
            if loser in self.ready:
                self.ready.remove(loser)
            else:
                self.cancelled.append(loser)

    def _delivery_of(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> Delivery:
        """Count an activation that has ended; its node is looked at again. Returns what it delivers."""
        node = activation.node
        self._times[node] = self._times.get(node, 0) + 1
        self._looks.add(node)
        return Delivery(
            activation.key,
            node,
            activation.ancestors | bit,
            activation.depth + 1,
            dict(result.writes),
            order=activation.order,
            is_sent=activation.send is not None,
            rounds=activation.rounds,
            is_ticked=activation.is_ticked,
        )

    def _numbered(self, node: str, recorded: int = 0, count: int = 1) -> int:
        """Which of the node's activations the next one is, of several that Sends start the first."""
        number = recorded or self.numbers.get(node, 0) + 1
        self.numbers[node] = max(self.numbers.get(node, 0), number + count - 1)
        return number

    # the log

    def deliveries(self) -> Iterator[Delivery]:
        """All that are kept, some more than once."""
        yield from self.queues.deliveries()
        yield from self._known.values()

    def rebase(self, rebase: Rebase) -> None:
        for delivery in {id(delivery): delivery for delivery in self.deliveries()}.values():
            delivery.rebase(rebase)
        for activation in {**self.at_work, **dict.fromkeys(self.failed.values())}:
            activation.ancestors = rebase.bits(activation.ancestors)
            activation.depth = rebase.depth(activation.depth)

    # explanations

    def times(self, node: str) -> int:
        return self._times.get(node, 0)

    def started_by(self, node: str) -> str:
        return self._groups_of.get(node, "")

    def failure(self, node: str) -> Exception | None:
        failed = [*self.failed.values(), *self.at_work]
        return next((a.error for a in failed if a.node == node and a.error is not None), None)

    def _groups_wait(self, node: str) -> list[str]:
        """Of each group of the node, what it waits for."""
        texts = (self._group_waits(node, group) for group in self.topology.groups.get(node, ()))
        return [text for text in texts if text]

    def _group_waits(self, node: str, group: Group) -> str:
        have, gone = self.standing(node, group)
        came = " and ".join(label for label in group.labels if label in have)
        text = f"{group.name} has {came} and waits for" if came else f"{group.name} waits for"
        if group.state(have, gone) is GroupState.WAITING:
            return f"{text} {' and '.join(label for label in group.missing(have) if label not in gone)}"
        lost = [label for label in group.labels if label in gone]
        return f"{group.name} cannot fire, without {' and '.join(lost)}: {self.blame(lost[0])}" if lost else ""
