"""Live runs: a graph that takes signals from outside while it works, until its input is closed.

::

    async with graph.live(input, config) as run:
        await run.signal("audio", chunk)
        async for part in run:
            ...

The run goes on by itself, in a task or in a thread, whether or not anybody reads its parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from langgraph.types import GraphOutput

from agentmatrix.cancel_scope import CancelScope, current_scope
from agentmatrix.errors import SignalError
from agentmatrix.interrupts import cancelled_interrupts, remaining_interrupts
from agentmatrix.live.address import check_address
from agentmatrix.live.inbox import INBOX, Inbox, new_id, path_of
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.config_values import ensure_config
from agentmatrix.stream_modes import StreamModes

__all__ = ["AsyncLiveRun", "Live", "LiveRun", "SyncLiveRun"]

_PATIENCE: Final = 2.0
"""Seconds that a person who interrupts a sync run waits for nodes that cannot be interrupted."""


_END: Final = object()


class Live:
    """A graph that can be run live.

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
            input: as of `astream`; None, or a `Command`, goes on with a run of the thread, and with the signals that
                were acknowledged and not consumed.
            config: as of `astream`.
            stream_mode: the parts to keep for the reader; those that nobody reads are kept to the end of the run, so
                ask for `[]` where nobody will.
            subgraphs: whether to keep the parts of nested graphs too.
            context: as of `astream`.
            durability: as of `astream`; under `"exit"` a signal counts as taken when the graph has received it.
            kwargs: further arguments of `astream`.

        Returns:
            The run, which starts when it is entered, with `async with` or with `with`.
        """
        given = {"stream_mode": stream_mode, "context": context, "durability": durability}
        given = {name: value for name, value in given.items() if value is not None}
        return LiveRun(self, input, config, subgraphs=subgraphs, **given, **kwargs)


class LiveRun:
    """A run that takes signals. It starts when it is entered, with `async with` or with `with`.

    Leaving the block closes the input and waits for the end of the run; a failure of the run that nobody has seen is
    raised then. Leaving it by an exception cancels the run: an async one at once; a sync one starts nothing new, calls
    off what runs on other hosts, and its own running nodes run out, as in LangGraph.

    Args:
        graph: a compiled graph.
        input: as of `astream`.
        config: as of `astream`.
        kwargs: keyword arguments of `astream`.
    """

    def __init__(self, graph: Any, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> None:
        self._of = (graph, input, config, kwargs)
        self._run: AsyncLiveRun | SyncLiveRun | None = None

    def __enter__(self) -> SyncLiveRun:
        self._run = run = SyncLiveRun(*self._of)
        return run.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert isinstance(self._run, SyncLiveRun)
        self._run.leave(error)

    async def __aenter__(self) -> AsyncLiveRun:
        self._run = run = AsyncLiveRun(*self._of)
        return run.start()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert isinstance(self._run, AsyncLiveRun)
        await self._run.leave(error)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("signal", "close_input", "stop", "result"):
                entered = "with graph.live(...) as run, or async with"
                raise AttributeError(f"a live run has {name!r} once it is entered: {entered}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class _Going:
    """A run under way: what the twins have in common."""

    def __init__(self, graph: Any, input: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> None:
        inherited = ensure_config(graph.config, config).get("configurable") or {}
        self._namespace: str = inherited.get(config_keys.CHECKPOINT_NS) or ""
        self._inbox = Inbox(path_of(self._namespace))
        self._graph, self._input, self._kwargs = graph, input, dict(kwargs)
        self._config = config
        if inherited or not isinstance(graph.checkpointer, BaseCheckpointSaver):
            # Else LangGraph is to find nothing there, and to say that a checkpointer needs a thread.
            configurable = {**(config or {}).get("configurable", {}), INBOX: self._inbox}
            self._config = {**(config or {}), "configurable": configurable}
        self._control: RunControl = self._kwargs.setdefault("control", RunControl())
        self._outcome: _Outcome | None = None
        self._parts: deque[Any] = deque()
        self._checked: set[str] = set()
        self._over = self._seen = self._stopped = self._cancelled = False
        self._failure: BaseException | None = None
        self._withdrawn: set[str] = set()

    def close_input(self) -> None:
        """No more signals will come: the run ends when nothing is at work any more. Idempotent."""
        self._inbox.close()

    def _send(self, address: str, value: Any, id: str) -> Future[None]:
        for name, given in (("address", address), ("id", id)):
            if not isinstance(given, str):
                raise SignalError(f"the {name} of a signal is a str, not {given!r}")
        if address not in self._checked:
            check_address(self._graph, address)
            self._checked.add(address)
        return self._inbox.send(address, value, id)

    def _drain(self, reason: str) -> None:
        self._control.request_drain(reason)
        self._inbox.close()

    def _asked(self) -> dict[str, Any]:
        """The keyword arguments to stream with: what the reader asked for, and what the result is made from."""
        namespace = tuple(self._namespace.split(config_keys.NS_SEP)) if self._namespace else ()
        self._outcome = _Outcome(self._kwargs, self._graph.stream_mode, namespace)
        return self._outcome.parts.kwargs

    def _hear(self, part: Any) -> None:
        assert self._outcome is not None
        if self._outcome.take(part):
            self._parts.append(self._outcome.parts.project(part))
            self._wake()

    def _end(self, failure: BaseException | None) -> None:
        self._failure, self._over = failure, True
        reason: BaseException = SignalError("the run has ended")
        if self._cancelled or isinstance(failure, asyncio.CancelledError):
            reason = SignalError("the run was cancelled")
        elif isinstance(failure, GraphDrained):
            reason = SignalError("the run was stopped")
        elif failure is not None:
            reason = failure
        self._inbox.end(reason)
        self._wake()

    def _wake(self) -> None:
        """Tells readers that there is something new."""
        raise NotImplementedError

    def _next(self) -> Any:
        """The next part; after the last one the mark of the end, or the failure of the run."""
        if self._parts:
            return self._parts.popleft()
        failure = self._unseen()
        if failure is not None:
            self._seen = True
            raise failure
        return _END

    def _value(self) -> Any:
        if self._failure is not None:
            self._seen = True
            raise self._failure
        return None if self._outcome is None else remaining_interrupts(self._outcome.value(), self._withdrawn)

    def _unseen(self) -> BaseException | None:
        """How the run failed, unless that was what `stop` asked for."""
        return None if self._stopped and isinstance(self._failure, GraphDrained) else self._failure

    def _settle(self, error: BaseException | None) -> None:
        """Raises the failure of a run that has ended, if nobody has seen it, when the block is left."""
        failure = None if self._seen else self._unseen()
        if failure is None:
            return
        if error is None or (isinstance(error, SignalError) and error.__cause__ is failure):
            if error is not None:
                error.__cause__ = None
            raise failure
        error.add_note(f"before this, the live run had failed with {type(failure).__name__}: {failure}")


class AsyncLiveRun(_Going):
    """A live run that was entered with `async with`. An asynchronous iterator of its parts."""

    def start(self) -> Self:
        """Starts the run in a task. Called on entering."""
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._pump())
        return self

    async def _pump(self) -> None:
        cancelled_interrupts.set(self._withdrawn)
        try:
            if "stream_mode" not in self._kwargs and not getattr(self._graph, "reached", True):
                await self._graph.acard()
            stream = self._graph.astream(self._input, self._config, **self._asked())
            async with contextlib.aclosing(stream):
                async for part in stream:
                    self._hear(part)
        except asyncio.CancelledError as error:
            self._end(error)
            raise
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _wake(self) -> None:
        self._news.set()

    async def signal(self, address: str, value: Any, *, id: str | None = None, timeout: float | None = None) -> None:
        """Sends a signal, and returns when it has been acknowledged.

        Acknowledged means: in the checkpointer of the graph that declares it; without one, or under durability
        `"exit"`, received by that graph. A signal for a nested graph waits until that runs, and is refused when nothing
        can start it any more, if the graph around it is a `Dag` or a `CyclicGraph` with triggers.

        Args:
            address: a name that the graph declares, `"audio"`, or the nodes that lead to a nested graph and a name that
                that one declares, `"panel/audio"`.
            value: anything; to a remote agent, anything that can cross.
            id: a signal that is sent again with the same id counts once.
            timeout: seconds to wait; None is no limit.

        Raises:
            SignalError: the signal was not taken: nobody declares it, nobody takes it any more, the input is closed, or
                the run is over.
            TimeoutError: it was not acknowledged in time.
        """
        id = id or new_id()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self._send(address, value, id))
        except TimeoutError:
            raise _late(address, id, timeout) from None

    async def stop(self, reason: str = "") -> None:
        """Lets the running agents finish, starts nothing new, and returns when the run has ended. Not for its nodes."""
        self._stopped = True
        self._drain(reason or "stop")
        await asyncio.wait({self._task})

    async def result(self) -> Any:
        """Waits for the end of the run. Returns what `ainvoke` would, and raises what it would."""
        await asyncio.wait({self._task})
        return self._value()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not (self._parts or self._over):
            self._news.clear()
            await self._news.wait()
        part = self._next()
        if part is _END:
            raise StopAsyncIteration
        return part

    async def leave(self, error: BaseException | None) -> None:
        """Ends the run, as leaving the block does."""
        if not self._over:
            if error is not None:
                await self._cancel()
                return
            self.close_input()
            try:
                await asyncio.wait({self._task})
            except asyncio.CancelledError:
                await self._cancel()
                raise
        self._settle(error)

    async def _cancel(self) -> None:
        self._cancelled = True
        self._task.cancel()
        await asyncio.wait({self._task})


class SyncLiveRun(_Going):
    """A live run that was entered with `with`. An iterator of its parts; its methods may be called on any thread."""

    def start(self) -> Self:
        """Starts the run in a thread. Called on entering."""
        self._news = threading.Condition()
        self._scope = CancelScope(current_scope.get())
        context = contextvars.copy_context()
        context.run(current_scope.set, self._scope)
        threading.Thread(target=context.run, args=(self._pump,), name="agentmatrix-live", daemon=True).start()
        return self

    def _pump(self) -> None:
        cancelled_interrupts.set(self._withdrawn)
        try:
            if "stream_mode" not in self._kwargs and not getattr(self._graph, "reached", True):
                self._graph.card  # noqa: B018 - which modes a graph streams is on its card
            for part in self._graph.stream(self._input, self._config, **self._asked()):
                self._hear(part)
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def signal(self, address: str, value: Any, *, id: str | None = None, timeout: float | None = None) -> None:
        """Sends a signal, and returns when it has been acknowledged. See `AsyncLiveRun.signal`."""
        id = id or new_id()
        future = self._send(address, value, id)
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise _late(address, id, timeout) from None

    def stop(self, reason: str = "") -> None:
        """Lets the running agents finish, starts nothing new, and returns when the run has ended. Not for its nodes."""
        self._stopped = True
        self._drain(reason or "stop")
        self._wait()

    def result(self) -> Any:
        """Waits for the end of the run. Returns what `invoke` would, and raises what it would."""
        self._wait()
        return self._value()

    def _wait(self, seconds: float | None = None) -> None:
        # Not `Thread.join`: a thread whose join was interrupted counts as ended from then on.
        with self._news:
            self._news.wait_for(lambda: self._over, seconds)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._news:
            self._news.wait_for(lambda: self._parts or self._over)
            part = self._next()
        if part is _END:
            raise StopIteration
        return part

    def leave(self, error: BaseException | None) -> None:
        """Ends the run, as leaving the block does."""
        if not self._over:
            if error is not None:
                self._cancel(error)
                return
            self.close_input()
            try:
                self._wait()
            except BaseException as interruption:
                self._cancel(interruption)
                raise
        self._settle(error)

    def _cancel(self, error: BaseException) -> None:
        self._cancelled = True
        self._control.request_drain("the block was left by an exception")
        # Before the input is closed: nobody is to take that for the end.
        self._scope.cancel()
        self._inbox.close()
        self._wait(_PATIENCE if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else None)
        self._inbox.end(SignalError("the run was cancelled"))


class _Outcome:
    """What `invoke` returns, out of the parts of a stream."""

    def __init__(self, kwargs: dict[str, Any], default: Any, namespace: tuple[str, ...]) -> None:
        self.parts = StreamModes(kwargs, default, ("values", "updates"))
        self._root = namespace if kwargs.get("subgraphs") or kwargs.get("version") == "v2" else ()
        self._v2 = kwargs.get("version") == "v2"
        self._latest: Any = None
        self._interrupts: list[Any] = []

    def take(self, part: Any) -> bool:
        """Takes a part; returns whether the reader asked for it."""
        namespace, mode, payload = self.parts.read(part)
        if tuple(namespace) == self._root:
            if mode == "values":
                self._latest = payload
                self._interrupts.extend(part.get("interrupts", ()) if self._v2 else ())
            elif mode == "updates" and not self._v2 and isinstance(payload, dict):
                self._interrupts.extend(payload.get("__interrupt__") or ())
        return not self.parts.is_extra(mode)

    def value(self) -> Any:
        if self._v2:
            return GraphOutput(value=self._latest, interrupts=tuple(self._interrupts))
        if not self._interrupts:
            return self._latest
        return {**(self._latest if isinstance(self._latest, dict) else {}), "__interrupt__": self._interrupts}


def _late(address: str, id: str, timeout: float | None) -> TimeoutError:
    return TimeoutError(
        f"the signal {address!r} was not acknowledged within {timeout:g} s; it may have been taken all the same. Sent "
        f"again with id={id!r} it counts once"
    )
