"""The event log of a chat group's run, and what speakers and stops read from it. No engine.

The log is a channel of the group's state, `EVENT_LOG`, beside `messages`. It is all that a group remembers between two
turns, so that a run which was saved and resumed decides as one that was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, TypedDict

from langchain_core.messages import BaseMessage

from agentmatrix.middleware import BlockedMessage

__all__ = [
    "EVENT_LOG",
    "Conversation",
    "Event",
    "LogReader",
    "LogSummary",
    "append_events",
    "handoff_to",
    "interrupted_members",
    "last_seen",
    "last_summary",
    "saved_results",
    "speakers_of",
    "unknown_handoffs",
]

EVENT_LOG: Final = "conversation"
"""The key of the group's state that holds the events."""


class Event(TypedDict, total=False):
    """One event of a group: a new run, a choice of speakers, a finished turn, an interrupt, or the end.

    Plain values, so that every checkpointer can save them.

    Attributes:
        new_run: marks the first event of a run.
        speakers: the members chosen for the next turn; empty in free conversation, where members are not chosen.
        turn: the number of that turn in the run.
        fallback: why the speaker could not choose by itself, and who has.
        by: the member that has taken a turn.
        message_ids: the ids of the messages of that turn; empty if the member kept silent.
        seen_message: the id of the last message in the transcript when the turn began; None if there was none.
        seen_events: the number of events in the log when the turn began.
        goto: the members that the turn hands over to.
        results: by member, finished results of a turn that members take at once, saved because another one of them
            was interrupted or failed.
        interrupts: by member, the interrupts that wait for a person: the checkpoint namespace `ns`, the `values`, and
            the time `at` which they were asked.
        unknown: names that the turn hands over to and that nobody has; the member is told so, and asked again.
        ignored: names that the same answer hands over to after the first one; the member is told so in its next turn.
        given: by member that the turn hands over to, the ids of the messages that it is given of those so far.
        summaries: by member, or under "" for all of them, the summary of the transcript that the turn began with.
        error: how the turn has failed, where the conversation goes on without it.
        floor: in the event of a new run, the member that took the last turn of the run before, and whom it handed over
            to: `{"by": "ann", "goto": []}`.
        heard: the ids of messages that somebody outside has said into the run.
        blocked: what the group's middleware has blocked of a turn, or of words from outside.
        seen: in the event of a new run, by member, the `seen_message` of its last turn.
        stop_reason: the reason why the conversation ends, unless somebody outside says something before it does.
        tokens: the tokens used; with `calls` of models and `seconds` of work, counted where a stop needs them.
    """

    new_run: bool
    speakers: list[str]
    turn: int
    fallback: str
    by: str
    message_ids: list[str]
    seen_message: str | None
    seen_events: int
    goto: list[str]
    results: dict[str, Any]
    interrupts: dict[str, Any]
    unknown: list[str]
    ignored: list[str]
    given: dict[str, list[str]]
    summaries: dict[str, Any]
    error: str
    floor: dict[str, Any]
    heard: list[str]
    blocked: list[BlockedMessage]
    seen: dict[str, str | None]
    stop_reason: str
    tokens: int
    calls: int
    seconds: float


def append_events(events: list[Event], new: list[Event]) -> list[Event]:
    """The reducer of the event log. A new run starts a new log, which knows who had the floor, and the summaries."""
    starts = [index for index, event in enumerate(new) if event.get("new_run")]
    if not starts:
        return [*events, *new]
    before = [*events, *new[: starts[-1]]]
    return [{**new[starts[-1]], **_kept_of(before)}, *new[starts[-1] + 1 :]]


