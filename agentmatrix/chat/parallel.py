"""Members of a chat group who act at the same time, inside one task of the group's graph.

In a broadcast it stands for as many tasks, where nothing of a task could be seen but its result. With a checkpointer it
does so for models; what they have answered is saved as those tasks' results would be, and as soon as one of them fails
or asks a person it gives way to the tasks. In free
conversation it lets each member begin as soon as there is something new to hear: whoever is still at work when the task
ends, since somebody else has spoken, goes on, and is met again by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.types import Command

from agentmatrix.chat.conversation import Conversation, Event, held_in
from agentmatrix.chat.member import LOG, Member
from agentmatrix.chat.workers import Ended, Room, Tasks, Threads
from agentmatrix.errors import BuildError
from agentmatrix.pregel.runnables import runnable
from agentmatrix.pregel.task_config import namespace_of
from agentmatrix.pregel.virtual_tasks import LoopHandle, VirtualTask, reraise_interrupt

__all__ = ["Crowd", "Met"]

Left = Callable[[Conversation], float | None]
_IDS = UUID("6f0a4f0e-3b52-4a8e-9d4b-6c1a54b1f1d3")


class Met(NamedTuple):
    """What becomes of a conversation when members have been met: updates of the group's state, what was said, what
    happened, and whose own tasks take over; nobody's, as a rule."""

    updates: list[dict[str, Any]]
    said: list[Any]
    events: list[Event]
    give_way: Sequence[str] = ()

    def command(self, goto: str, *before: Event) -> list[Command[Any]]:
        """It as an answer of a node that goes on to `goto`."""
        others: list[Command[Any]] = [Command(update=update) for update in self.updates if update]
        told = {"messages": self.said, LOG: [*before, *self.events]}
        return [*others, Command(goto=list(self.give_way) or goto, update=told)]


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
        run = LoopHandle(config)
        # Whatever else than a model may have results of its own to save, of a `@task`, which belong to a task.
        if run.has_checkpointer and not all(self._members[name].is_model for name in names):
            return False
        return not (run.is_followed or run.breakpoints)

    def run(self, state: dict[str, Any], conversation: Conversation, floor: Sequence[str], config: Any) -> Met:
        """Until somebody has spoken, or all whose turn it is."""
        room = self._room(config, Threads)
        left = self._begin(room, state, conversation, floor, config)
        return self._met(room, room.wait(left))

    async def arun(self, state: dict[str, Any], conversation: Conversation, floor: Sequence[str], config: Any) -> Met:
        """The same as `run`, async."""
        room = self._room(config, Tasks)
        left = self._begin(room, state, conversation, floor, config)
        return self._met(room, await room.wait(left))

    def alone(self, member: Member) -> Runnable[Any, Any]:
        """What stands for a member in the group's graph. It takes over a turn that began here."""

        def call(state: dict[str, Any], config: RunnableConfig) -> Any:
            name, log = member.name, state.get(LOG, ())
            if (held := held_in(log).get(name)) is not None:
                return held
            room = self._rooms.get(id(LoopHandle(config).loop))
            if room and not self._free and name in room.busy:
                return _taken_over(room.join(name), config)
            return member.speak_alone(state, config)

        async def acall(state: dict[str, Any], config: RunnableConfig) -> Any:
            name, log = member.name, state.get(LOG, ())
            if (held := held_in(log).get(name)) is not None:
                return held
            room = self._rooms.get(id(LoopHandle(config).loop))
            if room and not self._free and name in room.busy:
                return _taken_over(await room.join(name), config)
            return await member.aspeak_alone(state, config)

        return runnable(call, acall, name=member.name)

    def _room(self, config: RunnableConfig, kind: Callable[..., Any]) -> Any:
        run = LoopHandle(config)
        key = id(run.loop)
        if key not in self._rooms:
            self._rooms[key] = kind(config.get("max_concurrency"), everybody=not self._free, saves=run.has_checkpointer)
            run.at_exit(lambda: self._rooms.pop(key).close())
        self._rooms[key].run = run
        return self._rooms[key]

    def _begin(
        self, room: Room, state: dict[str, Any], conversation: Conversation, floor: Sequence[str], config: Any
    ) -> float | None:
        """Let those begin whose turn it is. Returns for how many seconds to wait at most."""
        task = str(uuid5(_IDS, namespace_of(config)))[:24]
        room.hear(state, conversation.messages)
        names = self._due(room, conversation) if self._free else sorted(floor)
        saved = {} if self._free else {update[LOG][-1]["by"]: update for update in room.run.saved}
        for name in () if room.failed else names:
            activation = VirtualTask(room.run, name, f"{task}{self._numbers[name]:012x}")
            if name in saved:
                room.end_as_before(activation, saved[name])
            else:
                room.begin(activation, self._members[name])
        return self._left(conversation) if self._free else None

    def _due(self, room: Room, conversation: Conversation) -> list[str]:
        """Who is not at work and has something new to hear, or has been called by a handoff."""
        if paused := [name for name in room.run.breakpoints if name == "*" or name in self._members]:
            raise BuildError(f"members who speak freely have no turns to pause before or after: leave out {paused}")
        heard = {event["by"]: event["heard"] for event in conversation.events if "by" in event}
        called, has_news = conversation.called, room.transcript.has_news
        idle = [name for name in conversation.members if name not in room.busy]
        return [n for n in idle if n not in heard or n in called or has_news(n, heard[n])]

    def _met(self, room: Room, ended: list[Ended]) -> Met:
        """What becomes of the group's state. An error waits until what was said before it is kept."""
        failed = [each for each in ended if each.error]
        if not self._free and room.saves and any(each.error or each.asks for each in ended):
            return self._give_way(room, ended)
        if failed and (len(failed) == len(ended) or not self._free):
            raise failed[0].outcome
        for each in failed:
            room.keep(each)
        updates = [dict(each.outcome) for each in ended if not each.error]
        said = [message for update in updates for message in update.pop("messages", ())]
        events: list[Event] = [event for update in updates for event in update.pop(LOG)]
        if self._free:
            if not ended and not room.busy:
                events.append(Event(ends="silence"))
            self._clock(room, events)
        return Met(updates, said, events)

    def _give_way(self, room: Room, ended: list[Ended]) -> Met:
        """To the tasks of the members, each with what has come of it so far."""
        names = sorted({*room.busy, *(each.activation.node for each in ended)})
        held = {each.activation.node: each.outcome for each in ended if not (each.error or each.asks)}
        for each in ended:
            if each.error:
                room.keep(each)
        asked = [event for each in ended if each.asks for event in each.outcome[LOG]]
        return Met([], [], [Event(held=held), *asked], names)

    def _clock(self, room: Room, events: list[Event]) -> None:
        """Time that several have worked counts once."""
        if self._metered:
            for event in events:
                event.pop("seconds", None)
            events.append(Event(seconds=room.lap()))


def _taken_over(ended: Ended, config: RunnableConfig) -> Any:
    if ended.error:
        raise ended.outcome
    for asked in ended.event.get("asks", {}).values():
        reraise_interrupt(config, asked["ns"], asked["values"], inside=False)
    return ended.outcome
