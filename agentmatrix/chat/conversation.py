"""What a chat group remembers of its conversation, and how one member sees it. Pure; knows no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict
from uuid import uuid4

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from agentmatrix.errors import SpeakerError

__all__ = [
    "Audience",
    "Conversation",
    "Event",
    "Transcript",
    "audience_of",
    "contribution",
    "floor_of",
    "held_in",
    "told",
    "waiting_in",
]

VISIBLE_TO = "visible_to"
Audience = Callable[[BaseMessage], Collection[str] | str | None]


class Event(TypedDict, total=False):
    """One thing that happened in a group: it begins, gives somebody the floor, somebody has spoken or kept silent or
    asks a person, or it ends. Plain values, so that any saver keeps them.

    Attributes:
        begins: a new run.
        floor: who has the floor; nobody in particular where members speak as they like.
        by: who has had it.
        said: the ids of what they said; none if they kept silent.
        heard: how many messages there were when they began, and `since`: how many events.
        goto: to whom they hand over.
        held: what some of those who speak at once have answered, before the others pause or fail.
        asks: who waits for a person's answer, and what they ask in which namespace.
        ends: why the conversation ends.
        tokens: what was used, and `calls` of models, and `seconds` of work; counted where a stop asks for it.
    """

    begins: bool
    floor: list[str]
    by: str
    said: list[str]
    heard: int
    since: int
    goto: list[str]
    held: dict[str, Any]
    asks: dict[str, Any]
    ends: str
    tokens: int
    calls: int
    seconds: float


def told(events: list[Event], new: list[Event]) -> list[Event]:
    """The reducer of the group's log. A new run begins a new log."""
    begins = [index for index, event in enumerate(new) if event.get("begins")]
    return new[begins[-1] :] if begins else [*events, *new]


@dataclass(frozen=True)
class Conversation:
    """A conversation between two turns: what speakers and stops decide on.

    Attributes:
        members: the names of the members, in order.
        state: the state of the group, as its schema has it.
        messages: the transcript, with what was said before this run.
        events: the log of this run.
    """

    members: tuple[str, ...]
    state: Any
    messages: Sequence[BaseMessage]
    events: Sequence[Event]

    @property
    def turns(self) -> int:
        """How many turns have been taken in this run. Members who speak at once share one; where members speak as
        they like it is the most that any one of them has had."""
        rounds = sum(bool(event.get("floor")) for event in self.events)
        return rounds or max(Counter(event["by"] for event in self.events if "by" in event).values(), default=0)

    @property
    def last_speaker(self) -> str | None:
        """Who has said something last in this run."""
        return next((event["by"] for event in reversed(self.events) if event.get("said")), None)

    @property
    def last_floor(self) -> str | None:
        """Who has had the floor last in this run, also if they kept silent."""
        return next((event["by"] for event in reversed(self.events) if "by" in event), None)

    @property
    def handoff(self) -> list[str]:
        """To whom the members of the last turn have given the floor."""
        return list(dict.fromkeys(name for event in self._last_turn for name in event.get("goto", ())))

    @property
    def called(self) -> set[str]:
        """To whom somebody has handed over since they have begun last."""
        began = {event["by"]: event.get("since", 0) for event in self.events if "by" in event}
        gotos = ((index, name) for index, event in enumerate(self.events) for name in event.get("goto", ()))
        return {name for index, name in gotos if index >= began.get(name, 0)}

    @property
    def said(self) -> list[BaseMessage]:
        """What the members have said in this run, in order."""
        return self._messages_of(self.events)

    @property
    def last_said(self) -> list[BaseMessage]:
        """What was said in the last turn."""
        return self._messages_of(self._last_turn)

    @property
    def waiting(self) -> dict[str, Any]:
        """Who has asked a person and waits for the answer."""
        return waiting_in(self.events)

    @property
    def seconds(self) -> float:
        """The time that the members' work has taken, in seconds; waiting for people is not counted."""
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
            if "floor" in event:
                break
            turn.append(event)
        return turn[::-1]

    def _messages_of(self, events: Iterable[Event]) -> list[BaseMessage]:
        ids = {message_id for event in events for message_id in event.get("said", ())}
        return [message for message in self.messages if message.id in ids] if ids else []


def waiting_in(events: Iterable[Event]) -> dict[str, Any]:
    """Who, by the log of a group, has asked a person and waits for the answer."""
    asked: dict[str, Any] = {}
    for event in events:
        asked.update(event.get("asks", {}))
        asked.pop(event.get("by", ""), None)
    return asked


def held_in(events: Sequence[Event]) -> dict[str, Any]:
    """What members have answered in the last turn, which is not over."""
    last = next((event for event in reversed(events) if "floor" in event or "held" in event), Event())
    return last.get("held", {})


def floor_of(events: Sequence[Event]) -> list[str]:
    """To whom the floor was given last."""
    return next(event["floor"] for event in reversed(events) if event.get("floor"))


