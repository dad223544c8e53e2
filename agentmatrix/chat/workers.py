"""Where members of a chat group are at work at the same time: in tasks of an event loop, or in threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.types import Command

from agentmatrix.chat.conversation import Event, Transcript
from agentmatrix.chat.member import LOG, Member, Turn
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.virtual_tasks import LoopHandle, VirtualTask

__all__ = ["Ended", "Room", "Tasks", "Threads"]

_TICK = 0.005
_PATIENCE = 0.02
_STALLED = 10


class Ended(NamedTuple):
    """A turn that is over: an update of the group's state, or what was raised; and what goes into the log."""

    activation: VirtualTask
    outcome: Any
    event: Event

    @property
    def error(self) -> bool:
        """Whether something was raised."""
        return isinstance(self.outcome, BaseException)

    @property
    def asks(self) -> bool:
        """Whether it waits for a person's answer."""
        return "asks" in self.event

    @property
    def is_silent(self) -> bool:
        """Whether it gives nobody a reason to begin."""
        return not (self.event.get("said") or "goto" in self.event or "ends" in self.event or self.error)


class Room(ABC):
    """Those who are at work, through the tasks of one run.

    Args:
        limit: how many may be at work at a time.
        everybody: whether to wait for all of them, who all hear the same.
        saves: whether the run has a checkpointer.
    """

    def __init__(self, limit: int | None, *, everybody: bool, saves: bool) -> None:
        self.busy: dict[str, Any] = {}
        self.run: LoopHandle
        self.transcript = Transcript([])
        self.saves = saves
        self._is_over = False
        self.failed = False
        self._state: dict[str, Any] = {}
        self._asked = False
        self._spoken = False
        self._everybody = everybody
        self._ended: dict[str, Ended] = {}
        self._unsaved: list[Ended] = []
        self._began = time.monotonic()

    @abstractmethod
    def begin(self, activation: VirtualTask, member: Member) -> None:
        """Let a member begin."""

    def lap(self) -> float:
        """The seconds since the last lap."""
        before, self._began = self._began, time.monotonic()
        return self._began - before

    def hear(self, state: dict[str, Any], messages: Sequence[BaseMessage]) -> None:
        """From here on, members begin with this state. Where nothing has to be saved before it may be heard, who speaks
        freely also hears what has been said since."""
        self._state = state
        if not self.transcript.follows(messages):
            self.transcript = Transcript(messages)
            for ended in self._ended.values():
                self._tell(ended)

    def keep(self, ended: Ended) -> None:
        """Meet this again."""
        self.busy[ended.activation.node] = None
        self._end(ended.activation, ended.outcome)

    def end_as_before(self, activation: VirtualTask, outcome: dict[str, Any]) -> None:
        """The turn was over before the run was killed."""
        self.busy[activation.node] = None
        self._ended[activation.node] = Ended(activation, outcome, outcome[LOG][-1])

    def _end(self, activation: VirtualTask, outcome: Any) -> None:
        if isinstance(outcome, GraphInterrupt):
            values = [asked.value for asked in outcome.args[0]]
            outcome = {LOG: [Event(asks={activation.node: {"ns": activation.namespace, "values": values}})]}
        elif isinstance(outcome, Command):
            outcome = ParentCommand(outcome)
        ended = Ended(activation, outcome, outcome[LOG][-1] if isinstance(outcome, dict) else Event())
        self._asked |= ended.asks
        # Who kept silent before hearing the last words begins again, and does not wait for somebody to speak.
        self._spoken |= not ended.is_silent or self.transcript.has_news(activation.node, ended.event.get("heard", 0))
        self.failed |= ended.error
        self._ended[activation.node] = ended
        self._tell(ended)
        if self._shows_at_once:
            self._show(ended)
        elif self._everybody and not (ended.error or ended.asks):
            self._unsaved.append(ended)

    def _tell(self, ended: Ended) -> None:
        if not (self._everybody or self.saves) and ended.event.get("said"):
            self.transcript.add(ended.outcome["messages"])

    @property
    def _shows_at_once(self) -> bool:
        return self._everybody and not self.saves

    def _show(self, ended: Ended) -> None:
        if isinstance(ended.outcome, dict) and not ended.asks:
            update = {key: value for key, value in ended.outcome.items() if key != LOG}
            self.run.emit_end(ended.activation, update)

    def _save(self) -> None:
        """Nobody who has answered is asked again after a kill. When all have, the task itself is saved at once."""
        unsaved, self._unsaved = self._unsaved, []
        if unsaved and not self._is_over and len(self._ended) < len(self.busy):
            self.run.save(unsaved[0].activation.id, [ended.outcome for ended in unsaved])

    @property
    def _is_enough(self) -> bool:
        """Whether there is no need to wait: those who keep silent change nothing, and a question to a person lets the
        others finish and nobody begin; where each member has a task to give way to, it does not wait for them."""
        if len(self._ended) == len(self.busy):
            return True
        if self._everybody:
            return self.failed or (self.saves and self._asked)
        return self.failed if self._asked else self._spoken

    def _met(self) -> list[Ended]:
        met, self._ended = list(self._ended.values()), {}
        gives_way = self._everybody and self.saves and (self.failed or self._asked)
        self.failed = self._asked = self._spoken = False
        for ended in met:
            del self.busy[ended.activation.node]
            if not (self._shows_at_once or gives_way):
                self._show(ended)
        return sorted(met, key=lambda ended: ended.activation.node) if self._everybody else met

    def _traced(self, member: Member, turn: Turn) -> Runnable[Any, Any]:
        def speak(state: dict[str, Any], config: RunnableConfig) -> Any:
            return member.speak(turn, config)

        async def aspeak(state: dict[str, Any], config: RunnableConfig) -> Any:
            return await member.aspeak(turn, config)

        return runnable(speak, aspeak, name=member.name, trace=True)


