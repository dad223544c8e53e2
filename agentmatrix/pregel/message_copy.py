"""Copies of messages, without pydantic's work on each: a chat group of thousands makes thousands of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

__all__ = ["changed_message", "text_message"]

Message = TypeVar("Message", bound=BaseMessage)

_EMPTY: Final[dict[type[Any], Any]] = {AIMessage: AIMessage("", id=""), HumanMessage: HumanMessage("", id="")}


def changed_message(message: Message, changes: Mapping[str, Any]) -> Message:
    """As `message.model_copy(update=changes)`, where each change is of a field."""
    if message.__pydantic_private__ is not None:
        return message.model_copy(update=changes)
    changed, extra, put = object.__new__(type(message)), message.__pydantic_extra__, object.__setattr__
    put(changed, "__dict__", {**message.__dict__, **changes})
    put(changed, "__pydantic_fields_set__", message.__pydantic_fields_set__ | changes.keys())
    put(changed, "__pydantic_extra__", None if extra is None else {**extra})
    put(changed, "__pydantic_private__", None)
    return changed


def text_message(kind: type[Message], text: str, *, id: str | None, name: str | None = None) -> Message:
    """As `kind(text, id=id, name=name)`, of which neither needs checking.

    Args:
        kind: `AIMessage` or `HumanMessage`.
        text: its content.
        id: its id.
        name: its name.
    """
    named = {} if name is None else {"name": name}
    message: Message = changed_message(_EMPTY[kind], {"content": text, "id": id, **named})
    message.__dict__.update(additional_kwargs={}, response_metadata={})
    if kind is AIMessage:
        message.__dict__.update(tool_calls=[], invalid_tool_calls=[])
    return message
