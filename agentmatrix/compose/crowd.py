"""Members of a chat group who act at the same time, inside one task of the group's graph.

In a broadcast it stands for as many tasks, where nothing of a task could be seen but its result. In free conversation
it lets each member begin as soon as there is something new to hear: whoever is still at work when the task ends, since
somebody else has spoken, goes on, and is met again by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.types import Command

from agentmatrix.compose.conversation import Conversation, Event, Transcript
from agentmatrix.compose.members import LOG, Member
from agentmatrix.errors import BuildError
from agentmatrix.pregel_channels import Activation, RunningGraph, namespace_of, sync_async

__all__ = ["Crowd"]

Left = Callable[[Conversation], float | None]
_IDS = UUID("6f0a4f0e-3b52-4a8e-9d4b-6c1a54b1f1d3")


class Crowd:
    """Those members of a group who act at the same time.

    Args:
        members: all members.
        free: whether they act when they want, and not when they are given the floor.
        left: how many seconds the conversation may go on.
        metered: whether tokens, calls and seconds are counted.
    """

    def __init__(self, members: Mapping[str, Member], *, free: bool, left: Left, metered: bool) -> None:
        self._members = members
        self._free = free
        self._left = left
        self._metered = metered
        self._numbers = {name: number for number, name in enumerate(members)}
        self._rooms: dict[int, Any] = {}

    def can_stand_for(self, names: Sequence[str], config: RunnableConfig) -> bool:
        """Whether it makes no difference that these members run in one task."""
        if len(names) < 2 or any(self._members[name].graphs for name in names):
            return False
        run = RunningGraph(config)
        return not (run.saves or run.is_followed or run.breakpoints)

    def run(self, state: dict[str, Any], conversation: Conversation, config: RunnableConfig) -> list[Command[Any]]:
        """Until somebody has spoken, or all whose turn it is."""
        room: _Threads = self._room(config, _Threads)
        left = self._begin(room, state, conversation, config)
        return self._results(room, room.wait(left))

    async def arun(
        self, state: dict[str, Any], conversation: Conversation, config: RunnableConfig
    ) -> list[Command[Any]]:
        """The same as `run`, async."""
        room: _Tasks = self._room(config, _Tasks)
        left = self._begin(room, state, conversation, config)
        return self._results(room, await room.wait(left))

    def _room(self, config: RunnableConfig, kind: type[_Room]) -> Any:
        run = RunningGraph(config)
        key = id(run.loop)
        if key not in self._rooms:
            self._rooms[key] = kind(config.get("max_concurrency"), everybody=not self._free)
            run.at_exit(lambda: self._rooms.pop(key).close())
        self._rooms[key].run = run
        return self._rooms[key]

    def _begin(
        self, room: _Room, state: dict[str, Any], conversation: Conversation, config: RunnableConfig
    ) -> float | None:
        """Let those begin whose turn it is. Returns for how many seconds to wait at most."""
        task = str(uuid5(_IDS, namespace_of(config)))[:24]
        room.heard = state, Transcript(conversation.messages, room.forms)
        names = self._due(room, conversation, room.heard[1]) if self._free else _floor(conversation)
        for name in () if room.failed else names:
            activation = room.run.activation(name, f"{task}{self._numbers[name]:012x}")
            room.begin(activation, _Work(self._members[name], activation, room))
        return self._left(conversation) if self._free else None

    def _due(self, room: _Room, conversation: Conversation, transcript: Transcript) -> list[str]:
        """Who is not at work and has something new to hear, or has been called by a handoff."""
        if paused := [name for name in room.run.breakpoints if name == "*" or name in self._members]:
            raise BuildError(f"members who speak freely have no turns to pause before or after: leave out {paused}")
        heard = {event["by"]: event["heard"] for event in conversation.events if "by" in event}
        called = conversation.called
        idle = [name for name in conversation.members if name not in room.busy]
        return [n for n in idle if n not in heard or n in called or transcript.has_news(n, heard[n])]

    def _results(self, room: _Room, ended: list[_Ended]) -> list[Command[Any]]:
        """What becomes of the group's state. An error waits until what was said before it is kept."""
        failed = [each for each in ended if isinstance(each.outcome, BaseException)]
        if failed and (len(failed) == len(ended) or not self._free):
            raise failed[0].outcome
        updates = [dict(each.outcome) for each in ended if each not in failed]
        for each in failed:
            room.keep(each)
        said = [message for update in updates for message in update.pop("messages", ())]
        events: list[Event] = [event for update in updates for event in update.pop(LOG)]
        if self._free:
            if not ended and not room.busy:
                events.append(Event(ends="silence"))
            self._clock(room, events)
        others: list[Command[Any]] = [Command(update=update) for update in updates if update]
        return [*others, Command(update={"messages": said, LOG: events})]

    def _clock(self, room: _Room, events: list[Event]) -> None:
        """Time that several have worked counts once."""
        if self._metered:
            for event in events:
                event.pop("seconds", None)
            events.append(Event(seconds=room.lap()))


def _floor(conversation: Conversation) -> list[str]:
    return sorted(next(event["floor"] for event in reversed(conversation.events) if event.get("floor")))


