"""LangGraph's own loop with supersteps that stay open: what a finished task makes ready starts in the same step.

Streams, namespaces, checkpoints, pending writes, retries, timeouts, caches, error handlers and interrupts stay those of
LangGraph, because its `stream` and its loop run unchanged but for a few methods. A step ends, and a checkpoint is put,
when nothing can start any more: at the end of the run, at a breakpoint, a drain or the last step of the run.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_CALL, ERROR, INTERRUPT, NULL_TASK_ID
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.pregel._io import map_output_values
from langgraph.pregel._retry import arun_with_retry, run_with_retry
from langgraph.pregel._runner import PregelRunner
from langgraph.pregel._task_status import CONTROL_WRITES, read_task_statuses
from langgraph.pregel.debug import map_debug_tasks
from langgraph.types import Interrupt

from agentmatrix.engine.listener import Listening, Start
from agentmatrix.engine.pauses import PAUSE, Pausing
from agentmatrix.engine.scheduler import Turn, Write, agenda_channel
from agentmatrix.engine.tasks import Opened, Task
from agentmatrix.interrupts import cancelled_interrupts

__all__ = ["Cached", "OpenLoop", "Runner", "cache_keys", "filled"]

Cached = dict[str, Sequence[Write]]


class Runner(PregelRunner):
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

    def forget(self, task: str) -> None:
        """Nothing that becomes of this task counts."""
        self._committed.add(task)

    def handles(self, task: Task) -> bool:
        """Whether an error handler answers for this task if it fails."""
        return bool(self._should_route_to_error_handler(task))


class OpenLoop(Pausing, Listening):
    """What the sync and the async loop have in common."""

    runner: Runner

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.RLock()
        self._opened: Opened | None = None
        self._saved: dict[str, Any] = {}
        self._running = self._stopping = self._closing = False
        self._ticking = self._stale = False
        self._alive, self._guard = 0, cast(Any, None)
        self._dropped: set[str] = set()
        self._written: set[str] = set()
        self._working: dict[str, Any] = {}
        self._futures: dict[str, Any] = {}
        self._tracked: Callable[[], Any] | None = None
        self._context = contextvars.copy_context()

    # max_concurrency bounds the agents; the saver, the cache and the reader of the stream have an executor of their own

    @property
    def submit(self) -> Any:
        return self._dispatch

    @submit.setter
    def submit(self, submit: Any) -> None:
        self._submit = submit

    def _dispatch(self, function: Any, *args: Any, **options: Any) -> Any:
        if self._to_keep is not None and function == self._checkpointer_put_after_previous:
            # What belongs to a pause is kept before its checkpoint is: without it, all would be done again.
            pause, self._to_keep = [(PAUSE, self._to_keep)], None
            return self._engine(self._put_with, pause, self._beside(args[3]), *args, **options)
        if function not in (run_with_retry, arun_with_retry):
            future = self._engine(function, *args, **options)
            if function == self.checkpointer_put_writes:
                self._saved[args[2]] = future
            return future
        if args[0].id == self._ear_task:
            self._running = True
            self.tasks.pop(args[0].id, None)
            return self._engine(self._attend, Start(function, args[1:], options), __cancel_on_exit__=True)
        if self._opened is None:
            return self._submit(function, *args, **options)
        if args[0].id not in self._opened.turns:
            # Whoever calls a task waits for it, in a place of its own: LangGraph runs a lone node outside of them.
            return self._calls(function, *args, **options)
        self._running = True
        self._tracked = options["configurable"][CONFIG_KEY_CALL].keywords["futures"]
        with self._lock:
            self._alive += 1
            if self._guard is None or self._guard.done():
                # The runner takes what it does not wait for yet for nothing at all, and would end the step.
                self._guard = self._new_guard()
                options["configurable"][CONFIG_KEY_CALL].keywords["futures"]()[self._guard] = None
        submit = {name: value for name, value in options.items() if name.startswith("__")}
        future = self._submit(self._take, args[0], Start(function, args[1:], options), **submit)
        self._futures[args[0].id] = future
        return future

    _engine: Any
    _calls: Any
    _put_with: Any
    _take: Any
    _attend: Any
    _new_guard: Callable[[], Any]

    def _leave(self) -> None:
        """One task less is at work; after the last one the runner may end the step."""
        with self._lock:
            self._alive -= 1
            if not self._alive and self._guard is not None and not self._guard.done():
                self._guard.set_result(None)
        if self._ear is not None:
            self._ear.wake()

    # what may start

    def _prepare_tasks_and_emit_checkpoint(self) -> None:
        self._opened, self._saved, self._running, self._holding = None, {}, False, False
        super()._prepare_tasks_and_emit_checkpoint()
        channel = agenda_channel(self.channels)
        if (self.tasks or channel.listens()) and channel.opens() and self.step <= self.stop:
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
            self._written = {write[0] for write in self.checkpoint_pending_writes}
            resumes = bool(self._reapplies_pending_writes)
            self.tasks = opened.reach(read_task_statuses(pending), self._holds, resumes=resumes)
            opened.goes_on()
            listening = self._listen()
            self.tasks.update({task.id: task for task in [*opened.new(self._holds), *listening]})
            if not self.tasks:
                self._opened = channel.ahead = None
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
        if not turn.depth and not self._running:
            return False
        drained = self.control is not None and self.control.drain_requested
        before = self.interrupt_before == "*" or turn.node in self.interrupt_before
        after = any(self.interrupt_after == "*" or node in self.interrupt_after for node in turn.after)
        return drained or before or after or self.step + turn.depth > self.stop

    def _more(self) -> list[Task]:
        """The tasks that have become ready. They are among the tasks of the step from here on."""
        if self._opened is None or self._stopping:
            return []
        made = self._opened.new(self._holding_back)
        self.tasks.update({task.id: task for task in made})
        self._emit("tasks", map_debug_tasks, made)
        return made

    def _holding_back(self, turn: Turn) -> bool:
        held = self._holds(turn)
        self._holding = self._holding or held
        return held

    # what has finished

    def put_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        if task_id == self._ear_task:
            # That it has ended is nothing to keep: another run may begin at the same checkpoint, and wait again.
            return
        with self._lock:
            if self._opened is None or task_id in self._written or task_id == NULL_TASK_ID:
                super().put_writes(task_id, writes, cached=cached)
                return
            # LangGraph looks through all that is pending for what the task has written before.
            self._written.add(task_id)
            pending, self.checkpoint_pending_writes = self.checkpoint_pending_writes, []
            try:
                super().put_writes(task_id, writes, cached=cached)
            finally:
                pending += self.checkpoint_pending_writes
                self.checkpoint_pending_writes = pending

    def _in_order(self) -> Any:
        """Where it matters in which order things happen, one thing happens after another, and is kept first."""
        return self._order if self._opened is not None and self._opened.agenda.ordered else contextlib.nullcontext()

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
        self._drop(opened.agenda.take_dropped())
        # What the task has read, of which there is more with each that follows, is needed no longer.
        self._futures.pop(task.id, None)
        if task.id in self.tasks:
            tags = {"tags": task.config.get("tags") or []}
            self.tasks[task.id] = dataclasses.replace(task, input=None, config=cast(RunnableConfig, tags))

    def _drop(self, turns: Sequence[Turn]) -> None:
        """The tasks of these turns are given up: what they write does not count, and what they raise neither."""
        if not turns:
            return
        opened = cast(Opened, self._opened)
        for id in [id for id, turn in opened.turns.items() if turn in turns]:
            self._dropped.add(id)
            self.runner.forget(id)
            if (gone := cancelled_interrupts.get()) is not None:
                gone.update(interrupt.id for interrupt in self._asked(id))
            self.tasks.pop(id, None)
            if (work := self._working.get(id)) is not None:
                work.cancel()
            elif (future := self._futures.get(id)) is not None and self._tracked is not None:
                # It may have paused: the runner is not to raise its interrupt.
                self._tracked().done.discard(future)
                self._tracked().failed.discard(future)

    def _asked(self, task_id: str) -> list[Interrupt]:
        """The interrupts that a task has paused with."""
        pending = self.checkpoint_pending_writes
        return [one for id, channel, value in pending if (id, channel) == (task_id, INTERRUPT) for one in value]

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

    def _launch(self, tasks: Iterable[Task], start: Start) -> None:
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
        # What was not accepted has no place among what has happened, and is not to be kept beside the error.
        kept = [write for write in task.writes if write[0] in CONTROL_WRITES]
        task.writes.clear()
        task.writes.extend(kept)
        handled = self.runner.handles(task) and isinstance(error, Exception) and not isinstance(error, GraphBubbleUp)
        if not handled:
            with self._lock:
                self._stopping = self._stopping or not isinstance(error, GraphInterrupt)
                self._leave()

    @property
    def _agenda_key(self) -> str:
        return agenda_channel(self.channels).key

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

    def _is_turn(self, task: Task) -> bool:
        return self._opened is not None and task.id in self._opened.turns

    def _handled(self, failed: Task, error: BaseException) -> Task | None:
        """The task of the error handler that takes the place of a task, if there is one."""
        opened = cast(Opened, self._opened)
        handler = opened.handler(failed, error) if self.nodes[failed.name].error_handler_node else None
        if handler is None:
            self._leave()
            return None
        with self._lock:
            self._alive -= 1
            self.tasks[handler.id] = handler
        if self._reapplies_pending_writes:
            self._reapply_writes_to_succeeded_nodes({handler.id: handler})
        return handler

    # the end of a step

    def after_tick(self) -> None:
        if self._opened is not None and not self.tasks:
            # Only something from outside has come, which is kept beside the checkpoint: there is nothing to wait for.
            self._put_checkpoint_fut = self._new_guard()
            self._put_checkpoint_fut.set_result(None)
            return
        if self._opened is not None:
            tasks = self._opened.turns.keys() & self.tasks.keys()
            self.step += max((self._opened.turns[task].depth for task in tasks), default=0)
        self._closing = self._opened is not None
        before = self.step
        super().after_tick()
        if self._resting:
            # A checkpoint for its own sake is no step of the run's, whose number is limited.
            self.stop += self.step - before
        self._closing = self._resting = False

    def _suppress_interrupt(self, *exit: Any) -> bool | None:
        self._closing = self._opened is not None
        return super()._suppress_interrupt(*exit)

    def _emit(self, mode: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        if mode == "values" and self.status == "input" and agenda_channel(self.channels).opens():
            # What a resumed run has finished is not known yet.
            self._stale = True
        elif mode == "tasks" and values is map_debug_tasks and self._ticking and self._opened is not None:
            super()._emit(mode, values, [t for t in args[0] if not t.writes and t.id != self._ear_task])
        elif not (self._closing and mode == "values"):
            # Every value of an open step has been shown when it came.
            super()._emit(mode, values, *args, **kwargs)


def cache_keys(tasks: Iterable[Task]) -> dict[str, tuple[tuple[str, ...], str]]:
    return {task.id: (task.cache_key.ns, task.cache_key.key) for task in tasks if task.cache_key}


def filled(tasks: Iterable[Task], cached: Cached) -> list[Task]:
    """The tasks that the cache has results of, with these."""
    found = [task for task in tasks if task.id in cached]
    for task in found:
        task.writes.extend(cached[task.id])
    return found
