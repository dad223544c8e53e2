"""Calls of `@task` by a turn that may outlive the step of LangGraph's loop that it began in.

LangGraph's own function makes such a call. It is told of a runner that lives as long as the run, where LangGraph's is
gone with the step, and of a way to the loop that waits until the loop stands still.

What a call has returned is kept beside the checkpoint, as LangGraph keeps the writes of a task, and beside each
checkpoint that follows until the turn is over: a turn that begins again, after a pause or a kill, finds it there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from types import MethodType
from typing import Any, NamedTuple
from uuid import UUID, uuid5
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CALL,
    CONFIG_KEY_READ,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_SEND,
    ERROR,
    RETURN,
)
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp

from agentmatrix.pregel.execution import (
    PULL,
    PUSH,
    Task,
    map_debug_tasks,
    null_version,
    prepare_single_task,
    with_configurable,
)
from agentmatrix.pregel.pending_writes import RETURNED

__all__ = ["AsyncFunctionTasks", "FunctionTasks", "SyncFunctionTasks", "TaskCalls"]

_HEARD = "heard"
Change = Callable[[], Any]
Run = Callable[..., Any]


class _Caller(NamedTuple):
    """What LangGraph asks of the task that calls."""

    config: RunnableConfig
    path: tuple[Any, ...]
    id: str


class TaskCalls:
    """What one turn calls by `@task`. Each turn has one, and few turns call anything.

    Args:
        functions: those of the run.
        loop: LangGraph's loop.
        name: the node that the turn is of.
        kept: what its calls have returned before, and what it had heard then.
        is_kept: whether the run has a checkpointer.
    """

    __slots__ = ("_functions", "_heard", "_is_kept", "_kept", "_loop", "_name")

    def __init__(
        self, functions: FunctionTasks, loop: Any, name: str, kept: Mapping[str, Any], *, is_kept: bool
    ) -> None:
        self._functions, self._loop, self._name = functions, loop, name
        self._kept, self._is_kept = {**kept}, is_kept
        if kept:
            functions.kept[name] = self
        self._heard: Any = None

    def heard(self, heard: Any) -> Any:
        """What the turn begins with: what it began with when it made calls that have returned, or else `heard`."""
        self._heard = self._kept.get(_HEARD, heard)
        return self._heard

    def keep(self) -> None:
        """Keep what the calls have returned beside the checkpoint that the loop has gone on to, too."""
        for part, value in self._kept.items():
            self._put(part, value)

    def take(self, before: TaskCalls) -> None:
        """Keep what the calls of the same turn have returned in another task."""
        self._kept |= before._kept
        before.close()
        self.keep()

    def wait(self) -> None:
        """Wait for the calls that the turn has not waited for itself, as LangGraph does at the end of a step."""
        concurrent.futures.wait(self._running)

    async def await_all(self) -> None:
        """The same as `wait`, async."""
        if running := self._running:
            await asyncio.wait([asyncio.wrap_future(call) for call in running])

    @property
    def _running(self) -> list[Any]:
        return [call for call, calls in list(self._functions.running.items()) if calls is self]

    def close(self) -> None:
        """The turn has ended: nothing more is kept."""
        self._is_kept = False
        self._functions.kept.pop(self._name, None)

    def with_calls(self, config: RunnableConfig) -> RunnableConfig:
        """The config of the turn, whose calls of `@task` come here."""
        return with_configurable(config, {CONFIG_KEY_CALL: self.function(config[CONF][CONFIG_KEY_CALL])})

    def function(self, call: Any) -> Any:
        """What stands in the config of the turn in place of `call`, LangGraph's function."""
        # Other code finds LangGraph's loop there.
        return partial(self._call, call, schedule_task=call.keywords["schedule_task"])

    def _call(self, call: Any, *args: Any, **options: Any) -> Any:
        functions = self._functions
        changed = {
            "futures": lambda: functions.futures,
            "submit": lambda: partial(functions.submit, self),
            "schedule_task": MethodType(partial(functions.schedule, self), self._loop),
        }
        future = call.func(self._caller, *args, **{**call.keywords, **options, **changed})
        functions.running[future] = self
        future.add_done_callback(functions.running.pop)
        return future

    def _caller(self) -> _Caller:
        return _Caller(get_config(), (PULL, self._name), self._functions.id_of(self._name))

    def accept(self, caller: _Caller | Task, number: int, call: Any) -> Task:
        """The task that is called; with its writes, where it has returned before."""
        loop = self._loop
        made = prepare_single_task(
            (PUSH, caller.path, number, caller.id, call),
            None,
            checkpoint=loop.checkpoint,
            checkpoint_id_bytes=bytes.fromhex(loop.checkpoint["id"].replace("-", "")),
            checkpoint_null_version=null_version(loop.checkpoint),
            pending_writes=[],
            processes=loop.nodes,
            channels=loop.channels,
            managed=loop.managed,
            config=caller.config,
            step=loop.step,
            stop=loop.stop,
            for_execution=True,
            store=loop.store,
            checkpointer=loop.checkpointer,
            manager=loop.manager,
            retry_policy=loop.retry_policy,
            cache_policy=loop.cache_policy,
        )
        assert isinstance(made, Task)
        task = self._as_part_of(made, caller.config[CONF])
        loop._emit("tasks", map_debug_tasks, [task])
        if (part := _part(task)) in self._kept:
            task.writes.append((RETURN, self._kept[part]))
        return task

    def _as_part_of(self, task: Task, around: Mapping[str, Any]) -> Task:
        """The task, which reads, asks and writes in the name of the one that has called it."""
        pad, send = around[CONFIG_KEY_SCRATCHPAD], around[CONFIG_KEY_SEND]

        def write(writes: Any) -> None:
            task.writes.extend(write for write in writes if write[0] == RETURN)
            if others := [write for write in writes if write[0] != RETURN]:
                # A question to a person, a message: it is to be asked, or said, again.
                self._functions.unkept.add(task.id)
                send(others)

        asked = {"resume": pad.resume, "interrupt_counter": pad.interrupt_counter}
        own = replace(task.config[CONF][CONFIG_KEY_SCRATCHPAD], **asked, get_null_resume=pad.get_null_resume)
        changed = {CONFIG_KEY_READ: around[CONFIG_KEY_READ], CONFIG_KEY_SCRATCHPAD: own, CONFIG_KEY_SEND: write}
        return replace(task, config=with_configurable(task.config, changed))

    def end(self, task: Task, error: BaseException | None, *, cached: bool = False) -> None:
        """A task has ended: show it, and keep what it has returned."""
        loop, key = self._loop, task.cache_key
        if isinstance(error, GraphBubbleUp):
            return
        if error is not None:
            task.writes.append((ERROR, error))
        elif task.id not in self._functions.unkept:
            for part, value in ((_HEARD, self._heard), (_part(task), task.writes[-1][1])):
                if self._is_kept and part not in self._kept:
                    self._functions.kept[self._name], self._kept[part] = self, value
                    self._put(part, value)
            if key is not None and loop.cache is not None and not cached:
                save = getattr(loop.cache, "aset" if self._functions.is_async else "set")
                loop.submit(save, {(key.ns, key.key): (task.writes, key.ttl)})
        loop.tasks[task.id] = task
        try:
            loop.output_writes(task.id, task.writes, cached=cached)
        finally:
            del loop.tasks[task.id]

    def _put(self, part: str, value: Any) -> None:
        id = self._functions.id_of(self._name)
        self._loop.put_writes(str(uuid5(UUID(id), part)), [(RETURNED, [id, part, value])])


