"""Live runs: a graph that takes signals while it runs, until its input is closed.

::

    async with graph.live(input, config) as run:
        await run.signal("audio", chunk)
        async for part in run:
            ...

The run does not wait for its reader: an asyncio task (`AsyncLiveRun`) or a thread (`SyncLiveRun`) drives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self

from langchain_core.runnables import RunnableConfig

from agentmatrix.cancel_scope import CancelScope, current_scope
from agentmatrix.errors import SignalError
from agentmatrix.event_loop import call_on
from agentmatrix.interrupts import cancelled_interrupts
from agentmatrix.live.run_base import END_OF_PARTS, LiveRunBase, timed_out
from agentmatrix.live.signal_router import new_id

__all__ = ["AsyncLiveRun", "LiveMixin", "LiveRun", "SyncLiveRun"]

_INTERRUPT_GRACE: Final = 2.0
"""The seconds that an interrupted sync run (Ctrl-C) waits for its running nodes, which cannot be stopped."""


class LiveMixin:
    """Adds `live` to a graph.

    Attributes:
        signals: the names of the signals that the graph itself declares.
    """

    signals: frozenset[str] = frozenset()

    def live(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        stream_mode: Any = None,
        subgraphs: bool = False,
        context: Any = None,
        durability: Any = None,
        **kwargs: Any,
    ) -> LiveRun:
        """Runs the graph and takes signals while it runs.

        Args:
            input: as of `astream`; None or a `Command` resumes a run of the thread, with the signals that were
                acknowledged and not consumed.
            config: as of `astream`.
            stream_mode: the modes to keep parts of. Parts that are not read are kept until the run ends: pass `[]` if
                you read none.
            subgraphs: whether to keep the parts of nested graphs too.
            context: as of `astream`.
            durability: as of `astream`; under `"exit"` a signal is acknowledged once the graph has received it.
            kwargs: further arguments of `astream`.

        Returns:
            The run. It starts when it is entered, with `async with` or with `with`.
        """
        given = {"stream_mode": stream_mode, "context": context, "durability": durability}
        given = {name: value for name, value in given.items() if value is not None}
        return LiveRun(self, input, config, subgraphs=subgraphs, **given, **kwargs)


class LiveRun:
    """A run that takes signals. It starts when it is entered, with `async with` or with `with`.

    Leaving the block closes the input and waits for the end of the run; a failure of the run that was not raised yet is
    raised then. An exception that leaves the block cancels the run. An async run stops at once. A sync run starts no
    more nodes and cancels calls of other hosts; its running nodes finish, as in LangGraph.

    Args:
        graph: a compiled graph.
        input: as of `astream`.
        config: as of `astream`.
        kwargs: keyword arguments of `astream`.
    """

    def __init__(self, graph: Any, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> None:
        self._arguments = (graph, input, config, kwargs)
        self._run: AsyncLiveRun | SyncLiveRun | None = None

    def __enter__(self) -> SyncLiveRun:
        self._run = run = SyncLiveRun(*self._arguments)
        return run.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert isinstance(self._run, SyncLiveRun)
        self._run.exit(error)

    async def __aenter__(self) -> AsyncLiveRun:
        self._run = run = AsyncLiveRun(*self._arguments)
        return run.start()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert isinstance(self._run, AsyncLiveRun)
        await self._run.aexit(error)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("signal", "close_input", "stop", "result"):
                entered = "with graph.live(...) as run, or async with"
                raise AttributeError(f"a live run has {name!r} once it is entered: {entered}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class AsyncLiveRun(LiveRunBase):
    """A live run that was entered with `async with`. An asynchronous iterator of its parts."""

    def start(self) -> Self:
        """Starts the run in a task. Called by `async with`."""
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._drive())
        return self

    async def _drive(self) -> None:
        cancelled_interrupts.set(self._cancelled_interrupts)
        try:
            if "stream_mode" not in self._kwargs and not getattr(self._graph, "reached", True):
                # The card of a remote agent says which mode is its default.
                await self._graph.acard()
            stream = self._graph.astream(self._input, self._config, **self._stream_kwargs())
            async with contextlib.aclosing(stream):
                async for part in stream:
                    self._on_part(part)
        except asyncio.CancelledError as error:
            self._end(error)
            raise
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _notify(self) -> None:
        self._changed.set()

    async def signal(self, address: str, value: Any, *, id: str | None = None, timeout: float | None = None) -> None:
        """Sends a signal, and returns when it has been acknowledged.

        A signal is acknowledged when the checkpointer of the graph that declares it has saved it. Without a
        checkpointer, or under durability `"exit"`, it is acknowledged when that graph has received it. A signal for a
        nested graph waits until that graph runs. If the graph around it is a `Dag` or a `CyclicGraph` with triggers,
        the signal is refused once nothing can start the nested graph any more.

        Args:
            address: a signal that the graph declares, `"audio"`, or the nodes that lead to a nested graph and a signal
                that this one declares, `"panel/audio"`.
            value: any value; for a remote agent, one that the wire can encode.
            id: the id of the signal; a signal that is sent again with the same id counts once.
            timeout: the seconds to wait; None is no limit.

        Raises:
            SignalError: the signal was not taken: no graph declares it, no graph takes it any more, the input is
                closed, or the run has ended.
            TimeoutError: it was not acknowledged in time.
        """
        id = id or new_id()
        answer = _answer(self._send(address, value, id))
        try:
            if timeout is None:
                await answer
                return
            async with asyncio.timeout(timeout):
                await answer
        except TimeoutError:
            raise timed_out(address, id, timeout) from None

    async def stop(self, reason: str = "") -> None:
        """Lets the running nodes finish, starts no more, and returns when the run has ended. Not for its own nodes."""
        self._stopped = True
        self._drain(reason or "stop")
        await asyncio.wait({self._task})

    async def result(self) -> Any:
        """Waits for the end of the run. Returns what `ainvoke` would return, and raises what it would raise."""
        await asyncio.wait({self._task})
        return self._final_value()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not (self._parts or self._ended):
            self._changed.clear()
            await self._changed.wait()
        part = self._next_part()
        if part is END_OF_PARTS:
            raise StopAsyncIteration
        return part

    async def aexit(self, error: BaseException | None) -> None:
        """Ends the run. Called when the block is left, with the exception that leaves it."""
        if not self._ended:
            if error is not None:
                await self._cancel()
                return
            self.close_input()
            try:
                await asyncio.wait({self._task})
            except asyncio.CancelledError:
                await self._cancel()
                raise
        self._raise_unseen_failure(error)

    async def _cancel(self) -> None:
        self._cancelled = True
        self._task.cancel()
        await asyncio.wait({self._task})


async def _answer(sent: Future[None]) -> None:
    """Wait for the answer to a signal. Most come on the event loop itself, which need not be woken for them."""
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    sent.add_done_callback(lambda _: call_on(loop, answered.set))
    try:
        await answered.wait()
    except asyncio.CancelledError:
        sent.cancel()
        raise
    sent.result()


class SyncLiveRun(LiveRunBase):
    """A live run that was entered with `with`. An iterator of its parts; its methods may be called on any thread."""

    def start(self) -> Self:
        """Starts the run in a thread. Called by `with`."""
        self._changed = threading.Condition()
        self._scope = CancelScope(current_scope.get())
        context = contextvars.copy_context()
        context.run(current_scope.set, self._scope)
        threading.Thread(target=context.run, args=(self._drive,), name="agentmatrix-live", daemon=True).start()
        return self

    def _drive(self) -> None:
        cancelled_interrupts.set(self._cancelled_interrupts)
        try:
            if "stream_mode" not in self._kwargs and not getattr(self._graph, "reached", True):
                self._graph.card  # noqa: B018 - the card of a remote agent says which mode is its default
            for part in self._graph.stream(self._input, self._config, **self._stream_kwargs()):
                self._on_part(part)
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def signal(self, address: str, value: Any, *, id: str | None = None, timeout: float | None = None) -> None:
        """Sends a signal, and returns when it has been acknowledged. See `AsyncLiveRun.signal`."""
        id = id or new_id()
        future = self._send(address, value, id)
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise timed_out(address, id, timeout) from None

    def stop(self, reason: str = "") -> None:
        """Lets the running nodes finish, starts no more, and returns when the run has ended. Not for its own nodes."""
        self._stopped = True
        self._drain(reason or "stop")
        self._wait()

    def result(self) -> Any:
        """Waits for the end of the run. Returns what `invoke` would return, and raises what it would raise."""
        self._wait()
        return self._final_value()

    def _wait(self, seconds: float | None = None) -> None:
        # Not Thread.join: after an interrupted join, Python takes the thread for ended.
        with self._changed:
            self._changed.wait_for(lambda: self._ended, seconds)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        # The lock is held until the part is taken, so that several readers never take the same one.
        with self._changed:
            self._changed.wait_for(lambda: self._parts or self._ended)
            part = self._next_part()
        if part is END_OF_PARTS:
            raise StopIteration
        return part

    def exit(self, error: BaseException | None) -> None:
        """Ends the run. Called when the block is left, with the exception that leaves it."""
        if not self._ended:
            if error is not None:
                self._cancel(error)
                return
            self.close_input()
            try:
                self._wait()
            except BaseException as interruption:
                self._cancel(interruption)
                raise
        self._raise_unseen_failure(error)

    def _cancel(self, error: BaseException) -> None:
        self._cancelled = True
        self._control.request_drain("the block was left by an exception")
        # Before the input is closed: a graph must not take the closed input for the regular end of the run.
        self._scope.cancel()
        self._router.close()
        self._wait(_INTERRUPT_GRACE if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else None)
        self._router.end(SignalError("the run was cancelled"))
