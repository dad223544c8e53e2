"""Pools of members whose turns run at the same time. Here: what all pools share, and the pool of an event loop.

A pool lives as long as one run of the group. A LangGraph task of the group (a node of `ParallelTurns`) starts turns in
it, waits, and collects the finished ones; turns that are still running then go on, and a later task collects them.

Threads: an `AsyncMemberPool` is used on its event loop only. The threads and the lock of a `ThreadMemberPool` are
described in `chat.thread_workers`.

Order: `_finish` does what the next turn depends on, in one go: it appends to the transcript, streams the result or
marks it as unsaved, and sets the flags that `_can_return` reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.types import Command

from agentmatrix.chat.claims import Claims
from agentmatrix.chat.conversation import EVENT_LOG, Event
from agentmatrix.chat.member import Member
from agentmatrix.chat.transcript import Transcript
from agentmatrix.chat.turn import Turn, TurnStart
from agentmatrix.pregel.function_tasks import AsyncFunctionTasks, FunctionTasks
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.virtual_tasks import LoopHandle, VirtualTask

__all__ = ["AsyncMemberPool", "FinishedTurn", "MemberPool"]


_CANCEL_SECONDS: Final = 1.0
"""How long the end of a run waits for turns that it has cancelled."""


class FinishedTurn(NamedTuple):
    """A turn that has ended.

    Attributes:
        task: the virtual task that it ran in.
        outcome: the update of the group's state, or the exception.
        event: the event of the turn; empty after an exception.
    """

    task: VirtualTask
    outcome: Any
    event: Event

    @property
    def failed(self) -> bool:
        """Whether it raised."""
        return isinstance(self.outcome, BaseException)

    @property
    def interrupted(self) -> bool:
        """Whether it waits for a person's answer."""
        return "interrupts" in self.event

    @property
    def is_silent(self) -> bool:
        """Whether it gives no other member a reason to begin a turn."""
        event = self.event
        return not (event.get("message_ids") or "goto" in event or "stop_reason" in event or self.failed)


