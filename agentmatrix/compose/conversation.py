"""What a chat group remembers of its conversation, and how one member sees it. Pure; knows no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage

from agentmatrix.errors import SpeakerError

__all__ = ["Audience", "Conversation", "Event", "Transcript", "audience_of", "contribution", "told", "waiting_in"]

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


class Transcript:
    """The messages of a group as its members see them: their own turns as AI messages, everybody else's as human ones
    with a name. What they see alike is made once.

    Args:
        messages: the messages of the state.
        forms: what was made of messages before; kept by who makes several transcripts of one conversation.
    """

    def __init__(self, messages: Sequence[BaseMessage], forms: dict[int, tuple[BaseMessage, BaseMessage]]) -> None:
        self.messages = messages
        self.ids = {message.id for message in messages}
        self._forms = forms
        self._common = [self._as_heard(message) for message in messages]
        self._own: dict[str, list[int]] = {}
        self._private: dict[int, frozenset[str]] = {}
        self._news: dict[int, set[str]] = {}
        for index, message in enumerate(messages):
            if message.name:
                self._own.setdefault(message.name, []).append(index)
            if (audience := audience_of(message)) is not None:
                self._private[index] = audience | {message.name or ""}

    def __len__(self) -> int:
        return len(self.messages)

    def seen_by(self, member: str) -> list[BaseMessage]:
        """What `member` may hear, as it sees it."""
        seen = self._common.copy()
        for index in self._own.get(member, ()):
            seen[index] = _as_own(self.messages[index])
        if not self._private:
            return seen
        return [message for index, message in enumerate(seen) if member in self._private.get(index, (member,))]

    def has_news(self, member: str, since: int) -> bool:
        """Whether others have said something, after the first `since` messages, that `member` may hear."""
        if since not in self._news:
            public = (m for i, m in enumerate(self.messages[since:], since) if i not in self._private)
            self._news[since] = {message.name or "" for message in public}
        authors = self._news[since]
        if len(authors) > (member in authors):
            return True
        told = (i for i, audience in self._private.items() if i >= since and member in audience)
        return any(self.messages[index].name != member for index in told)

    def _as_heard(self, message: BaseMessage) -> BaseMessage:
        known = self._forms.get(id(message))
        if known is None:
            # The message itself is kept beside, so that its identity is not given to another one.
            known = self._forms[id(message)] = message, _as_heard(message)
        return known[1]


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
    spoken = (
        _public(message, member)
        for message in answered
        if isinstance(message, BaseMessage)
        and message.content
        and not isinstance(message, ToolMessage | SystemMessage | RemoveMessage)
        and (message.id is None or message.id not in known)
    )
    return [_addressed(message, group, audience) for message in spoken if message.content]


def _addressed(message: BaseMessage, group: Collection[str], audience: Audience) -> BaseMessage:
    names = audience_of(message)
    if names is None:
        if (chosen := audience(message)) is None:
            return message
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
    changes: dict[str, Any] = {"name": member, "id": message.id or str(uuid4())}
    if isinstance(message, AIMessage):
        changes |= {"tool_calls": [], "invalid_tool_calls": [], "content": _without_tools(message.content)}
        changes["additional_kwargs"] = {k: v for k, v in message.additional_kwargs.items() if k != "tool_calls"}
    if all(getattr(message, key) == value for key, value in changes.items()):
        return message
    return message.model_copy(update=changes)


def _without_tools(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [part for part in content if not (isinstance(part, Mapping) and "tool" in str(part.get("type", "")))]
