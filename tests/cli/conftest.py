"""A person's project folder, and the command line in it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentmatrix.cli import app
from tests.forked import Forked, command

GREETER = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

def greet(state: MessagesState):
    "Greets whoever speaks."
    return {"messages": [AIMessage(f"Hello, {state['messages'][-1].text}!", name="greeter")]}

builder = StateGraph(MessagesState).add_node("greet", greet).add_edge(START, "greet")
graph = builder.compile(name="greeter")
"""

ASKER = """
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

class Order(TypedDict):
    size: int
    paid: str

def pay(state: Order):
    return {"paid": interrupt(f"pay {state['size']} euros?")}

graph = StateGraph(Order).add_node("pay", pay).add_edge(START, "pay").compile()
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Project:
    """A folder with modules, which is the current one and on the path."""

    folder: Path

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def cli(self, *args: str, stdin: str = "") -> Outcome:
        """Runs a command in this process."""
        result = CliRunner().invoke(app, [*args], input=stdin, prog_name="agentmatrix")
        return Outcome(result.exit_code, result.stdout, result.stderr)

    def start(self, *args: str) -> Forked:
        """Starts a command in a process of its own."""
        with contextlib.chdir(self.folder):
            process = Forked(command, *args)
        process.stdin.close()
        return process

    def start_as_a_shell_does(self, *args: str) -> subprocess.Popen[str]:
        """Likewise, where it matters what a new Python imports and how it ends."""
        return subprocess.Popen(
            [sys.executable, "-m", "agentmatrix", *args],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("AGENTMATRIX_DEBUG", "")
    monkeypatch.delenv("AGENTMATRIX_TOKEN", raising=False)
    known = set(sys.modules)
    project = Project(tmp_path)
    project.write("greeter.py", GREETER)
    project.write("asker.py", ASKER)
    yield project
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def started(project: Project) -> Iterator[Callable[..., Forked]]:
    """Starts commands in processes of their own, which are killed at the end of the test if they still run."""
    with ExitStack() as stack:

        def start(*args: str) -> Forked:
            return stack.enter_context(project.start(*args))

        yield start
