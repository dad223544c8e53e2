"""Async nodes that stream to a far reader who is slow, or stops: they wait at their awaits, others do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.session import host_stream
from agentmatrix.session.part_sender import wait_for_write
from agentmatrix.transport.iothread import io_thread

PARTS = 2000
SIZE = 10_000


class Count(TypedDict, total=False):
    written: int


def stategraph(**nodes: Callable[..., Any]) -> Any:
    builder = StateGraph(Count)
    for name, node in nodes.items():
        builder.add_node(name, node).add_edge(START, name)
    return builder.compile()


def dag(**nodes: Callable[..., Any]) -> Any:
    builder = Dag(Count)
    for name, node in nodes.items():
        builder.add_node(name, node)
    return builder.compile()


def nested(**nodes: Callable[..., Any]) -> Any:
    return stategraph(inner=stategraph(**nodes))


def settle(written: list[int]) -> int:
    """Waits until no more is written; returns how much is."""
    pause, before = threading.Event(), -1
    while before != len(written) or not written:
        before = len(written)
        pause.wait(0.3)
    return before


@pytest.mark.parametrize("build", [stategraph, dag, nested])
def test_a_node_waits_for_its_far_reader_and_all_parts_come(build: Callable[..., Any]) -> None:
    written: list[int] = []

    async def flood(state: Count) -> Count:
        write = get_stream_writer()
        for number in range(PARTS):
            write("x" * SIZE)
            written.append(number)
            await asyncio.sleep(0)
        return {"written": PARTS}

    async def quick(state: Count) -> Count:
        return {"written": 1}

    with Host({"flood": build(flood=flood), "quick": stategraph(quick=quick)}) as host:
        stream = RemoteAgent(f"{host.address}/flood").stream({}, stream_mode="custom", subgraphs=build is nested)
        next(stream)
        assert settle(written) < PARTS // 2
        assert RemoteAgent(f"{host.address}/quick").invoke({}) == {"written": 1}  # on the same loop
        assert sum(1 for _ in stream) == PARTS - 1
        assert len(written) == PARTS


@pytest.mark.parametrize("leaves", [True, False])
def test_a_reader_that_leaves_ends_the_node_and_a_failing_sibling_too(leaves: bool) -> None:
    written, ended, failing = list[int](), threading.Event(), asyncio.Event()

    async def flood(state: Count) -> Count:
        write = get_stream_writer()
        try:
            for number in range(PARTS):
                write("x" * SIZE)
                written.append(number)
                await asyncio.sleep(0)
                if number == 100:
                    failing.set()
        finally:
            ended.set()
        return {}

    async def fail(state: Count) -> Count:
        await (asyncio.Event() if leaves else failing).wait()
        raise ValueError("it fails by intention")

    with Host({"flood": stategraph(flood=flood, fail=fail)}) as host:
        stream: Any = RemoteAgent(f"{host.address}/flood").stream({}, stream_mode="custom")
        next(stream)
        settle(written)
        if leaves:
            stream.close()
        else:
            with pytest.raises(ValueError, match="intention"):
                for _ in stream:
                    pass
        assert ended.wait(60)


async def test_a_stream_within_the_stream() -> None:
    """Tasks of a node's own write as well, and wait as the node does."""
    written: list[int] = []

    async def flood(state: Count) -> Count:
        write = get_stream_writer()

        async def part(which: int) -> None:
            for number in range(PARTS // 4):
                write("x" * SIZE)
                written.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*map(part, range(4)))
        return {"written": PARTS}

    with Host({"flood": stategraph(flood=flood)}) as host:
        stream = RemoteAgent(f"{host.address}/flood").astream({}, stream_mode="custom")
        await anext(stream)
        assert await asyncio.to_thread(settle, written) < PARTS // 2
        assert len([part async for part in stream]) == PARTS - 1


@pytest.mark.parametrize("build", [stategraph, dag, nested])
async def test_a_node_that_never_rests_waits_while_its_first_parts_go_out(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, written_meanwhile = list[int](), list[int]()

    async def flood(state: Count) -> Count:
        write = get_stream_writer()
        for number in range(PARTS):
            write("token")
            written.append(number)
            await asyncio.sleep(0)
        return {"written": PARTS}

    async def longer_turn() -> None:
        before = len(written)
        await wait_for_write()
        for _ in range(10):
            await asyncio.sleep(0)
        written_meanwhile.append(len(written) - before)

    monkeypatch.setattr(host_stream, "wait_for_write", longer_turn)
    with Host({"flood": build(flood=flood)}) as host:
        stream = RemoteAgent(f"{host.address}/flood").astream({}, stream_mode="custom", subgraphs=build is nested)
        assert len([part async for part in stream]) == PARTS
    assert written_meanwhile and not any(written_meanwhile)


async def test_the_turn_of_the_io_thread_ends_when_it_writes() -> None:
    done, io = list[str](), io_thread()
    io.call(io.loop.call_soon, done.append, "written")  # as a carrier does when it is woken
    await wait_for_write()
    assert done == ["written"]
