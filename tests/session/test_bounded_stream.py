"""A reader that is slow, or stops, slows the nodes that write; none of them waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.errors import HostError
from agentmatrix.pregel.bounded_stream import StreamGate, bounded_stream

PARTS = 2000
SIZE = 10_000


class Count(TypedDict, total=False):
    written: int


def stategraph(**nodes: Callable[[Count], Count]) -> Any:
    builder = StateGraph(Count)
    for name, node in nodes.items():
        builder.add_node(name, node).add_edge(START, name)
    return builder.compile()


def dag(**nodes: Callable[[Count], Count]) -> Any:
    builder = Dag(Count)
    for name, node in nodes.items():
        builder.add_node(name, node)
    return builder.compile()


@pytest.mark.parametrize("build", [stategraph, dag])
def test_a_node_waits_for_its_far_reader_and_all_parts_come(build: Callable[..., Any]) -> None:
    written: list[int] = []

    def flood(state: Count) -> Count:
        write = get_stream_writer()
        for number in range(PARTS):
            write("x" * SIZE)
            written.append(number)
        return {"written": PARTS}

    with Host({"flood": build(flood=flood)}) as host:
        stream = RemoteAgent(f"{host.address}/flood").stream({}, stream_mode="custom")
        assert next(stream) == "x" * SIZE
        settled = threading.Event()
        while len(written) <= 20:
            settled.wait(0.05)
        while not settled.wait(0.1):  # the node goes on until its way is full
            before = len(written)
            settled.wait(0.2)
            if len(written) == before:
                settled.set()
        assert len(written) < PARTS // 2
        assert sum(1 for _ in stream) == PARTS - 1
        assert len(written) == PARTS


def test_a_reader_that_leaves_lets_the_node_end() -> None:
    ended = threading.Event()

    def flood(state: Count) -> Count:
        write = get_stream_writer()
        try:
            for _ in range(PARTS):
                write("x" * SIZE)
        finally:
            ended.set()
        return {}

    with Host({"flood": stategraph(flood=flood)}) as host:
        stream: Any = RemoteAgent(f"{host.address}/flood").stream({}, stream_mode="custom")
        next(stream)
        stream.close()
        assert ended.wait(60)


def test_a_node_that_fails_beside_one_that_floods_ends_the_run() -> None:
    flooding = threading.Event()

    def flood(state: Count) -> Count:
        write = get_stream_writer()
        for number in range(300):
            write(number)
            if number > 200:
                flooding.set()
        return {}

    def fail(state: Count) -> Count:
        flooding.wait(60)
        raise ValueError("it fails")

    with Host({"both": stategraph(flood=flood, fail=fail)}) as host:
        with pytest.raises(ValueError, match="it fails"):
            list(RemoteAgent(f"{host.address}/both").stream({}, stream_mode="custom"))


def test_a_gate_that_is_open_holds_nobody() -> None:
    gate = StreamGate()
    gate.open()
    graph = stategraph(node=lambda state: {"written": 1})
    assert list(bounded_stream(graph, gate)({}, stream_mode="values"))[-1] == {"written": 1}


def test_a_graph_that_streams_in_a_way_of_its_own_is_left_alone() -> None:
    class Own:
        def stream(self, *args: Any) -> Any:
            yield from args

    assert list(bounded_stream(Own(), StreamGate())(1, 2)) == [1, 2]


async def test_a_slow_reader_of_an_async_graph_gets_all_parts() -> None:
    async def flood(state: Count) -> Count:
        write = get_stream_writer()
        for _ in range(PARTS):
            write("x" * SIZE)
        return {"written": PARTS}

    async with Host({"flood": stategraph(flood=flood)}) as host:
        count = 0
        async for part in RemoteAgent(f"{host.address}/flood").astream({}, stream_mode="custom"):
            count += part == "x" * SIZE
        assert count == PARTS
        with pytest.raises(HostError):
            RemoteAgent(f"{host.address}/flood").invoke({})
