"""A member's contribution to a chat group: the messages of its answer that the other members get.

Tool calls, tool results, system messages and messages that the member was given stay private.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
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

from agentmatrix.chat.transcript import VISIBLE_TO, audience_of
from agentmatrix.errors import SpeakerError

__all__ = ["AudienceRule", "public_messages"]

AudienceRule = Callable[[BaseMessage], Collection[str] | str | None]
"""Gives the names of the members that may see a message which names no audience itself; None for all members."""


def public_messages(
    answered: Sequence[Any],
    known_ids: Collection[str | None],
    member: str,
    members: Collection[str],
    audience_rule: AudienceRule,
) -> list[BaseMessage]:
    """The messages that a member adds to the transcript, under its name, each with an id.

    Args:
        answered: the messages of its answer.
        known_ids: the ids of the messages that it was given; these are left out.
        member: the name of the member.
        members: the names of all members.
        audience_rule: gives the audience of a message that does not name one.

    Raises:
        SpeakerError: the audience of a message has a name that is not in the group.
    """
    new = [m for m in answered if _is_speech(m) and (m.id is None or m.id not in known_ids)]
    signed = [_signed(message, member) for message in new]
    # Without its tool calls a message may be empty.
    return [_addressed(message, members, audience_rule) for message in signed if message.content]


def _is_speech(message: Any) -> bool:
    if not (isinstance(message, BaseMessage) and message.content):
        return False
    return not isinstance(message, ToolMessage | SystemMessage | RemoveMessage)


def _signed(message: BaseMessage, member: str) -> BaseMessage:
    """The message under the member's name, with an id and without tool calls."""
    if type(message) not in (AIMessage, HumanMessage) and isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    changes: dict[str, Any] = {}
    if message.name != member:
        changes["name"] = member
    if not message.id:
        changes["id"] = str(uuid4())
    if isinstance(message, AIMessage):
        changes.update(_without_tool_calls(message))
    return message.model_copy(update=changes) if changes else message


def _without_tool_calls(message: AIMessage) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if message.tool_calls:
        changes["tool_calls"] = []
    if message.invalid_tool_calls:
        changes["invalid_tool_calls"] = []
    if "tool_calls" in message.additional_kwargs:
        changes["additional_kwargs"] = {k: v for k, v in message.additional_kwargs.items() if k != "tool_calls"}
    if (content := _without_tool_parts(message.content)) != message.content:
        changes["content"] = content
    return changes


def _without_tool_parts(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [part for part in content if not (isinstance(part, Mapping) and "tool" in str(part.get("type", "")))]


def _addressed(message: BaseMessage, members: Collection[str], audience_rule: AudienceRule) -> BaseMessage:
    """The message with its audience, if it has one."""
    names = audience_of(message)
    if names is None:
        if (chosen := audience_rule(message)) is None:
            return message
        if not isinstance(chosen, Iterable):
            raise SpeakerError(f"visible_to gives {chosen!r} for a message of {message.name!r}: give names, or None")
        names = frozenset((chosen,) if isinstance(chosen, str) else chosen)
    for name in names:
        if name not in members:
            raise SpeakerError(
                f"what {message.name!r} says is visible_to {name!r}, who is not in the group: "
                f"name some of {', '.join(members)}"
            )
    kept = {**message.additional_kwargs, VISIBLE_TO: sorted(names)}
    return message.model_copy(update={"additional_kwargs": kept})
