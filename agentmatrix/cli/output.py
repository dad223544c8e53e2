"""What `run` and `chat` print of a running graph: text for people, or JSON lines for machines."""

from __future__ import annotations

import errno
import itertools
import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.messages import BaseMessage, BaseMessageChunk, RemoveMessage, convert_to_messages
from pydantic_core import to_jsonable_python
from rich.console import Console

from agentmatrix.approvals import approval_request
from agentmatrix.cli.terminal_text import json_line, terminal_text

STREAM_MODES = ("updates", "messages", "custom", "values")
"""The stream modes whose parts are printed."""

_WIDTH = 200
_STYLES = ("cyan", "green", "magenta", "yellow", "blue", "red")

Namespace = tuple[str, ...]


class Output(Protocol):
    """Prints the parts of a stream as they come, and the final values.

    Attributes:
        stream_modes: the modes whose parts it takes.
    """

    stream_modes: tuple[str, ...]

    def watched(self, graph: Any) -> AbstractContextManager[None]:
        """What surrounds a run of the graph."""

    def show_part(self, namespace: Namespace, mode: str, data: Any) -> None:
        """Print one part.

        Args:
            namespace: the namespace of the subgraph that it comes from; empty for the graph itself.
            mode: one of `stream_modes`.
            data: as LangGraph streams it in this mode.
        """

    def show_interrupts(self, interrupts: list[Any]) -> None:
        """Print the interrupts at which the graph has paused."""

    def show_result(self, values: Any) -> None:
        """Print the values with which the run has ended."""


