"""What a node has said, in what it has returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_core.messages import BaseMessage, RemoveMessage, convert_to_messages
from langgraph.types import Command

from agentmatrix.watch.run_event import plain

__all__ = ["TURN_LOG", "messages_of_output", "said", "tokens_of", "turn_of"]

TURN_LOG: Final = "conversation"
"""The key under which the member of a chat group returns the event of its turn, and that of the choice after it."""


def messages_of_output(output: Any) -> Iterator[BaseMessage]:
    """The messages in a node's input or output: a message, a list, a state, a command, or several of these."""
    if isinstance(output, BaseMessage):
        if not isinstance(output, RemoveMessage):
            yield output
    elif isinstance(output, Mapping):
        yield from _under_key(output.get("messages"))
    elif isinstance(output, Command):
        yield from messages_of_output(output.update)
    elif isinstance(output, list):
        for item in output:
            if isinstance(item, BaseMessage | Command | Mapping):
                yield from messages_of_output(item)
    elif hasattr(output, "messages"):
        yield from _under_key(output.messages)


def _under_key(value: Any) -> Iterator[BaseMessage]:
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(item, BaseMessage):
            yield from messages_of_output(item)
        elif isinstance(item, str | tuple | dict):
            try:
                yield from convert_to_messages([item])
            except Exception:
                # It is no message; LangGraph's reducer says so to the node.
                continue


def turn_of(output: Any) -> dict[str, Any] | None:
    """The event of the turn that the member of a chat group has taken; None for other nodes."""
    log = output.get(TURN_LOG) if isinstance(output, Mapping) else None
    events = log if isinstance(log, list) else []
    return next((event for event in events if isinstance(event, dict) and "by" in event), None)


def said(message: BaseMessage, path: str) -> dict[str, Any] | None:
    """A message as a line of the transcript: speaker, text, and the tools that it calls. None if it says nothing."""
    text = str(message.text)
    calls = [{"name": call["name"], "args": plain(call["args"])} for call in getattr(message, "tool_calls", ())]
    if not (text or calls):
        return None
    speaker = message.name or ("user" if message.type == "human" else path.rpartition("/")[2] or message.type)
    line = {"speaker": speaker, "text": text, "role": message.type}
    return {**line, "calls": calls} if calls else line


def tokens_of(message: Any) -> dict[str, int]:
    """The tokens of a model's answer: `input`, `output` and `total`; empty where the model does not say."""
    usage = getattr(message, "usage_metadata", None) or {}
    found = {kind: usage.get(f"{kind}_tokens") for kind in ("input", "output", "total")}
    return {kind: int(count) for kind, count in found.items() if isinstance(count, int)}
