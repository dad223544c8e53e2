"""A person as a member of a chat group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langgraph.types import interrupt

__all__ = ["human"]


def human(name: str | None = None, *, prompt: str | Callable[[list[AnyMessage]], Any] | None = None) -> Any:
    """A person: each turn is an `interrupt`, answered by `Command(resume=...)`.

    The answer, a text or a message, becomes a `HumanMessage` under the member's name. An empty answer is silence.

    Args:
        name: the person's name, where members are given as a list.
        prompt: the value of the interrupt, or a function that makes it from the transcript; by default the last message
            and its author.
    """

    def person(messages: list[AnyMessage]) -> list[BaseMessage]:
        question = _last_message(messages) if prompt is None else prompt(messages) if callable(prompt) else prompt
        answer = interrupt(question)
        if isinstance(answer, BaseMessage):
            return [answer]
        return [HumanMessage(str(answer), name=name)] if answer not in (None, "") else []

    person.__name__ = person.__qualname__ = name or "human"
    return person


def _last_message(messages: list[AnyMessage]) -> str:
    return f"{messages[-1].name or 'user'}: {messages[-1].text}" if messages else "begin"
