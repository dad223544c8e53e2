"""LangGraph's own loop with supersteps that stay open: what a finished task makes ready starts in the same step.

Streams, namespaces, checkpoints, pending writes, retries, timeouts, caches, error handlers and interrupts stay those of
LangGraph, because its `stream` and its loop run unchanged but for a few methods. A step ends, and a checkpoint is put,
when nothing can start any more: at the end of the run, at a breakpoint, a drain or the last step of the run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
import types
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_CALL, ERROR
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.pregel import Pregel
from langgraph.pregel._executor import AsyncBackgroundExecutor, BackgroundExecutor
from langgraph.pregel._io import map_output_values
from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop
from langgraph.pregel._retry import arun_with_retry, run_with_retry
from langgraph.pregel._runner import PregelRunner
from langgraph.pregel._task_status import read_task_statuses
from langgraph.pregel.debug import map_debug_tasks
from langgraph.types import StateSnapshot

from agentmatrix.pregel_turns import Opened, Task, Turn, Write, agenda_channel, snapshot_tasks, unfinished

__all__ = ["OpenSteps"]

Cached = dict[str, Sequence[Write]]
Function = TypeVar("Function", bound=Callable[..., Any])


def _with(function: Function, **names: Any) -> Function:
    """A function of LangGraph that finds other things under some global names."""
    code, defaults = function.__code__, function.__defaults__
    other = types.FunctionType(code, {**function.__globals__, **names}, function.__name__, defaults)
    other.__kwdefaults__ = function.__kwdefaults__
    return cast(Function, functools.update_wrapper(other, function))


@dataclass(frozen=True)
class _Start:
    """How LangGraph's runner started a task: what follows it is started in the same way."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class _Runner(PregelRunner):
    """A runner whose tasks are committed before those that follow them start."""

    def __init__(self, *, put_writes: Any, **options: Any) -> None:
        super().__init__(put_writes=put_writes, **options)
        self._committed: set[str] = set()
        put_writes().__self__.runner = self

    def commit(self, task: Task, exception: BaseException | None) -> None:
        if task.id in self._committed:
            return
        if exception is None:
            self._committed.add(task.id)
        super().commit(task, exception)

    def handles(self, task: Task) -> bool:
        """Whether an error handler answers for this task if it fails."""
        return bool(self._should_route_to_error_handler(task))


