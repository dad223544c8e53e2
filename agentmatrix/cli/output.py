"""What a running graph shows: a conversation for people, or JSON lines for machines."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.messages import BaseMessageChunk
from pydantic_core import to_jsonable_python
from rich.console import Console

MODES = ["updates", "messages", "custom", "values"]
"""The stream modes that a view takes parts of."""

_WIDTH = 200
_STYLES = ("cyan", "green", "magenta", "yellow", "blue", "red")
_CONTROL = {code: None for code in range(32) if chr(code) not in "\n\t"} | {127: None}

Namespace = tuple[str, ...]


class View(Protocol):
    """Takes the parts of a stream as they come, and the final values."""

    def part(self, namespace: Namespace, mode: str, data: Any) -> None:
        """Shows one part."""

    def interrupted(self, interrupts: list[Any]) -> None:
        """Shows what the graph asks before it goes on."""

    def ended(self, values: Any) -> None:
        """Shows the values that the run ended with."""


def jsonable(value: Any) -> Any:
    """The value as JSON types; what has no such form becomes its repr."""
    return to_jsonable_python(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64")


def one_line(value: Any) -> str:
    """The value as one line of JSON of at most 200 characters."""
    text = value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


class JsonLines:
    """One JSON object a line: `{"type": mode, "namespace": [...], "data": ...}`; the last is a result or interrupt."""

    def part(self, namespace: Namespace, mode: str, data: Any) -> None:
        if mode != "values":
            self._line(type=mode, namespace=namespace, data=data)

    def interrupted(self, interrupts: list[Any]) -> None:
        self._line(type="interrupt", data=interrupts)

    def ended(self, values: Any) -> None:
        self._line(type="result", data=values)

    def failed(self, message: str) -> None:
        """Says why the run failed, for readers of stdout alone."""
        self._line(type="error", data=message)

    def _line(self, **fields: Any) -> None:
        print(json.dumps(jsonable(fields), ensure_ascii=False), flush=True)


@dataclass
class _Utterance:
    """A message as it grows: by whom, and how much of it has been printed."""

    speaker: str
    namespace: Namespace
    node: str
    message: Any
    printed: int = 0
    finished: bool = False


class Transcript:
    """Who said what, token by token, on a terminal or in a file.

    Several agents may speak at once: what the later ones say waits until the message of the first has ended.
    """

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._styles: dict[str, str] = {}
        self._next_style = itertools.cycle(_STYLES)
        self._speaking: dict[str, _Utterance] = {}
        self._said: set[str] = set()
        self._entered: set[Namespace] = set()

    def part(self, namespace: Namespace, mode: str, data: Any) -> None:
        self._entered.update(namespace[:depth] for depth in range(1, len(namespace) + 1))
        if mode == "messages":
            self._hear(namespace, *data)
        elif mode == "updates":
            for node, update in data.items():
                self._update(namespace, node, update)
        elif mode == "custom":
            self._aside(_path(namespace), one_line(data))

    def interrupted(self, interrupts: list[Any]) -> None:
        self._finish(self._speaking.values())
        for interrupt in interrupts:
            self._out(f"? {one_line(interrupt.value)}", "bold")

    def ended(self, values: Any) -> None:
        self._finish(self._speaking.values())
        rest = _without_messages(values) if isinstance(values, dict) else values
        if rest not in ({}, None):
            self._out(json.dumps(jsonable(rest), ensure_ascii=False, indent=2))

    def _hear(self, namespace: Namespace, message: Any, metadata: dict[str, Any]) -> None:
        key = message.id or str(id(message))
        if key in self._said:
            return
        if utterance := self._speaking.get(key):
            utterance.message += message
        else:
            node = str(metadata.get("langgraph_node", ""))
            speaker = message.name or _path((*namespace, node))
            utterance = self._speaking[key] = _Utterance(speaker, namespace, node, message)
        growing = isinstance(message, BaseMessageChunk) and getattr(message, "chunk_position", None) != "last"
        self._finish([] if growing else [utterance])

    def _update(self, namespace: Namespace, node: str, update: Any) -> None:
        self._finish([item for item in self._speaking.values() if (item.namespace, item.node) == (namespace, node)])
        has_inner = any(entered[:-1] == namespace and entered[-1].startswith(f"{node}:") for entered in self._entered)
        if (
            node != "__interrupt__"
            and not has_inner
            and isinstance(update, dict)
            and (rest := _without_messages(update))
        ):
            self._aside(_path((*namespace, node)), one_line(rest))

    def _finish(self, utterances: Iterable[_Utterance]) -> None:
        """Marks these as complete and prints what may be printed now."""
        for utterance in utterances:
            utterance.finished = True
        for key, utterance in list(self._speaking.items()):
            self._say(utterance)
            if not utterance.finished:
                break
            self._said.add(key)
            del self._speaking[key]

    def _say(self, utterance: _Utterance) -> None:
        text = str(utterance.message.text)
        new = text[utterance.printed :]
        if new and not utterance.printed:
            self._out(f"{utterance.speaker}: ", f"bold {self._style(utterance.speaker)}", end="")
        self._out(new, end="\n" if text and utterance.finished else "")
        utterance.printed = len(text)
        if utterance.finished:
            for call in getattr(utterance.message, "tool_calls", ()):
                self._aside(utterance.speaker, f"calls {call['name']}({one_line(call['args'])})")

    def _aside(self, speaker: str, text: str) -> None:
        self._out(f"{speaker}: {text}" if speaker else text, "dim")

    def _style(self, speaker: str) -> str:
        if speaker not in self._styles:
            self._styles[speaker] = next(self._next_style)
        return self._styles[speaker]

    def _out(self, text: str, style: str | None = None, end: str = "\n") -> None:
        """Prints text as it is, less the control characters that an agent could steer the terminal with."""
        self._console.out(text.translate(_CONTROL), style=style, highlight=False, end=end)
        self._console.file.flush()


def _without_messages(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("messages", "__interrupt__")}


def _path(namespace: Iterable[str]) -> str:
    """`("panel:3f..", "critic:9a..")` as `panel/critic`."""
    return "/".join(part.partition(":")[0] for part in namespace if part)
