"""The event log of a chat group's run, and what speakers and stops read from it. No engine.

The log is a channel of the group's state, `EVENT_LOG`, beside `messages`. It is all that a group remembers between two
turns, so that a run which was saved and resumed decides as one that was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypedDict

from langchain_core.messages import BaseMessage

__all__ = [
    "EVENT_LOG",
    "Conversation",
    "Event",
    "append_events",
    "interrupted_members",
    "saved_results",
    "speakers_of",
]

EVENT_LOG: Final = "conversation"
"""The key of the group's state that holds the events."""


class Event(TypedDict, total=False):
    """One event of a group: a new run, a choice of speakers, a finished turn, an interrupt, or the end.

    Plain values, so that every checkpointer can save them.

    Attributes:
        new_run: marks the first event of a run.
        speakers: the members chosen for the next turn; empty in free conversation, where members are not chosen.
        by: the member that has taken a turn.
        message_ids: the ids of the messages of that turn; empty if the member kept silent.
        seen_message: the id of the last message in the transcript when the turn began; None if there was none.
        seen_events: the number of events in the log when the turn began.
        goto: the members that the turn hands over to.
        results: by member, finished results of a turn that members take at once, saved because another one of them
            was interrupted or failed.
        interrupts: by member, the interrupts that wait for a person: the checkpoint namespace `ns`, and the `values`.
        stop_reason: the reason why the conversation ends.
        tokens: the tokens used; with `calls` of models and `seconds` of work, counted where a stop needs them.
    """

    new_run: bool
    speakers: list[str]
    by: str
    message_ids: list[str]
    seen_message: str | None
    seen_events: int
    goto: list[str]
    results: dict[str, Any]
    interrupts: dict[str, Any]
    stop_reason: str
    tokens: int
    calls: int
    seconds: float


def append_events(events: list[Event], new: list[Event]) -> list[Event]:
    """The reducer of the event log. A new run starts a new log."""
    starts = [index for index, event in enumerate(new) if event.get("new_run")]
    return new[starts[-1] :] if starts else [*events, *new]


@dataclass(frozen=True)
class Conversation:
    """A conversation between two turns: the argument of speakers and stops.

    Attributes:
        members: the names of the members, in order.
        state: the state of the group, as its schema has it.
        messages: the transcript, with the messages from before this run.
        events: the event log of this run.
    """

    members: tuple[str, ...]
    state: Any
    messages: Sequence[BaseMessage]
    events: Sequence[Event]

    @property
    def turns(self) -> int:
        """The number of turns in this run. Members that speak at once share one; in free conversation it is the number
        of turns of the member that has had most."""
        rounds = sum(bool(event.get("speakers")) for event in self.events)
        return rounds or max(Counter(event["by"] for event in self.events if "by" in event).values(), default=0)

    @property
    def last_speaker(self) -> str | None:
        """The member that has said something last in this run."""
        return next((event["by"] for event in reversed(self.events) if event.get("message_ids")), None)

    @property
    def last_turn_by(self) -> str | None:
        """The member that has taken the last turn in this run, silent or not."""
        return next((event["by"] for event in reversed(self.events) if "by" in event), None)

    @property
    def handoff(self) -> list[str]:
        """The members that the last turn hands over to."""
        return list(dict.fromkeys(name for event in self._last_turn for name in event.get("goto", ())))

    @property
    def pending_handoffs(self) -> set[str]:
        """The members that were handed over to and have begun no turn since; for free conversation."""
        began = {event["by"]: event.get("seen_events", 0) for event in self.events if "by" in event}
        handoffs = ((index, name) for index, event in enumerate(self.events) for name in event.get("goto", ()))
        return {name for index, name in handoffs if index >= began.get(name, 0)}

    @property
    def said(self) -> list[BaseMessage]:
        """The messages of the members in this run, in order."""
        return self._messages_of(self.events)

    @property
    def last_said(self) -> list[BaseMessage]:
        """The messages of the last turn."""
        return self._messages_of(self._last_turn)

    @property
    def interrupted(self) -> dict[str, Any]:
        """The interrupts that wait for a person's answer, by member."""
        return interrupted_members(self.events)

    @property
    def seconds(self) -> float:
        """The seconds that members and selectors have worked. Waiting for a person does not count, and of turns at once
        the longest counts."""
        total, turn = 0.0, 0.0
        for event in self.events:
            if "by" in event:
                turn = max(turn, event.get("seconds", 0.0))
            else:
                total, turn = total + turn + event.get("seconds", 0.0), 0.0
        return total + turn

    @cached_property
    def _last_turn(self) -> list[Event]:
        turn: list[Event] = []
        for event in reversed(self.events):
            if "speakers" in event:
                break
            turn.append(event)
        return turn[::-1]

    def _messages_of(self, events: Iterable[Event]) -> list[BaseMessage]:
        ids = {message_id for event in events for message_id in event.get("message_ids", ())}
        return [message for message in self.messages if message.id in ids] if ids else []


def interrupted_members(events: Iterable[Event]) -> dict[str, Any]:
    """The interrupts of a log that wait for a person's answer, by member: a later turn of the member answers them."""
    interrupts: dict[str, Any] = {}
    for event in events:
        for member, asked in event.get("interrupts", {}).items():
            # A graph that asks once more goes on from where it ran at first.
            interrupts[member] = {**asked, "ns": interrupts.get(member, asked)["ns"]}
        interrupts.pop(event.get("by", ""), None)
    return interrupts


def saved_results(events: Sequence[Event]) -> dict[str, Any]:
    """By member, the saved results of the last turn, if that has not ended."""
    last = next((event for event in reversed(events) if "speakers" in event or "results" in event), Event())
    return last.get("results", {})


def speakers_of(events: Sequence[Event]) -> list[str]:
    """The members chosen for the last turn; none in free conversation."""
    return next((event["speakers"] for event in reversed(events) if event.get("speakers")), [])
