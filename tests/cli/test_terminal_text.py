"""What a host says cannot control the terminal of the person who reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agentmatrix import Host
from agentmatrix.cli import app
from agentmatrix.cli.terminal_text import json_line, terminal_text

EVIL = "\x1b[2J\x1b]0;title\x07red\x9b31m\u202etxt\x7f"


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    for shown in (terminal_text(text), json_line({"said": text})):
        assert not any(char < " " and char not in "\n\t" or "\x7f" <= char <= "\x9f" for char in shown)
        assert not any("\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069" for char in shown)
    assert json.loads(json_line({"said": text})) == {"said": text}


def test_other_text_is_shown_as_it_is() -> None:
    text = "Grüße, 世界 🙂\n\tא"
    assert terminal_text(text) == text and json_line(text) == json.dumps(text, ensure_ascii=False)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    def say(messages: list[object]) -> str:
        return f"I say {EVIL}"

    def fail(messages: list[object]) -> str:
        raise ValueError(f"I fail {EVIL}")

    def nameless(messages: list[object]) -> str:
        return "x"

    nameless.__doc__ = f"I am {EVIL}"
    with Host({"say": say, "fail": fail, "nameless": nameless}) as host:
        yield host.address


@pytest.mark.parametrize("command", ["run say", "run say --json", "run fail", "run fail --json", "describe nameless"])
def test_a_command_shows_no_escapes(address: str, command: str) -> None:
    verb, agent, *options = command.split()
    arguments = [verb, f"{address}/{agent}", *options, *(["--input", "hi"] if verb == "run" else [])]
    shown = CliRunner().invoke(app, arguments)
    assert shown.output and terminal_text(shown.output) == shown.output, shown.output
