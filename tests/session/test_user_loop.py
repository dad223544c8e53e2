"""One event loop for all async code of a host: its own or the caller's; what blocks it is named."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import HostError
from agentmatrix.session.user_loop import LoopMonitor
from tests.attacks.kit import eventually


class Text(TypedDict, total=False):
    text: str
    loop: int


def one(node: Any, name: str = "node", **options: Any) -> Any:
    return StateGraph(Text).add_node(name, node).add_edge(START, name).compile(**options)


async def tell_loop(state: Text) -> Text:
    await asyncio.sleep(0)
    return {"loop": id(asyncio.get_running_loop())}


async def test_an_async_host_runs_async_code_on_the_loop_where_it_was_entered() -> None:
    async with Host({"a": one(tell_loop), "b": one(tell_loop)}) as host:
        here = id(asyncio.get_running_loop())
        for name in "ab":
            assert (await RemoteAgent(f"{host.address}/{name}").ainvoke({}))["loop"] == here
            in_thread = await asyncio.to_thread(RemoteAgent(f"{host.address}/{name}").invoke, {})
            assert in_thread["loop"] == here


def test_a_host_has_one_loop_of_its_own_or_the_one_that_it_is_given() -> None:
    graphs = {"a": one(tell_loop), "b": one(tell_loop)}
    with Host(graphs) as host:
        assert len({RemoteAgent(f"{host.address}/{name}").invoke({})["loop"] for name in "ab"}) == 1
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with Host(graphs, loop=loop) as host:
        assert {RemoteAgent(f"{host.address}/{name}").invoke({})["loop"] for name in "ab"} == {id(loop)}
    assert loop.is_running()  # it is not the host's to stop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_host_closes_its_own_loop_and_ends_what_user_code_has_left_there() -> None:
    left: list[Any] = []
    ended: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("stay")

    async def leaves(state: Text) -> None:
        left.extend((asyncio.create_task(stay()), asyncio.get_running_loop()))
        await asyncio.sleep(0)

    with Host({"a": one(leaves)}) as host:
        RemoteAgent(f"{host.address}/a").invoke({})
    eventually(left[1].is_closed, 100)
    assert ended == ["stay"] and left[0].cancelled()


async def test_a_sync_verb_on_the_loop_of_its_own_host_raises_one_sentence() -> None:
    async with Host({"a": one(tell_loop)}) as host:
        port = host.address.rpartition(":")[2]
        for address in (host.address, f"localhost:{port}"):
            remote = RemoteAgent(f"{address}/a")
            for call in (lambda: remote.invoke({}), lambda: list(remote.stream({}))):  # noqa: B023
                with pytest.raises(HostError, match=r"would wait for itself; await a(invoke|stream), or give the host"):
                    call()
        assert (await remote.ainvoke({}))["loop"]


def test_sync_verbs_work_on_graphs_whose_nodes_are_async_only() -> None:
    async def ask(state: Text) -> Text:
        await asyncio.sleep(0)
        return {"text": state["text"] + interrupt("more?")}

    inner = one(ask, "ask")
    with Host({"asker": inner}) as host:
        remote = RemoteAgent(f"{host.address}/asker")
        saver = InMemorySaver()
        parent = StateGraph(Text).add_node("far", remote).add_edge(START, "far").compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "1"}}
        events: list[str] = []
        paused = parent.invoke({"text": "a"}, config)
        assert paused["__interrupt__"][0].value == "more?"
        parts = list(parent.stream(Command(resume="b"), config, stream_mode="updates", subgraphs=True))
        assert parts[-1][1] == {"far": {"text": "ab"}} and len(parts) == 2
        assert events == []
    with pytest.raises(TypeError):
        inner.invoke({"text": "a"})  # locally it is an error


def test_callbacks_and_custom_parts_of_an_async_only_graph_reach_a_sync_caller() -> None:
    from langchain_core.callbacks import BaseCallbackHandler
    from langgraph.config import get_stream_writer

    class Handler(BaseCallbackHandler):
        raise_error = True  # the host asks, and waits
        started = 0

        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            self.started += 1

    async def write(state: Text) -> Text:
        get_stream_writer()("part")
        return {"text": "done"}

    handler = Handler()
    with Host({"w": one(write)}) as host:
        remote = RemoteAgent(f"{host.address}/w")
        assert list(remote.stream({}, {"callbacks": [handler]}, stream_mode="custom")) == ["part"]
    assert handler.started


def test_a_node_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    named = threading.Event()

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has blocked the event loop" in record.getMessage():
                named.set()

    async def block(state: Text) -> Text:
        named.wait(60)
        return {"text": "blocked"}

    logger, seen = logging.getLogger("agentmatrix.session.user_loop"), Seen()
    logger.addHandler(seen)
    try:
        with Host({"blocker": one(block, "rude")}) as host:
            assert RemoteAgent(f"{host.address}/blocker").invoke({})["text"] == "blocked"
    finally:
        logger.removeHandler(seen)
    (said,) = [record.getMessage() for record in caplog.records if "has blocked" in record.getMessage()]
    assert "the node 'rude' has blocked the event loop of the host for more than 0.5 s" in said
    assert "test_user_loop.py" in said or "threading.py" in said


def test_a_loop_that_is_only_slow_to_wake_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    waits: list[float] = []

    def wait(event: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 1

    watch = LoopMonitor(loop, wait)
    watch.look()  # the loop does not run: nothing holds it
    assert len(waits) == 2 and not caplog.records
    loop.close()
