"""The messages that actors have not read yet: one queue for each, in order of arrival."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.types import Send

from agentmatrix.scheduling.actors import address_of, split_path
from agentmatrix.scheduling.log import Rebase
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Numbers, bits_of

__all__ = ["Mailboxes", "ActorMessage"]


@dataclass(eq=False, slots=True)
class ActorMessage:
    """A message for an actor.

    Attributes:
        path: the actor: `"staff/ann"`.
        value: what was sent.
        sender: the path of whoever has sent it; "" for the run's input.
        number: which message of the run it is, from 1, of those for actors.
        previous: the number of the one before it for the same actor; 0 for none.
        ancestors: the entries of the log that the sender has seen, as a bit set.
        depth: the least depth of the actor's activation.
        rounds: by node, how often it has run in the chain of activations that led here.
        is_ticked: see `ScheduledActivation`.
        hired_by: the path of whoever has sent the actor its first message; set when it reads this one.
    """

    path: str
    value: Any
    sender: str
    number: int = 0
    previous: int = 0
    ancestors: int = 0
    depth: int = 0
    rounds: Mapping[str, int] = field(default_factory=dict)
    is_ticked: bool = False
    hired_by: str = ""

    @property
    def address(self) -> str:
        """What LangGraph calls the actor."""
        return address_of(self.path)

    def activation(self, address: str) -> ScheduledActivation:
        """The actor's activation that reads it."""
        name, _ = split_path(self.path)
        activation = ScheduledActivation(
            address,
            self.ancestors,
            self.depth,
            f"{address}#{self.number}",
            order=(0, address, self.number),
            send=Send(address, self.value),
            rounds={**self.rounds, name: self.rounds.get(name, 0) + 1},
            after=(split_path(self.sender)[0],) if self.sender else (),
            is_ticked=self.is_ticked,
        )
        activation.message = self
        return activation

    def rebase(self, rebase: Rebase) -> None:
        """The beginning of the log has been folded for good."""
        self.ancestors, self.depth = rebase.bits(self.ancestors), rebase.depth(self.depth)

    def plain(self, numbers: Numbers) -> list[Any]:
        """As plain values."""
        known, rounds = numbers(self.ancestors), dict(self.rounds)
        return [self.path, self.value, self.sender, self.number, known, self.depth, rounds, self.is_ticked]

    @classmethod
    def of(cls, plain: list[Any]) -> ActorMessage:
        """Out of plain values."""
        path, value, sender, number, known, *rest = plain
        return cls(path, value, sender, number, 0, bits_of(known), *rest)


class Mailboxes:
    """One queue for each actor that has unread messages, in the order of their numbers.

    Attributes:
        reading: by address, the activation of the actor that is at work.
    """

    def __init__(self) -> None:
        self._unread: dict[str, deque[ActorMessage]] = {}
        self.reading: dict[str, ScheduledActivation] = {}
        self._sent = 0
        # By actor, the numbers of the last message that has come and of the last that was read.
        self._last: dict[str, int] = {}
        self._read: dict[str, int] = {}

    def __iter__(self) -> Iterator[ActorMessage]:
        return (message for unread in self._unread.values() for message in unread)

    def __bool__(self) -> bool:
        return bool(self._unread)

    def addresses(self) -> list[str]:
        """The actors that have unread messages."""
        return list(self._unread)

    def unread(self, address: str) -> list[ActorMessage]:
        """What an actor has not read, in order."""
        return list(self._unread.get(address, ()))

    def put(self, message: ActorMessage, recorded: Sequence[int] | None = None) -> list[int]:
        """A message has come.

        Args:
            message: the message.
            recorded: what this has returned for it, where that is to be repeated.

        Returns:
            Its number, and that of the one before it for the same actor.
        """
        address = message.address
        given = recorded or (self._sent + 1, self._last.get(address, 0))
        message.number, message.previous = given
        self._sent = max(self._sent, message.number)
        self._last[address] = max(self._last.get(address, 0), message.number)
        unread = self._unread.setdefault(address, deque())
        unread.append(message)
        if len(unread) > 1 and unread[-2].number > message.number:
            self._unread[address] = deque(sorted(unread, key=lambda other: other.number))
        return [message.number, message.previous]

    def take(self, address: str, *, gaps: bool) -> ActorMessage | None:
        """What an actor reads next; None where that has not come yet.

        Args:
            address: the actor's.
            gaps: whether one before it cannot come any more.
        """
        unread = self._unread.get(address)
        if not unread or (not gaps and unread[0].previous != self._read.get(address, 0)):
            return None
        message = unread.popleft()
        self._read[address] = message.number
        if not unread:
            del self._unread[address]
        return message

    def drop(self, address: str) -> None:
        """The actor reads no more."""
        self._unread.pop(address, None)

    def rebase(self, rebase: Rebase) -> None:
        """The beginning of the log has been folded for good."""
        for message in self:
            message.rebase(rebase)

    def plain(self, at_work: Iterable[ActorMessage], numbers: Numbers) -> dict[str, Any]:
        """As plain values.

        Args:
            at_work: the messages that are being read: they are read again.
            numbers: see `Numbers`.
        """
        return {"unread": [message.plain(numbers) for message in (*at_work, *self)], "sent": self._sent}

    def forget(self) -> None:
        """A checkpoint has all this: what it says goes for this process too."""
        self._last, self._read = {}, {}
        for message in self:
            message.previous = self._last.get(message.address, 0)
            self._last[message.address] = message.number

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Out of plain values."""
        for found in plain["unread"]:
            message = ActorMessage.of(found)
            self.put(message, (message.number, self._last.get(message.address, 0)))
        self._sent = plain["sent"]
