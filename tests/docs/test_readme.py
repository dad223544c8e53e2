"""Every example of the README runs: its files are written, its hosts started, its commands typed, its answers compared.

The hosts are those that the README's own `serve` commands start, at free ports: addresses become theirs.
"""

from __future__ import annotations

import contextlib
import doctest
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import Dag
from agentmatrix.cli import commands
from tests.forked import Forked, command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@dataclass(frozen=True)
class Block:
    """A fenced example."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, from its first line."""
        match = re.match(r"# (\S+\.py)\n", self.text)
        return match[1] if match else None


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
COMMANDS = [
    line.partition(" #")[0].strip()
    for block in BLOCKS
    if block.language == "sh"
    for line in block.text.splitlines()
    if line.strip()
]
CERTS = [line for line in COMMANDS if line.startswith("agentmatrix certs")]
SERVES = [line for line in COMMANDS if line.startswith("agentmatrix serve")]


@dataclass(frozen=True)
class Desk:
    """The reader's folder, with the README's files in it and its hosts running."""

    folder: Path
    addresses: dict[str, str]

    def here(self, text: str) -> str:
        """The text with the addresses of the hosts that run."""
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return text

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Types a command line of `agentmatrix`."""
        with started(self.folder, self.here(line)) as process:
            out, err = process.communicate()
            return subprocess.CompletedProcess(line, process.wait(), out, err)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def started(folder: Path, line: str) -> Forked:
    name, *arguments = shlex.split(line)
    assert name == "agentmatrix"
    with contextlib.chdir(folder), mock.patch.dict(os.environ, environment()):
        return Forked(command, *arguments)


def port_of(host: Forked) -> str:
    line = host.stdout.readline()
    assert line.startswith("serving expert at "), line
    return line.rpartition(":")[2].strip()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    for block in BLOCKS:
        if block.file:
            (folder / block.file).write_text(block.text)
    (certs,) = CERTS
    assert Desk(folder, {}).type(certs).returncode == 0
    plain, secure = SERVES
    with started(folder, f"{plain} --port 0") as first, started(folder, f"{secure} --port 0") as second:
        addresses = {
            "grpcs://gpu-box:50051": f"grpcs://127.0.0.1:{port_of(second)}",
            "127.0.0.1:50051": f"127.0.0.1:{port_of(first)}",
        }
        yield Desk(folder, addresses)
        for host in (first, second):
            host.send_signal(signal.SIGTERM)
        assert [host.wait() for host in (first, second)] == [0, 0]


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_the_session_answers_as_it_says() -> None:
    sessions = [block for block in BLOCKS if block.language == "pycon"]
    assert sessions
    for block in sessions:
        example = doctest.DocTestParser().get_doctest(block.text, {}, "README", "README.md", 0)
        assert doctest.DocTestRunner().run(example).failed == 0


def test_the_python_examples_run(desk: Desk) -> None:
    code = "\n".join(desk.here(block.text) for block in BLOCKS if block.language == "python")
    code += "\nprint(graph.invoke({'messages': 'Shall we build it?'})['messages'][-1].text)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=desk.folder, env=environment(), capture_output=True, text=True, timeout=100
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    streamed, _, last = ended.stdout.rstrip("\n").rpartition("The numbers say yes. DONE")
    assert last == "" and streamed.strip().endswith(".") and len(streamed.split()) > 3  # in words of the model


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.split()[0] == "agentmatrix"])
def test_each_command_does_what_it_says(desk: Desk, line: str) -> None:
    if line in (*SERVES, *CERTS):
        return  # it did, or the fixture would have failed
    (desk.folder / "desk.py").write_text(desk.here((desk.folder / "desk.py").read_text()))
    ended = desk.type(line)
    assert (ended.returncode, ended.stderr) == (0, "")
    if line.split()[1] == "run":
        assert "The numbers say yes. DONE" in ended.stdout


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.split()[0] != "agentmatrix"])
def test_other_commands_name_what_there_is(line: str) -> None:
    words = shlex.split(line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "pip":
        extras = re.findall(r"\[(\w+)\]", words[-1])
        assert words[-1].startswith(".") and set(extras) <= project["optional-dependencies"].keys()
    else:
        assert words[0] == "ssh"


def test_the_extras_that_it_names_exist() -> None:
    named = re.search(r"further extras: (.*)", README)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    assert named is not None and set(named[1].split(", ")) == extras - {"dev"}


def test_the_picture_is_current(tmp_path: Path) -> None:
    for block in BLOCKS:
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    drawn = Desk(tmp_path, {}).type("agentmatrix draw desk:graph --format svg")
    assert (ROOT / "docs" / "nested.svg").read_text() == drawn.stdout


def test_desk_looks_for_the_expert_where_serve_puts_it() -> None:
    defaults = inspect.signature(commands.serve).parameters
    (desk,) = (block for block in BLOCKS if block.file == "desk.py")
    assert f'RemoteAgent("{defaults["host"].default}:{defaults["port"].default}/expert")' in desk.text
    assert SERVES[0] == "agentmatrix serve expert.py:expert"


def test_a_history_is_as_long_as_it_says() -> None:
    row = next(line for line in README.splitlines() if line.startswith("| a checkpoint after each superstep"))

    def history(builder: Any, **options: Any) -> int:
        graph = builder(MessagesState)
        for name in "abcd":
            graph.add_node(name, lambda state: {})
        for edge in pairwise([START, *"abcd"]):
            graph.add_edge(*edge)
        compiled = graph.compile(checkpointer=InMemorySaver(), **options)
        config: Any = {"configurable": {"thread_id": "1"}}
        compiled.invoke({"messages": "hello"}, config)
        return len(list(compiled.get_state_history(config)))

    dag, barriers = history(Dag), history(Dag, barriers=True)
    assert f"a chain of 4 nodes has {dag} in its history, with `barriers=True` {barriers}, as in" in row
    assert history(StateGraph) == barriers


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