class MemberPool(ABC):
    """The members of a group whose turns are running, over all LangGraph tasks of one run.

    Args:
        limit: how many turns may run at a time; None is no limit.
        names: by member, the name that it has in prompts.
        wait_for_all: whether it is a broadcast: all members get the same transcript, and `wait` returns when all have
            spoken. Otherwise it is free conversation, and `wait` returns when one has.
        has_checkpointer: whether the run has a checkpointer.

    Attributes:
        running: by member, its task (async) or None, from its start until it is collected.
        loop: LangGraph's loop, as seen from the current task of the group.
        transcript: the messages that the next turn begins with.
        claims: as of `TurnStart`.
        has_failed: whether a finished turn that was not collected has raised.
        functions: run what members call by `@task` in free conversation.
        is_called: says whether somebody outside has said something that the group has not taken yet.
    """

    def __init__(
        self, limit: int | None, names: Mapping[str, str], *, wait_for_all: bool, has_checkpointer: bool
    ) -> None:
        self.running: dict[str, Any] = {}
        self.functions: FunctionTasks
        self.loop: LoopHandle
        self._names = names
        self.transcript = Transcript([], names)
        self.claims = Claims()
        self.has_checkpointer = has_checkpointer
        self.has_failed = False
        self.is_called: Callable[[], bool] = lambda: False
        self._wait_for_all = wait_for_all
        self._state: dict[str, Any] = {}
        self._closed = False
        self._has_interrupt = False
        self._has_news = False
        self._finished: dict[str, FinishedTurn] = {}
        self._unsaved: list[FinishedTurn] = []
        self._changes: deque[tuple[Callable[[], Any], Any]] = deque()
        self._clock = time.monotonic()

    @abstractmethod
    def start(self, task: VirtualTask, member: Member, at: TurnStart) -> None:
        """Start a turn of a member that is asked `at` this point of the conversation. One that waits for the limit of
        turns hears what is said meanwhile too."""

    @abstractmethod
    def wake(self) -> None:
        """Has `wait` look again whether it can return. Called on any thread."""

    def now(self) -> TurnStart:
        """This point of the conversation."""
        return TurnStart(self._state, self.transcript, len(self.transcript), self.claims, self.has_checkpointer)

    def elapsed(self) -> float:
        """The seconds since the last call, or since the pool was made."""
        before, self._clock = self._clock, time.monotonic()
        return self._clock - before

    def set_state(self, state: dict[str, Any], messages: Sequence[BaseMessage]) -> None:
        """Sets the state that turns begin with from now on.

        In free conversation without a checkpointer the transcript is ahead of the state, by turns that have finished
        since: they may be heard before they are saved. With a checkpointer they may not.
        """
        self._state = state
        if not self.transcript.extend_from(messages):
            self.transcript = Transcript(messages, self._names)
            for finished in () if self._wait_for_all else self._finished.values():
                self._append(finished)
        if not self._wait_for_all:
            self._has_news |= any(map(self._has_more_to_hear, self._finished.values()))

    def requeue(self, finished: FinishedTurn) -> None:
        """Puts a collected turn back, for the next `wait`."""
        self.running[finished.task.node] = None
        self._finish(finished.task, finished.outcome)

    def take_failed(self) -> list[FinishedTurn]:
        """Takes the turns that have raised, and were put back."""
        failed = [turn for turn in self._finished.values() if turn.failed] if self.has_failed else []
        for turn in failed:
            del self._finished[turn.task.node], self.running[turn.task.node]
        self.has_failed = False
        return failed

    def restore(self, task: VirtualTask, outcome: dict[str, Any]) -> None:
        """Adds a turn that had finished, and was saved, before the run was killed."""
        self.running[task.node] = None
        self._finished[task.node] = FinishedTurn(task, outcome, outcome[EVENT_LOG][-1])

    def _finish(self, task: VirtualTask, outcome: Any) -> None:
        """Records the end of a turn: its update, or what it raised."""
        self.loop.tell_end(task, outcome)
        is_broken_off = not isinstance(outcome, dict)
        if isinstance(outcome, GraphInterrupt):
            values = [interrupt.value for interrupt in outcome.args[0]]
            asked = {"ns": task.namespace, "values": values, "at": time.time()}
            outcome = {EVENT_LOG: [Event(interrupts={task.node: asked})]}
            self._has_interrupt = True
        elif is_broken_off:
            outcome = ParentCommand(outcome) if isinstance(outcome, Command) else outcome
            self.has_failed = True
        event = outcome[EVENT_LOG][-1] if isinstance(outcome, dict) else Event()
        self._finished[task.node] = finished = FinishedTurn(task, outcome, event)
        if not self._wait_for_all:
            self._has_news = self._has_news or not finished.is_silent or self._has_more_to_hear(finished)
            self._append(finished)
        elif not self.has_checkpointer:
            self._emit(finished)
        elif not is_broken_off:
            self._unsaved.append(finished)

    def _has_more_to_hear(self, finished: FinishedTurn) -> bool:
        """Whether the member has not heard the last messages: it begins again at once, also if it kept silent."""
        return self.transcript.has_new_messages(finished.task.node, finished.event.get("seen_message"))

    def _append(self, finished: FinishedTurn) -> None:
        if finished.event.get("message_ids") and not self.has_checkpointer:
            self.transcript.append(finished.outcome["messages"])

    @property
    def _emits_at_once(self) -> bool:
        # Elsewhere a result is streamed when it is collected, since it may still go to a task of its own.
        return self._wait_for_all and not self.has_checkpointer

    def _emit(self, finished: FinishedTurn) -> None:
        if self.loop.streams_nodes and isinstance(finished.outcome, dict) and not finished.interrupted:
            update = {key: value for key, value in finished.outcome.items() if key != EVENT_LOG}
            self.loop.emit_end(finished.task, update)

    def _save(self) -> None:
        """Saves finished turns, so that no member that has answered is asked again after a kill.

        Once all turns have finished, LangGraph saves the result of the group's task at once: nothing is saved then.
        """
        unsaved, self._unsaved = self._unsaved, []
        if unsaved and not self._closed and len(self._finished) < len(self.running):
            self.loop.save(unsaved[0].task.id, [finished.outcome for finished in unsaved])

    @property
    def _can_return(self) -> bool:
        """Whether `wait` may return.

        - A broadcast: all turns, or a failure. With a checkpointer an interrupt too, because the turns that still run
          fall back to tasks of their own.
        - Free conversation: a turn that may give others a reason to begin, or words from outside. After an interrupt:
          all turns, or a failure.
        """
        if len(self._finished) == len(self.running):
            return True
        if self._wait_for_all:
            return self.has_failed or (self.has_checkpointer and self._has_interrupt)
        return self.has_failed if self._has_interrupt else self._has_news or self.is_called()

    def _collect(self) -> list[FinishedTurn]:
        """Takes the finished turns: of a broadcast by name, in free conversation in the order of their ends."""
        finished, self._finished = self._finished, {}
        falls_back = self._wait_for_all and self.has_checkpointer and (self.has_failed or self._has_interrupt)
        self.has_failed = self._has_interrupt = self._has_news = False
        for name, turn in finished.items():
            del self.running[name]
            if turn.task.calls is not None and not (turn.failed or turn.interrupted):
                turn.task.calls.close()
            if not (self._emits_at_once or falls_back):
                self._emit(turn)
        return [finished[name] for name in sorted(finished)] if self._wait_for_all else list(finished.values())

    def _make_changes(self) -> None:
        """Makes the changes of LangGraph's loop that turns have asked for: the loop stands still while `wait` waits."""
        while self._changes:
            change, made = self._changes.popleft()
            if made.cancelled():
                continue
            try:
                made.set_result(self.loop.change(change))
            except Exception as error:
                made.set_exception(error)

    def _close_functions(self) -> None:
        """Starts no more calls of `@task`. They refer to the pool: without that a run that has ended need not wait for
        the garbage collector."""
        self.functions.close()
        del self.functions

    def _begin_turn(self, task: VirtualTask, member: Member, at: TurnStart) -> Turn:
        return member.begin_turn(at if task.calls is None else at.after(task.calls.heard(at.seen_message)))

    def _traced(self, member: Member, turn: Turn) -> Runnable[Any, Any]:
        """The turn as a Runnable that callbacks see, as they see a node."""

        # The config of the context has the callbacks for what runs inside, the one that is passed those of the turn.
        def speak(state: dict[str, Any]) -> Any:
            return member.speak(turn, get_config())

        async def aspeak(state: dict[str, Any]) -> Any:
            return await member.aspeak(turn, get_config())

        return runnable(speak, aspeak, name=member.name, trace=True)


