"""What every set of rules offers to the scheduler: which node may start, and why another one may not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langgraph.types import Send

from agentmatrix.scheduling.actors import Staff
from agentmatrix.scheduling.external_inputs import ExternalInputs
from agentmatrix.scheduling.log import ActivationLog, Rebase
from agentmatrix.scheduling.mailboxes import Mailboxes
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write
from agentmatrix.scheduling.source_queues import Numbers
from agentmatrix.scheduling.topology import Topology

__all__ = ["ChoiceFreeRules", "Delivered", "NodeResult", "Opening", "Rules"]

Delivered = tuple[int, int]
"""What a node that waits has been led to by: the entries that it will see, and the depth that it will have."""


@dataclass(slots=True)
class NodeResult:
    """What an activation has done.

    Attributes:
        writes: its writes to the state.
        targets: the nodes that its edges, routers and commands lead to.
        sends: its Sends.
        joins: the keys of joins (edges from several nodes) that it has arrived at, with the node behind each.
        delivers: whether it counts as a source of trigger groups; not so where an error handler has answered for it.
        ends: whether a router or command of it has led to END.
        dismisses: the paths of the actors that it has dismissed.
    """

    writes: Sequence[Write] = ()
    targets: Sequence[str] = ()
    sends: Sequence[Send] = ()
    joins: Sequence[tuple[str, str]] = ()
    delivers: bool = True
    ends: bool = False
    dismisses: Sequence[str] = ()


@dataclass(slots=True)
class Opening:
    """Where a step begins: what LangGraph's channels say is ready, and what a pause has kept.

    Attributes:
        ready: by node, the activation that a trigger of LangGraph's starts.
        sends: the activations of undelivered Sends.
        waiting: by node, what has led to it while its other sources have not settled.
        done: the nodes that have run in this run before.
        called: the ready nodes that a command from outside calls for: they start at once.
        begins: whether a run begins here, with START as the only node that has run.
        joined: by key of a join that is not complete, the nodes that have arrived at it.
        resumed: the activations, without those of Sends, that were unfinished at a pause and are to run; a node may
            have several.
        updated: activations that were unfinished at a pause, with what somebody has written in their name since; what
            comes after them sees it in any case.
        saved: what the rules have kept at a pause, or None.
        numbers: by node, the number of its last activation.
    """

    ready: Mapping[str, ScheduledActivation]
    sends: Sequence[ScheduledActivation]
    waiting: Mapping[str, Delivered] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    begins: bool = False
    joined: Mapping[str, frozenset[str]] = field(default_factory=dict)
    resumed: Sequence[ScheduledActivation] = ()
    updated: Sequence[tuple[ScheduledActivation, NodeResult]] = ()
    saved: Mapping[str, Any] | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)


class Rules(Protocol):
    """Decides which nodes start.

    Attributes:
        ready: the activations that may start and have not been taken yet.
        cancelled: the activations that were given up since the last look.
        choices: what was decided since the last look that might have been decided otherwise at another time, as plain
            values.
        inputs: what may come from outside.
        numbers: by node, the number of its last activation.
    """

    ready: list[ScheduledActivation]
    cancelled: list[ScheduledActivation]
    choices: list[Any]
    inputs: ExternalInputs
    numbers: dict[str, int]

    @property
    def staff(self) -> Staff | None:
        """The actors that there are; None in a graph without actors."""

    @property
    def mailboxes(self) -> Mailboxes | None:
        """What they have not read; None likewise."""

    def open(self, opening: Opening) -> None:
        """Begin where a checkpoint is. Called once."""

    def finish(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        """An activation has been recorded as the entry `bit`; its followers may become ready."""

    def check(self, activation: ScheduledActivation, result: NodeResult) -> None:
        """Whether the activation may lead where it leads. Raises InvalidUpdateError, before anything is recorded."""

    def waiting(self) -> Mapping[str, Delivered]:
        """By node that has not started: what has led to it so far."""

    def joined(self) -> Mapping[str, frozenset[str]]:
        """By key of a join: the nodes that have arrived at it, where it is not complete."""

    # choices

    def remember(self, choices: Iterable[Any]) -> None:
        """Repeat these choices in place of making them anew. Called before `open`."""

    def end_replay(self) -> bool:
        """All that is recorded has been told, as far as it could be. Returns whether to look for more that is ready."""

    # events

    def hear(self, number: int) -> None:
        """So many events from outside have been recorded: what was chosen before the next one may be repeated."""

    def receive(self, label: str, id: str, value: Any, bit: int, depth: int) -> None:
        """A signal or a tick has been recorded as the entry `bit` of this depth."""

    def set_input_open(self, open: bool) -> None:
        """Whether signals may come from here on."""

    def awaits_external(self) -> bool:
        """Whether something from outside may still start a node."""

    def reads_external(self) -> bool:
        """Whether a signal may come that starts nothing by itself, and that a node to come is given."""

    def is_going(self) -> bool:
        """Whether something is at work that ticks alone have not started: ticks by themselves keep no run going."""

    def is_idle_due(self) -> bool:
        """Whether nothing is at work, and the sources that fire then have not done so since something was."""

    def fire_idle(self, id: str, bit: int, depth: int) -> None:
        """That nothing is at work has been recorded as the entry `bit` of this depth."""

    def unread(self, label: str) -> int:
        """How many signals or ticks of this name some node has not consumed."""

    def is_quiescent(self) -> bool:
        """Whether nothing is ready or at work."""

    # the log

    def pinned(self) -> Iterator[Delivered]:
        """What all activations to come build upon: the ancestors and depth of each that is at work, and of what waits
        to start one. No such pair: the log is kept as it is."""

    def rebase(self, rebase: Rebase) -> None:
        """The beginning of the log has been folded for good."""

    def pause(self, numbers: Numbers, untracked: frozenset[str]) -> Any:
        """What must be kept of the rules at a pause, as plain values, or None."""

    # explanations

    def times(self, node: str) -> int:
        """How often the node has run."""

    def skip_reason(self, node: str) -> str | None:
        """Why a node will not run any more; None where it has run or may."""

    def closed_targets(self) -> Mapping[str, str]:
        """The nodes and signals for which no signal is taken any more, and why."""

    def started_by(self, node: str) -> str:
        """The trigger group that has started the node last; "" where none has."""

    def failure(self, node: str) -> Exception | None:
        """What the node raises in place of running, if it does."""

    def waits_for(self, node: str) -> str:
        """What the node waits for; "" where that is nothing."""


class ChoiceFreeRules:
    """Rules that timing cannot change: nothing is chosen, nothing comes from outside.

    Args:
        topology: the shape of the graph.
        log: what has run.
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

    def joined(self) -> Mapping[str, frozenset[str]]:
        return {}

    def remember(self, choices: Iterable[Any]) -> None:
        """There are none."""

    def end_replay(self) -> bool:
        return False

    def hear(self, number: int) -> None:
        """Nothing was chosen."""

    def receive(self, label: str, id: str, value: Any, bit: int, depth: int) -> None:
        """Nobody has it as a source."""

    def set_input_open(self, open: bool) -> None:
        """Nobody waits for signals."""

    def awaits_external(self) -> bool:
        return False

    def reads_external(self) -> bool:
        return False

    def is_going(self) -> bool:
        return True

    def is_idle_due(self) -> bool:
        return False

    def fire_idle(self, id: str, bit: int, depth: int) -> None:
        """Nobody has it as a source."""

    def unread(self, label: str) -> int:
        return 0

    def pinned(self) -> Iterator[Delivered]:
        return iter(())

    def rebase(self, rebase: Rebase) -> None:
        """Nothing is pinned."""

    def pause(self, numbers: Numbers, untracked: frozenset[str]) -> Any:
        return None

    def started_by(self, node: str) -> str:
        return ""

    def failure(self, node: str) -> Exception | None:
        return next((a.error for a in self.ready if a.node == node and a.error is not None), None)
