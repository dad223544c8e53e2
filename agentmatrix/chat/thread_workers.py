"""A pool of members whose turns run in threads, for sync runs.

Threads: the threads of LangGraph's tasks start turns, wait and collect, one task at a time (only `join`, after a
fallback, is called by several). Worker threads take turns from the queue. One lock guards the fields of both classes,
and both conditions share it; members speak without it. Worker threads neither change the keys of `running` nor save.

Order: a worker thread records the end of a turn (`_finish`) and wakes `wait` under one hold of the lock.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextvars import Context, copy_context
from typing import Any, Final

from langchain_core.messages import BaseMessage
from langgraph.errors import GraphInterrupt

from agentmatrix.chat.member import Member
from agentmatrix.chat.turn import TurnStart
from agentmatrix.chat.workers import FinishedTurn, MemberPool
from agentmatrix.pregel.function_tasks import SyncFunctionTasks
from agentmatrix.pregel.virtual_tasks import VirtualTask

__all__ = ["ThreadMemberPool"]

_TICK_SECONDS: Final = 0.005
"""How often a thread pool with a queue looks whether it needs more threads."""
_GATHER_SECONDS: Final = 0.02
"""How long a thread pool with a queue waits for further turns once it could return, and again if most of them end at
once."""
_STALLED_TICKS: Final = 10
"""After so many ticks without a finished turn the number of threads is doubled."""
_QUICK_TURN_SECONDS: Final = 0.001
"""Turns that take less do not profit from more threads."""


class ThreadMemberPool(MemberPool):
    """Turns in threads, as few as will do.

    One thread runs turns that end at once. Turns that take their time get as many threads as a usual pool has. If
    nothing ends for a while, each running turn may wait for the words of one that has no thread yet: the number of
    threads is doubled, up to the limit.
    """

    def __init__(
        self, limit: int | None, names: Mapping[str, str], *, wait_for_all: bool, has_checkpointer: bool
    ) -> None:
        super().__init__(limit, names, wait_for_all=wait_for_all, has_checkpointer=has_checkpointer)
        self._limit = limit
        self.functions = SyncFunctionTasks(self._change)
        self._queue: deque[tuple[Context, VirtualTask, Member, TurnStart]] = deque()
        # Entered by `with self._lock`, which is faster than the `with` of a condition, a function in Python.
        self._lock = threading.RLock()
        self._changed, self._work_available = threading.Condition(self._lock), threading.Condition(self._lock)
        self._threads = self._idle_threads = self._stalled_ticks = 0
        self._finished_count = self._finished_before_tick = 0

    def set_state(self, state: dict[str, Any], messages: Sequence[BaseMessage]) -> None:
        with self._lock:
            super().set_state(state, messages)

    def now(self) -> TurnStart:
        with self._lock:
            return super().now()

    def requeue(self, finished: FinishedTurn) -> None:
        with self._lock:
            super().requeue(finished)

    def take_failed(self) -> list[FinishedTurn]:
        with self._lock:
            return super().take_failed()

    def restore(self, task: VirtualTask, outcome: dict[str, Any]) -> None:
        with self._lock:
            super().restore(task, outcome)

    def wake(self) -> None:
        with self._lock:
            self._changed.notify_all()

    def start(self, task: VirtualTask, member: Member, at: TurnStart) -> None:
        with self._lock:
            self.running[task.node] = None
            self._queue.append((copy_context(), task, member, at))

    def _work(self) -> None:
        """The loop of a worker thread."""
        while True:
            with self._lock:
                while not (self._queue or self._closed):
                    self._idle_threads += 1
                    self._work_available.wait()
                    self._idle_threads -= 1
                if self._closed:
                    return
                context, task, member, at = self._queue.popleft()
            context.run(self._run, task, member, at)

    def _run(self, task: VirtualTask, member: Member, at: TurnStart) -> None:
        try:
            outcome = self._speak(task, member, at)
        except BaseException as error:
            outcome = error
        if task.calls is not None and (isinstance(outcome, GraphInterrupt) or not isinstance(outcome, BaseException)):
            task.calls.wait()
        with self._lock:
            self._finished_count += 1
            self._finish(task, outcome)
            # With a queue, `wait` looks by itself at each tick.
            if not self._queue and (self._can_return or self._unsaved):
                self._changed.notify_all()

    def _speak(self, task: VirtualTask, member: Member, at: TurnStart) -> Any:
        with self._lock:
            turn = self._begin_turn(task, member, self.now() if self._limit else at)
        config = task.enter()
        if not self.loop.is_watched:
            self.loop.tell_start(task, turn.input)
            return member.speak(turn, config)
        self.loop.emit_start(task, self._state)
        return self._traced(member, turn).invoke(self._state, config)

    def wait(self, seconds: float | None) -> list[FinishedTurn]:
        """Waits until it can return, at most so many seconds. Returns the finished turns, and forgets them."""
        with self._lock:
            self._wait(lambda: self._can_return, seconds)
            return self._collect()

    def join(self, name: str) -> FinishedTurn:
        """Waits for the turn of one member, and forgets it."""
        with self._lock:
            self._wait(lambda: name in self._finished, None)
            del self.running[name]
            return self._finished.pop(name)

    def _wait(self, condition: Callable[[], bool], seconds: float | None) -> None:
        """Waits for the condition, and adds threads while there is a queue. Under the lock.

        With a queue it waits a moment longer, since it is cheaper to collect several turns at once, and whoever begins
        again stands behind that queue. Turns that end at once are waited for until the queue is empty.
        """
        until = None if seconds is None else time.monotonic() + seconds
        gathers_until, finished_before = 0.0, -math.inf  # So that it gathers once at least.
        while True:
            now = time.monotonic()
            self._make_changes()
            self._save()
            if condition():
                if not self._queue or self.has_failed:
                    return
                if now >= gathers_until:
                    if self._finished_count - finished_before < _GATHER_SECONDS / _QUICK_TURN_SECONDS:
                        return
                    gathers_until, finished_before = now + _GATHER_SECONDS, self._finished_count
            if until is not None and now >= until:
                return
            left = None if until is None else until - now
            if self._queue:
                self._add_threads()
                left = _TICK_SECONDS if left is None else min(left, _TICK_SECONDS)
            self._changed.wait(left)

    def _change(self, change: Callable[[], Any]) -> Any:
        made = Future[Any]()
        with self._lock:
            if self._closed:
                raise CancelledError
            self._changes.append((change, made))
            self._changed.notify_all()
        return made.result()

    def _add_threads(self) -> None:
        """Wakes idle threads, and starts new ones where that may help. Called at each tick, under the lock."""
        if self._idle_threads:
            self._work_available.notify(len(self._queue))
        finished = self._finished_count - self._finished_before_tick
        self._finished_before_tick = self._finished_count
        self._stalled_ticks = 0 if finished else self._stalled_ticks + 1
        wanted, usual = max(1, self._threads), min(32, (os.cpu_count() or 1) + 4)
        if self._threads and not self._idle_threads:
            if self._stalled_ticks >= _STALLED_TICKS:
                wanted, self._stalled_ticks = 2 * self._threads, 0
            elif finished < _TICK_SECONDS / _QUICK_TURN_SECONDS:
                wanted = max(wanted, usual)
        wanted = min(wanted, self._threads + len(self._queue), self._limit or wanted)
        for _ in range(wanted - self._threads):
            self._threads += 1
            # Python ends without those that a stop has left behind in the call of a model.
            threading.Thread(target=self._work, name="chat-member", daemon=True).start()

    def close(self) -> None:
        """Starts no more turns. Running turns end by themselves; nothing uses their results. Called as the run ends."""
        with self._lock:
            self._closed = self.claims.is_over = True
            self._close_functions()
            self._queue.clear()
            for _, made in self._changes:
                made.cancel()
            self._work_available.notify_all()
