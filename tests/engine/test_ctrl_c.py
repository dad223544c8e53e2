"""Ctrl-C ends a sync graph as it ends a function: at once where one node runs, and what runs on a host is cancelled."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph

from agentmatrix import Host

SECONDS = 60.0


class State(TypedDict, total=False):
    value: int


@contextmanager
def program(text: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program in a process of its own, whose first line of output has been read."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(process: subprocess.Popen[str]) -> str:
    """Send SIGINT, and return the last line of what the program says. A node that ran out would take much longer."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    return errors.strip().splitlines()[-1]


PROGRAM = """
    import time
    from typing import TypedDict
    from agentmatrix import CyclicGraph, Dag

    class State(TypedDict, total=False):
        value: int

    def slow(state):
        print("started", flush=True)
        time.sleep(3600)

    graph = {kind}(State)
    graph.add_node("slow", slow)
    graph.add_edge("__start__", "slow")
    graph.compile({options}).invoke({{"value": 1}})
"""


@pytest.mark.parametrize(("kind", "options"), [("Dag", ""), ("Dag", "barriers=True"), ("CyclicGraph", "")])
def test_ctrl_c_ends_a_graph_in_which_one_node_runs(kind: str, options: str) -> None:
    with program(PROGRAM.format(kind=kind, options=options)) as process:
        assert interrupted(process) == "KeyboardInterrupt"


def test_ctrl_c_ends_a_call_to_a_host() -> None:
    started, released = threading.Event(), threading.Event()

    def slow(state: State) -> State:
        started.set()
        released.wait(SECONDS)
        return {}

    remote: Any = StateGraph(State).add_node("slow", slow).add_edge(START, "slow").compile()
    with Host({"slow": remote}) as host:
        text = f"""
            from typing import TypedDict
            from agentmatrix import Dag, RemoteAgent

            class State(TypedDict, total=False):
                value: int

            graph = Dag(State)
            graph.add_node("slow", RemoteAgent("{host.address}/slow"))
            graph.add_edge("__start__", "slow")
            print("started", flush=True)
            graph.compile().invoke({{"value": 1}})
        """
        with program(text) as process:
            assert started.wait(SECONDS)
            assert interrupted(process) == "KeyboardInterrupt"
            assert not released.is_set()
        released.set()
