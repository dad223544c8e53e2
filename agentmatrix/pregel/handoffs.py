"""What a graph leaves behind when one of its nodes goes to the parent graph: LangGraph hands over one command only.

Where a model calls several handoff tools, each ends its task with a command, and LangGraph raises the first that it
finds in a set. What the model said beside the call is in the state of the graph, which is gone with it. Both are still
in the frames of the exception's traceback. A host has them, and its caller has not: it puts them on the exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Final, NamedTuple

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.errors import ParentCommand
from langgraph.types import Command

__all__ = ["Handoff", "handoff_of", "keep_handoff"]

_KEPT: Final = "agentmatrix_handoff"
_RUNNER: Final = frozenset({"tick", "atick"})
_GRAPH: Final = frozenset({"stream", "astream"})


class Handoff(NamedTuple):
    """All that a graph hands over.

    Attributes:
        commands: the commands of its nodes, in the order of the calls that the model has made.
        words: the messages that its models have added since the last human message, if they are in its state.
    """

    commands: list[Command[Any]]
    words: list[Any]


def handoff_of(error: ParentCommand) -> Handoff:
    """All that the graph hands over from which a command was caught."""
    kept = error.__dict__.get(_KEPT) or _left_in_frames(error)
    words = list(kept["words"])
    commands = [error.args[0], *(Command(goto=other["goto"], update=other["update"]) for other in kept["others"])]
    calls = [call["id"] for message in words if isinstance(message, AIMessage) for call in message.tool_calls]

    def order(command: Command[Any]) -> tuple[int, str]:
        answered = [calls.index(id) for id in _calls_answered(command) if id in calls]
        return min(answered, default=len(calls)), str(command.goto)

    return Handoff(sorted(commands, key=order), words)


def keep_handoff(error: BaseException) -> BaseException:
    """The exception, which is to leave the process, with what `handoff_of` finds in its traceback."""
    if isinstance(error, ParentCommand) and _KEPT not in error.__dict__:
        kept = _left_in_frames(error)
        if kept["words"] or kept["others"]:
            error.__dict__[_KEPT] = kept
    return error


def _left_in_frames(error: ParentCommand) -> dict[str, list[Any]]:
    command: Command[Any] = error.args[0]
    others: list[Any] = []
    words: list[Any] = []
    for frame in _frames(error):
        found = frame.f_locals
        if frame.f_code.co_name in _RUNNER and (futures := found.get("futures")) is not None:
            others += [_plain(other) for other in _raised(futures.done) if other is not command]
        elif frame.f_code.co_name == "_control_branch" and isinstance(several := found.get("value"), list | tuple):
            to_parent = [c for c in several if isinstance(c, Command) and c.graph == Command.PARENT]
            others += [_plain(other) for other in to_parent[1:]]
        elif frame.f_code.co_name in _GRAPH and (loop := found.get("loop")) and hasattr(loop, "channels"):
            # The innermost graph comes last.
            words = [] if getattr(found.get("self"), "speaks_by_reply", False) else _words_in(loop.channels)
    return {"others": [other for other in others if other], "words": words}


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _raised(futures: Any) -> Iterator[Command[Any]]:
    for future in futures:
        if future.done() and not future.cancelled() and isinstance(raised := future.exception(), ParentCommand):
            yield raised.args[0]


def _plain(command: Command[Any]) -> dict[str, Any] | None:
    """A command as plain data, which may cross to another process."""
    targets = [command.goto] if isinstance(command.goto, str) else list(command.goto)  # type: ignore[arg-type]
    if not all(isinstance(target, str) for target in targets):
        return None
    return {"goto": targets, "update": dict(command._update_as_tuples())}


def _words_in(channels: Mapping[str, Any]) -> list[Any]:
    channel = channels.get("messages")
    messages: Sequence[Any] = channel.get() if channel is not None and channel.is_available() else ()
    if not isinstance(messages, list):
        return []
    start = next((n for n in range(len(messages), 0, -1) if isinstance(messages[n - 1], HumanMessage)), 0)
    return [message for message in messages[start:] if isinstance(message, AIMessage)]


def _calls_answered(command: Command[Any]) -> list[str]:
    messages = dict(command._update_as_tuples()).get("messages") or ()
    several = messages if isinstance(messages, list | tuple) else [messages]
    return [message.tool_call_id for message in several if isinstance(message, ToolMessage)]