class AsyncMemberPool(MemberPool):
    """Turns in tasks of an event loop."""

    def __init__(
        self, limit: int | None, names: Mapping[str, str], *, wait_for_all: bool, has_checkpointer: bool
    ) -> None:
        super().__init__(limit, names, wait_for_all=wait_for_all, has_checkpointer=has_checkpointer)
        self._semaphore = asyncio.Semaphore(limit) if limit else None
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.functions = AsyncFunctionTasks(self._change)

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    def start(self, task: VirtualTask, member: Member, at: TurnStart) -> None:
        coroutine = self._run(task, member, at)
        self.running[task.node] = self._loop.create_task(coroutine, name=task.node)

    async def _run(self, task: VirtualTask, member: Member, at: TurnStart) -> None:
        try:
            if self._semaphore:
                async with self._semaphore:
                    outcome = await self._begin(task, member, self.now())
            else:
                outcome = await self._begin(task, member, at)
            if task.calls is not None:
                await task.calls.await_all()
        except BaseException as error:
            if task.calls is not None and isinstance(error, GraphInterrupt):
                await task.calls.await_all()
            if not self._closed:
                self._on_done(task, error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._on_done(task, outcome)

    def _begin(self, task: VirtualTask, member: Member, at: TurnStart) -> Awaitable[Any]:
        """A turn that has begun, to be awaited in the context that this was called in."""
        turn, config = self._begin_turn(task, member, at), task.enter()
        if not self.loop.is_watched:
            self.loop.tell_start(task, turn.input)
            return member.aspeak(turn, config)
        self.loop.emit_start(task, self._state)
        return self._traced(member, turn).ainvoke(self._state, config)

    def _on_done(self, task: VirtualTask, outcome: Any) -> None:
        # The asyncio task is dropped here, and with it the context that it ran in.
        self.running[task.node] = None
        self._finish(task, outcome)
        if self._can_return:
            self._changed.set()
        elif len(self._unsaved) == 1:
            # One write for all turns that end in the same pass of the event loop.
            asyncio.get_running_loop().call_soon(self._save)

    async def wait(self, seconds: float | None) -> list[FinishedTurn]:
        """Waits until it can return, at most so many seconds. Returns the finished turns, and forgets them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                self._make_changes()
                while not self._can_return:
                    self._changed.clear()
                    await self._changed.wait()
                    self._make_changes()
        self._save()
        return self._collect()

    async def _change(self, change: Callable[[], Any]) -> Any:
        made = self._loop.create_future()
        self._changes.append((change, made))
        self._changed.set()
        return await made

    async def join(self, name: str) -> FinishedTurn:
        """Waits for the turn of one member, and forgets it."""
        if name not in self._finished:
            await self.running[name]
        del self.running[name]
        return self._finished.pop(name)

    async def close(self) -> None:
        """Cancels the running turns. Called as the run ends."""
        self._closed = True
        self._close_functions()
        tasks = [task for task in self.running.values() if task]
        for task in tasks:
            task.cancel()
        if tasks:
            # A model that does not let itself be cancelled does not hold up the end of the group.
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
