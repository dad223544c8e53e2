"""A loser of `cancel_rest=True` in a thread: it runs out, and begins nothing more, also inside a graph of its own."""

from __future__ import annotations

import operator
import threading
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

from agentmatrix import CyclicGraph, Dag, Host, RemoteAgent, any_of
from agentmatrix.cancel_scope import current_scope

WAIT = 60


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Loser:
    """A graph whose first node ends when somebody else has won: with an error, after which it would be tried again, or
    without, after which another node would run."""

    def __init__(self, kind: Any, fails: bool) -> None:
        self.began, self.lost = threading.Event(), threading.Event()
        self.ran: list[str] = []

        def work(state: State) -> State:
            self.ran.append("work")
            scope = current_scope.get()
            assert scope is not None
            scope.on_cancel(self.lost.set)
            self.began.set()
            assert self.lost.wait(WAIT)
            if fails:
                raise ConnectionError("no answer")
            return {"log": ["work"]}

        def more(state: State) -> State:
            self.ran.append("more")
            return {"log": ["more"]}

        graph = kind(State)
        graph.add_node("work", work, retry_policy=RetryPolicy(initial_interval=0.001, max_attempts=5))
        graph.add_node("more", more)
        graph.add_edge(START, "work")
        graph.add_edge("work", "more")
        self.graph = graph.compile()

    def race(self, agent: Any) -> Any:
        def winner(state: State) -> State:
            assert self.began.wait(WAIT)
            return {"log": ["winner"]}

        def target(state: State) -> State:
            return {"log": ["target"]}

        dag = Dag(State)
        dag.add_node("loser", agent)
        dag.add_node("winner", winner)
        dag.add_node("target", target)
        dag.add_trigger("target", any_of("winner", "loser", cancel_rest=True))
        return dag.compile()


KINDS = [Dag, CyclicGraph, StateGraph]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [True, False])
def test_it_begins_no_try_and_no_node_any_more(kind: Any, fails: bool) -> None:
    loser = Loser(kind, fails)
    assert loser.race(loser.graph).invoke({"log": []})["log"] == ["winner", "target"]
    assert loser.ran == ["work"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [True, False])
def test_it_begins_nothing_more_on_a_host(kind: Any, fails: bool) -> None:
    loser = Loser(kind, fails)
    with Host({"loser": loser.graph}) as host, RemoteAgent(f"{host.address}/loser") as remote:
        assert loser.race(remote).invoke({"log": []})["log"] == ["winner", "target"]
        assert loser.lost.wait(WAIT)
    assert loser.ran == ["work"]