class Transcript:
    """The messages of a group as its members see them: their own turns as AI messages, everybody else's as human ones
    with a name. It grows with the conversation; what they see alike is made once.

    Args:
        messages: the messages of the state.
    """

    def __init__(self, messages: Sequence[BaseMessage]) -> None:
        self.ids: set[str | None] = set()
        self._messages: list[BaseMessage] = []
        self._heard: list[BaseMessage] = []
        self._own: dict[str, list[int]] = {}
        self._private: dict[int, frozenset[str]] = {}
        self._last_author: str | None = None
        self._last = self._last_of_another = -1
        self._last_for: dict[str, int] = {}
        self.add(messages)

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, messages: Sequence[BaseMessage]) -> None:
        """What has been said since."""
        for index, message in enumerate(messages, len(self._messages)):
            author = message.name or ""
            self._heard.append(_as_heard(message))
            self._own.setdefault(author, []).append(index)
            if (audience := audience_of(message)) is not None:
                self._private[index] = audience | {author}
                self._last_for.update(dict.fromkeys(audience - {author}, index))
            else:
                if author != self._last_author:
                    self._last_of_another, self._last_author = self._last, author
                self._last = index
        self._messages.extend(messages)
        self.ids.update(message.id for message in messages)

    def follows(self, messages: Sequence[BaseMessage]) -> bool:
        """Whether it goes on from `messages`, or they from it; what they have more is added."""
        common = min(len(messages), len(self))
        if messages[:common] != self._messages[:common]:
            return False
        self.add(messages[common:])
        return True

    def seen_by(self, member: str, until: int) -> list[BaseMessage]:
        """What `member` may hear of the first so many messages, as it sees it."""
        seen = self._heard[:until]
        for index in self._own.get(member, ()):
            if index < until:
                seen[index] = _as_own(self._messages[index])
        if not self._private:
            return seen
        return [message for index, message in enumerate(seen) if member in self._private.get(index, (member,))]

    def has_news(self, member: str, since: int) -> bool:
        """Whether others have said something, after the first `since` messages, that `member` may hear."""
        last = self._last_of_another if member == self._last_author else self._last
        return max(last, self._last_for.get(member, -1)) >= since


def audience_of(message: BaseMessage) -> frozenset[str] | None:
    """Who may hear a message, besides its author; None is everybody."""
    names = message.additional_kwargs.get(VISIBLE_TO)
    if names is None:
        return None
    return frozenset((names,) if isinstance(names, str) else names)


def _as_heard(message: BaseMessage) -> BaseMessage:
    if isinstance(message, AIMessage):
        return HumanMessage(content=message.content, name=message.name, id=message.id)
    return _without_audience(message)


def _as_own(message: BaseMessage) -> BaseMessage:
    if not isinstance(message, AIMessage | SystemMessage):
        return AIMessage(content=message.content, name=message.name, id=message.id)
    return _without_audience(message)


def _without_audience(message: BaseMessage) -> BaseMessage:
    # Whom else it is for is not for its readers, and means nothing to a group inside a member.
    if VISIBLE_TO not in message.additional_kwargs:
        return message
    kept = {key: value for key, value in message.additional_kwargs.items() if key != VISIBLE_TO}
    return message.model_copy(update={"additional_kwargs": kept})


def contribution(
    answered: Sequence[Any], known: Collection[str | None], member: str, group: Collection[str], audience: Audience
) -> list[BaseMessage]:
    """What a member has said: the messages that it added, under its name, without tool calls and their results.

    Args:
        answered: the messages that it answered with.
        known: the ids of those that there were before.
        member: its name.
        group: the names of all members.
        audience: who may hear a message that does not say so itself.

    Raises:
        SpeakerError: a message is for somebody who is not in the group.
    """
    said = [message for message in answered if _is_speech(message) and (message.id is None or message.id not in known)]
    spoken = [_public(message, member) for message in said]
    return [_addressed(message, group, audience) for message in spoken if message.content]


def _is_speech(message: Any) -> bool:
    if not (isinstance(message, BaseMessage) and message.content):
        return False
    return not isinstance(message, ToolMessage | SystemMessage | RemoveMessage)


def _addressed(message: BaseMessage, group: Collection[str], audience: Audience) -> BaseMessage:
    names = audience_of(message)
    if names is None:
        if (chosen := audience(message)) is None:
            return message
        if not isinstance(chosen, Iterable):
            raise SpeakerError(f"visible_to gives {chosen!r} for a message of {message.name!r}: give names, or None")
        names = frozenset((chosen,) if isinstance(chosen, str) else chosen)
    for name in names:
        if name not in group:
            raise SpeakerError(
                f"what {message.name!r} says is visible_to {name!r}, who is not in the group: "
                f"name some of {', '.join(group)}"
            )
    kept = {**message.additional_kwargs, VISIBLE_TO: sorted(names)}
    return message.model_copy(update={"additional_kwargs": kept})


def _public(message: BaseMessage, member: str) -> BaseMessage:
    if type(message) not in (AIMessage, HumanMessage) and isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    changes: dict[str, Any] = {}
    if message.name != member:
        changes["name"] = member
    if not message.id:
        changes["id"] = str(uuid4())
    if isinstance(message, AIMessage):
        changes.update(_without_calls(message))
    return message.model_copy(update=changes) if changes else message


def _without_calls(message: AIMessage) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if message.tool_calls:
        changes["tool_calls"] = []
    if message.invalid_tool_calls:
        changes["invalid_tool_calls"] = []
    if "tool_calls" in message.additional_kwargs:
        changes["additional_kwargs"] = {k: v for k, v in message.additional_kwargs.items() if k != "tool_calls"}
    if (content := _without_tools(message.content)) != message.content:
        changes["content"] = content
    return changes


def _without_tools(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [part for part in content if not (isinstance(part, Mapping) and "tool" in str(part.get("type", "")))]
