"""A stream's laziness and flow: what a reader can tell from holding parts back."""

from __future__ import annotations

import threading
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler, adispatch_custom_event
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    text: str


def steps(*nodes: Any) -> Any:
    return StateGraph(State).add_sequence(list(nodes)).add_edge(START, nodes[0].__name__).compile()


@pytest.mark.parametrize("mode", ["updates", "values", "custom", "messages", ["custom", "updates"]])
async def test_with_a_part_held_back_the_step_ends_and_the_next_does_not_start(
    place: Any, verbs: Any, mode: Any
) -> None:
    ended, started = threading.Event(), threading.Event()

    def one(state: State) -> State:
        get_stream_writer()("a")
        get_stream_writer()("b")
        ended.set()
        return {"text": "one"}

    def two(state: State) -> State:
        started.set()
        return {"text": "two"}

    graph = place(steps(one, two))
    if verbs.is_async:
        stream = graph.astream({"text": ""}, stream_mode=mode)
        parts = [await anext(stream)] if mode != "messages" else []
    else:
        stream = graph.stream({"text": ""}, stream_mode=mode)
        parts = [next(stream)] if mode != "messages" else []
    if parts and mode != "values":
        assert ended.wait(100)
    assert not started.wait(0.2)
    rest = [part async for part in stream] if verbs.is_async else list(stream)
    assert started.is_set()
    expected = {"updates": 2, "values": 3, "custom": 2, "messages": 0}.get(mode if isinstance(mode, str) else "", 4)
    assert len(parts) + len(rest) == expected


async def test_a_part_arrives_while_the_remote_still_works(place: Any, verbs: Any) -> None:
    go_on = threading.Event()

    def work(state: State) -> State:
        get_stream_writer()("working")
        assert go_on.wait(100)
        return {"text": "done"}

    graph = place(steps(work))
    if verbs.is_async:
        stream = graph.astream({"text": ""}, stream_mode="custom")
        assert await anext(stream) == "working"
    else:
        stream = graph.stream({"text": ""}, stream_mode="custom")
        assert next(stream) == "working"
    go_on.set()
    assert ([part async for part in stream] if verbs.is_async else list(stream)) == []


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize(
    "mode", [None, "values", "updates", "tasks", "debug", ["values", "custom"], ("updates", "values")]
)
async def test_parts_have_the_shape_that_was_asked_for(
    place: Any, verbs: Any, mode: Any, subgraphs: bool, version: str
) -> None:
    def one(state: State) -> State:
        get_stream_writer()("a")
        return {"text": "one"}

    local = steps(one)

    async def shapes(graph: Any) -> list[Any]:
        parts = await verbs.listed(
            graph, "stream", {"text": ""}, stream_mode=mode, subgraphs=subgraphs, version=version
        )
        return [_without_ids(part) for part in parts]

    assert await shapes(place(local)) == await shapes(local)


def _without_ids(part: Any) -> Any:
    if isinstance(part, dict):
        return {k: _without_ids(v) for k, v in part.items() if k not in ("id", "timestamp", "metadata")}
    return [_without_ids(item) for item in part] if isinstance(part, (list, tuple)) else part


async def test_a_host_goes_on_while_a_reader_of_a_sync_stream_waits_for_it(place: Any) -> None:
    """A sync stream that is held back still lends: the store answers while nobody asks for parts."""
    from langgraph.runtime import Runtime
    from langgraph.store.memory import InMemoryStore

    stored = threading.Event()

    def work(state: State, runtime: Runtime[Any]) -> State:
        get_stream_writer()("before")
        assert runtime.store is not None
        runtime.store.put(("a",), "k", {"v": 1})
        stored.set()
        return {"text": "done"}

    nested = steps(work)
    store = InMemoryStore()
    outer = StateGraph(State).add_node("nested", place(nested)).add_edge(START, "nested").compile(store=store)
    stream = outer.stream({"text": ""}, stream_mode="custom", subgraphs=True)
    assert next(stream)[1] == "before"
    assert stored.wait(100)
    assert list(stream) == []
    assert store.get(("a",), "k") is not None


@pytest.mark.parametrize("options", [{"print_mode": "updates"}, {"print_mode": ["values", "updates"]}, {"debug": True}])
async def test_what_is_printed_is_printed_by_the_caller(
    place: Any, verbs: Any, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    def one(state: State) -> State:
        return {"text": "one"}

    local = steps(one)
    results = []
    for graph in (place(local), local):
        done = await verbs.invoke(graph, {"text": ""}, **options)
        parts = await verbs.listed(graph, "stream", {"text": ""}, stream_mode="updates", **options)
        results.append((done, parts, capsys.readouterr().out))
    assert results[0] == results[1]
    assert "[updates]" in results[0][2]


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_the_event_stream_of_version_3(place: Any, verbs: Any) -> None:
    def one(state: State) -> State:
        return {"text": "one"}

    nested = steps(one)

    async def story(graph: Any) -> Any:
        outer = StateGraph(State).add_node("nested", graph).add_edge(START, "nested").compile()
        if verbs.is_async:
            run = await outer.astream_events({"text": ""}, version="v3")
            return [event["method"] async for event in run], await run.output()
        run = outer.stream_events({"text": ""}, version="v3")
        return [event["method"] for event in run], run.output

    assert await story(place(nested)) == await story(nested)


async def test_parts_and_events_of_a_run_come_in_their_order(place: Any, verbs: Any) -> None:
    seen: list[Any] = []

    class Watcher(BaseCallbackHandler):
        run_inline = True

        def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            seen.append(data)

    async def work(state: State) -> State:
        for number in range(50):
            get_stream_writer()(number)
            if number % 10 == 9:
                await adispatch_custom_event("after", number)
        return {}

    graph = place(steps(work))
    if not verbs.is_async:
        pytest.skip("the node is async")
    config: Any = {"callbacks": [Watcher()]}
    parts = [part async for part in graph.astream({"text": ""}, config, stream_mode="custom")]
    assert parts == list(range(50))
    assert seen == [9, 19, 29, 39, 49]


async def test_the_last_part_does_not_wait_for_a_next_one(place: Any, verbs: Any) -> None:
    go_on = threading.Event()

    def work(state: State) -> State:
        for number in range(3):
            get_stream_writer()(number)
        assert go_on.wait(100)
        return {}

    graph = place(steps(work))
    if verbs.is_async:
        stream = graph.astream({"text": ""}, stream_mode="custom")
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
    else:
        parts = graph.stream({"text": ""}, stream_mode="custom")
        assert [next(parts) for _ in range(3)] == [0, 1, 2]
    go_on.set()
    assert ([part async for part in stream] if verbs.is_async else list(parts)) == []


async def test_what_a_nested_graph_writes_quickly_comes_whole_and_in_order(place: Any, verbs: Any) -> None:
    def work(state: State) -> State:
        for number in range(300):
            get_stream_writer()(number if number % 100 else "x" * 5000)
        return {"text": "done"}

    outer = StateGraph(State).add_node("nested", place(steps(work))).add_edge(START, "nested").compile()
    parts = await verbs.listed(outer, "stream", {"text": ""}, stream_mode=["custom", "updates"], subgraphs=True)
    written = [payload for namespace, mode, payload in parts if mode == "custom"]
    assert written == [number if number % 100 else "x" * 5000 for number in range(300)]
    assert [mode for _, mode, _ in parts[-2:]] == ["updates", "updates"]
