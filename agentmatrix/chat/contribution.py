"""A member's contribution to a chat group: the messages of its answer that the other members get.

Tool calls, tool results, system messages and messages that the member was given stay private.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from agentmatrix.chat.authorship import SAID_BY, without_inline_name
from agentmatrix.chat.content import is_speech, map_text, without_tool_parts
from agentmatrix.chat.transcript import VISIBLE_TO, audience_of
from agentmatrix.errors import SpeakerError
from agentmatrix.pregel.message_copy import changed_message

__all__ = ["AudienceRule", "new_messages", "public_messages"]

_NOT_KEPT: Final = ("tool_calls", "function_call", SAID_BY)
_PRIVATE: Final = (ToolMessage, FunctionMessage, SystemMessage, RemoveMessage)

AudienceRule = Callable[[BaseMessage], Collection[str] | str | None] | None
"""Gives the names of the members that may see a message which names no audience itself; None for all members. Without
a rule all members see all."""


def public_messages(
    answered: Sequence[Any],
    member: str,
    members: Collection[str],
    audience_rule: AudienceRule,
    id_for: Callable[[str | None], str],
    *,
    is_remembered: bool,
) -> list[BaseMessage]:
    """The messages that a member adds to the transcript, under its name, each with an id.

    Args:
        answered: the new messages of its answer.
        member: the name of the member.
        members: the names of all members.
        audience_rule: gives the audience of a message that does not name one.
        id_for: gives the id in the transcript of a message with the id that it is called with.
        is_remembered: whether the member remembers what it has said, and is not to be given it again.

    Raises:
        SpeakerError: the audience of a message has a name that is not in the group.
    """
    return [
        _addressed(_signed(message, member, id_for, is_remembered), members, audience_rule)
        for message in answered
        if _is_public(message)
    ]


def new_messages(answered: Sequence[Any], given: Sequence[Any], *, is_state: bool) -> list[Any]:
    """What an agent has added to the messages that it was given.

    Args:
        answered: the messages of its answer.
        given: the messages that it was given.
        is_state: whether it answers with all messages of its state, as graphs do. Behind the last one that it was
            given are the new ones; in front it may have what it remembers, or a summary.
    """
    ids = {message.id for message in given}
    known = [isinstance(message, BaseMessage) and message.id is not None and message.id in ids for message in answered]
    if is_state and any(known):
        return list(answered[len(known) - known[::-1].index(True) :])
    return [message for message, is_known in zip(answered, known, strict=True) if not is_known]


def _is_public(message: Any) -> bool:
    # To ask whether it is of another class takes longer than all else here.
    is_answer = type(message) is AIMessage or (isinstance(message, BaseMessage) and not isinstance(message, _PRIVATE))
    return is_answer and is_speech(message)


def _signed(message: BaseMessage, member: str, id_for: Callable[[str | None], str], is_remembered: bool) -> BaseMessage:
    """The message under the member's name, with its id in the transcript and without tool calls."""
    if type(message) not in (AIMessage, HumanMessage) and isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    kept = dict(message.additional_kwargs)
    for key in _NOT_KEPT if kept else ():
        kept.pop(key, None)
    if is_remembered or not isinstance(message, AIMessage):
        kept[SAID_BY] = member
    changes: dict[str, Any] = {"name": member, "additional_kwargs": kept, "id": id_for(message.id)}
    if isinstance(message, AIMessage):
        changes["content"] = map_text(without_tool_parts(message.content), without_inline_name)
        if message.tool_calls or message.invalid_tool_calls:
            changes |= {"tool_calls": [], "invalid_tool_calls": []}
    return changed_message(message, changes)


def _addressed(message: BaseMessage, members: Collection[str], audience_rule: AudienceRule) -> BaseMessage:
    """The message with its audience, if it has one."""
    names = audience_of(message)
    if names is None:
        if audience_rule is None or (chosen := audience_rule(message)) is None:
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
