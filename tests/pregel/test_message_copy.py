"""Messages that are copied without pydantic's work are what pydantic would make."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from pydantic import PrivateAttr

from agentmatrix.pregel.message_copy import changed_message, text_message


class Noted(AIMessage):
    """A message with a private attribute."""

    _note: str = PrivateAttr("none")


def noted(note: str) -> Noted:
    message = Noted("hello")
    message._note = note
    return message


MESSAGES = {
    "human": HumanMessage("hello", id="1", name="ann"),
    "answer": AIMessage("hello", id="1", response_metadata={"model": "x"}, usage_metadata=None),
    "chunk": AIMessageChunk("hello", id="1"),
    "extra": AIMessage("hello", example=True, mood="glad"),
    "private": noted("mine"),
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("changes", [{}, {"id": "2", "name": "bob", "additional_kwargs": {"said_by": "bob"}}])
def test_a_changed_message_is_pydantics_copy(kind: str, changes: dict[str, Any]) -> None:
    message = MESSAGES[kind]
    before = message.model_copy()
    made, expected = changed_message(message, changes), message.model_copy(update=changes)
    assert message == before and type(made) is type(expected) and made == expected
    assert made.model_fields_set == expected.model_fields_set and made.model_extra == expected.model_extra
    assert dumpd(made) == dumpd(expected) and repr(made) == repr(expected)
    assert getattr(made, "_note", None) == getattr(expected, "_note", None)


def test_a_copy_has_its_own_fields() -> None:
    message = AIMessage("hello", mood="glad")
    made: Any = changed_message(message, {"id": "2"})
    made.content, made.mood = "goodbye", "sad"
    assert (message.content, message.id, message.mood) == ("hello", None, "glad")  # type: ignore[attr-defined]
    assert "content" in made.model_fields_set


@pytest.mark.parametrize("kind", [AIMessage, HumanMessage])
@pytest.mark.parametrize("given", [{"id": "1"}, {"id": None}, {"id": "1", "name": "ann"}])
def test_a_message_of_a_text_is_langchains(kind: type[BaseMessage], given: dict[str, Any]) -> None:
    made, expected = text_message(kind, "hello", **given), kind("hello", **given)
    assert made == expected and made.model_fields_set == expected.model_fields_set and repr(made) == repr(expected)
    assert made.__dict__.keys() == expected.__dict__.keys()
    for value in made.__dict__.values():
        if isinstance(value, dict):
            value["x"] = 1
        elif isinstance(value, list):
            value.append(1)
    assert text_message(kind, "hello", **given) == expected
