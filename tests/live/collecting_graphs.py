"""Graphs with a node that receives signals itself, and `live`, which runs them by the sync or the async twin."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from agentmatrix.live import LiveRun
from agentmatrix.live.signal_router import SIGNAL_ROUTER, PendingSignal, SignalRouter, node_path


class State(TypedDict, total=False):
    heard: Annotated[list[Any], operator.add]


class Collector:
    """Receives the signals of its node's graph until the input is closed, or until it has so many.

    Args:
        config: the config of the node.
        limit: how many signals to take; None takes all.
        done: called at the end.
    """

    names = frozenset({"audio"})

    def __init__(self, config: RunnableConfig, limit: int | None, done: Callable[[], None]) -> None:
        self.path = node_path(config["configurable"]["checkpoint_ns"])[:-1]
        self.router: SignalRouter = config["configurable"][SIGNAL_ROUTER]
        self.heard: list[Any] = []
        self._limit, self._done = limit, done
        self._lock = threading.Lock()
        self._detached = False

    def receive(self, signal: PendingSignal) -> None:
        with self._lock:
            if self._detached or len(self.heard) == self._limit:
                return
            self.heard.append(signal.value)
            signal.acknowledge()
            if len(self.heard) == self._limit:
                self._done()

    def close(self) -> None:
        self._done()

    def __enter__(self) -> Collector:
        self.router.attach(self)
        get_stream_writer()("listening")
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._detached = True
        self.router.detach(self)


def collecting(verbs: Any, *, enough: int | None = None, fail: BaseException | None = None, **options: Any) -> Any:
    """A graph with one node that collects signals, and then may fail."""

    def collect(state: State, config: RunnableConfig) -> State:
        done = threading.Event()
        with Collector(config, enough, done.set) as collector:
            done.wait()
        if fail is not None:
            raise fail
        return {"heard": collector.heard}

    async def acollect(state: State, config: RunnableConfig) -> State:
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        with Collector(config, enough, lambda: loop.call_soon_threadsafe(done.set) and None) as collector:
            await done.wait()
        if fail is not None:
            raise fail
        return {"heard": collector.heard}

    builder = StateGraph(State).add_node("collect", acollect if verbs.is_async else collect).add_edge(START, "collect")
    graph: Any = builder.compile(name="collecting", **options)
    graph.signals = Collector.names
    return graph


def above(nested: Any, **options: Any) -> Any:
    """A graph whose node `panel` is the nested graph."""
    return StateGraph(State).add_node("panel", nested).add_edge(START, "panel").compile(name="above", **options)


class _Awaited:
    """The sync twin of a live run, awaited like the other."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self.close_input = run.close_input

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(getattr(self._run, name), *args, **kwargs)

        return call

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (part := await asyncio.to_thread(next, self._run, self)) is not self:
            yield part


@asynccontextmanager
async def live(verbs: Any, graph: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    """A live run of the graph by the twin that `verbs` asks for."""
    if verbs.is_async:
        async with LiveRun(graph, *args, **kwargs) as run:
            yield run
    else:
        with LiveRun(graph, *args, **kwargs) as twin:
            yield _Awaited(twin)
