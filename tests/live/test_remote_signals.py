"""Signals for a graph that may run on another host: the same as for a local one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import AgentMatrixError, EncodeError, HostLost, SignalError
from agentmatrix.live.signal_router import SIGNAL_ROUTER
from agentmatrix.session import signal_forwarding
from agentmatrix.session.host_run import HostRun
from agentmatrix.session.signal_forwarding import IncomingSignals
from agentmatrix.testing import loopback
from tests.live.collecting_graphs import State, above, collecting, live

EMPTY: State = {"heard": []}


def two(first: Any, second: Any, **options: Any) -> Any:
    builder = StateGraph(State).add_node("first", first).add_node("second", second)
    return builder.add_edge(START, "first").add_edge("first", "second").compile(**options)


async def test_the_root(place: Any, verbs: Any) -> None:
    async with live(verbs, place(collecting(verbs)), EMPTY, stream_mode=["custom", "updates"]) as run:
        for number in range(3):
            await run.signal("audio", number)
        run.close_input()
        parts = [part async for part in run]
        assert await run.result() == {"heard": [0, 1, 2]}
        with pytest.raises(SignalError, match="run has ended"):
            await run.signal("audio", 3)
    assert parts == [("custom", "listening"), ("updates", {"collect": {"heard": [0, 1, 2]}})]


async def test_a_nested_graph(place: Any, verbs: Any) -> None:
    graph = above(place(collecting(verbs)), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    every = ["values", "updates", "custom", "tasks", "checkpoints", "debug"]
    async with live(verbs, graph, EMPTY, config, stream_mode=every, subgraphs=True) as run:
        await run.signal("panel/audio", b"chunk")
    assert (await run.result())["heard"] == [b"chunk"]
    state = await verbs.call(graph, "get_state", config)
    assert state.values == {"heard": [b"chunk"]} and SIGNAL_ROUTER not in str(state)


async def test_a_remote_inside_of_a_remote(place: Any, verbs: Any) -> None:
    graph = above(place(above(place(two(collecting(verbs, enough=1), place(collecting(verbs)))))))
    async with live(verbs, graph, EMPTY) as run:
        await run.signal("panel/panel/first/audio", 1)
        await run.signal("panel/panel/second/audio", 2)
        with pytest.raises(SignalError, match="panel/panel/second/audio"):
            await run.signal("panel/panel/second/audoi", 3)
    assert (await run.result())["heard"] == [1, 1, 2]


async def test_signals_wait_for_a_graph_that_has_not_started(place: Any, verbs: Any) -> None:
    graph = two(place(collecting(verbs, enough=2)), place(collecting(verbs)))
    async with live(verbs, graph, EMPTY) as run:
        early = [asyncio.create_task(run.signal("second/audio", number)) for number in range(3)]
        await run.signal("first/audio", "a")
        assert not any(task.done() for task in early)
        await run.signal("first/audio", "b")
        await asyncio.gather(*early)
    heard = (await run.result())["heard"]
    assert heard[:2] == ["a", "b"] and sorted(heard[-3:]) == [0, 1, 2]


async def test_an_input_that_was_closed_before_the_graph_started(place: Any, verbs: Any) -> None:
    graph = two(place(collecting(verbs, enough=1)), place(collecting(verbs)))
    async with live(verbs, graph, EMPTY) as run:
        late = asyncio.create_task(run.signal("second/audio", "late"))
        await asyncio.sleep(0)
        await run.signal("first/audio", "a")
        run.close_input()
        await run.result()
        await asyncio.gather(late, return_exceptions=True)
    heard = (await run.result())["heard"]
    assert heard[:2] == ["a", "a"] and heard[2:] in ([], ["late"])


async def test_an_unknown_address_is_refused_by_the_host_where_its_card_is_not_known(verbs: Any) -> None:
    with Host({"a": collecting(verbs)}) as host:
        async with live(verbs, above(RemoteAgent(f"{host.address}/a")), EMPTY) as run:
            with pytest.raises(SignalError, match="no graph declares the signal 'panel/audoi'.*'panel/audio'"):
                await run.signal("panel/audoi", 1)
            await run.signal("panel/audio", 2)
        async with live(verbs, RemoteAgent(f"{host.address}/a"), EMPTY) as run:
            with pytest.raises(SignalError, match="did you mean 'audio'"):
                await run.signal("audoi", 1)
        assert (await run.result())["heard"] == []


async def test_an_agent_that_was_not_reached_streams_in_its_own_mode(verbs: Any) -> None:
    with Host({"a": collecting(verbs)}) as host:
        async with live(verbs, RemoteAgent(f"{host.address}/a"), EMPTY) as run:
            await run.signal("audio", 1)
            run.close_input()
            assert [part async for part in run] == [{"collect": {"heard": [1]}}]


async def test_a_value_that_cannot_cross(verbs: Any) -> None:
    class Unlisted:
        """A class that the host does not admit."""

    async with live(verbs, above(loopback(collecting(verbs))), EMPTY) as run:
        with pytest.raises(EncodeError, match="panel/audio"):
            await run.signal("panel/audio", threading.Lock())
        with pytest.raises(AgentMatrixError, match="Unlisted"):
            await run.signal("panel/audio", Unlisted())
        await run.signal("panel/audio", "fine")
    assert (await run.result())["heard"] == ["fine"]


async def test_a_failure_on_the_host(place: Any, verbs: Any) -> None:
    with pytest.raises(KeyError, match="broken"):
        async with live(verbs, above(place(collecting(verbs, enough=1, fail=KeyError("broken")))), EMPTY) as run:
            await run.signal("panel/audio", 1)
            with pytest.raises(SignalError, match="KeyError"):
                await run.signal("panel/audio", 2)


async def test_an_error_of_the_body_stops_the_work_on_the_host(place: Any, verbs: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with live(verbs, above(place(collecting(verbs))), EMPTY) as run:
            await run.signal("panel/audio", 1)
            1 / 0  # noqa: B018


async def test_what_was_called_off_on_the_host_has_not_ended(verbs: Any) -> None:
    """It would have gone on for long: that its input is closed as well is not its end, and a later run begins anew."""
    graph = above(loopback(collecting(verbs)), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(ZeroDivisionError):
        async with live(verbs, graph, EMPTY, config) as run:
            await run.signal("panel/audio", 1)
            1 / 0  # noqa: B018
    state = await verbs.call(graph, "get_state", config)
    assert (state.next, state.values) == (("panel",), EMPTY)


async def test_stop(place: Any, verbs: Any) -> None:
    saver = InMemorySaver()
    graph = above(place(two(collecting(verbs), lambda state: {"heard": ["second"]})), checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    async with live(verbs, graph, EMPTY, config) as run:
        await run.signal("panel/first/audio", 1)
        await run.stop("enough")
    with pytest.raises(GraphDrained, match="enough"):
        await run.result()
    assert (await verbs.invoke(graph, None, config))["heard"] == [1, "second"]


async def test_a_stop_is_not_overtaken_by_the_end_of_the_input(monkeypatch: pytest.MonkeyPatch, verbs: Any) -> None:
    receive, decode, told = HostRun.receive, HostRun._decode_drain, list[str]()
    set_drained, close, has_closed = HostRun._drain, IncomingSignals.close, threading.Event()

    def received(self: Any, received: Any) -> None:
        closes = received.frame.notice.kind == "close"
        receive(self, received)
        if closes:
            has_closed.set()

    def decoded(self: Any, received: Any) -> None:
        assert has_closed.wait(60)
        decode(self, received)

    def drained(self: Any, reason: str) -> None:
        told.append(reason)
        set_drained(self, reason)

    def closed(self: Any, after: Any = None) -> None:
        if after is None:
            told.append("closed")
        close(self, after)

    monkeypatch.setattr(HostRun, "receive", received)
    monkeypatch.setattr(HostRun, "_decode_drain", decoded)
    monkeypatch.setattr(HostRun, "_drain", drained)
    monkeypatch.setattr(IncomingSignals, "close", closed)
    graph = above(loopback(two(collecting(verbs), collecting(verbs))), checkpointer=InMemorySaver())
    async with live(verbs, graph, EMPTY, {"configurable": {"thread_id": "1"}}) as run:
        await run.signal("panel/first/audio", 1)
        await run.stop("enough")
    with pytest.raises(GraphDrained, match="enough"):
        await run.result()
    assert told[:2] == ["enough", "closed"]


async def test_a_host_that_is_lost(verbs: Any) -> None:
    host = Host({"a": collecting(verbs)}).start()
    graph = above(RemoteAgent(f"{host.address}/a"))
    with pytest.raises(HostLost):
        async with live(verbs, graph, EMPTY) as run:
            await run.signal("panel/audio", 1)
            await asyncio.to_thread(host.stop)
            await run.signal("panel/audio", 2)


async def test_a_host_that_holds_many_signals_refuses_more(monkeypatch: pytest.MonkeyPatch, verbs: Any) -> None:
    monkeypatch.setattr(signal_forwarding, "MAX_UNACKED", 2)
    async with live(verbs, above(loopback(two(collecting(verbs), collecting(verbs)))), EMPTY) as run:
        waiting = [asyncio.create_task(run.signal("panel/second/audio", number)) for number in range(3)]
        done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(SignalError, match="holds 2 signals"):
            await done.pop()
        run.close_input()
        await asyncio.gather(*others)


async def test_large_and_many_signals_keep_their_order(place: Any, verbs: Any) -> None:
    values = [(number, b"x" * (3_000_000 if number % 5 == 0 else number)) for number in range(20)]
    async with live(verbs, above(place(collecting(verbs))), EMPTY) as run:
        if verbs.is_async:
            await asyncio.gather(*(run.signal("panel/audio", value) for value in values))
        for value in values if not verbs.is_async else ():
            await run.signal("panel/audio", value)
    assert (await run.result())["heard"] == values


async def test_a_plain_run_has_no_signal_router(place: Any, verbs: Any) -> None:
    with pytest.raises(KeyError, match=SIGNAL_ROUTER):
        await verbs.invoke(above(place(collecting(verbs))), EMPTY)


async def test_the_card_names_the_signals(verbs: Any) -> None:
    remote = loopback(above(collecting(verbs)))
    assert remote.signals == frozenset()
    assert remote.card.subgraphs["panel"].signals == {"audio"}
    with Host({"a": collecting(verbs)}) as host:
        fresh = RemoteAgent(f"{host.address}/a")
        assert fresh.signals is None and not fresh.reached
        assert fresh.card.signals == fresh.signals == {"audio"}
