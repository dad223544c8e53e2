"""Async nodes whose reader is slow: their tasks wait at their next await, instead of filling LangGraph's queue.

What writes a part on an event loop cannot wait where it writes. But its task can, when it awaits something next. So a
task that has written goes on only while its reader reads, or few parts wait. No other task of the loop is held up, not
even one that LangGraph uses to read the same stream.

This needs a task factory, which the loop of a host has (see `session.user_loop`); on any other loop nothing waits, as
in a local run. All of it runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextvars import Context, ContextVar
from functools import partial
from types import FunctionType
from typing import Any, Final
from weakref import WeakSet

from agentmatrix.pregel.execution import with_globals

__all__ = ["AsyncStreamGate", "paced_astream", "paced_task_factory"]

_MOST_WAITING: Final = 64


class _Writer:
    """Stands for a task in its context: LangGraph puts some parts by a callback of the loop, which runs in no task."""


class AsyncStreamGate:
    """Says whether those who write to a stream are to wait: its reader is paused, and enough parts wait for it.

    Attributes:
        writers: what stands for the tasks that have written.
        waiting: parts that wait.
    """

    def __init__(self) -> None:
        self.writers = WeakSet[_Writer]()
        self.waiting = 0
        self._is_paused = self._is_open = self._holds_all = False
        self._held: list[asyncio.Future[None]] = []

    @property
    def is_closed(self) -> bool:
        return self._is_paused and not self._is_open and (self._holds_all or self.waiting > _MOST_WAITING)

    @contextlib.contextmanager
    def paused(self, *, at_once: bool = False) -> Iterator[None]:
        """The reader does not read during this `with`. `at_once`: writers wait, however few parts do."""
        self._is_paused, self._holds_all = True, at_once
        try:
            yield
        finally:
            self._is_paused = False
            self._let_go()

    def open(self) -> None:
        """Nobody reads any more: nodes write as they like."""
        self._is_open = True
        self._let_go()

    def hold(self) -> asyncio.Future[None]:
        """What a writer awaits."""
        future = asyncio.get_running_loop().create_future()
        self._held.append(future)
        return future

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for future in held:
            if not future.done():
                future.set_result(None)


_GATE: ContextVar[AsyncStreamGate | None] = ContextVar("agentmatrix_stream_gate", default=None)
_WRITER: ContextVar[_Writer | None] = ContextVar("agentmatrix_stream_writer", default=None)


class GatedAsyncQueue:
    """A queue of parts as LangGraph uses its own, which notes who writes."""

    def __init__(self, gate: AsyncStreamGate) -> None:
        self._gate = gate
        self._parts: deque[Any] = deque()
        self._readers: list[asyncio.Future[None]] = []

    def put_nowait(self, item: Any) -> None:
        """Adds a part."""
        self._parts.append(item)
        self._gate.waiting = len(self._parts)
        if (writer := _WRITER.get()) is not None:
            self._gate.writers.add(writer)
        while self._readers:
            if not (reader := self._readers.pop()).done():
                reader.set_result(None)

    def get_nowait(self) -> Any:
        """Takes the first part.

        Raises:
            asyncio.QueueEmpty: there is none.
        """
        if not self._parts:
            raise asyncio.QueueEmpty
        item = self._parts.popleft()
        self._gate.waiting = len(self._parts)
        return item

    async def wait(self) -> None:
        """Waits until there is a part."""
        if not self._parts:
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            await reader


def paced_astream(graph: Any, gate: AsyncStreamGate) -> Callable[..., AsyncIterator[Any]]:
    """The graph's `astream`, whose nodes wait at the gate; as it is for a graph that streams in a way of its own."""
    stream = type(graph).astream
    if not isinstance(stream, FunctionType) or "AsyncQueue" not in stream.__globals__:
        own: Callable[..., AsyncIterator[Any]] = graph.astream
        return own
    _GATE.set(gate)
    return partial(with_globals(stream, AsyncQueue=partial(GatedAsyncQueue, gate)), graph)


def paced_task_factory(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], *, context: Context | None = None, **more: Any
) -> asyncio.Task[Any]:
    """A task factory: tasks of a run whose stream has a gate wait there, once they have written."""
    gate = _GATE.get() if context is None else context.get(_GATE)
    paced = coroutine if gate is None else _PacedCoroutine(coroutine, gate)
    return asyncio.Task(paced, loop=loop, context=context, **more)


class _PacedCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine as a task drives it: one that has written waits at its gate before its next step."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], gate: AsyncStreamGate) -> None:
        self._coroutine, self._gate = coroutine, gate
        self._writer: _Writer | None = None

    def send(self, value: Any) -> Any:
        if self._writer is None:
            self._writer = _Writer()
            _WRITER.set(self._writer)
        if self._gate.is_closed and self._writer in self._gate.writers:
            return next(self._gate.hold().__await__())  # the value is not kept: tasks send None
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:  # anyio asks for its frame
        return getattr(self._coroutine, name)