class _OpenLoop(PregelLoop):
    """What the sync and the async loop have in common."""

    runner: _Runner

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.RLock()
        self._opened: Opened | None = None
        self._saved: dict[str, Any] = {}
        self._running = self._stopping = self._closing = False
        self._ticking = self._stale = False
        self._alive, self._guard = 0, cast(Any, None)
        self._context = contextvars.copy_context()

    # max_concurrency bounds the agents; the saver, the cache and the reader of the stream have an executor of their own

    @property
    def submit(self) -> Any:
        return self._dispatch

    @submit.setter
    def submit(self, submit: Any) -> None:
        self._submit = submit

    def _dispatch(self, function: Any, *args: Any, **options: Any) -> Any:
        if function not in (run_with_retry, arun_with_retry):
            future = self._engine(function, *args, **options)
            if function == self.checkpointer_put_writes:
                self._saved[args[2]] = future
            return future
        if self._opened is None or args[0].id not in self._opened.turns:
            return self._submit(function, *args, **options)
        self._running = True
        with self._lock:
            self._alive += 1
            if self._guard is None or self._guard.done():
                # The runner takes what it does not wait for yet for nothing at all, and would end the step.
                self._guard = self._new_guard()
                options["configurable"][CONFIG_KEY_CALL].keywords["futures"]()[self._guard] = None
        submit = {name: value for name, value in options.items() if name.startswith("__")}
        return self._submit(self._take, args[0], _Start(function, args[1:], options), **submit)

    _engine: Any
    _take: Any
    _new_guard: Callable[[], Any]

    def _leave(self) -> None:
        """One task less is at work; after the last one the runner may end the step."""
        with self._lock:
            self._alive -= 1
            if not self._alive and self._guard is not None and not self._guard.done():
                self._guard.set_result(None)

    # what may start

    def _prepare_tasks_and_emit_checkpoint(self) -> None:
        self._opened, self._saved, self._running = None, {}, False
        super()._prepare_tasks_and_emit_checkpoint()
        channel = agenda_channel(self.channels)
        if self.tasks and channel.opens() and self.step <= self.stop:
            channel.ahead = channel.agenda()
            self._opened = opened = Opened(
                channel,
                channel.ahead,
                self.checkpoint,
                self.checkpoint_pending_writes,
                self.nodes,
                self.channels,
                self.managed,
                self.config,
                self.step,
                self.stop,
                {
                    "store": self.store,
                    "checkpointer": self.checkpointer,
                    "manager": self.manager,
                    "retry_policy": self.retry_policy,
                    "cache_policy": self.cache_policy,
                },
            )
            pending = self.checkpoint_pending_writes if self._reapplies_pending_writes else []
            self.tasks = opened.reach(read_task_statuses(pending), self._holds)
        if self._stale:
            self._stale = False
            self._emit("values", map_output_values, self.output_keys, True, self.channels)

    def tick(self) -> bool:
        self._ticking = True
        try:
            return super().tick()
        finally:
            self._ticking = False

    def output_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        # What had finished before a pause was shown when it finished.
        if not (self._ticking and self._opened is not None):
            super().output_writes(task_id, writes, cached=cached)

    def _holds(self, turn: Turn) -> bool:
        """Whether a turn waits for the end of the step: behind a breakpoint, a drain or the last step of the run."""
        if not turn.depth:
            return False
        drained = self.control is not None and self.control.drain_requested
        before = self.interrupt_before == "*" or turn.node in self.interrupt_before
        after = any(self.interrupt_after == "*" or node in self.interrupt_after for node in turn.after)
        return drained or before or after or self.step + turn.depth > self.stop

    def _more(self) -> list[Task]:
        """The tasks that have become ready. They are among the tasks of the step from here on."""
        if self._opened is None or self._stopping:
            return []
        made = self._opened.new(self._holds)
        self.tasks.update({task.id: task for task in made})
        self._emit("tasks", map_debug_tasks, made)
        return made

    # what has finished

    def put_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        with self._lock:
            super().put_writes(task_id, writes, cached=cached)

    def _accept(self, task: Task) -> None:
        opened = cast(Opened, self._opened)
        written = list(task.writes)
        task.writes.clear()
        task.writes.extend(opened.agenda.accepted(opened.turns[task.id], written))

    def _record(self, task: Task) -> None:
        """What the task wrote counts from here on."""
        opened = cast(Opened, self._opened)
        opened.agenda.finish(opened.turns[task.id], task.writes)
        keys = {self.output_keys} if isinstance(self.output_keys, str) else {*self.output_keys}
        if not keys.isdisjoint(channel for channel, _ in task.writes):
            self._emit("values", map_output_values, self.output_keys, True, self.channels)

    def _following(self, fresh: list[Task]) -> Generator[list[Task], Cached, list[Task]]:
        """The tasks to start, of those that are ready; asks what the cache has of them and passes over those."""
        start: list[Task] = []
        while fresh:
            cached = yield fresh
            with self._lock:
                for task in [task for task in fresh if task.id in cached]:
                    task.writes.extend(cached[task.id])
                    self._accept(task)
                    self.put_writes(task.id, task.writes, cached=True)
                    self._record(task)
                start.extend(task for task in fresh if task.id not in cached)
                fresh = self._more()
        return start

    def _unstarted(self) -> list[Task]:
        """The tasks whose results may be in the cache: all of a new step, and only calls of tasks once it runs."""
        turns = self._opened.turns if self._opened else {}
        tasks = self.tasks.values()
        return [task for task in tasks if not task.writes and not (self._running and task.id in turns)]

    def _launch(self, tasks: Iterable[Task], start: _Start) -> None:
        call = start.options["configurable"][CONFIG_KEY_CALL]
        with self._lock:
            futures = call.keywords["futures"]()
            for task in tasks if futures is not None and not self._stopping else ():
                again = functools.partial(call.func, weakref.ref(task), *call.args[1:], **call.keywords)
                options = {**start.options, "configurable": {CONFIG_KEY_CALL: again}}
                if "__name__" in options:
                    options["__name__"] = task.name
                dispatch = functools.partial(self._dispatch, start.function, task, *start.arguments, **options)
                futures[self._context.copy().run(dispatch)] = task

    def _failed(self, task: Task, error: BaseException) -> None:
        """Nothing new starts after an error that ends the run. An error handler takes the place of its task."""
        handled = self.runner.handles(task) and isinstance(error, Exception) and not isinstance(error, GraphBubbleUp)
        if not handled:
            with self._lock:
                self._stopping = self._stopping or not isinstance(error, GraphInterrupt)
                self._leave()

    # error handlers

    def _resume_error_handlers_if_applicable(self) -> None:
        if self._opened is None:
            super()._resume_error_handlers_if_applicable()
            return
        for failed in [task for task in self.tasks.values() if not task.writes]:
            error = self._opened.failure(failed.id)
            handler = self._opened.handler(failed, error) if error is not None else None
            if handler is not None:
                failed.writes.append((ERROR, error))
                self.tasks[handler.id] = handler

    def _adopted(self, handler: Task | None, failed: Task) -> Task | None:
        if self._opened is not None and failed.id in self._opened.turns:
            self._opened.adopt(handler, failed)
            if handler is None:
                self._leave()
            else:
                self._alive -= 1
        return handler

    # the end of a step

    def after_tick(self) -> None:
        if self._opened is not None:
            tasks = self._opened.turns.keys() & self.tasks.keys()
            self.step += max((self._opened.turns[task].depth for task in tasks), default=0)
        self._closing = self._opened is not None
        super().after_tick()
        self._closing = False

    def _suppress_interrupt(self, *exit: Any) -> bool | None:
        self._closing = self._opened is not None
        return super()._suppress_interrupt(*exit)

    def _emit(self, mode: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        if mode == "values" and self.status == "input" and agenda_channel(self.channels).opens():
            # What a resumed run has finished is not known yet.
            self._stale = True
        elif mode == "tasks" and values is map_debug_tasks and self._ticking and self._opened is not None:
            super()._emit(mode, values, [task for task in args[0] if not task.writes])
        elif not (self._closing and mode == "values"):
            # Every value of an open step has been shown when it came.
            super()._emit(mode, values, *args, **kwargs)


def _cache_keys(tasks: Iterable[Task]) -> dict[str, tuple[tuple[str, ...], str]]:
    return {task.id: (task.cache_key.ns, task.cache_key.key) for task in tasks if task.cache_key}


def _filled(tasks: Iterable[Task], cached: Cached) -> list[Task]:
    """The tasks that the cache has results of, with these."""
    found = [task for task in tasks if task.id in cached]
    for task in found:
        task.writes.extend(cached[task.id])
    return found


class _SyncLoop(_OpenLoop, SyncPregelLoop):
    @staticmethod
    def _new_guard() -> concurrent.futures.Future[None]:
        return concurrent.futures.Future()

    def __enter__(self) -> Any:
        self._engine = self.stack.enter_context(BackgroundExecutor(RunnableConfig()))
        return super().__enter__()

    def match_cached_writes(self) -> Sequence[Task]:
        if self._opened is None:
            return super().match_cached_writes()
        if self._running:
            return _filled(self._unstarted(), self._in_cache(self._unstarted()))
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
        keys = _cache_keys(tasks)
        found = self.cache.get(tuple(set(keys.values()))) if self.cache is not None and keys else {}
        return {task: found[key] for task, key in keys.items() if key in found}

    def _take(self, task: Task, start: _Start) -> None:
        options = {name: value for name, value in start.options.items() if not name.startswith("__")}
        try:
            start.function(task, *start.arguments, **options)
            with self._lock:
                self._accept(task)
        except BaseException as error:
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

    def schedule_error_handler(self, failed_task: Task, error: BaseException) -> Task | None:
        handler = super().schedule_error_handler(failed_task, error)
        return self._adopted(handler, failed_task)


class _AsyncLoop(_OpenLoop, AsyncPregelLoop):
    @staticmethod
    def _new_guard() -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Any:
        self._engine = await self.stack.enter_async_context(AsyncBackgroundExecutor(RunnableConfig()))
        return await super().__aenter__()

    async def amatch_cached_writes(self) -> Sequence[Task]:
        if self._opened is None:
            return await super().amatch_cached_writes()
        if self._running:
            return _filled(self._unstarted(), await self._in_cache(self._unstarted()))
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
        keys = _cache_keys(tasks)
        found = await self.cache.aget(tuple(set(keys.values()))) if self.cache is not None and keys else {}
        return {task: found[key] for task, key in keys.items() if key in found}

    async def _take(self, task: Task, start: _Start) -> None:
        options = {name: value for name, value in start.options.items() if not name.startswith("__")}
        try:
            await start.function(task, *start.arguments, **options)
            self._accept(task)
        except BaseException as error:
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

    async def aschedule_error_handler(self, failed_task: Task, error: BaseException) -> Task | None:
        handler = await super().aschedule_error_handler(failed_task, error)
        return self._adopted(handler, failed_task)


class OpenSteps(Pregel[Any, Any, Any, Any]):
    """A compiled graph whose supersteps stay open. One of its channels is an `AgendaChannel`, and it streams eagerly:
    the runner takes no shortcut for a single task."""

    stream = _with(Pregel.stream, SyncPregelLoop=_SyncLoop, PregelRunner=_Runner)
    astream = _with(Pregel.astream, AsyncPregelLoop=_AsyncLoop, PregelRunner=_Runner)

    def _prepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        return unfinished(_snapshot(self, config, saved, **options), saved, **options)

    async def _aprepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        return unfinished(await _asnapshot(self, config, saved, **options), saved, **options)


_snapshot = _with(Pregel._prepare_state_snapshot, prepare_next_tasks=snapshot_tasks)
_asnapshot = _with(Pregel._aprepare_state_snapshot, prepare_next_tasks=snapshot_tasks)