class Tasks(Room):
    """Members at work in tasks of an event loop."""

    def __init__(self, limit: int | None, *, everybody: bool, saves: bool) -> None:
        super().__init__(limit, everybody=everybody, saves=saves)
        self._seats = asyncio.Semaphore(limit) if limit else None
        self._changed = asyncio.Event()

    def begin(self, activation: VirtualTask, member: Member) -> None:
        coroutine = self._do(activation, member, len(self.transcript))
        self.busy[activation.node] = asyncio.create_task(coroutine, name=activation.node)

    async def _do(self, activation: VirtualTask, member: Member, heard: int) -> None:
        # Those who begin together hear the same; who waits for a seat hears more.
        try:
            if self._seats:
                async with self._seats:
                    outcome = await self._speak(activation, member, len(self.transcript))
            else:
                outcome = await self._speak(activation, member, heard)
        except BaseException as error:
            if not self._is_over:
                self._over(activation, error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._over(activation, outcome)

    async def _speak(self, activation: VirtualTask, member: Member, heard: int) -> Any:
        turn, config = member.turn(self._state, self.transcript, heard), activation.enter()
        if config["callbacks"] is None:
            return await member.aspeak(turn, config)
        self.run.emit_start(activation, self._state)
        return await self._traced(member, turn).ainvoke(self._state, config)

    def _over(self, activation: VirtualTask, outcome: Any) -> None:
        # The task is over, and with it goes what it ran in.
        self.busy[activation.node] = None
        self._end(activation, outcome)
        if self._is_enough:
            self._changed.set()
        elif len(self._unsaved) == 1:
            asyncio.get_running_loop().call_soon(self._save)

    async def wait(self, seconds: float | None) -> list[Ended]:
        """Those who have been at work, when it is enough or so many seconds are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_enough:
                    self._changed.clear()
                    await self._changed.wait()
        self._save()
        return self._met()

    async def join(self, name: str) -> Ended:
        """That one, when it has been at work."""
        if name not in self._ended:
            await self.busy[name]
        del self.busy[name]
        return self._ended.pop(name)

    async def close(self) -> None:
        """Whoever is still at work is stopped."""
        self._is_over = True
        tasks = [task for task in self.busy.values() if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Threads(Room):
    """Members at work in threads. There are as few as will do: one for those who answer at once, those of a usual pool
    for those who take their time, and more where all of them wait for something, maybe for words of the next one."""

    def __init__(self, limit: int | None, *, everybody: bool, saves: bool) -> None:
        super().__init__(limit, everybody=everybody, saves=saves)
        self._limit = limit
        self._queue: deque[tuple[Context, VirtualTask, Member]] = deque()
        # Entered by itself, since a condition does that in Python.
        self._lock = threading.RLock()
        self._changed, self._wanted = threading.Condition(self._lock), threading.Condition(self._lock)
        self._threads = self._idle = self._stalls = self._count = self._counted = 0

    def hear(self, state: dict[str, Any], messages: Sequence[BaseMessage]) -> None:
        with self._lock:
            super().hear(state, messages)

    def begin(self, activation: VirtualTask, member: Member) -> None:
        with self._lock:
            self.busy[activation.node] = None
            self._queue.append((copy_context(), activation, member))

    def _work(self) -> None:
        while True:
            with self._lock:
                while not (self._queue or self._is_over):
                    self._idle += 1
                    self._wanted.wait()
                    self._idle -= 1
                if self._is_over:
                    return
                context, activation, member = self._queue.popleft()
            context.run(self._do, activation, member)

    def _do(self, activation: VirtualTask, member: Member) -> None:
        try:
            outcome = self._speak(activation, member)
        except BaseException as error:
            outcome = error
        with self._lock:
            self._count += 1
            self._end(activation, outcome)
            if not self._queue and (self._is_enough or self._unsaved):
                self._changed.notify_all()

    def _speak(self, activation: VirtualTask, member: Member) -> Any:
        with self._lock:
            turn = member.turn(self._state, self.transcript, len(self.transcript))
        config = activation.enter()
        if config["callbacks"] is None:
            return member.speak(turn, config)
        self.run.emit_start(activation, self._state)
        return self._traced(member, turn).invoke(self._state, config)

    def wait(self, seconds: float | None) -> list[Ended]:
        """Those who have been at work, when it is enough or so many seconds are over."""
        with self._lock:
            self._wait(lambda: self._is_enough, seconds)
            return self._met()

    def join(self, name: str) -> Ended:
        """That one, when it has been at work."""
        with self._lock:
            self._wait(lambda: name in self._ended, None)
            del self.busy[name]
            return self._ended.pop(name)

    def _wait(self, is_enough: Callable[[], bool], seconds: float | None) -> None:
        """Until it is enough. While there are others who have not begun, it pays to meet several at once."""
        until = None if seconds is None else time.monotonic() + seconds
        enough_since: float | None = None
        while True:
            now = time.monotonic()
            self._save()
            if is_enough():
                enough_since = enough_since or now
                if not self._queue or self.failed or now - enough_since > _PATIENCE:
                    return
            if until is not None and now >= until:
                return
            rest = None if until is None else until - now
            if self._queue:
                self._hire()
                rest = _TICK if rest is None else min(rest, _TICK)
            self._changed.wait(rest)

    def _hire(self) -> None:
        if self._idle:
            self._wanted.notify(len(self._queue))
        ended, self._counted = self._count - self._counted, self._count
        self._stalls = 0 if ended else self._stalls + 1
        wanted, usual = max(1, self._threads), min(32, (os.cpu_count() or 1) + 4)
        if self._threads and not self._idle:
            if self._stalls >= _STALLED:
                wanted, self._stalls = 2 * self._threads, 0
            elif ended < _TICK / 0.001:
                wanted = max(wanted, usual)
        wanted = min(wanted, self._threads + len(self._queue), self._limit or wanted)
        for _ in range(wanted - self._threads):
            self._threads += 1
            threading.Thread(target=self._work, name="chat-member").start()

    def close(self) -> None:
        """Nobody begins any more; a thread that is at work runs out, and what it says is dropped."""
        with self._lock:
            self._is_over = True
            self._queue.clear()
            self._wanted.notify_all()
