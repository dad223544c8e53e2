"""`describe` and `draw`, which touch no network for local graphs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Project

NESTED = """
from agentmatrix import RemoteAgent
from langgraph.graph import START, MessagesState, StateGraph
from greeter import graph as greeter

builder = StateGraph(MessagesState)
builder.add_node("greeter", greeter).add_edge(START, "greeter")
builder.add_node("expert", RemoteAgent("gpu-box.invalid:50051/expert")).add_edge("greeter", "expert")
graph = builder.compile(name="desk")
"""


def test_describe_says_what_an_agent_takes_and_gives(project: Project) -> None:
    rows = dict(line.split(None, 1) for line in project.cli("describe", "greeter:graph").out.splitlines())
    assert rows["name"] == "greeter"
    assert rows["runs"] == "in this process"
    assert rows["input"] == "messages: array"
    assert rows["checkpointer"] == "its parent's"


def test_describe_for_machines(project: Project) -> None:
    card = json.loads(project.cli("describe", "asker:graph", "--json").out)
    assert card["schemas"]["input"]["properties"].keys() == {"size", "paid"}


@pytest.mark.parametrize("format", ["text", "ascii", "mermaid", "svg"])
def test_draw_marks_remote_nodes_and_asks_no_network(project: Project, format: str) -> None:
    project.write("nested.py", NESTED)
    outcome = project.cli("draw", "nested:graph", "--format", format)
    assert outcome.code == 0
    assert "greet" in outcome.out and "gpu-box.invalid:50051" in outcome.out
    if format == "ascii":
        assert outcome.out.isascii()


def test_an_unknown_format_is_a_usage_error(project: Project) -> None:
    outcome = project.cli("draw", "greeter:graph", "--format", "png")
    assert outcome.code == 2
    assert "mermaid" in outcome.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_is_full_is_one_sentence(project: Project) -> None:
    project.write("solo.py", "def solo(messages):\n    return 'hi'\n")
    command = [sys.executable, "-m", "agentmatrix", "describe", "solo.py:solo"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "error: No space left on device\n")
