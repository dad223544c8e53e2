"""Live runs of graphs whose node takes the signals by itself: the same wherever the node runs."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import START, StateGraph
from langgraph.types import GraphOutput, interrupt

from agentmatrix import CyclicGraph, signal
from agentmatrix.errors import SignalError
from agentmatrix.live import LiveRun
from tests.live.collecting_graphs import State, above, collecting, live

EMPTY: State = {"heard": []}


async def test_signals_reach_a_graph_while_it_runs(verbs: Any) -> None:
    async with live(verbs, collecting(verbs), EMPTY) as run:
        for number in range(3):
            await run.signal("audio", number)
        run.close_input()
        assert await run.result() == {"heard": [0, 1, 2]}
        with pytest.raises(SignalError, match="run has ended"):
            await run.signal("audio", 3)


async def test_leaving_the_block_closes_the_input(verbs: Any) -> None:
    async with live(verbs, above(collecting(verbs)), EMPTY) as run:
        await run.signal("panel/audio", "a", timeout=100)
    assert await run.result() == {"heard": ["a"]}


async def test_parts_are_those_of_a_stream_whether_or_not_anybody_reads_at_once(verbs: Any) -> None:
    graph = above(collecting(verbs))
    async with live(verbs, graph, EMPTY, stream_mode=["updates", "custom"], subgraphs=True) as run:
        await run.signal("panel/audio", 1)
        run.close_input()
        await run.result()
        parts = [(len(namespace), mode, payload) async for namespace, mode, payload in run]
    update = {"heard": [1]}
    assert parts == [
        (1, "custom", "listening"), (1, "updates", {"collect": update}), (0, "updates", {"panel": update}),
    ]  # fmt: skip


async def test_a_reader_hears_of_a_part_while_the_run_waits(verbs: Any) -> None:
    async with live(verbs, collecting(verbs), EMPTY, stream_mode="custom") as run:
        async for part in run:
            assert part == "listening"
            await run.signal("audio", 1)
            run.close_input()
    assert (await run.result())["heard"] == [1]


async def test_no_parts_are_kept_where_none_are_asked_for(verbs: Any) -> None:
    async with live(verbs, collecting(verbs), EMPTY, stream_mode=[]) as run:
        run.close_input()
        assert [part async for part in run] == []
        assert await run.result() == {"heard": []}


async def test_the_result_is_that_of_invoke(verbs: Any) -> None:
    def ask(state: State) -> State:
        return {"heard": [interrupt("?")]}

    builder = StateGraph(State).add_node("ask", ask).add_edge(START, "ask")
    graph = builder.compile(checkpointer=InMemorySaver())

    def thread(name: str) -> Any:
        return {"configurable": {"thread_id": name}}

    async with live(verbs, graph, EMPTY, thread("live")) as run:
        run.close_input()
        paused = await run.result()
        assert [next(iter(part)) async for part in run] == ["__interrupt__"]
    plain = await verbs.invoke(graph, EMPTY, thread("plain"))
    assert paused.keys() == plain.keys() and paused["__interrupt__"][0].value == "?"
    async with live(verbs, graph, EMPTY, thread("v2"), version="v2") as run:
        output = await run.result()
    assert isinstance(output, GraphOutput) and output.interrupts[0].value == "?"


async def test_a_failure_that_nobody_saw_is_raised_once_on_leaving(verbs: Any) -> None:
    failure = KeyError("broken")
    with pytest.raises(KeyError, match="broken"):
        async with live(verbs, collecting(verbs, enough=1, fail=failure), EMPTY) as run:
            await run.signal("audio", 1)
    with pytest.raises(KeyError):
        await run.result()
    async with live(verbs, collecting(verbs, fail=failure), EMPTY) as run:
        run.close_input()
        with pytest.raises(KeyError):
            await run.result()


async def test_a_reader_hears_of_the_failure_after_the_last_part(verbs: Any) -> None:
    parts = []
    async with live(verbs, collecting(verbs, fail=IndexError("x")), EMPTY, stream_mode="custom") as run:
        run.close_input()
        with pytest.raises(IndexError, match="x"):
            async for part in run:
                parts.append(part)
    assert parts == ["listening"]


async def test_a_signal_to_a_run_that_has_failed(verbs: Any) -> None:
    failure = KeyError("broken")
    async with live(verbs, collecting(verbs, enough=1, fail=failure), EMPTY) as run:
        await run.signal("audio", 1)
        with pytest.raises(SignalError, match="the run has failed with KeyError") as caught:
            await run.signal("audio", 2)
        assert caught.value.__cause__ is failure
        with pytest.raises(KeyError):
            await run.result()


async def test_the_failure_itself_leaves_the_block_and_not_the_signal_that_met_it(verbs: Any) -> None:
    failure = KeyError("broken")
    with pytest.raises(KeyError) as caught:
        async with live(verbs, collecting(verbs, enough=1, fail=failure), EMPTY) as run:
            await run.signal("audio", 1)
            await run.signal("audio", 2)
    assert caught.value is failure


async def test_an_error_of_the_body_is_told_of_the_failure_of_the_run(verbs: Any) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with live(verbs, collecting(verbs, enough=1, fail=KeyError("broken")), EMPTY) as run:
            await run.signal("audio", 1)
            with pytest.raises(SignalError):
                await run.signal("audio", 2)
            1 / 0  # noqa: B018
    assert "KeyError: 'broken'" in caught.value.__notes__[0]


async def test_an_error_of_the_body_cancels_the_run(verbs: Any) -> None:
    later = threading.Event()
    builder = StateGraph(State).add_node("panel", collecting(verbs)).add_node("later", lambda state: later.set())
    graph = builder.add_edge(START, "panel").add_edge("panel", "later").compile()
    with pytest.raises(ZeroDivisionError) as caught:
        async with live(verbs, graph, EMPTY) as run:
            await run.signal("panel/audio", 1)
            1 / 0  # noqa: B018
    assert not hasattr(caught.value, "__notes__") and not later.is_set()
    with pytest.raises(SignalError, match="the run was cancelled"):
        await run.signal("panel/audio", 2)


async def test_cancelling_the_task_cancels_the_run() -> None:
    class Async:
        is_async = True

    entered = asyncio.Event()

    async def use() -> None:
        async with LiveRun(collecting(Async), EMPTY) as run:
            await run.signal("audio", 1)
            entered.set()

    task = asyncio.create_task(use())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 100)


async def test_stop_lets_running_nodes_end_and_starts_no_other(verbs: Any) -> None:
    builder = StateGraph(State).add_node("panel", collecting(verbs)).add_node("later", lambda s: {"heard": ["later"]})
    builder.add_edge(START, "panel").add_edge("panel", "later")
    graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    async with live(verbs, graph, EMPTY, config) as run:
        await run.signal("panel/audio", 1)
        await run.stop("enough")
        assert [part async for part in run] == [{"panel": {"heard": [1]}}]
    with pytest.raises(GraphDrained, match="enough"):
        await run.result()
    with pytest.raises(SignalError):
        await run.signal("panel/audio", 2)
    assert (await verbs.invoke(graph, None, config))["heard"] == [1, "later"]


async def test_unknown_addresses_are_refused_at_once(verbs: Any) -> None:
    async with live(verbs, above(collecting(verbs)), EMPTY) as run:
        for wrong in ("panel/audoi", "audio", "panle/audio", "panel/collect/audio", "", "panel/"):
            with pytest.raises(SignalError, match="panel/audio"):
                await run.signal(wrong, 1)
    async with live(verbs, above(lambda state: {}), EMPTY) as run:
        with pytest.raises(SignalError, match="there are: no signals"):
            await run.signal("audio", 1)


async def test_a_signal_that_is_not_acknowledged_in_time_is_withdrawn(verbs: Any) -> None:
    first = collecting(verbs, enough=1)
    builder = StateGraph(State).add_node("first", first).add_node("second", collecting(verbs))
    graph = builder.add_edge(START, "first").add_edge("first", "second").compile()
    async with live(verbs, graph, EMPTY) as run:
        with pytest.raises(TimeoutError, match=r"'second/audio' was not acknowledged within 0\.01 s.*id='mine'"):
            await run.signal("second/audio", "withdrawn", id="mine", timeout=0.01)
        await run.signal("first/audio", 1)
        await run.signal("second/audio", 2)
    assert (await run.result())["heard"] == [1, 1, 2]


async def test_a_run_that_cannot_start_fails_like_invoke(verbs: Any) -> None:
    graph = collecting(verbs, checkpointer=InMemorySaver())
    with pytest.raises(ValueError, match="thread_id"):
        async with live(verbs, graph, EMPTY):
            """It has no thread."""


word: ContextVar[str] = ContextVar("word", default="none")


async def test_nodes_see_the_context_of_whoever_entered(verbs: Any) -> None:
    graph = StateGraph(State).add_node("n", lambda state: {"heard": [word.get()]}).add_edge(START, "n").compile()
    word.set("given")
    async with live(verbs, graph, EMPTY) as run:
        assert (await run.result())["heard"] == ["given"]


async def test_every_compiled_graph_has_the_verb() -> None:
    builder = CyclicGraph(State).add_node("n", lambda state: {"heard": ["n"]}).add_edge(START, "n")
    graph = builder.compile().with_config(tags=["x"])
    with graph.live(EMPTY, stream_mode="values") as run:
        assert list(run)[-1] == {"heard": ["n"]}
    async with graph.live(EMPTY) as arun:
        assert await arun.result() == {"heard": ["n"]}


def test_several_threads_may_use_one_sync_run() -> None:
    class Sync:
        is_async = False

    with LiveRun(collecting(Sync), EMPTY) as run:
        threads = [threading.Thread(target=run.signal, args=("audio", number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(run.result()["heard"]) == list(range(8))


def test_a_live_run_that_was_not_entered_says_how() -> None:
    builder = CyclicGraph(State).add_node("a", lambda state: {}).add_trigger("a", signal("audio"))
    run: Any = builder.compile().live(EMPTY)
    with pytest.raises(AttributeError, match="once it is entered: with graph.live"):
        run.signal("audio", 1)
