"""Runs the activations of an open step; LangGraph's own runner runs each single task, with its retries, time limits,
calls of `@task` and error handlers.

The thread or asyncio task that reads the stream drives all of it. An activation that is alone runs right there: no
thread is started for it, and Ctrl-C ends it as it ends a function. Several run in LangGraph's executor, and tell of
their end by a queue. What happens when one has ended is written once, in `_successors`, for both.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from langgraph.errors import GraphInterrupt

from agentmatrix.cancel_scope import CancelScope, current_scope
from agentmatrix.engine.actors_loop import ActorsLoop
from agentmatrix.engine.channels import is_record
from agentmatrix.engine.task_exceptions import TaskExceptions, each_once
from agentmatrix.engine.task_sends import TaskSends
from agentmatrix.errors import BoundError
from agentmatrix.event_loop import call_on
from agentmatrix.live.send_scope import current_send_scope
from agentmatrix.pregel.execution import CONTROL_WRITES, TASKS, PregelRunner, Task, unless, with_globals
from agentmatrix.pregel.single_attempt import arun_task, run_task
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation

__all__ = ["Runner"]

Result = TypeVar("Result")

# How LangGraph's runner runs a single task.
_tick = with_globals(PregelRunner.tick, run_with_retry=run_task)
_atick = with_globals(PregelRunner.atick, arun_with_retry=arun_task)


@dataclass(frozen=True)
class CacheLookup:
    """Asks for the cached writes of these keys."""

    keys: tuple[tuple[tuple[str, ...], str], ...]


Request = Any
"""What the code that both drivers share waits for: a future of the saver, or a `CacheLookup`."""


class Runner(PregelRunner):
    """LangGraph's runner, for steps in which what has ended makes more tasks ready.

    `tick` and `atick` are called by LangGraph once a step; between two of their parts LangGraph hands output to its
    reader, so that the run waits where its reader does; a run that nobody reads has no parts.
    """

    def __init__(self, *, put_writes: Any, **options: Any) -> None:
        super().__init__(put_writes=put_writes, **options)
        self.loop: ActorsLoop = put_writes().__self__
        self._scopes: dict[str, CancelScope] = {}
        # Of what was not accepted, by activation: LangGraph commits some tasks in the callback of a future, which
        # swallows exceptions, and all others at the end of `tick`, from where it raises.
        self._refused: dict[ScheduledActivation, tuple[Task, Exception]] = {}
        self._inline: set[str] = set()
        if (submit := self.loop.submit_call) is not None:
            self.submit = lambda: submit  # type: ignore[assignment]

    # shared by both drivers

    def commit(self, task: Task, exception: BaseException | None) -> None:
        """LangGraph calls this when a task has ended, in the thread that has run it: accept, then save."""
        loop = self.loop
        with loop.lock:
            step = loop.open_step
            if step is None or task.id not in step.activations:
                if not loop.is_given_up(task):
                    super().commit(task, exception)
            elif exception is None:
                activation = step.activations[task.id]
                try:
                    self._accept(task)
                except Exception as error:
                    if task.id in self._inline:
                        raise
                    self._refused[activation] = task, error
                    self._commit_failed(task, error)
                else:
                    # The scheduler has its writes. LangGraph puts them aside and streams them.
                    if not loop.is_unread or self.node_finished is not None:
                        super().commit(task, None)
            elif loop.skips(task, exception):
                loop.skip(task, exception)
                loop.accept(task)
                super().commit(task, None)
            else:
                if isinstance(exception, GraphInterrupt) and exception.args:
                    exception.args = (each_once(exception.args[0]),)
                self._commit_failed(task, exception)

    def _accept(self, task: Task) -> None:
        if self.loop.held or TASKS in dict(task.writes):
            self.loop.accept_sends(task)
        else:
            self.loop.accept(task)

    def _commit_failed(self, task: Task, error: BaseException) -> None:
        # What was not accepted is not to be kept beside the error.
        kept = [write for write in task.writes if write[0] in CONTROL_WRITES]
        task.writes.clear()
        task.writes.extend(kept)
        super().commit(task, error)

    def _activation_of(self, task: Task, options: Mapping[str, Any]) -> ScheduledActivation | None:
        """The activation of a task that is about to run."""
        if options["timeout"] is None:
            self._inline.add(task.id)
        step = self.loop.open_step
        return step.activations.get(task.id) if step is not None else None

    def _take_refused(self, task: Task, activation: ScheduledActivation | None) -> tuple[Task, Exception] | None:
        """The task of an activation that was not accepted, itself or its error handler, and why."""
        self._inline.discard(task.id)
        return self._refused.pop(activation, None) if activation is not None else None

    def _should_route_to_error_handler(self, task: Task) -> bool:
        # A loop without an end would go on for ever through its error handler.
        step = self.loop.open_step
        activation = step.activations.get(task.id) if step is not None else None
        if activation is not None and isinstance(activation.error, BoundError):
            return False
        return super()._should_route_to_error_handler(task)

    def _successors(self) -> Generator[Request, Any, list[Task]]:
        """A task has ended and is accepted: wait for the saver under durability "sync", then start what follows."""
        return (yield from self._uncached((yield from self._saved_and_started())))

    def _saved_and_started(self) -> Generator[Request, Any, list[Task]]:
        started: list[Task] | None = None
        while started is None:
            yield from self.loop.take_saved()
            started = self.loop.take_started()
        return started

    def _uncached(self, tasks: list[Task]) -> Generator[Request, Any, list[Task]]:
        """Of these tasks, and of those that follow the ones whose results the cache has, the ones to run."""
        loop, start = self.loop, list[Task]()
        while tasks:
            keys = {(t.cache_key.ns, t.cache_key.key): t for t in tasks if t.cache_key}
            found = (yield CacheLookup(tuple(keys))) if keys and loop.cache is not None else {}
            with loop.lock:
                for key, writes in found.items():
                    # What another run has decided because of it concerns that run alone.
                    keys[key].writes.extend(write for write in writes if not is_record(*write))
                    self._accept(keys[key])
                    loop.put_writes(keys[key].id, keys[key].writes, cached=True)
            start += [task for task in tasks if not task.writes]
            tasks = (yield from self._saved_and_started()) if found else []
        return start

    def _next_step(self) -> Generator[Request, Any, list[Task]]:
        """The tasks of the next superstep, which begins at once."""
        yield from self.loop.end_step()
        return (yield from self._uncached(self.loop.next_step() or []))

    def _events(self, at_work: bool) -> Generator[Request, Any, list[Task]]:
        """Let all count that has come from outside; the tasks that start because of it."""
        started: list[Task] = []
        while self.loop.take_event(at_work=at_work or bool(started)):
            started += yield from self._successors()
        return started

    def _cancel_given_up(self, ready: deque[Task], at_work: dict[str, Any], ended_with: TaskExceptions) -> None:
        """Cancel the tasks of losers. A local function in a thread runs out, and its result is dropped."""
        for id in self.loop.take_given_up():
            ended_with.remove(id)
            if (future := at_work.pop(id, None)) is not None:
                future.cancel()
            if (scope := self._scopes.pop(id, None)) is not None:
                scope.cancel()
            for task in [task for task in ready if task.id == id]:
                ready.remove(task)

    # sync

    def tick(
        self,
        tasks: Iterable[Task],
        *,
        reraise: bool = True,
        timeout: float | None = None,
        retry_policy: Any = None,
        get_waiter: Callable[[], Any] | None = None,
        schedule_task: Any,
    ) -> Iterator[None]:
        """Run the tasks of a step to its end."""
        loop = self.loop
        if loop.open_step is None:
            if tasks:
                yield from super().tick(
                    tasks,
                    timeout=timeout,
                    retry_policy=retry_policy,
                    get_waiter=get_waiter,
                    schedule_task=schedule_task,
                )
            following = loop.next_step() if loop.goes_on() else None
            if following is None:
                return
            tasks = following
        options = {"timeout": timeout, "retry_policy": retry_policy, "schedule_task": schedule_task}
        ended: queue.SimpleQueue[tuple[Task, BaseException | None] | None] = queue.SimpleQueue()
        ended_with, at_work, waiter = TaskExceptions(loop), dict[str, Any](), None
        ready = deque(tasks if loop.cache is None else self._drive(self._uncached(list(tasks))))
        loop.start_listening(lambda: ended.put(None))
        if loop.shows_parts:
            yield
        while True:
            if loop.is_listening and not ended_with.stops:
                ready += self._drive(self._events(bool(ready or at_work)))
            if loop.given_up:
                self._cancel_given_up(ready, at_work, ended_with)
            if not (ready or at_work or self._waits_on(ended_with)):
                if ended_with.is_empty and loop.goes_on():
                    ready += self._drive(self._next_step())
                    continue
                break
            if len(ready) == 1 and not at_work and get_waiter is None and not loop.is_listening:
                task = ready.popleft()
                ready += self._end(task, self._run(task, options), ended_with)
                if loop.shows_parts:
                    yield
                continue
            while ready and not ended_with.stops:
                task = ready.popleft()
                at_work[task.id] = future = loop.submit_activation(
                    self._run_in_scope, task, options, __reraise_on_exit__=False
                )
                future.add_done_callback(functools.partial(_tell, ended, task))
            if ended_with.stops and not ended_with.waits_for(at_work):
                break
            if get_waiter is not None and (waiter is None or waiter.done()):
                waiter = get_waiter()
                waiter.add_done_callback(lambda _: ended.put(None))
            with contextlib.suppress(queue.Empty):
                end = ended.get(timeout=loop.seconds_to_timer())
                if end is not None and at_work.pop(end[0].id, None) is not None:
                    ready += self._end(*end, ended_with)
            if loop.shows_parts:
                yield
        yield
        ended_with.raise_first()

    def _waits_on(self, ended_with: TaskExceptions) -> bool:
        """Whether to wait for something from outside, though nothing is at work."""
        return not ended_with.stops and not self.loop.rests() and self.loop.awaits_event(at_work=False)

    def _run_in_scope(self, task: Task, options: dict[str, Any]) -> BaseException | None:
        """Run one task in a thread of its own, where what it waits for can be cancelled."""
        scope = self._scopes[task.id] = CancelScope(current_scope.get())
        current_scope.set(scope)
        try:
            return self._run(task, options)
        finally:
            self._scopes.pop(task.id, None)

    def _run(self, task: Task, options: dict[str, Any]) -> BaseException | None:
        """Run one task as LangGraph does. Returns what it has raised."""
        activation = self._activation_of(task, options)
        if (scope := current_scope.get()) is not None:
            if scope.cancelled:
                return concurrent.futures.CancelledError()
            if task.retry_policy or options["retry_policy"]:
                # A loser that waits for its next try has none.
                task = unless(lambda: scope.cancelled, task)
        sends = current_send_scope.set(TaskSends(self.loop, task, current_send_scope.get()))
        try:
            for _ in _tick(self, (task,), reraise=True, get_waiter=None, **options):
                pass
        except Exception as error:
            return None if task.id in self.loop.skipped else error
        finally:
            current_send_scope.reset(sends)
        if (refused := self._take_refused(task, activation)) is None:
            return None
        routed = self._should_route_to_error_handler(refused[0])
        handler = self.loop.schedule_error_handler(*refused) if routed else None
        return self._run(handler, options) if handler is not None else refused[1]

    def _end(self, task: Task, error: BaseException | None, ended_with: TaskExceptions) -> Sequence[Task]:
        if error is not None:
            ended_with.add(task, error)
            return ()
        if ended_with.stops:
            return ()
        return self._drive(self._successors()) if self.loop.waits_to_start else self.loop.take_started() or ()

    def _drive(self, steps: Generator[Request, Any, Result]) -> Result:
        cache: Any = self.loop.cache
        try:
            request = next(steps)
            while True:
                answer = cache.get(request.keys) if isinstance(request, CacheLookup) else request.result()
                request = steps.send(answer)
        except StopIteration as stop:
            result: Result = stop.value
            return result

    # async

    async def atick(
        self,
        tasks: Iterable[Task],
        *,
        reraise: bool = True,
        timeout: float | None = None,
        retry_policy: Any = None,
        get_waiter: Callable[[], Any] | None = None,
        schedule_task: Any,
    ) -> AsyncIterator[None]:
        """The same as `tick`, async."""
        loop = self.loop
        if loop.open_step is None:
            if tasks:
                async for _ in super().atick(
                    tasks,
                    timeout=timeout,
                    retry_policy=retry_policy,
                    get_waiter=get_waiter,
                    schedule_task=schedule_task,
                ):
                    yield
            following = loop.next_step() if loop.goes_on() else None
            if following is None:
                return
            tasks = following
        options = {"timeout": timeout, "retry_policy": retry_policy, "schedule_task": schedule_task}
        ended: asyncio.Queue[tuple[Task, BaseException | None] | None] = asyncio.Queue()
        ended_with, at_work, waiter = TaskExceptions(loop), dict[str, Any](), None
        ready = deque(tasks if loop.cache is None else await self._adrive(self._uncached(list(tasks))))
        loop.start_listening(_waker(ended))
        if loop.shows_parts:
            yield
        try:
            while True:
                if loop.is_listening and not ended_with.stops:
                    ready += await self._adrive(self._events(bool(ready or at_work)))
                if loop.given_up:
                    self._cancel_given_up(ready, at_work, ended_with)
                if not (ready or at_work or self._waits_on(ended_with)):
                    if ended_with.is_empty and loop.goes_on():
                        ready += await self._adrive(self._next_step())
                        continue
                    break
                if len(ready) == 1 and not at_work and get_waiter is None and not loop.is_listening:
                    task = ready.popleft()
                    ready += await self._aend(task, await self._arun(task, options), ended_with)
                    if loop.shows_parts:
                        yield
                    continue
                while ready and not ended_with.stops:
                    task = ready.popleft()
                    at_work[task.id] = future = loop.submit_activation(
                        self._arun,
                        task,
                        options,
                        __name__=task.name,
                        __cancel_on_exit__=True,
                        __reraise_on_exit__=False,
                    )
                    future.add_done_callback(functools.partial(_tell_async, ended, task))
                if ended_with.stops and not ended_with.waits_for(at_work):
                    break
                if get_waiter is not None and (waiter is None or waiter.done()):
                    waiter = get_waiter()
                    waiter.add_done_callback(lambda _: ended.put_nowait(None))
                with contextlib.suppress(TimeoutError):
                    if (seconds := loop.seconds_to_timer()) is None:
                        end = await ended.get()
                    else:
                        async with asyncio.timeout(seconds):
                            end = await ended.get()
                    if end is not None and at_work.pop(end[0].id, None) is not None:
                        ready += await self._aend(*end, ended_with)
                if loop.shows_parts:
                    yield
        finally:
            for future in at_work.values():
                future.cancel()
        yield
        ended_with.raise_first()

    async def _arun(self, task: Task, options: dict[str, Any]) -> BaseException | None:
        activation = self._activation_of(task, options)
        sends = current_send_scope.set(TaskSends(self.loop, task, current_send_scope.get()))
        try:
            async for _ in _atick(self, (task,), reraise=True, get_waiter=None, **options):
                pass
        except Exception as error:
            return None if task.id in self.loop.skipped else error
        finally:
            current_send_scope.reset(sends)
        if (refused := self._take_refused(task, activation)) is None:
            return None
        routed = self._should_route_to_error_handler(refused[0])
        handler = await self.loop.aschedule_error_handler(*refused) if routed else None
        return await self._arun(handler, options) if handler is not None else refused[1]

    async def _aend(self, task: Task, error: BaseException | None, ended_with: TaskExceptions) -> Sequence[Task]:
        if error is not None:
            ended_with.add(task, error)
            return ()
        if ended_with.stops:
            return ()
        return await self._adrive(self._successors()) if self.loop.waits_to_start else self.loop.take_started() or ()

    async def _adrive(self, steps: Generator[Request, Any, Result]) -> Result:
        cache: Any = self.loop.cache
        try:
            request = next(steps)
            while True:
                answer = await cache.aget(request.keys) if isinstance(request, CacheLookup) else await request
                request = steps.send(answer)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def _waker(ended: asyncio.Queue[Any]) -> Callable[[], None]:
    return functools.partial(call_on, asyncio.get_running_loop(), ended.put_nowait, None)


def _tell(ended: queue.SimpleQueue[Any], task: Task, future: concurrent.futures.Future[BaseException | None]) -> None:
    error = future.exception() if not future.cancelled() else concurrent.futures.CancelledError()
    ended.put((task, error or future.result()))


def _tell_async(ended: asyncio.Queue[Any], task: Task, future: asyncio.Future[BaseException | None]) -> None:
    error = future.exception() if not future.cancelled() else asyncio.CancelledError()
    ended.put_nowait((task, error or future.result()))
