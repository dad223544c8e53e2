"""Graphs whose node takes signals by itself, and one way to drive the sync and the async twin of a live run."""

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
from agentmatrix.live.inbox import INBOX, Inbox, Sent, path_of


class State(TypedDict, total=False):
    heard: Annotated[list[Any], operator.add]


class Ear:
    """Hears the signals of the graph that its node is in, until the input is closed or it has heard enough."""

    names = frozenset({"audio"})

    def __init__(self, config: RunnableConfig, enough: int | None, over: Callable[[], None]) -> None:
        self.path = path_of(config["configurable"]["checkpoint_ns"])[:-1]
        self.inbox: Inbox = config["configurable"][INBOX]
        self.heard: list[Any] = []
        self._enough, self._over = enough, over
        self._lock = threading.Lock()
        self._gone = False

    def receive(self, sent: Sent) -> None:
        with self._lock:
            if self._gone or len(self.heard) == self._enough:
                return
            self.heard.append(sent.value)
            sent.taken()
            if len(self.heard) == self._enough:
                self._over()

    def close(self) -> None:
        self._over()

    def __enter__(self) -> Ear:
        self.inbox.attach(self)
        get_stream_writer()("listening")
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._gone = True
        self.inbox.detach(self)


def listening(verbs: Any, *, enough: int | None = None, fail: BaseException | None = None, **options: Any) -> Any:
    """A graph with one node that collects what it hears, and then may fail."""

    def listen(state: State, config: RunnableConfig) -> State:
        over = threading.Event()
        with Ear(config, enough, over.set) as ear:
            over.wait()
        if fail is not None:
            raise fail
        return {"heard": ear.heard}

    async def alisten(state: State, config: RunnableConfig) -> State:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        with Ear(config, enough, lambda: loop.call_soon_threadsafe(over.set) and None) as ear:
            await over.wait()
        if fail is not None:
            raise fail
        return {"heard": ear.heard}

    builder = StateGraph(State).add_node("ear", alisten if verbs.is_async else listen).add_edge(START, "ear")
    graph: Any = builder.compile(name="listening", **options)
    graph.signals = Ear.names
    return graph


def above(nested: Any, **options: Any) -> Any:
    """A graph whose node `panel` is that graph."""
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
