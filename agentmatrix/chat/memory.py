"""What a member remembers that has a memory of its own: a turn that ended in the middle, by a handoff, an error or a
cancelled run, has left calls of tools there without results. No provider takes them so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.types import StateSnapshot

from agentmatrix.agent import messages_in

__all__ = ["with_missing_results"]

_NO_RESULT: Final = "Your turn ended with this call."


def with_missing_results(given: Mapping[str, Any], memory: StateSnapshot) -> Mapping[str, Any]:
    """The input of an agent with, in front of all messages, the results that calls in its memory lack."""
    results = _missing_results(memory)
    return {**given, "messages": [*results, *given["messages"]]} if results else given


def _missing_results(memory: StateSnapshot) -> list[ToolMessage]:
    """The results of the calls at the end of a memory that have none there: those of tools that had finished, and for
    the others a word that there is none."""
    messages = messages_in(memory.values)
    last = next((message for message in reversed(messages) if not isinstance(message, ToolMessage)), None)
    if not (isinstance(last, AIMessage) and last.tool_calls):
        return []
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    finished = {message.tool_call_id: message for message in _finished(memory)}
    # A model that gives its calls no ids needs none in the results.
    calls = ((call["id"] or "", call["name"]) for call in last.tool_calls)
    return [
        finished.get(id) or ToolMessage(_NO_RESULT, name=name, tool_call_id=id, id=f"no-result-{id}")
        for id, name in calls
        if id not in answered
    ]


def _finished(memory: StateSnapshot) -> Iterator[ToolMessage]:
    """The results of tools that were not yet in the state as the turn ended."""
    for task in memory.tasks:
        result: Any = task.result or {}
        messages: list[BaseMessage] = messages_in(result, "messages") if isinstance(result, dict) else []
        yield from (message for message in messages if isinstance(message, ToolMessage))