def _part(task: Task) -> str:
    """Which of the calls of its turn a task is: its name, and the numbers of it and of those that it is called in."""
    return f"{task.name} {task.path}"


class FunctionTasks(ABC):
    """Runs what turns call by `@task`. Each kind of run has its own.

    Args:
        change: makes a change of the loop, and returns what that returns; in an async run it is awaited. Called on any
            thread of a sync run, on the event loop of an async one.

    Attributes:
        id_of: gives the id that the turn of a node has if it begins again at the present checkpoint: a UUID.
        kept: by node, the calls of turns of which something is kept.
        unkept: the ids of tasks of which nothing is kept.
        running: by future of a call, the calls that it is one of.
    """

    is_async = False

    def __init__(self, change: Callable[[Change], Any]) -> None:
        self._change = change
        self.id_of: Callable[[str], str]
        self.kept: dict[str, TaskCalls] = {}
        self.unkept: set[str] = set()
        self.running: dict[Any, TaskCalls] = {}
        # LangGraph puts them there, and asks for none that is not its own.
        self.futures: WeakKeyDictionary[Any, Task] = WeakKeyDictionary()

    @abstractmethod
    def schedule(self, calls: TaskCalls, loop: Any, caller: Any, number: int, call: Any) -> Any:
        """The task that is called, which LangGraph asks for; with its writes, where those are known."""

    @abstractmethod
    def submit(self, calls: TaskCalls, run: Run, task: Task, *args: Any, configurable: Any, **options: Any) -> Any:
        """Run a task as LangGraph does. Returns a future."""

    @abstractmethod
    def close(self) -> None:
        """Start nothing more."""