def _kept_of(events: Sequence[Event]) -> Event:
    """What the log of a new run knows of the run before."""
    kept = Event()
    last = next((event for event in reversed(events) if "by" in event or "floor" in event), Event())
    if "by" in last:
        kept["floor"] = {"by": last["by"], "goto": last.get("goto", [])}
    elif "floor" in last:
        kept["floor"] = last["floor"]
    seen = {name: id for event in events for name, id in event.get("seen", {}).items()}
    seen |= {event["by"]: event["seen_message"] for event in events if "by" in event}
    if seen:
        kept["seen"] = seen
    summaries = {key: value for event in events for key, value in event.get("summaries", {}).items()}
    if summaries:
        kept["summaries"] = summaries
    return kept


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

    @cached_property
    def turns(self) -> int:
        """The number of turns in this run. Members that speak at once share one; in free conversation it is the number
        of turns of the member that has had most."""
        last = next((event for event in reversed(self.events) if "speakers" in event), Event())
        if "turn" in last:
            return last["turn"]
        rounds = len([event for event in self.events if event.get("speakers")])
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
    def kept_floor(self) -> tuple[str | None, list[str]]:
        """The member that took the last turn of the run before, and those whom it handed over to. For speakers that
        keep the floor; both are in the group."""
        floor: dict[str, Any] = next((event["floor"] for event in self.events if "floor" in event), {})
        by = floor.get("by")
        return by if by in self.members else None, [name for name in floor.get("goto", ()) if name in self.members]

    @property
    def decided_end(self) -> str | None:
        """The reason to end that is decided: by a member, by a speaker, or by silence in free conversation."""
        for event in reversed(self.events):
            if "stop_reason" in event:
                reason: str = event["stop_reason"]
                return reason
            # Nobody is chosen once the end is decided.
            if "heard" in event or "speakers" in event:
                break
        return None

    @property
    def has_new_words(self) -> bool:
        """Whether somebody outside has said something into the run since the last turn."""
        last = next((event for event in reversed(self.events) if "by" in event or "heard" in event), Event())
        return "heard" in last

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
    def new_messages(self) -> Sequence[BaseMessage]:
        """The messages that have come since the last turn began: those of that turn, and words from outside. Before
        the first turn they are the last message of the input, and words from outside."""
        last = next((event for event in reversed(self.events) if "by" in event), None)
        if last is None:
            heard = {id for event in self.events for id in event.get("heard", ())}
            return self.messages[-1 - sum(message.id in heard for message in self.messages) :]
        numbered = enumerate(reversed(self.messages))
        ids = ((after, message.id or f"#{len(self.messages) - after - 1}") for after, message in numbered)
        since = next((after for after, id in ids if id == last["seen_message"]), len(self.messages))
        return self.messages[len(self.messages) - since :]

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


class LogSummary(NamedTuple):
    """What members ask of a log when they begin.

    Attributes:
        last_turns: by member, the event of its last turn.
        has_given: whether a handoff has chosen what the next member is given.
        has_interrupts: whether a member has been interrupted.
    """

    last_turns: dict[str, Event]
    has_given: bool = False
    has_interrupts: bool = False


class LogReader:
    """Reads the log of a group, each event once: a log that goes on from the last one is read on."""

    def __init__(self) -> None:
        self._last: tuple[Sequence[Event], LogSummary] = (), LogSummary({})

    def summary(self, events: Sequence[Event]) -> LogSummary:
        """What is asked of a log. It is not to be changed."""
        read, (turns, has_given, has_interrupts) = last = self._last
        if read is not events:
            if events[: len(read)] != read:
                read, (turns, has_given, has_interrupts) = (), LogSummary({})
            new = events[len(read) :]
            turns = {**turns, **{event["by"]: event for event in new if "by" in event}}
            has_given = has_given or any("given" in event for event in new)
            has_interrupts = has_interrupts or any("interrupts" in event for event in new)
            last = self._last = events, LogSummary(turns, has_given, has_interrupts)
        return last[1]


def interrupted_members(events: Iterable[Event]) -> dict[str, Any]:
    """The interrupts of a log that wait for a person's answer, by member: a later turn of the member answers them."""
    interrupts: dict[str, Any] = {}
    if not [event for event in events if "interrupts" in event]:
        return interrupts
    for event in events:
        for member, asked in event.get("interrupts", {}).items():
            # A graph that asks once more goes on from where it ran at first.
            interrupts[member] = {**asked, "ns": interrupts.get(member, asked)["ns"]}
        interrupts.pop(event.get("by", ""), None)
    return interrupts


def last_seen(events: Sequence[Event], member: str) -> str | None:
    """The id of the last message that the member had seen when it took its last turn, in this run or before."""
    seen: str | None = None
    for event in events:
        seen = event["seen_message"] if event.get("by") == member else event.get("seen", {}).get(member, seen)
    return seen


def last_summary(events: Sequence[Event], key: str) -> Any:
    """The last summary that is kept under this key; None if there is none."""
    return next((event["summaries"][key] for event in reversed(events) if key in event.get("summaries", ())), None)


def handoff_to(events: Sequence[Event], member: str) -> Event:
    """The event of the last handoff to a member; an empty one if there is none."""
    return next((event for event in reversed(events) if member in event.get("goto", ())), Event())


def unknown_handoffs(events: Sequence[Event], member: str) -> list[str]:
    """The names that nobody has and that a member has handed over to in its last turns, one after the other."""
    names: list[str] = []
    for event in reversed(events):
        if event.get("by") == member:
            if not event.get("unknown"):
                break
            names += event["unknown"]
    return names[::-1]


def saved_results(events: Sequence[Event]) -> dict[str, Any]:
    """By member, the saved results of the last turn, if that has not ended."""
    for event in reversed(events):
        if "speakers" in event or "results" in event:
            results: dict[str, Any] = event.get("results", {})
            return results
    return {}


def speakers_of(events: Sequence[Event]) -> list[str]:
    """The members chosen for the last turn; none in free conversation."""
    for event in reversed(events):
        names: list[str] = event.get("speakers", [])
        if names:
            return names
    return []