class _Work(NamedTuple):
    """A member's turn. It hears what has been said when it begins, which may be later than it was called."""

    member: Member
    activation: Activation
    room: _Room

    def run(self) -> Any:
        (state, transcript), config = self.room.heard, self.activation.config
        if config["callbacks"] is None:
            return self.member.speak(state, transcript, config)
        return self._traced(state, transcript).invoke(state, config)

    async def arun(self) -> Any:
        (state, transcript), config = self.room.heard, self.activation.config
        if config["callbacks"] is None:
            return await self.member.aspeak(state, transcript, config)
        return await self._traced(state, transcript).ainvoke(state, config)

    def _traced(self, state: dict[str, Any], transcript: Transcript) -> Runnable[Any, Any]:
        self.room.run.show_begin(self.activation, state)

        def speak(state: dict[str, Any], config: RunnableConfig) -> Any:
            return self.member.speak(state, transcript, config)

        async def aspeak(state: dict[str, Any], config: RunnableConfig) -> Any:
            return await self.member.aspeak(state, transcript, config)

        return sync_async(speak, aspeak, name=self.member.name, trace=True)


class _Ended(NamedTuple):
    """A turn that is over: an update of the group's state, or what was raised."""

    activation: Activation
    outcome: Any

    @property
    def event(self) -> Event:
        return self.outcome[LOG][-1] if isinstance(self.outcome, dict) else Event()

    @property
    def asks(self) -> bool:
        return "asks" in self.event

    @property
    def is_silent(self) -> bool:
        """Whether it gives nobody a reason to begin."""
        return isinstance(self.outcome, dict) and not (self.event.keys() & {"goto", "ends"} or self.event.get("said"))


class _Room(ABC):
    """Those who are at work, through the tasks of one run.

    Args:
        limit: how many may be at work at a time.
        everybody: whether to wait for all of them.
    """

    def __init__(self, limit: int | None, *, everybody: bool) -> None:
        self.forms: dict[int, tuple[BaseMessage, BaseMessage]] = {}
        self.busy: dict[str, Any] = {}
        self.run: RunningGraph
        self.heard: tuple[dict[str, Any], Transcript]
        self.failed = False
        self._asked = False
        self._spoken = False
        self._everybody = everybody
        self._ended: list[_Ended] = []
        self._began = time.monotonic()

    @abstractmethod
    def begin(self, activation: Activation, work: _Work) -> None:
        """Let a member begin."""

    def lap(self) -> float:
        """The seconds since the last lap."""
        before, self._began = self._began, time.monotonic()
        return self._began - before

    def keep(self, ended: _Ended) -> None:
        """Meet this again."""
        self.busy[ended.activation.node] = None
        self._end(ended.activation, ended.outcome)

    def _end(self, activation: Activation, outcome: Any) -> None:
        if isinstance(outcome, GraphInterrupt):
            values = [asked.value for asked in outcome.args[0]]
            outcome = {LOG: [Event(asks={activation.node: {"ns": namespace_of(activation.config), "values": values}})]}
        elif isinstance(outcome, Command):
            outcome = ParentCommand(outcome)
        ended = _Ended(activation, outcome)
        self._asked |= ended.asks
        self._spoken |= not ended.is_silent
        self.failed |= isinstance(outcome, BaseException)
        if self._everybody:
            self._show(ended)
        self._ended.append(ended)

    def _show(self, ended: _Ended) -> None:
        if isinstance(ended.outcome, dict) and not ended.asks:
            update = {key: value for key, value in ended.outcome.items() if key != LOG}
            self.run.show_end(ended.activation, update)

    @property
    def _is_enough(self) -> bool:
        """Whether there is no need to wait: those who keep silent change nothing, and a question to a person lets the
        others finish and nobody begin."""
        if len(self._ended) == len(self.busy):
            return True
        return self.failed if self._everybody or self._asked else self._spoken

    def _met(self) -> list[_Ended]:
        met, self._ended = self._ended, []
        self.failed = self._asked = self._spoken = False
        for ended in met:
            del self.busy[ended.activation.node]
            if not self._everybody:
                self._show(ended)
        return sorted(met, key=lambda ended: ended.activation.node) if self._everybody else met


class _Tasks(_Room):
    """Members at work in tasks of an event loop."""

    def __init__(self, limit: int | None, *, everybody: bool) -> None:
        super().__init__(limit, everybody=everybody)
        self._seats = asyncio.Semaphore(limit) if limit else contextlib.nullcontext()
        self._changed = asyncio.Event()
        self._is_over = False

    def begin(self, activation: Activation, work: _Work) -> None:
        coroutine = self._do(activation, work)
        self.busy[activation.node] = asyncio.create_task(coroutine, name=activation.node, context=activation.context)

    async def _do(self, activation: Activation, work: _Work) -> None:
        try:
            async with self._seats:
                outcome = await work.arun()
        except BaseException as error:
            if self._is_over:
                raise
            outcome = error
        self._end(activation, outcome)
        if self._is_enough:
            self._changed.set()

    async def wait(self, seconds: float | None) -> list[_Ended]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_enough:
                    self._changed.clear()
                    await self._changed.wait()
        return self._met()

    async def close(self) -> None:
        """Whoever is still at work is stopped."""
        self._is_over = True
        tasks = [task for task in self.busy.values() if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Threads(_Room):
    """Members at work in threads."""

    def __init__(self, limit: int | None, *, everybody: bool) -> None:
        super().__init__(limit, everybody=everybody)
        self._pool = ThreadPoolExecutor(limit)
        self._changed = threading.Condition()

    def begin(self, activation: Activation, work: _Work) -> None:
        self.busy[activation.node] = None
        self._pool.submit(activation.context.run, self._do, activation, work)

    def _do(self, activation: Activation, work: _Work) -> None:
        try:
            outcome = work.run()
        except BaseException as error:
            outcome = error
        with self._changed:
            self._end(activation, outcome)
            if self._is_enough:
                self._changed.notify_all()

    def wait(self, seconds: float | None) -> list[_Ended]:
        with self._changed:
            self._changed.wait_for(lambda: self._is_enough, seconds)
            return self._met()

    def close(self) -> None:
        """Nobody begins any more; a thread that is at work runs out, and what it says is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
