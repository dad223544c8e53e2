"""Graphs whose supersteps stay open: LangGraph's sync and async loops, and its `stream` and `astream` over them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import types
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.pregel._executor import AsyncBackgroundExecutor, BackgroundExecutor
from langgraph.pregel._loop import AsyncPregelLoop, SyncPregelLoop
from langgraph.types import StateSnapshot

from agentmatrix.cancel_scope import CancelScope, current_scope
from agentmatrix.engine.listener import Start, acknowledge
from agentmatrix.engine.loop import Cached, OpenLoop, Runner, cache_keys, filled
from agentmatrix.engine.pauses import PAUSE, is_pause, set_aside, unfolded
from agentmatrix.engine.scheduler import Write
from agentmatrix.engine.tasks import Task, are_agendas_looked_for, first_tasks, snapshot_tasks, unfinished
from agentmatrix.interrupts import cancelled_interrupts, remaining_interrupts
from agentmatrix.live.signal_router import PendingSignal

__all__ = ["OpenSteps", "Reached"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _with(function: Function, **names: Any) -> Function:
    """A function of LangGraph that finds other things under some global names."""
    code, defaults = function.__code__, function.__defaults__
    other = types.FunctionType(code, {**function.__globals__, **names}, function.__name__, defaults)
    other.__kwdefaults__ = function.__kwdefaults__
    return cast(Function, functools.update_wrapper(other, function))


class _SyncLoop(OpenLoop, SyncPregelLoop):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = threading.Lock()

    @staticmethod
    def _new_guard() -> concurrent.futures.Future[None]:
        return concurrent.futures.Future()

    def __enter__(self) -> Any:
        self._engine = self.stack.enter_context(BackgroundExecutor(RunnableConfig()))
        self._calls = self.stack.enter_context(BackgroundExecutor(self.config))
        self.stack.callback(self._hang_up)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> bool | None:
        # Also where its reader has gone: what still runs is waited for, and nothing follows it.
        self._stopping = True
        return super().__exit__(*exception)

    def match_cached_writes(self) -> Sequence[Task]:
        if self._opened is None:
            return super().match_cached_writes()
        if self._running:
            return filled(self._unstarted(), self._in_cache(self._unstarted()))
        self._settle(self._following(self._unstarted()))
        return []

    def _settle(self, following: Generator[list[Task], Cached, list[Task]]) -> list[Task]:
        try:
            fresh = next(following)
            while True:
                fresh = following.send(self._in_cache(fresh))
        except StopIteration as stop:
            return cast(list[Task], stop.value)

    def _in_cache(self, tasks: list[Task]) -> Cached:
        keys = cache_keys(tasks)
        found = self.cache.get(tuple(set(keys.values()))) if self.cache is not None and keys else {}
        return {task: found[key] for task, key in keys.items() if key in found}

    def _take(self, task: Task, start: Start) -> None:
        options = {name: value for name, value in start.options.items() if not name.startswith("__")}
        scope = self._working[task.id] = CancelScope(current_scope.get())
        current_scope.set(scope)
        with contextlib.ExitStack() as order:
            try:
                if task.id not in self._dropped:
                    start.function(task, *start.arguments, **options)
                order.enter_context(self._in_order())
                self._working.pop(task.id, None)
                if task.id in self._dropped:
                    self._leave()
                    return
                with self._lock:
                    self._accept(task)
            except BaseException as error:
                self._working.pop(task.id, None)
                if task.id in self._dropped:
                    self._leave()
                    return
                self._failed(task, error)
                raise
            try:
                self.runner.commit(task, None)
                if self.durability == "sync" and task.id in self._saved:
                    self._saved[task.id].result()
                with self._lock:
                    self._record(task)
                    fresh = self._more()
                self._launch(self._settle(self._following(fresh)), start)
            except BaseException:
                self._stopping = True
                raise
            finally:
                self._leave()

    def _put_with(self, pause: Sequence[Write], beside: Any, *args: Any) -> Any:
        cast(Any, self.checkpointer_put_writes)(beside, pause, PAUSE)
        return self._checkpointer_put_after_previous(*args)

    def _new_wake(self) -> Callable[[], None]:
        self._awake = threading.Event()
        return self._awake.set

    def _attend(self, start: Start) -> None:
        """Takes what comes from outside until nothing can come any more."""
        try:
            while True:
                self._awake.clear()
                with self._in_order(), self._lock:
                    found = self._next_event()
                    if found is None:
                        return
                    event, sent = found
                    if event is not None:
                        self._take_in(event, sent, start)
                        continue
                self._awake.wait(self._ear.seconds() if self._ear else None)
        except BaseException:
            self._stopping = True
            raise
        finally:
            self._hang_up()

    def _take_in(self, event: Mapping[str, Any], sent: PendingSignal | None, start: Start) -> None:
        writes, saved = self._happened(event)
        if sent is not None:
            acknowledge(sent, saved)
        if saved is not None and self.durability == "sync":
            saved.result()
        self._count(writes)
        self._launch(self._settle(self._following(self._more())), start)

    def accept_push(self, task: Task, write_idx: int, call: Any = None) -> Task | None:
        pushed: Task | None = self._pushed(task, write_idx, call)
        for cached in self.match_cached_writes() if pushed else ():
            self.put_writes(cached.id, cached.writes, cached=True)
        return pushed

    def schedule_error_handler(self, failed_task: Task, error: BaseException) -> Task | None:
        if not self._is_turn(failed_task):
            return super().schedule_error_handler(failed_task, error)
        futures, self._error_handler_write_futs = self._error_handler_write_futs or [], []
        concurrent.futures.wait(futures)
        handler = self._handled(failed_task, error)
        for cached in self.match_cached_writes() if handler else ():
            self.put_writes(cached.id, cached.writes, cached=True)
        return handler


class _AsyncLoop(OpenLoop, AsyncPregelLoop):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = asyncio.Lock()

    @staticmethod
    def _new_guard() -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Any:
        self._engine = await self.stack.enter_async_context(AsyncBackgroundExecutor(RunnableConfig()))
        self._calls = await self.stack.enter_async_context(AsyncBackgroundExecutor(self.config))
        self.stack.callback(self._hang_up)
        return await super().__aenter__()

    async def __aexit__(self, *exception: Any) -> bool | None:
        self._stopping = True
        return await super().__aexit__(*exception)

    async def amatch_cached_writes(self) -> Sequence[Task]:
        if self._opened is None:
            return await super().amatch_cached_writes()
        if self._running:
            return filled(self._unstarted(), await self._in_cache(self._unstarted()))
        await self._settle(self._following(self._unstarted()))
        return []

    async def _settle(self, following: Generator[list[Task], Cached, list[Task]]) -> list[Task]:
        try:
            fresh = next(following)
            while True:
                fresh = following.send(await self._in_cache(fresh))
        except StopIteration as stop:
            return cast(list[Task], stop.value)

    async def _in_cache(self, tasks: list[Task]) -> Cached:
        keys = cache_keys(tasks)
        found = await self.cache.aget(tuple(set(keys.values()))) if self.cache is not None and keys else {}
        return {task: found[key] for task, key in keys.items() if key in found}

    async def _take(self, task: Task, start: Start) -> None:
        options = {name: value for name, value in start.options.items() if not name.startswith("__")}
        self._working[task.id] = asyncio.current_task()
        async with contextlib.AsyncExitStack() as order:
            try:
                if task.id not in self._dropped:
                    await start.function(task, *start.arguments, **options)
                await order.enter_async_context(self._in_order())
                self._working.pop(task.id, None)
                if task.id in self._dropped:
                    self._leave()
                    return
                self._accept(task)
            except BaseException as error:
                self._working.pop(task.id, None)
                if task.id in self._dropped:
                    self._leave()
                    return
                self._failed(task, error)
                raise
            try:
                self.runner.commit(task, None)
                if self.durability == "sync" and task.id in self._saved:
                    await self._saved[task.id]
                self._record(task)
                self._launch(await self._settle(self._following(self._more())), start)
            except BaseException:
                self._stopping = True
                raise
            finally:
                self._leave()

    async def _put_with(self, pause: Sequence[Write], beside: Any, *args: Any) -> Any:
        await cast(Any, self.checkpointer_put_writes)(beside, pause, PAUSE)
        return await self._checkpointer_put_after_previous(*args)

    def _new_wake(self) -> Callable[[], None]:
        self._awake, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._awake.set)

        return wake

    async def _attend(self, start: Start) -> None:
        """Takes what comes from outside until nothing can come any more."""
        try:
            while True:
                self._awake.clear()
                async with self._in_order():
                    found = self._next_event()
                    if found is None:
                        return
                    event, sent = found
                    if event is not None:
                        await self._take_in(event, sent, start)
                        continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._ear.seconds() if self._ear else None):
                        await self._awake.wait()
        except BaseException:
            self._stopping = True
            raise
        finally:
            self._hang_up()

    async def _take_in(self, event: Mapping[str, Any], sent: PendingSignal | None, start: Start) -> None:
        writes, saved = self._happened(event)
        if sent is not None:
            acknowledge(sent, saved)
        if saved is not None and self.durability == "sync":
            await saved
        self._count(writes)
        self._launch(await self._settle(self._following(self._more())), start)

    async def aaccept_push(self, task: Task, write_idx: int, call: Any = None) -> Task | None:
        pushed: Task | None = self._pushed(task, write_idx, call)
        for cached in await self.amatch_cached_writes() if pushed else ():
            self.put_writes(cached.id, cached.writes, cached=True)
        return pushed

    async def aschedule_error_handler(self, failed_task: Task, error: BaseException) -> Task | None:
        if not self._is_turn(failed_task):
            return await super().aschedule_error_handler(failed_task, error)
        futures, self._error_handler_write_futs = self._error_handler_write_futs or [], []
        await asyncio.gather(*futures)
        handler = self._handled(failed_task, error)
        for cached in await self.amatch_cached_writes() if handler else ():
            self.put_writes(cached.id, cached.writes, cached=True)
        return handler


class Reached(Pregel[Any, Any, Any, Any]):
    """A compiled graph, one of whose channels is an `AgendaChannel`, and of which `reached_agendas` tells."""

    def _prepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        if are_agendas_looked_for():
            return _snapshot(self, config, saved, **options)
        return super()._prepare_state_snapshot(config, saved, **options)

    async def _aprepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        if are_agendas_looked_for():
            return await _asnapshot(self, config, saved, **options)
        return await super()._aprepare_state_snapshot(config, saved, **options)


class OpenSteps(Reached):
    """A compiled graph whose supersteps stay open. It streams eagerly, so that the runner takes no shortcuts."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the graph, as in LangGraph. Interrupts of nodes that were called off are not in the result."""
        gone: set[str] = set()
        token = cancelled_interrupts.set(gone)
        try:
            return remaining_interrupts(super().invoke(input, config, **kwargs), gone)
        finally:
            cancelled_interrupts.reset(token)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The same as `invoke`, async."""
        gone: set[str] = set()
        token = cancelled_interrupts.set(gone)
        try:
            return remaining_interrupts(await super().ainvoke(input, config, **kwargs), gone)
        finally:
            cancelled_interrupts.reset(token)

    stream: Any = _with(Pregel.stream, SyncPregelLoop=_SyncLoop, PregelRunner=Runner)
    astream: Any = _with(Pregel.astream, AsyncPregelLoop=_AsyncLoop, PregelRunner=Runner)

    def _prepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        saved, options = _at_pause(saved, options)
        made = _snapshot if options.get("live") else _record
        return unfinished(made(self, config, saved, **options), saved, **options)

    async def _aprepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        saved, options = _at_pause(saved, options)
        made = _asnapshot if options.get("live") else _arecord
        return unfinished(await made(self, config, saved, **options), saved, **options)


def _at_pause(saved: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A checkpoint and how to look at it: a pause shows what had finished by then, whoever asks for it and when."""
    live = bool(options.get("live"))
    if not saved or not (live or is_pause(saved)):
        return saved, options
    pending = set_aside(unfolded(saved.pending_writes or [], alone=not live))
    return saved._replace(pending_writes=pending), {**options, "live": True}


_snapshot = _with(Pregel._prepare_state_snapshot, prepare_next_tasks=snapshot_tasks)
_asnapshot = _with(Pregel._aprepare_state_snapshot, prepare_next_tasks=snapshot_tasks)
_record = _with(Pregel._prepare_state_snapshot, prepare_next_tasks=first_tasks)
_arecord = _with(Pregel._aprepare_state_snapshot, prepare_next_tasks=first_tasks)
