"""Typed text to the input of a graph, and to the answer to an interrupt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agentmatrix.cli.error_report import CommandError

__all__ = ["empty_input", "parse_answer", "parse_input", "takes_messages", "user_message"]


def input_keys(graph: Any) -> list[str]:
    """The keys of the graph's input."""
    try:
        return list(graph.get_input_jsonschema().get("properties", ()))
    except Exception:
        # Pydantic has no JSON schema for some TypedDicts; such a graph runs all the same.
        return list(getattr(graph, "channels", ()))


def takes_messages(graph: Any) -> bool:
    """Whether the graph's input has a `messages` key, so that plain text can be a user's message."""
    return "messages" in input_keys(graph)


def parse_input(text: str, graph: Any) -> Any:
    """The value of `--input`: JSON, `@file` or a file's path, `-` for stdin, or else a user's message.

    Raises:
        CommandError: it is none of these.
    """
    text = _read(text)
    try:
        value = json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] in ("{", "["):
            raise CommandError(f"--input is not JSON: {error}") from None
        if not takes_messages(graph):
            raise CommandError(
                "--input is plain text, and this graph takes no messages: give its state as JSON"
            ) from None
        return user_message(text)
    return value if isinstance(value, dict | list) or not takes_messages(graph) else user_message(text)


def user_message(text: str) -> dict[str, Any]:
    """The input that is one message of the user."""
    return {"messages": [{"role": "user", "content": text}]}


def empty_input(graph: Any, thread: str | None) -> Any:
    """The input of a run without `--input`: None, which continues the thread, where one is named; else an empty state.

    Raises:
        CommandError: the graph takes messages and nothing else, so an empty state is no input.
    """
    if thread is not None:
        return None
    if input_keys(graph) == ["messages"]:
        raise CommandError("this graph takes messages: say something with --input")
    return {}


def _read(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    path = Path(text.removeprefix("@"))
    try:
        if text.startswith("@") or path.is_file():
            return path.read_text()
    except (OSError, ValueError) as error:
        if text.startswith("@"):
            raise CommandError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return text


def parse_answer(text: str) -> Any:
    """The value of an answer to an interrupt: parsed JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
