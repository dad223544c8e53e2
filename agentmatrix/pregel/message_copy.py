"""Copies of messages, without pydantic's work on each: a chat group of thousands makes thousands of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

__all__ = ["changed_message", "text_message"]

Message = TypeVar("Message", bound=BaseMessage)

_FIELDS: Final[dict[type[Any], dict[str, Any]]] = {kind: kind("").__dict__ for kind in (AIMessage, HumanMessage)}


def changed_message(message: Message, changes: Mapping[str, Any]) -> Message:
    """As `message.model_copy(update=changes)`, where each change is of a field."""
    if message.__pydantic_private__ is not None:
        return message.model_copy(update=changes)
    extra = message.__pydantic_extra__
    return _message(
        type(message),
        {**message.__dict__, **changes},
        {*message.__pydantic_fields_set__, *changes},
        None if extra is None else {**extra},
    )


def text_message(kind: type[Message], text: str, *, id: str | None, name: str | None = None) -> Message:
    """As `kind(text, id=id, name=name)`, of which neither needs checking.

    Args:
        kind: `AIMessage` or `HumanMessage`.
        text: its content.
        id: its id.
        name: its name.
    """
    fields = {**_FIELDS[kind], "content": text, "id": id, "additional_kwargs": {}, "response_metadata": {}}
    are_set = {"content", "id"}
    if name is not None:
        fields["name"] = name
        are_set.add("name")
    if kind is AIMessage:
        fields["tool_calls"], fields["invalid_tool_calls"] = [], []
    return _message(kind, fields, are_set, {})


def _message(kind: type[Message], fields: dict[str, Any], are_set: set[str], extra: dict[str, Any] | None) -> Message:
    """A message of these fields, of which `are_set` were given."""
    message, put = object.__new__(kind), object.__setattr__
    put(message, "__dict__", fields)
    put(message, "__pydantic_fields_set__", are_set)
    put(message, "__pydantic_extra__", extra)
    put(message, "__pydantic_private__", None)
    return message
