"""What a chat group remembers of its conversation, and how one member sees it. Pure; knows no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage

__all__ = ["Conversation", "Event", "contribution", "perspective", "told"]


class Event(TypedDict, total=False):
    """One thing that happened in a group: it begins, gives somebody the floor, somebody has spoken, or it ends.

    Plain values, so that any saver keeps them.
    """

    begins: bool
    floor: list[str]
    by: str
    said: list[str]
    goto: list[str]
    ends: str


def told(events: list[Event], new: list[Event]) -> list[Event]:
    """The reducer of the group's log. A new run begins a new log."""
    for event in new:
        events = [event] if event.get("begins") else [*events, event]
    return events


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
        """How many turns have been taken in this run. Members who speak at once share one."""
        return sum("floor" in event for event in self.events)

    @property
    def last_speaker(self) -> str | None:
        """Who has spoken last in this run."""
        return next((event["by"] for event in reversed(self.events) if "by" in event), None)

    @property
    def handoff(self) -> list[str]:
        """To whom the members of the last turn have given the floor."""
        names: list[str] = []
        for event in reversed(self.events):
            if "floor" in event:
                break
            names = [*event.get("goto", []), *names]
        return list(dict.fromkeys(names))

    @property
    def said(self) -> list[BaseMessage]:
        """What the members have said in this run, in order."""
        ids = {message_id for event in self.events for message_id in event.get("said", ())}
        return [message for message in self.messages if message.id in ids]

    @property
    def last_said(self) -> list[BaseMessage]:
        """What was said in the last turn."""
        ids: set[str] = set()
        for event in reversed(self.events):
            if "floor" in event:
                break
            ids.update(event.get("said", ()))
        return [message for message in self.messages if message.id in ids]


def perspective(messages: Sequence[BaseMessage], member: str) -> list[BaseMessage]:
    """The transcript as `member` sees it: its own turns as AI messages, everybody else's as human ones with a name."""
    return [_seen(message, own=message.name == member) for message in messages]


def _seen(message: BaseMessage, *, own: bool) -> BaseMessage:
    if own and not isinstance(message, AIMessage | SystemMessage):
        return AIMessage(content=message.content, name=message.name, id=message.id)
    if not own and isinstance(message, AIMessage):
        return HumanMessage(content=message.content, name=message.name, id=message.id)
    return message


def contribution(answered: Sequence[Any], given: Sequence[BaseMessage], member: str) -> list[BaseMessage]:
    """What a member has said: the messages that it added, under its name, without tool calls and their results."""
    known = {message.id for message in given if message.id}
    spoken = (
        _public(message, member)
        for message in answered
        if isinstance(message, BaseMessage)
        and not isinstance(message, ToolMessage | SystemMessage | RemoveMessage)
        and (message.id is None or message.id not in known)
    )
    return [message for message in spoken if message.content]


def _public(message: BaseMessage, member: str) -> BaseMessage:
    changes: dict[str, Any] = {"name": member, "id": message.id or str(uuid4())}
    if isinstance(message, AIMessage):
        changes |= {"tool_calls": [], "invalid_tool_calls": [], "content": _without_tools(message.content)}
        changes["additional_kwargs"] = {k: v for k, v in message.additional_kwargs.items() if k != "tool_calls"}
    return message.model_copy(update=changes)


def _without_tools(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [part for part in content if not (isinstance(part, Mapping) and "tool" in str(part.get("type", "")))]
