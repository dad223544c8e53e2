"""What a message costs and saves does not grow with the staff, with the run, or with the chain that it stands in."""

from __future__ import annotations

import sys
import threading
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from agentmatrix import CyclicGraph, get_activation

THREAD: Any = {"configurable": {"thread_id": "1"}, "max_concurrency": 1}


class State(TypedDict, total=False):
    keys: int


class Memory(TypedDict, total=False):
    left: int


class CountingSaver(InMemorySaver):
    """Counts what it is to keep, in bytes."""

    kept = 0

    def put(self, config: Any, checkpoint: Any, metadata: Any, versions: Any) -> Any:
        self.kept += len(self.serde.dumps_typed(checkpoint)[1])
        return super().put(config, checkpoint, metadata, versions)

    def put_writes(self, config: Any, writes: Any, *rest: Any) -> None:
        self.kept += sum(len(self.serde.dumps_typed(value)[1]) for _, value in writes)
        super().put_writes(config, writes, *rest)


def talks(state: Memory) -> Any:
    if not state.get("left"):
        return None
    other = "bob" if get_activation().key == "ann" else "ann"
    return Command(goto=Send(f"staff/{other}", {"left": state["left"] - 1}))


def firm(saver: Any) -> Any:
    graph = CyclicGraph(State, max_rounds=10_000)
    graph.add_actors("staff", talks, state=Memory)
    graph.add_node("begin", lambda state: Command(goto=[Send(f"staff/{n}", {}) for n in range(state["keys"])]))
    graph.add_edge(START, "begin")
    return graph.compile(checkpointer=saver)


def test_bytes_of_a_message_do_not_depend_on_the_staff() -> None:
    kept: list[int] = []
    for keys in (20, 400):
        saver = CountingSaver()
        graph = firm(saver)
        graph.invoke({"keys": keys}, THREAD)
        saver.kept = 0
        graph.invoke({"keys": 20}, THREAD)
        kept.append(saver.kept)
        assert len(graph.actors(THREAD)) == keys
    assert kept[1] <= kept[0] * 1.02


def calls_of(work: Any) -> int:
    """How many functions of Python are called on this thread and those that it starts."""
    count = [0]

    def counts(frame: Any, event: str, arg: Any) -> None:
        count[0] += event == "call"

    threading.setprofile(counts)
    sys.setprofile(counts)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return count[0]


def test_calls_are_linear_in_the_number_of_keys() -> None:
    graph = firm(InMemorySaver())

    def calls(keys: int) -> int:
        config: Any = {"configurable": {"thread_id": str(keys)}, "max_concurrency": 1}
        return calls_of(lambda: graph.invoke({"keys": keys}, config))

    counts = [calls(50), calls(400)]
    assert counts[1] <= 8 * counts[0] * 1.1


def test_the_thousandth_message_of_a_talk_costs_what_the_first_does() -> None:
    saver = CountingSaver()
    sizes: list[int] = []

    def notes(state: Memory) -> Any:
        sizes.append(saver.kept)
        return talks(state)

    graph = CyclicGraph(State, max_rounds=10_000)
    graph.add_actors("staff", notes, state=Memory)
    graph.add_node("begin", lambda state: Command(goto=Send("staff/ann", {"left": 1_000})))
    graph.add_edge(START, "begin")
    graph.compile(checkpointer=saver).invoke({"keys": 0}, THREAD)
    first, last = sizes[110] - sizes[10], sizes[-1] - sizes[-101]
    assert len(sizes) == 1_001 and last <= 1.05 * first


def test_a_staff_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    compile = StateGraph.compile
    monkeypatch.setattr(StateGraph, "compile", lambda self, *a, **k: compiled.append(self) or compile(self, *a, **k))
    firm(None).invoke({"keys": 590})
    assert len(compiled) <= 5
