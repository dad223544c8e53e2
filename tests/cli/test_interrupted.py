"""Ctrl-C ends a command at once, also while a sync node, which nothing can stop, is at work in a thread."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading

import pytest

from agentmatrix import RemoteAgent
from agentmatrix.errors import HostLost
from tests.cli.conftest import Project
from tests.cli.test_serve import address_of
from tests.forked import Forked, command

DESK = """
import sqlite3
import time
from langgraph.checkpoint.sqlite import SqliteSaver
from agentmatrix import Dag

def slow(messages):
    print("at work", flush=True)
    time.sleep(3600)

def desk(name):
    graph = Dag(name=name)
    graph.add_node("slow", slow)
    graph.add_node("beside", lambda messages: None)
    return graph

plain = desk("plain").compile()
kept = desk("kept").compile(checkpointer=SqliteSaver(sqlite3.connect("kept.db", check_same_thread=False)))
"""


def until_at_work(process: Forked) -> None:
    while "at work" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()


def interrupted(process: Forked, times: int) -> int:
    """The exit code after so many signals, and more where one came while another was being received."""
    for _ in range(times - 1):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(1)
    process.send_signal(signal.SIGINT)
    return process.wait()


@pytest.mark.parametrize("graph", ["plain", "kept"])
@pytest.mark.parametrize("verb", ["run", "chat"])
def test_a_graph_in_the_foreground(project: Project, verb: str, graph: str) -> None:
    project.write("desk.py", DESK)
    with Forked(command, verb, f"desk.py:{graph}", *(["-i", "hi"] if verb == "run" else [])) as process:
        process.stdin.write("hi\n")
        process.stdin.flush()
        until_at_work(process)
        assert interrupted(process, 1) == 130
        assert "Traceback" not in process.stderr.read()


def test_rows_under_way_at_the_second_signal(project: Project) -> None:
    project.write("desk.py", DESK)
    project.write("rows.jsonl", '{"id": 1, "messages": "hi"}\n')
    with project.start("refine", "desk.py:plain", "rows.jsonl", "--output", "out.jsonl") as process:
        until_at_work(process)
        assert interrupted(process, 2) == 130
        said = process.stderr.read()
        assert "1 row: 1 left; interrupted; the same line goes on" in said and "Traceback" not in said


def test_runs_under_way_at_the_second_signal_of_a_host(project: Project) -> None:
    project.write("desk.py", DESK)
    lost: list[BaseException] = []

    def call() -> None:
        try:
            RemoteAgent(f"{address}/plain", reconnect_timeout=0).invoke({"messages": "hi"})
        except HostLost as error:
            lost.append(error)

    with project.start("serve", "desk.py:plain", "--port", "0") as process:
        address = address_of(process)
        caller = threading.Thread(target=call)
        caller.start()
        until_at_work(process)
        assert interrupted(process, 2) == 0
        assert "1 runs were cut" in process.stderr.read()
        caller.join()
    assert lost
