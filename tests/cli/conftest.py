"""A person's project folder, and the command line in it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentmatrix.cli import app

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

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Starts a command in a process of its own."""
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
def started(project: Project) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands that are killed at the end of the test if they still run."""
    processes: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        processes.append(project.start(*args))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()
