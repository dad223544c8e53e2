"""What a composition costs, as a multiple of LangGraph's price for the same nodes in a `StateGraph`.

    python tests/bench/bench_engine.py [rounds] [rows ...]

The nodes do nothing, so that all that is measured is the engine: CPU seconds of this process with all its threads. The
graph and its reference run in turn, in one process; the ratio is that of the fastest run of each, which a busy machine
disturbs least. Rows are chosen by a part of their name.
"""

from __future__ import annotations

import asyncio
import gc
import operator
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from agentmatrix import CyclicGraph, Dag, all_of


class State(TypedDict, total=False):
    log: Annotated[list[int], operator.add]
    value: int


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: what is measured.
        graph: ours.
        reference: LangGraph's.
        activations: how many nodes run.
        durability: with a memory saver and this durability; None for no saver.
        stream: the stream mode that is read; None for `invoke`.
        limit: the ratio that is aimed at.
    """

    name: str
    graph: Callable[..., Any]
    reference: Callable[..., Any]
    activations: int
    limit: float
    durability: str | None = None
    stream: str | None = None


def _node(number: int, is_async: bool) -> Any:
    def run(state: State) -> State:
        return {"value": number}

    async def arun(state: State) -> State:
        return {"value": number}

    return arun if is_async else run


def _adder(number: int, is_async: bool) -> Any:
    def run(state: State) -> State:
        return {"log": [number]}

    async def arun(state: State) -> State:
        return {"log": [number]}

    return arun if is_async else run


def chain(kind: Any, length: int, **options: Any) -> Callable[..., Any]:
    """A chain of nodes."""

    def build(is_async: bool, **more: Any) -> Any:
        graph = kind(State)
        for number in range(length):
            graph.add_node(f"n{number}", _node(number, is_async))
            graph.add_edge(f"n{number - 1}" if number else START, f"n{number}")
        if kind is not Dag:
            graph.add_edge(f"n{length - 1}", END)
        return graph.compile(**options, **more)

    return build


def fan_out(kind: Any, width: int, **options: Any) -> Callable[..., Any]:
    """A node, `width` nodes side by side that add to one key, and one that comes after them."""

    def build(is_async: bool, **more: Any) -> Any:
        graph = kind(State)
        graph.add_node("first", _node(0, is_async))
        graph.add_node("last", _node(1, is_async))
        graph.add_edge(START, "first")
        names = [f"n{number}" for number in range(width)]
        for number, name in enumerate(names):
            graph.add_node(name, _adder(number, is_async))
            graph.add_edge("first", name)
        graph.add_edge(names, "last")
        return graph.compile(**options, **more)

    return build


def nest(kind: Any, depth: int, **options: Any) -> Callable[..., Any]:
    """A chain of three nodes whose second one is such a chain, `depth` times."""

    def build(is_async: bool, **more: Any) -> Any:
        inner: Any = _node(0, is_async)
        for level in range(depth):
            graph = kind(State)
            graph.add_node("before", _node(level, is_async))
            graph.add_node("inner", inner)
            graph.add_node("after", _node(level, is_async))
            graph.add_edge(START, "before")
            graph.add_edge("before", "inner")
            graph.add_edge("inner", "after")
            inner = graph.compile(**options, **(more if level == depth - 1 else {}))
        return inner

    return build


def triggered(length: int) -> Callable[..., Any]:
    """A chain whose nodes are started by trigger groups."""

    def build(is_async: bool, **more: Any) -> Any:
        graph = Dag(State)
        for number in range(length):
            graph.add_node(f"n{number}", _node(number, is_async))
            if number:
                graph.add_trigger(f"n{number}", all_of(f"n{number - 1}"))
            else:
                graph.add_edge(START, "n0")
        return graph.compile(**more)

    return build


def _rows() -> Iterator[Row]:
    yield Row("one node", chain(Dag, 1), chain(StateGraph, 1), 1, 1.1)
    for length in (10, 100, 300):
        yield Row(f"chain of {length}", chain(Dag, length), chain(StateGraph, length), length, 0.85)
    for durability in ("exit", "async", "sync"):
        yield Row(f"one node, saver {durability}", chain(Dag, 1), chain(StateGraph, 1), 1, 1.1, durability)
        yield Row(f"chain of 100, saver {durability}", chain(Dag, 100), chain(StateGraph, 100), 100, 0.75, durability)
    for width in (10, 100, 500):
        yield Row(f"fan-out of {width}", fan_out(Dag, width), fan_out(StateGraph, width), width + 2, 1.0)
    for depth in (3, 10):
        yield Row(f"{depth} levels", nest(Dag, depth), nest(StateGraph, depth), 3 * depth, 1.1)
    yield Row("chain of 100, barriers", chain(Dag, 100, barriers=True), chain(StateGraph, 100), 100, 1.1)
    saved = chain(Dag, 100, barriers=True)
    yield Row("chain of 100, barriers, saver", saved, chain(StateGraph, 100), 100, 1.1, "async")
    yield Row("fan-out of 100, barriers", fan_out(Dag, 100, barriers=True), fan_out(StateGraph, 100), 102, 1.1)
    yield Row("chain of 100, values", chain(Dag, 100), chain(StateGraph, 100), 100, 1.1, None, "values")
    yield Row("chain of 100, updates", chain(Dag, 100), chain(StateGraph, 100), 100, 1.1, None, "updates")
    yield Row("cyclic chain of 100", chain(CyclicGraph, 100), chain(StateGraph, 100), 100, 1.1)
    yield Row("triggered chain of 100", triggered(100), chain(StateGraph, 100), 100, 0.85)


def _run(graph: Any, row: Row, number: int) -> Any:
    config = {"configurable": {"thread_id": str(number)}, "recursion_limit": 1000}
    options = {"durability": row.durability} if row.durability else {}
    if row.stream is None:
        return graph.invoke({"value": 0}, config, **options)
    return list(graph.stream({"value": 0}, config, stream_mode=row.stream, **options))


async def _arun(graph: Any, row: Row, number: int) -> Any:
    config = {"configurable": {"thread_id": str(number)}, "recursion_limit": 1000}
    options = {"durability": row.durability} if row.durability else {}
    if row.stream is None:
        return await graph.ainvoke({"value": 0}, config, **options)
    return [part async for part in graph.astream({"value": 0}, config, stream_mode=row.stream, **options)]


def _saved_bytes(saver: Any) -> int:
    blobs = sum(len(blob[1] or b"") for blob in saver.blobs.values())
    writes = sum(len(write[2][1]) for kept in saver.writes.values() for write in kept.values())
    checkpoints = sum(
        len(saved[0][1]) + len(saved[1][1])
        for spaces in saver.storage.values()
        for kept in spaces.values()
        for saved in kept.values()
    )
    return blobs + writes + checkpoints


def measure(row: Row, rounds: int, is_async: bool) -> tuple[float, float, int, int]:
    """CPU microseconds of an activation of ours and of the reference's, and the bytes that a run leaves in a saver."""
    savers = [InMemorySaver() if row.durability else None for _ in range(2)]
    graphs = [
        build(is_async, **({"checkpointer": saver} if saver else {}))
        for build, saver in zip((row.graph, row.reference), savers, strict=True)
    ]
    best = [float("inf")] * 2
    repeat = max(1, 30 // row.activations)

    def one(graph: Any, number: int) -> None:
        for i in range(repeat):
            _run(graph, row, number * repeat + i)

    async def many() -> None:
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                gc.collect()
                begin = time.process_time()
                if is_async:
                    for i in range(repeat):
                        await _arun(graphs[which], row, number * repeat + i)
                else:
                    one(graphs[which], number)
                best[which] = min(best[which], time.process_time() - begin)

    asyncio.run(many())
    each = [1e6 * seconds / repeat / row.activations for seconds in best]
    sizes = [_saved_bytes(saver) // (rounds * repeat) if saver else 0 for saver in savers]
    return each[0], each[1], sizes[0], sizes[1]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    chosen = sys.argv[2:]
    print(f"{'':32}{'us/activation':>16}{'LangGraph':>11}{'ratio':>8}{'aim':>7}{'bytes':>8}")
    for row in _rows():
        if chosen and not any(part in row.name for part in chosen):
            continue
        for is_async in (True, False):
            ours, reference, size, size_of_reference = measure(row, rounds, is_async)
            name = f"{row.name}, {'async' if is_async else 'sync'}"
            stored = f"{size / size_of_reference:8.2f}" if size_of_reference else ""
            print(f"{name:36}{ours:12.0f}{reference:11.0f}{ours / reference:8.2f}{row.limit:7.2f}{stored}", flush=True)


if __name__ == "__main__":
    main()
