"""`agentmatrix run --watch`, and a chat that asks a person to approve tool calls."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.cli.test_serve import Start, address_of

ROOT = Path(__file__).parents[2]

DESK = """
from agentmatrix import ChatGroup, Dag, RemoteAgent
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
import os

def look(messages):
    return "looked"

expert = Dag(name="expert")
expert.add_sequence([("look", look), ("write", ScriptedChatModel("\\x1b[2Jfacts", cycle=True, usage=True))])
expert = expert.compile()
where = os.environ.get("EXPERT")
member = RemoteAgent(where) if where else expert
panel = ChatGroup({"optimist": ScriptedChatModel("quick", cycle=True), "expert": member}, stop=max_turns(2))
report = Dag(name="report")
report.add_sequence([("plan", lambda messages: "a plan"), ("panel", panel)])
graph = report.compile()
"""

CLERK = """
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import tool
from agentmatrix.testing import ScriptedChatModel

@tool
def pay(amount: int, to: str) -> str:
    "Pay somebody."
    return f"paid {amount} to {to}"

calls = [{"name": "pay", "args": {"amount": 5, "to": "b" * 300}}, {"name": "pay", "args": {"amount": 7, "to": "eve"}}]
rules = {"pay": {"allowed_decisions": ["approve", "edit", "reject"]}}
model = ScriptedChatModel([calls, "Done."], cycle=True)
graph = create_agent(model, [pay], middleware=[HumanInTheLoopMiddleware(rules)], name="clerk")
"""


def rows(out: str) -> list[list[str]]:
    """The lines of the tree: names and states."""
    found = [line.split()[:2] for line in out.translate(str.maketrans("├└─│", "    ")).splitlines()]
    return [row for row in found if len(row) == 2 and row[1] in ("done", "failed", "skipped", "waiting", "running")]


TREE = [["report", "done"], ["plan", "done"], ["panel", "done"], ["optimist", "done"], ["expert", "done"]]
TREE += [["look", "done"], ["write", "done"]]


def test_a_run_shows_every_node_here_and_on_a_host(
    project: Project, started: Callable[..., Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("desk.py", DESK)
    local = project.cli("run", "desk:graph", "--input", "hi", "--watch")
    assert (local.code, local.err) == (0, "")
    assert local.out.startswith("plan: a plan\noptimist: quick\nlook: looked\nwrite: [2Jfacts\n")
    assert rows(local.out) == TREE
    assert "1 call, 6 tokens" in local.out
    # The same program, in a process of its own, with one member elsewhere.
    address = address_of(started("serve", "desk:expert", "--port", "0"))
    command = [sys.executable, "-m", "agentmatrix", "run", "desk:graph", "--input", "hi", "--watch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EXPERT": f"{address}/expert"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout) == TREE


def test_streamed_lines_have_the_same_paths_here_and_on_a_host(project: Project, started: Callable[..., Start]) -> None:
    project.write("desk.py", DESK.replace("usage=True", ""))
    address = address_of(started("serve", "desk:graph", "--port", "0"))
    local = project.cli("chat", "desk:graph", stdin="hi\n")
    remote = project.cli("chat", f"{address}/graph", stdin="hi\n")
    assert (local.code, remote.code) == (0, 0), remote.err
    assert remote.out == local.out
    assert "panel/expert/write: " in local.out


def test_a_failing_run_shows_where(project: Project) -> None:
    project.write("bad.py", DESK.replace('return "looked"', 'raise ValueError("no facts")'))
    outcome = project.cli("run", "bad:graph", "--input", "hi", "--watch")
    assert outcome.code == 1
    states = dict(rows(outcome.out))
    assert states == {
        **dict.fromkeys(("report", "panel", "expert", "look"), "failed"),
        **dict.fromkeys(("plan", "optimist"), "done"),
        "write": "skipped",
    }
    assert outcome.out.count("ValueError: no facts") == 1, "it is told where it was raised"
    assert "no facts" in outcome.err


def test_a_remote_graph_that_is_resumed_is_shown_as_a_local_one(
    project: Project, started: Callable[..., Start]
) -> None:
    project.write(
        "why.py",
        "from agentmatrix import Dag\nfrom langgraph.types import interrupt\n"
        "graph = Dag(name='graph').add_node('ask', lambda messages: interrupt('why?')).compile()\n",
    )
    address = address_of(started("serve", "why:graph", "--port", "0"))
    answer = ("--input", "hi", "--watch", "--resume", "because")
    shown = [project.cli("run", target, *answer) for target in ("why:graph", f"{address}/graph")]
    for outcome in shown:
        assert outcome.code == 0, outcome.err
        assert "? why?" in outcome.out and "ask: because" in outcome.out
        assert rows(outcome.out) == [["graph", "done"], ["ask", "done"]]


def test_machines_and_people_are_not_shown_at_once(project: Project) -> None:
    outcome = project.cli("run", "greeter:graph", "--input", "hi", "--watch", "--json")
    assert outcome.code == 2
    assert "choose one of the two" in outcome.err


def test_on_a_terminal_the_tree_is_repainted_in_place(project: Project) -> None:
    project.write("desk.py", DESK)
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "agentmatrix", "run", "desk:graph", "--input", "hi", "--watch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError:  # Linux ends a terminal so.
        pass
    os.close(terminal)
    assert process.wait(100) == 0
    assert b"\x1b[1A" in shown, "lines above are painted again"
    assert b"\x1b[2Jfacts" not in shown, "an agent does not control the terminal"
    assert shown.rstrip().endswith(b"\x1b[?25h"), "the cursor is back"


def test_a_chat_asks_for_each_tool_call_and_asks_again(project: Project) -> None:
    project.write("clerk.py", CLERK)
    said = 'pay them\nperhaps\nedit {"amount": 3}\nreject: not to her\n'
    outcome = project.cli("chat", "clerk:graph", stdin=said)
    assert outcome.code == 0
    assert "error: 'perhaps' is no decision about 'pay': approve, edit" in outcome.err
    assert f'? pay({{"amount": 5, "to": "{"b" * 300}"}})' in outcome.out.replace("\n", ""), "the call is shown whole"
    assert "paid 3 to bbb" in outcome.out
    assert "not to her" in outcome.out
    assert "paid 7" not in outcome.out


def test_a_chat_that_ends_at_a_question_decides_nothing(project: Project) -> None:
    project.write("clerk.py", CLERK)
    outcome = project.cli("chat", "clerk:graph", stdin="pay them\napprove\n")
    assert outcome.code == 0
    assert "paid" not in outcome.out


def test_a_run_is_resumed_by_the_same_words(project: Project) -> None:
    project.write("clerk.py", CLERK)
    outcome = project.cli("run", "clerk:graph", "--input", "pay them", "--resume", "approve")
    assert outcome.code == 0, outcome.err
    assert "paid 7 to eve" in outcome.out
    outcome = project.cli("run", "clerk:graph", "--input", "pay them", "--resume", "perhaps")
    assert outcome.code == 1
    assert "'perhaps' is no decision about 'pay'" in outcome.err