class SyncFunctionTasks(FunctionTasks):
    """In threads."""

    _executor: concurrent.futures.ThreadPoolExecutor | None = None

    def schedule(self, calls: TaskCalls, loop: Any, caller: Any, number: int, call: Any) -> Task:
        task: Task = self._change(partial(calls.accept, caller, number, call))
        if task.cache_key is not None and loop.cache is not None and not task.writes:
            key = (task.cache_key.ns, task.cache_key.key)
            if (found := loop.cache.get((key,))) and key in found:
                task.writes.extend(found[key])
                self._change(partial(calls.end, task, None, cached=True))
        return task

    def submit(self, calls: TaskCalls, run: Run, task: Task, *args: Any, configurable: Any, **options: Any) -> Any:
        if self._executor is None:
            self._executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="chat-task")
        return self._executor.submit(copy_context().run, self._run, calls, run, task, args, configurable)

    def _run(self, calls: TaskCalls, run: Run, task: Task, args: tuple[Any, ...], configurable: Any) -> Any:
        try:
            returned = run(task, *args, configurable=configurable)
        except BaseException as error:
            self._change(partial(calls.end, task, error))
            raise
        self._change(partial(calls.end, task, None))
        return returned

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


class AsyncFunctionTasks(FunctionTasks):
    """In tasks of the event loop."""

    is_async = True

    def __init__(self, change: Callable[[Change], Any]) -> None:
        super().__init__(change)
        self._tasks: set[asyncio.Future[Any]] = set()

    async def schedule(self, calls: TaskCalls, loop: Any, caller: Any, number: int, call: Any) -> Task:
        task: Task = await self._change(partial(calls.accept, caller, number, call))
        if task.cache_key is not None and loop.cache is not None and not task.writes:
            key = (task.cache_key.ns, task.cache_key.key)
            if (found := await loop.cache.aget((key,))) and key in found:
                task.writes.extend(found[key])
                await self._change(partial(calls.end, task, None, cached=True))
        return task

    def submit(self, calls: TaskCalls, run: Run, task: Task, *args: Any, configurable: Any, **options: Any) -> Any:
        attempts = run(task, *args, stream=options["stream"], configurable=configurable)
        running = asyncio.ensure_future(self._run(calls, attempts, task))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        return running

    async def _run(self, calls: TaskCalls, attempts: Any, task: Task) -> Any:
        try:
            returned = await attempts
        except Exception as error:
            await self._change(partial(calls.end, task, error))
            raise
        await self._change(partial(calls.end, task, None))
        return returned

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
