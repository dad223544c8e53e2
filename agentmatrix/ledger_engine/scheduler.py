"""What may run in a superstep that stays open, as the loop asks for it. Beside `agentmatrix.ledger_engine.loop`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langgraph.channels.base import BaseChannel
from langgraph.types import Send

__all__ = ["Agenda", "AgendaChannel", "Turn", "Write", "agenda_channel"]

Write = tuple[str, Any]


@dataclass(frozen=True)
class Turn:
    """One activation of a node, as the loop starts it.

    Attributes:
        node: the node.
        name: what tells it from every other activation of the step, whatever the timing.
        packet: the `Send` that starts it, and its number among those of its sender; None where an edge does.
        depth: how many activations of this step come before it, one after the other.
        after: the nodes of this step that led to it.
    """

    node: str
    name: str
    packet: tuple[int, Send] | None = None
    depth: int = 0
    after: tuple[str, ...] = ()


class Agenda(Protocol):
    """What may run in an open step, and what has. It knows no engine."""

    def turns(self) -> Sequence[Turn]:
        """The activations that may run and were not told of before."""

    def reading(self, turn: Turn) -> Any:
        """What the task of this turn reads where others read the channel of the agenda."""

    def given(self, turn: Turn) -> Any:
        """What a trigger group gave to the turn, beside the state that it sees; None where none did."""

    def release(self) -> bool:
        """Let the next update from outside count, which came after some turns had finished; whether there was one."""

    def knew(self, writes: Iterable[Write]) -> bool:
        """Whether the turn that wrote this started before the updates from outside that do not count yet."""

    def accepted(self, turn: Turn, writes: Iterable[Write]) -> Sequence[Write]:
        """The writes of this turn as they are to be kept. Raises InvalidUpdateError for what cannot be."""

    def finish(self, turn: Turn, writes: Iterable[Write]) -> None:
        """This turn has finished with these writes."""

    @property
    def signals(self) -> frozenset[str]:
        """The names of the signals that may start turns."""

    @property
    def timers(self) -> Mapping[str, tuple[float, bool]]:
        """By label, the timers that may start turns: the seconds, and whether they fire again and again."""

    @property
    def open(self) -> bool:
        """Whether signals may come."""

    def unread(self, name: str) -> int:
        """How many signals of this name have come that nothing has consumed."""

    def knows(self, id: str) -> bool:
        """Whether a signal of this id has come."""

    def is_idle(self) -> bool:
        """Whether no turn is at work or may start."""

    def expects(self) -> bool:
        """Whether a signal, or a timer that fires once, may still start a turn."""

    def is_going(self) -> bool:
        """Whether something is at work that ticks alone have not started. Ticks by themselves keep no run going."""

    def reads(self) -> bool:
        """Whether a signal may come that starts nothing by itself, and that a turn to come is given."""

    @property
    def ordered(self) -> bool:
        """Whether it matters in which order turns finish and events come."""

    def arrival(self, writes: Iterable[Write]) -> int:
        """The place in that order at which this was written; 0 for anywhere."""

    def counted(self, arrival: int) -> None:
        """What comes from here on has a later place."""

    def happened(self, event: Mapping[str, Any]) -> Sequence[Write]:
        """What an event from outside is kept as."""

    def heed(self, writes: Iterable[Write]) -> None:
        """Let an event from outside count that was kept as this."""

    def watch(self, tell: Callable[[Mapping[str, str]], None]) -> None:
        """Tell, now and whenever it changes, which nodes will not run any more and which signals nothing waits for, by
        name, and why."""

    def take_dropped(self) -> Sequence[Turn]:
        """The turns that have been cancelled since the last look."""


class AgendaChannel(BaseChannel[Any, Any, Any]):
    """The channel that an agenda is made from, and that takes it over at the end of the step.

    Attributes:
        ahead: the agenda of the open step, or None.
    """

    __slots__ = ("ahead",)

    ahead: Any

    def agenda(self) -> Agenda:
        """An agenda that begins where this channel is."""
        raise NotImplementedError

    def listens(self) -> bool:
        """Whether something from outside may start turns where none is ready."""
        raise NotImplementedError

    def opens(self) -> bool:
        """Whether a step may stay open now: not while the input of a run is still to be taken in."""
        raise NotImplementedError


def agenda_channel(channels: Mapping[str, Any]) -> AgendaChannel:
    """The channel of the agenda among the channels of a graph."""
    return next(channel for channel in channels.values() if isinstance(channel, AgendaChannel))
