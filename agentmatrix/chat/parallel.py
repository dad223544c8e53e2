"""Turns of several members at the same time, inside one LangGraph task of the group.

Broadcast: the task stands for one task for each member, where that makes no visible difference. With a checkpointer it
does so for chat models only, with or without instructions. Their results are saved one by one beside the checkpoint, as
LangGraph saves those of tasks; as soon as a member fails or is interrupted, the turn falls back to one task for each
member.

Free conversation: a member begins a turn as soon as there is a message that it has not seen. The task ends when a
member has spoken; turns that still run go on, and the group's next task collects them.

Threads: `run` is called by the thread of the group's task, `arun` on the event loop. The nodes of the members use the
pool after a fallback only, when no task of `run` is waiting. The pools have the locks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID, uuid5
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphInterrupt
from langgraph.types import Command

from agentmatrix.agent import messages_in
from agentmatrix.chat.claims import Claims
from agentmatrix.chat.compiled_group import TOGETHER
from agentmatrix.chat.conversation import EVENT_LOG, Conversation, Event, saved_results, speakers_of
from agentmatrix.chat.live_messages import LiveMessages
from agentmatrix.chat.member import Member
from agentmatrix.chat.thread_workers import ThreadMemberPool
from agentmatrix.chat.turn import GroupSettings
from agentmatrix.chat.workers import AsyncMemberPool, FinishedTurn, MemberPool
from agentmatrix.errors import BuildError
from agentmatrix.pregel.function_tasks import AsyncFunctionTasks, FunctionTasks, SyncFunctionTasks, TaskCalls
from agentmatrix.pregel.task_config import namespace_of
from agentmatrix.pregel.virtual_tasks import LoopHandle, VirtualTask, reraise_interrupt

__all__ = ["ParallelTurns", "TurnsOutcome"]

_TASK_IDS = UUID("6f0a4f0e-3b52-4a8e-9d4b-6c1a54b1f1d3")


class TurnsOutcome(NamedTuple):
    """The outcome of finished turns for the group.

    Attributes:
        updates: updates of the group's state, without messages and events.
        messages: the messages of all turns.
        events: the events of all turns.
        fall_back: the members whose own tasks take over; usually none.
    """

    updates: list[dict[str, Any]]
    messages: list[Any]
    events: list[Event]
    fall_back: Sequence[str] = ()

    def command(self, goto: str, *before: Event) -> list[Command[Any]]:
        """The outcome as the answer of a node that goes on to `goto`, with the events `before` it."""
        others: list[Command[Any]] = [Command(update=update) for update in self.updates if update]
        update = {"messages": self.messages, EVENT_LOG: [*before, *self.events]}
        return [*others, Command(goto=list(self.fall_back) or goto, update=update)]


class ParallelTurns:
    """Runs turns of several members at the same time.

    Args:
        members: all members, by name.
        seconds_left: gives the seconds after which the conversation is cut off, or None.
        settings: the settings of the group.
        live: the words that are said into runs of the group.
    """

    def __init__(
        self,
        members: Mapping[str, Member],
        *,
        seconds_left: Callable[[Conversation], float | None],
        settings: GroupSettings,
        live: LiveMessages,
    ) -> None:
        self._members = members
        self._is_free = settings.is_free
        self._seconds_left = seconds_left
        self._settings = settings
        self.live = live
        self._numbers = {name: number for number, name in enumerate(members)}
        # By id of LangGraph's loop. A pool is removed when its run ends, so an id that Python uses again is free.
        self._pools: dict[int, Any] = {}
        # By LangGraph's loop, for broadcasts in tasks of the members' own.
        self._claims: WeakKeyDictionary[Any, Claims] = WeakKeyDictionary()

    def can_run(self, names: Sequence[str], config: RunnableConfig) -> bool:
        """Whether a broadcast to these members may run in one task, because that makes no visible difference."""
        if len(names) < 2 or any(self._members[name].graphs for name in names):
            return False
        loop = LoopHandle(config)
        # A function may call a `@task`, whose result is saved under the task of its node.
        if loop.has_checkpointer and not all(self._members[name].only_calls_models for name in names):
            return False
        return not (loop.is_followed or loop.breakpoints)

    def raise_failure(self, config: RunnableConfig) -> None:
        """Raises the failure of a member that was put back until what the others have said was saved.

        Raises:
            BaseException: what the member has raised.
        """
        if self._is_free and (pool := self._pools.get(id(LoopHandle(config).loop))) and pool.has_failed:
            self._keep_calls(pool, config)
            raise _first_failure(pool.take_failed())

    def run(
        self, state: dict[str, Any], conversation: Conversation, speakers: Sequence[str], config: Any
    ) -> TurnsOutcome:
        """Starts turns, and waits until all have ended (broadcast) or a member has spoken (free conversation).

        Args:
            state: the state of the group.
            conversation: the same, for stops.
            speakers: the members to start; in free conversation the members with news are started.
            config: the config of the task.
        """
        pool = self._pool(config, ThreadMemberPool)
        seconds = self._start(pool, state, conversation, speakers, config)
        return self._outcome(pool, pool.wait(seconds))

    async def arun(
        self, state: dict[str, Any], conversation: Conversation, speakers: Sequence[str], config: Any
    ) -> TurnsOutcome:
        """The same as `run`, async."""
        pool = self._pool(config, AsyncMemberPool)
        seconds = self._start(pool, state, conversation, speakers, config)
        return self._outcome(pool, await pool.wait(seconds))

    def take_over(self, member: Member, state: dict[str, Any], config: RunnableConfig) -> Any:
        """The turn of a member in a task of its own. After a fallback it is the turn that began in the pool."""
        if (result := self._ended_before(member, state, config)) is not None:
            return result
        if pool := self._pool_with(member, config):
            return _result_in_task(pool.join(member.name), config)
        claims = self._claims_in_task(state, config)
        if not self._is_free:
            return member.speak_in_task(state, config, claims)
        handle = LoopHandle(config)
        calls = self._take_calls(member, handle, SyncFunctionTasks(handle.change))
        try:
            update = member.speak_in_task(state, calls.with_calls(config), claims, calls.heard(None))
        except GraphInterrupt:
            calls.wait()
            raise
        calls.wait()
        return update

    async def atake_over(self, member: Member, state: dict[str, Any], config: RunnableConfig) -> Any:
        """The same as `take_over`, async."""
        if (result := self._ended_before(member, state, config)) is not None:
            return result
        if pool := self._pool_with(member, config):
            return _result_in_task(await pool.join(member.name), config)
        claims = self._claims_in_task(state, config)
        if not self._is_free:
            return await member.aspeak_in_task(state, config, claims)
        handle = LoopHandle(config)
        calls = self._take_calls(member, handle, AsyncFunctionTasks(handle.achange))
        try:
            update = await member.aspeak_in_task(state, calls.with_calls(config), claims, calls.heard(None))
        except GraphInterrupt:
            await calls.await_all()
            raise
        await calls.await_all()
        return update

    def _take_calls(self, member: Member, handle: LoopHandle, functions: FunctionTasks) -> TaskCalls:
        """What a turn of free conversation calls by `@task` that goes on in a task of the member's own."""
        functions.id_of = lambda _: handle.task_id
        calls = handle.calls(functions, member.name)
        pool = self._pools.get(id(handle.loop))
        if pool is not None and (before := pool.functions.kept.get(member.name)) is not None:
            calls.take(before)
        return calls

    def save_turn(self, update: dict[str, Any], config: RunnableConfig) -> Any:
        """Save the turn of a member in a task of its own, before the task has ended: what comes then may take long, or
        fail. Returns what `LoopHandle.save` does."""
        return LoopHandle(config).save(str(uuid5(_TASK_IDS, namespace_of(config))), [update])

    def _ended_before(self, member: Member, state: dict[str, Any], config: RunnableConfig) -> Any:
        """What the member's turn has come to, if that has ended in a task before this one; None if it has not."""
        if (result := saved_results(state.get(EVENT_LOG, ())).get(member.name)) is not None:
            return result
        for update in LoopHandle(config).saved:
            if update[EVENT_LOG][-1].get("by") == member.name:
                return update
        return None

    def _pool_with(self, member: Member, config: RunnableConfig) -> Any:
        """The pool in which the member's turn has begun, after a fallback."""
        if not self._pools or self._is_free:
            return None
        handle = LoopHandle(config)
        pool = self._pools.get(id(handle.loop))
        # A command from outside may lead to the member while a broadcast is at work: each has a turn.
        return pool if pool and member.name in pool.running and TOGETHER not in handle.other_tasks else None

    def _claims_in_task(self, state: dict[str, Any], config: RunnableConfig) -> Claims | None:
        """What the members have taken that speak at the same time, each in a task of its own."""
        if len(speakers_of(state.get(EVENT_LOG, ()))) < 2:
            return None
        handle = LoopHandle(config)
        if (claims := self._claims.get(handle.loop)) is None:
            made: dict[Hashable, str] = {}
            for node, channel, value in handle.pending_writes:
                if channel == "messages":
                    made.update((message.id, node) for message in messages_in(value))
                elif channel in self._settings.plain_keys:
                    made[len(state.get(EVENT_LOG, ())), channel] = node
            # Of two threads that come here at once one makes it.
            claims = self._claims.setdefault(handle.loop, Claims(made))
        return claims

    def _pool(self, config: RunnableConfig, kind: Callable[..., Any]) -> Any:
        """The pool of the run."""
        loop = LoopHandle(config)
        key = id(loop.loop)
        if key not in self._pools:
            limit, broadcast = config.get("max_concurrency"), not self._is_free
            self._pools[key] = kind(
                limit, self._settings.names, wait_for_all=broadcast, has_checkpointer=loop.has_checkpointer
            )
            loop.at_exit(lambda: self._pools.pop(key).close())
            if self._is_free and self.live.on_message(config, self._pools[key].wake):
                self._pools[key].is_called = partial(self.live.are_waiting, config)
        pool = self._pools[key]
        pool.loop = loop
        return pool

    def _start(
        self, pool: MemberPool, state: dict[str, Any], conversation: Conversation, speakers: Sequence[str], config: Any
    ) -> float | None:
        """Starts the turns. Returns the seconds to wait at most."""
        pool.set_state(state, conversation.messages)
        names = self._ready(pool, conversation) if self._is_free else sorted(speakers)
        now = pool.now()
        saved = {} if self._is_free else {update[EVENT_LOG][-1]["by"]: update for update in pool.loop.saved}
        id_of = self._keep_calls(pool, config)
        # After a failure that was put back, nothing new starts: `wait` returns it at once.
        for name in () if pool.has_failed else names:
            member = self._members[name]
            may_call = self._is_free and not member.only_calls_models
            calls = pool.loop.calls(pool.functions, name) if may_call else None
            task = VirtualTask(pool.loop, name, id_of(name), [], calls)
            if name in saved:
                pool.restore(task, saved[name])
            else:
                pool.start(task, member, now)
        return self._seconds_left(conversation) if self._is_free else None

    def _keep_calls(self, pool: MemberPool, config: RunnableConfig) -> Callable[[str], str]:
        """Keeps what running turns have called by `@task`: after a kill they begin again at the present checkpoint.

        Returns:
            Gives the ids of turns that begin in the task of `config`: the same if it runs again, after a kill.
        """
        prefix = str(uuid5(_TASK_IDS, namespace_of(config)))[:24]

        def id_of(name: str) -> str:
            return f"{prefix}{self._numbers[name]:012x}"

        pool.functions.id_of = id_of
        for name, calls in list(pool.functions.kept.items()):
            if name in pool.running:
                calls.keep()
        return id_of

    def _ready(self, pool: MemberPool, conversation: Conversation) -> list[str]:
        """Free conversation: the members that are not running and have a new message to see, or a pending handoff."""
        if paused := [name for name in pool.loop.breakpoints if name == "*" or name in self._members]:
            raise BuildError(f"members who speak freely have no turns to pause before or after: leave out {paused}")
        seen = {event["by"]: event["seen_message"] for event in conversation.events if "by" in event}
        called, has_new = conversation.pending_handoffs, pool.transcript.has_new_messages
        idle = [name for name in conversation.members if name not in pool.running]
        return [name for name in idle if name not in seen or name in called or has_new(name, seen[name])]

    def _outcome(self, pool: MemberPool, finished: list[FinishedTurn]) -> TurnsOutcome:
        """The outcome of finished turns; raises the first failure, which names its member and the others.

        In free conversation a failure is put back while there are other results: they are saved first, and the group's
        next task raises it, before anything else.
        """
        failed = [turn for turn in finished if turn.failed]
        if not self._is_free and pool.has_checkpointer and any(turn.failed or turn.interrupted for turn in finished):
            return self._fall_back(pool, finished)
        if failed and (len(failed) == len(finished) or not self._is_free):
            raise _first_failure(failed)
        for turn in failed:
            pool.requeue(turn)
        ended = [turn for turn in finished if not turn.failed] if failed else finished
        updates: list[dict[str, Any]] = []
        messages: list[Any] = []
        events: list[Event] = []
        for turn in ended:
            update = dict(turn.outcome)
            messages += update.pop("messages", ())
            events += update.pop(EVENT_LOG)
            if update:
                updates.append(update)
        updates += [{key: value} for turn in ended for key, value in turn.task.beside if key in self._settings.keys]
        if self._is_free:
            self._keep_last_values(updates)
            if not (finished or pool.running or pool.is_called()):
                events.append(Event(stop_reason="silence"))
            self._count_seconds(pool, events)
        return TurnsOutcome(updates, messages, events)

    def _keep_last_values(self, updates: list[dict[str, Any]]) -> None:
        """Leaves one value of each key that takes only one: that of the member who ended last, whether or not others
        ended in the same moment."""
        written: set[str] = set()
        for update in reversed(updates):
            for key in self._settings.plain_keys & update.keys():
                if key in written:
                    del update[key]
                written.add(key)

    def _fall_back(self, pool: MemberPool, finished: list[FinishedTurn]) -> TurnsOutcome:
        """Goes on in the tasks of the members: finished results are in the log, the other turns stay in the pool."""
        names = sorted({*pool.running, *(turn.task.node for turn in finished)})
        results = {turn.task.node: turn.outcome for turn in finished if not (turn.failed or turn.interrupted)}
        for turn in finished:
            if turn.failed:
                pool.requeue(turn)
        interrupts = [event for turn in finished if turn.interrupted for event in turn.outcome[EVENT_LOG]]
        return TurnsOutcome([], [], [Event(results=results), *interrupts], names)

    def _count_seconds(self, pool: MemberPool, events: list[Event]) -> None:
        """Replaces the seconds of the turns, which overlap, by the seconds that have passed."""
        if self._settings.counts_usage:
            for event in events:
                event.pop("seconds", None)
            events.append(Event(seconds=pool.elapsed()))


def _first_failure(failed: Sequence[FinishedTurn]) -> BaseException:
    """The first failure, with notes as LangGraph makes them: whose it is, and who has failed too."""
    others = [f"{turn.task.node!r} failed too: {type(turn.outcome).__name__}: {turn.outcome}" for turn in failed[1:]]
    return _noted(failed[0].outcome, failed[0].task, *others)


def _noted(error: BaseException, task: VirtualTask, *others: str) -> BaseException:
    """An error with notes: in whose turn it was raised, as LangGraph says it, and others."""
    for note in (f"During task with name {task.node!r} and id {task.id!r}", *others):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    return error


def _result_in_task(finished: FinishedTurn, config: RunnableConfig) -> Any:
    """The result of a turn from the pool as that of the task of `config`: its update, failure or interrupt."""
    if finished.failed:
        raise finished.outcome
    for interrupts in finished.event.get("interrupts", {}).values():
        reraise_interrupt(config, interrupts["ns"], interrupts["values"], inside=False)
    return finished.outcome
