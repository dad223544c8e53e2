"""What a group returns: its reply, the keys of its state, and how it ended; and what a member contributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, convert_to_messages
from langgraph.types import Overwrite
from typing_extensions import TypedDict

from agentmatrix.chat.conversation import Conversation
from agentmatrix.chat.transcript import audience_of
from agentmatrix.errors import BuildError

__all__ = ["Reply", "changes_between", "check_reply", "group_output", "replied", "reply_update"]

Reply = Literal["last", "transcript"] | Callable[[list[BaseMessage]], Any]
"""The group's reply to the graph around it: its last message, the whole transcript, or what a function makes of it."""


def group_output(hints: dict[str, Any]) -> Any:
    """The output schema of a group: keys of its state, the reason why it stopped, and the member that spoke last.

    pydantic wants `TypedDict` of typing_extensions before Python 3.12.
    """
    return TypedDict("GroupReply", {**hints, "stop_reason": str, "last_speaker": str | None})  # type: ignore[operator]


def reply_update(reply: Reply, conversation: Conversation, author: str | None, ends: dict[str, Any]) -> dict[str, Any]:
    """The update of the state that reduces the messages of a run to the reply. It does so under any reducer.

    Args:
        reply: as of `ChatGroup`.
        conversation: the conversation.
        author: the name of the last message, unless the reply is the transcript.
        ends: how the group ended.
    """
    said = conversation.said
    kept = replied(reply, [message for message in said if audience_of(message) is None])
    if not (said or kept):
        return ends
    if kept:
        name = kept[-1].name if reply == "transcript" else author or kept[-1].name
        kept[-1] = kept[-1].model_copy(update={"name": name, "response_metadata": _metadata(kept[-1], ends)})
    left = {message.id: message for message in kept}
    dropped = {message.id for message in said} - left.keys()
    messages = [left.pop(message.id, message) for message in conversation.messages if message.id not in dropped]
    return {"messages": Overwrite([*messages, *left.values()]), **ends}


def changes_between(before: Sequence[BaseMessage], after: Sequence[BaseMessage]) -> list[BaseMessage]:
    """What leads from one list of messages to another one by LangGraph's own reducer: messages without an id, and their
    order, stay as they are."""
    known, left = {*map(id, before)}, {message.id for message in after}
    removed = [RemoveMessage(id=message.id) for message in before if message.id and message.id not in left]
    return [*removed, *(message for message in after if id(message) not in known)]


def check_reply(reply: Any) -> None:
    """Raises a BuildError for a `reply=` that is none."""
    if not (reply in ("last", "transcript") or callable(reply)):
        raise BuildError(f"reply={reply!r} is unknown: choose 'last', 'transcript' or a function of the messages")


def replied(reply: Reply, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages that a reply keeps, or makes, of these: the `"last"`, the whole `"transcript"`, or the result of a
    function of the list, which is a text, a message or messages."""
    if not callable(reply):
        return list(messages[-1:] if reply == "last" else messages)
    made = reply(list(messages))
    answers = [AIMessage(made)] if isinstance(made, str) else [made] if isinstance(made, BaseMessage) else list(made)
    return [m if m.id else m.model_copy(update={"id": str(uuid4())}) for m in convert_to_messages(answers)]


def _metadata(message: BaseMessage, ends: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the provider, which stay as they are, and how the group ended."""
    metadata = message.response_metadata
    # Nobody but a group says who spoke last: a group inside has put its own reason there.
    is_providers = "stop_reason" in metadata and ("last_speaker" not in metadata or "group_stop_reason" in metadata)
    return {**metadata, **{f"group_{key}" if is_providers and key == "stop_reason" else key: ends[key] for key in ends}}
