"""`agentmatrix chat`, line by line."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Project
from tests.cli.test_serve import Start, address_of

ROOT = Path(__file__).parents[2]

COUNTER = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

def count(state: MessagesState):
    if "buy" in state["messages"][-1].text:
        return {"messages": [AIMessage(f"bought {interrupt('how many?')}", name="shop")]}
    if "fail" in state["messages"][-1].text:
        raise ValueError("out of stock")
    return {"messages": [AIMessage(f"{len(state['messages'])} so far", name="shop")]}

graph = StateGraph(MessagesState).add_node("count", count).add_edge(START, "count").compile()
"""


def talk(project: Project, target: str) -> None:
    outcome = project.cli("chat", target, stdin="hi\n\nthere\nbuy\n3\nbye\n")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "shop: 1 so far",
        "shop: 3 so far",
        "? how many?",
        "shop: bought 3",
        "shop: 7 so far",
    ]


def test_a_chat_remembers_and_answers_in_place(project: Project) -> None:
    project.write("counter.py", COUNTER)
    talk(project, "counter:graph")


def test_a_chat_with_a_remote_graph_is_the_same(project: Project, started: Callable[..., Start]) -> None:
    project.write("counter.py", COUNTER)
    talk(project, f"{address_of(started('serve', 'counter:graph', '--port', '0'))}/graph")


def test_a_failure_in_a_script_of_lines_ends_it(project: Project) -> None:
    project.write("counter.py", COUNTER)
    outcome = project.cli("chat", "counter:graph", stdin="hi\nfail\nhi\n")
    assert outcome.code == 1
    assert outcome.out == "shop: 1 so far\n"
    assert outcome.err == "error: in node 'count': ValueError: out of stock\n"


def test_a_graph_without_messages_cannot_be_talked_with(project: Project) -> None:
    outcome = project.cli("chat", "asker:graph", stdin="hi\n")
    assert outcome.code == 2
    assert "takes no messages" in outcome.err


def test_on_a_terminal_a_failure_ends_its_turn_and_ctrl_c_the_chat(project: Project) -> None:
    project.write("counter.py", COUNTER)
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "agentmatrix", "chat", "counter:graph"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = ""

    def until(words: str) -> None:
        nonlocal said
        while words not in said:
            said += os.read(terminal, 4096).decode()
        said = said.partition(words)[2]

    until("> ")
    os.write(terminal, b"fail\n")
    until("ValueError: out of stock")
    until("> ")
    os.write(terminal, b"hi\n")
    until("so far")
    until("> ")
    code = None
    while code is None:
        # A first signal may come after the prompt and before the read that it is to interrupt. A second one must not
        # come while the process ends: the interpreter would then end itself by the signal.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(100)
    assert code == 130
    os.close(terminal)