def jsonable(value: Any) -> Any:
    """The value as JSON types; an object that has no JSON form becomes its repr."""
    return to_jsonable_python(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64")


def one_line(value: Any) -> str:
    """The value as one line of JSON of at most 200 characters."""
    text = value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


class StreamOutput:
    """What prints the parts of a stream has in common."""

    stream_modes: tuple[str, ...] = STREAM_MODES

    def watched(self, graph: Any) -> AbstractContextManager[None]:
        return nullcontext()


class JsonOutput(StreamOutput):
    """One JSON object a line: `{"type": mode, "namespace": [...], "data": ...}`; the last is a result or interrupt."""

    def show_part(self, namespace: Namespace, mode: str, data: Any) -> None:
        if mode != "values":
            self._line(type=mode, namespace=namespace, data=data)

    def show_interrupts(self, interrupts: list[Any]) -> None:
        self._line(type="interrupt", data=interrupts)

    def show_result(self, values: Any) -> None:
        self._line(type="result", data=values)

    def show_error(self, message: str) -> None:
        """Print why the run failed, for programs that read stdout only."""
        self._line(type="error", data=message)

    def _line(self, **fields: Any) -> None:
        print(json_line(jsonable(fields)), flush=True)


@dataclass
class _StreamedMessage:
    """A message that arrives in chunks, and how many of its characters have been printed."""

    speaker: str
    namespace: Namespace
    node: str
    message: Any
    printed: int = 0
    finished: bool = False


class _Console(Console):
    """A console whose reader may leave (`| head`): rich would end the process with an error of its own."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "the reader has left")


class TextOutput(StreamOutput):
    """Messages after the names of their speakers, token by token, on a terminal or in a file.

    Messages of parallel nodes arrive interleaved. One is printed at a time: the next ones, in the order of their first
    tokens, wait until it has ended.
    """

    def __init__(self) -> None:
        self._console = _Console(file=sys.stdout, highlight=False)
        self._styles: dict[str, str] = {}
        self._next_style = itertools.cycle(_STYLES)
        self._unfinished: dict[str, _StreamedMessage] = {}
        self._printed_ids: set[str] = set()
        self._not_written: dict[str, tuple[Namespace, str]] = {}
        """Streamed messages whose node has not written yet, by key."""
        self._namespaces: set[Namespace] = set()

    def show_part(self, namespace: Namespace, mode: str, data: Any) -> None:
        self._namespaces.update(namespace[:depth] for depth in range(1, len(namespace) + 1))
        if mode == "messages":
            self._on_message(namespace, *data)
        elif mode == "updates":
            for node, update in data.items():
                self._on_update(namespace, node, update)
        elif mode == "custom":
            self._print_note(_path(namespace), one_line(data))
        elif mode == "values":
            # What is in the state has been said: a graph around this one streams it again under the ids given here.
            self._printed_ids.update(_message_ids(data) - self._unfinished.keys())

    def show_interrupts(self, interrupts: list[Any]) -> None:
        self._finish(self._unfinished.values())
        for interrupt in interrupts:
            request = approval_request(interrupt.value, getattr(interrupt, "response_schema", None))
            for action in request.actions if request else ():
                self._print(f"? {action.name}({json_line(jsonable(dict(action.args)))})", "bold")
                if action.description:
                    self._print(action.description, "dim")
                self._print(f"  {action.how_to_answer}", "dim")
            if request is None:
                self._print(f"? {one_line(interrupt.value)}", "bold")

    def show_result(self, values: Any) -> None:
        self._finish(self._unfinished.values())
        rest = _without_messages(values) if isinstance(values, dict) else values
        if rest not in ({}, None):
            self._print(json_line(jsonable(rest), indent=2))

    def _on_message(self, namespace: Namespace, message: Any, metadata: dict[str, Any]) -> None:
        key = message.id or str(id(message))
        if isinstance(message, RemoveMessage):
            if key in self._not_written:
                self._withdraw(key)
            return
        if key in self._printed_ids:
            return
        self._not_written[key] = (namespace, str(metadata.get("langgraph_node", "")))
        if streamed := self._unfinished.get(key):
            streamed.message += message
        else:
            node = str(metadata.get("langgraph_node", ""))
            speaker = message.name or _path((*namespace, node))
            streamed = self._unfinished[key] = _StreamedMessage(speaker, namespace, node, message)
        has_more = isinstance(message, BaseMessageChunk) and getattr(message, "chunk_position", None) != "last"
        self._finish([] if has_more else [streamed])

    def _withdraw(self, key: str) -> None:
        """The message that was just streamed did not pass a group's middleware. What takes its place comes next."""
        if streamed := self._unfinished.get(key):
            self._finish([streamed])
        self._printed_ids.discard(key)
        self._print_note("", "(withdrawn)")

    def _on_update(self, namespace: Namespace, node: str, update: Any) -> None:
        self._finish([item for item in self._unfinished.values() if (item.namespace, item.node) == (namespace, node)])
        self._not_written = {key: by for key, by in self._not_written.items() if by != (namespace, node)}
        for one in update if isinstance(update, list) else [update]:
            for message in _written_messages(one):
                self._print_unstreamed(message.name or _path((*namespace, node)), message)
        has_inner = any(known[:-1] == namespace and known[-1].startswith(f"{node}:") for known in self._namespaces)
        if (
            node not in ("__interrupt__", "__metadata__")
            and not has_inner
            and isinstance(update, dict)
            and (rest := _without_messages(update))
        ):
            self._print_note(_path((*namespace, node)), one_line(rest))

    def _finish(self, messages: Iterable[_StreamedMessage]) -> None:
        """Mark these as complete and print all text whose turn has come."""
        for streamed in messages:
            streamed.finished = True
        for key, streamed in list(self._unfinished.items()):
            self._print_new_text(streamed)
            if not streamed.finished:
                break
            self._printed_ids.add(key)
            del self._unfinished[key]

    def _print_new_text(self, streamed: _StreamedMessage) -> None:
        text = str(streamed.message.text)
        new = text[streamed.printed :]
        if new and not streamed.printed:
            self._print_speaker(streamed.speaker)
        self._print(new, end="\n" if text and streamed.finished else "")
        streamed.printed = len(text)
        if streamed.finished:
            self._print_calls(streamed.speaker, streamed.message)

    def _print_unstreamed(self, speaker: str, message: BaseMessage) -> None:
        """Print a message that LangGraph has not streamed: a tuple, a dict, a text, or one of a cached node."""
        if message.id in self._printed_ids or message.id in self._unfinished:
            return
        if message.id:
            self._printed_ids.add(message.id)
        if text := str(message.text):
            self._print_speaker(speaker)
            self._print(text)
        self._print_calls(speaker, message)

    def _print_speaker(self, speaker: str) -> None:
        self._print(f"{speaker}: ", f"bold {self._style(speaker)}", end="")

    def _print_calls(self, speaker: str, message: BaseMessage) -> None:
        for call in getattr(message, "tool_calls", ()):
            self._print_note(speaker, f"calls {call['name']}({one_line(call['args'])})")

    def _print_note(self, speaker: str, text: str) -> None:
        self._print(f"{speaker}: {text}" if speaker else text, "dim")

    def _style(self, speaker: str) -> str:
        if speaker not in self._styles:
            self._styles[speaker] = next(self._next_style)
        return self._styles[speaker]

    def _print(self, text: str, style: str | None = None, end: str = "\n") -> None:
        """Print text as it is, without the control characters by which an agent could control the terminal."""
        self._console.out(terminal_text(text), style=style, highlight=False, end=end)
        self._console.file.flush()


def _without_messages(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("messages", "__interrupt__")}


def _message_ids(values: Any) -> set[str]:
    messages = values.get("messages") if isinstance(values, dict) else getattr(values, "messages", None)
    return {one.id for one in messages if getattr(one, "id", None)} if isinstance(messages, list) else set()


def _written_messages(update: Any) -> list[BaseMessage]:
    """The messages in an update; empty where its reducer takes something else."""
    written = update.get("messages") if isinstance(update, dict) else None
    items = written if isinstance(written, list) else [written]
    try:
        found = convert_to_messages([one for one in items if isinstance(one, str | tuple | dict | BaseMessage)])
    except (ValueError, NotImplementedError):
        return []
    return [message for message in found if not isinstance(message, RemoveMessage)]


def _path(namespace: Iterable[str]) -> str:
    """`("panel:3f..", "critic:9a..")` as `panel/critic`."""
    return "/".join(part.partition(":")[0] for part in namespace if part)
