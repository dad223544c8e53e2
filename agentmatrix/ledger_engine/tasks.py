"""The tasks of a superstep that stays open, made by LangGraph's own functions, beside `agentmatrix.ledger_engine.loop`.

What has finished in an open step is kept as the pending writes of its tasks, as LangGraph keeps what has finished
beside an interrupt. So the tasks of the step can be made anew from a checkpoint and its pending writes, on a resume as
for a snapshot, if a task's id depends on the activation alone and never on the order of starting.
"""

from __future__ import annotations

import binascii
import hashlib
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._cache import default_cache_key
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_READ,
    CONFIG_KEY_RESUMING,
    ERROR_SOURCE_NODE,
    INPUT,
    NULL_TASK_ID,
    PULL,
    PUSH,
    RESUME,
    TASKS,
)
from langgraph.channels.base import BaseChannel
from langgraph.checkpoint.base import Checkpoint
from langgraph.pregel._algo import (
    PregelTaskWrites,
    apply_writes,
    checkpoint_null_version,
    prepare_next_tasks,
    prepare_node_error_handler_task,
    prepare_single_task,
)
from langgraph.pregel._task_status import CONTROL_WRITES, TaskStatus, read_task_statuses
from langgraph.types import CacheKey, PregelExecutableTask, Send, StateSnapshot

from agentmatrix.ledger_engine.pauses import Era, asked, commanded, eras
from agentmatrix.ledger_engine.scheduler import Agenda, AgendaChannel, Turn, Write, agenda_channel

__all__ = ["Opened", "Task", "are_agendas_looked_for", "first_tasks", "reached_agendas", "snapshot_tasks", "unfinished"]

Task = PregelExecutableTask


class _Held(BaseChannel[Any, Any, Any]):
    """A channel of one task: holds what this task reads."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        super().__init__(Any)
        self.held = held

    @property
    def ValueType(self) -> Any:
        return Any

    @property
    def UpdateType(self) -> Any:
        return Any

    def get(self) -> Any:
        return self.held

    def is_available(self) -> bool:
        return True

    def from_checkpoint(self, checkpoint: Any) -> Any:
        return self

    def update(self, values: Sequence[Any]) -> bool:
        return False


class _Packet(Sequence[Send]):
    """A packet at its number, as LangGraph looks it up among those pending."""

    def __init__(self, number: int, send: Send) -> None:
        self.number, self.send = number, send

    def __len__(self) -> int:
        return self.number + 1

    def __getitem__(self, number: Any) -> Any:
        return self.send


@dataclass(frozen=True, eq=False)
class _Past:
    """A turn that has finished, or an event from outside, as it is kept since the checkpoint."""

    arrival: int
    writes: Sequence[Write]
    turn: Turn | None = None
    stands: Task | None = None


@dataclass
class Opened:
    """The tasks of an open step: LangGraph's arguments for making tasks, and the turns that they were made for."""

    channel: AgendaChannel
    agenda: Agenda
    checkpoint: Any
    pending: Any
    nodes: Any
    channels: Any
    managed: Any
    config: RunnableConfig
    step: int
    stop: int
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.turns: dict[str, Turn] = {}
        self._begun: set[str] = set()
        self.events: Sequence[_Past] = []
        # Of what is pending LangGraph reads nothing else for a task, and it reads all of it for each.
        self._control = [write for write in self.pending or () if write[1] in CONTROL_WRITES]
        self._asked, self._answered = asked(self.pending or ()), set[str]()
        self._unanswered = [write for write in self._control if write[:2] != (NULL_TASK_ID, RESUME)]
        self.eras = eras(self.pending or (), self.checkpoint["id"], self.step)
        self._era: dict[str, Era] = {}
        self._failed = {id for id, channel, _ in self._control if channel == ERROR_SOURCE_NODE}

    def goes_on(self) -> None:
        """What starts from here on was not at work before: LangGraph tells only tasks of the step at hand to resume."""
        configurable = {key: value for key, value in self.config[CONF].items() if key != CONFIG_KEY_RESUMING}
        self.config = {**self.config, "configurable": configurable}

    def new(self, held: Callable[[Turn], bool]) -> list[Task]:
        """Tasks for the turns that have none yet and are not held back."""
        turns = [turn for turn in self.agenda.turns() if turn.name not in self._begun and not held(turn)]
        return [self._begin(turn) for turn in turns]

    def _begin(self, turn: Turn) -> Task:
        task = self.task(turn)
        self._begun.add(turn.name)
        self.turns[task.id] = turn
        return task

    def answers(self, task: Task) -> bool:
        """Whether the answer that this run began with, to whoever had asked, is for this task."""
        return task.id in (self._answered if self._asked is None else self._asked)

    def _with_answer(self, make: Callable[[list[Any]], Task | None]) -> Task | None:
        """A task that has the answer if that is for it; its id is known when it is made."""
        task = make(self._unanswered)
        answered = task is not None and len(self._control) > len(self._unanswered) and self.answers(task)
        return make(self._control) if answered else task

    def task(self, turn: Turn) -> Task:
        """The task of a turn, as LangGraph makes it; its id depends on the checkpoint and the turn's name only."""
        for era in self.eras:
            task = self._with_answer(partial(self._task, turn, era))
            assert isinstance(task, PregelExecutableTask)
            if era.finished is None or task.id in era.finished:
                self._era[task.id] = era
                return task
        raise AssertionError("one era goes on")

    def _task(self, turn: Turn, era: Era, pending: list[Any]) -> Task:
        mark = b"" if turn.name == turn.node else turn.name.encode()
        path: tuple[Any, ...] = (PULL, turn.node)
        channels = {**self.channels, self.channel.key: _Held(self.agenda.reading(turn))}
        if turn.packet is not None:
            path = (PUSH, turn.packet[0])
            channels[TASKS] = _Held(_Packet(*turn.packet))
        else:
            channels |= {trigger: _Held(None) for trigger in self.nodes[turn.node].triggers}
        task = prepare_single_task(
            path,
            None,
            checkpoint=cast(Checkpoint, {**self.checkpoint, "versions_seen": {}}),
            checkpoint_id_bytes=binascii.unhexlify(era.checkpoint.replace("-", "")) + mark,
            checkpoint_null_version=checkpoint_null_version(self.checkpoint),
            pending_writes=pending,
            processes=self.nodes,
            channels=channels,
            managed=self.managed,
            config=self.config,
            step=era.step + turn.depth,
            stop=self.stop,
            for_execution=True,
            **self.options,
        )
        assert isinstance(task, PregelExecutableTask)
        policy = self.nodes[turn.node].cache_policy or self.options.get("cache_policy")
        if task.cache_key is not None and policy is not None and policy.key_func is default_cache_key:
            # By default LangGraph's key is all that the node is given; what has triggered it is part of that.
            given = self.agenda.given(turn)
            return task if given is None else replace(task, cache_key=_with_given(task.cache_key, given))
        return task

    def handler(self, failed: Task, error: BaseException) -> Task | None:
        """The task of the error handler of a failed task."""
        era = self._era.get(failed.id, self.eras[-1])
        make = partial(
            prepare_node_error_handler_task,
            failed,
            handler_node_name=self.nodes[failed.name].error_handler_node or "",
            failed_error=error,
            checkpoint=cast(Checkpoint, {**self.checkpoint, "id": era.checkpoint}),
            processes=self.nodes,
            channels=self.channels,
            managed=self.managed,
            config=failed.config,
            step=era.step,
            stop=self.stop,
            **self.options,
        )
        return self.adopt(self._with_answer(lambda pending: make(pending_writes=pending)), failed)

    def adopt(self, handler: Task | None, failed: Task) -> Task | None:
        """An error handler answers for the turn of the node that failed, and reads what that would have read."""
        turn = self.turns.get(failed.id)
        if handler is not None and turn is not None:
            read = handler.config[CONF][CONFIG_KEY_READ]
            scratchpad, channels, *rest = read.args
            channels = {**channels, self.channel.key: _Held(self.agenda.reading(turn))}
            handler.config[CONF][CONFIG_KEY_READ] = partial(read.func, scratchpad, channels, *rest)
            self.turns[handler.id] = turn
        return handler

    def reach(
        self, statuses: Mapping[str, TaskStatus], held: Callable[[Turn], bool], *, resumes: bool = True
    ) -> dict[str, Task]:
        """The tasks of the step so far: those that have finished, by their statuses, and those that follow."""
        finished: dict[str, Task] = {}
        self.events = events = self._events() if resumes else []
        more = True
        while more:
            unfinished: dict[str, Task] = {}
            past: list[_Past] = []
            while True:
                for task in self.new(lambda turn: False):
                    stands = self._standing(task, statuses)
                    writes = statuses.get(stands.id, TaskStatus()).output
                    if writes and self.agenda.knew(writes):
                        insort(
                            past, _Past(self.agenda.arrival(writes), writes, self.turns[task.id], stands), key=_arrival
                        )
                    else:
                        unfinished[task.id] = task
                for event in [event for event in events if self.agenda.knew(event.writes)]:
                    insort(past, event, key=_arrival)
                events = [event for event in events if not self.agenda.knew(event.writes)]
                if not past:
                    break
                # What is only ready because of something later has to wait for it.
                now, past = (past[:1], past[1:]) if self.agenda.ordered else (past, [])
                for each in now:
                    self._relive(each, finished)
                for turn in self.agenda.take_dropped():
                    past = [each for each in past if each.turn != turn]
                    unfinished = {id: task for id, task in unfinished.items() if self.turns[id] != turn}
            # What an update from outside finds unfinished, or held, is looked at once more.
            again = [id for id in unfinished if held(self.turns[id])]
            if more := self.agenda.release():
                again = list(unfinished)
            for id in again:
                self._begun.discard(self.turns.pop(id).name)
                del unfinished[id]
        if self._asked is None and len(self._control) > len(self._unanswered):
            self._answered = set(unfinished)
            unfinished = {id: self.task(self.turns[id]) for id in unfinished}
        return finished | unfinished

    def _events(self) -> list[_Past]:
        """What has come from outside since the checkpoint."""
        key = self.channel.key
        kept = [[(key, value)] for _, channel, value in self.pending or () if channel == key and "event" in value]
        events = [_Past(self.agenda.arrival(writes), writes) for writes in kept]
        for id, channel, value in self.pending or ():
            if channel == key and id != NULL_TASK_ID:
                self.agenda.counted(self.agenda.arrival([(channel, value)]))
        return events

    def _relive(self, past: _Past, finished: dict[str, Task]) -> None:
        if past.turn is None or past.stands is None:
            self.agenda.heed(past.writes)
        else:
            self.agenda.finish(past.turn, past.writes)
            finished[past.stands.id] = past.stands

    def _standing(self, task: Task, statuses: Mapping[str, TaskStatus]) -> Task:
        """The task itself, or its error handler if that has finished in its place."""
        error = self.failure(task.id)
        handler = self.handler(task, error) if error is not None else None
        finished = handler is not None and statuses.get(handler.id, TaskStatus()).finished
        return handler if handler is not None and finished else task

    def failure(self, task: str) -> BaseException | None:
        """The error of a task that has been routed to an error handler."""
        if task not in self._failed:
            return None
        error = read_task_statuses(self._control)[task].error
        return error if isinstance(error, BaseException) else Exception(str(error))


def _with_given(cache_key: CacheKey, given: Any) -> CacheKey:
    said = default_cache_key(cache_key.key, given)
    return cache_key._replace(key=hashlib.sha256(said if isinstance(said, bytes) else said.encode()).hexdigest())


_arrival = attrgetter("arrival")


def snapshot_tasks(
    checkpoint: Any,
    pending_writes: Any,
    processes: Any,
    channels: Any,
    managed: Any,
    config: Any,
    step: int,
    stop: int,
    *,
    for_execution: bool,
    **options: Any,
) -> dict[str, Any]:
    """LangGraph's `prepare_next_tasks`, for a snapshot: through everything that has finished since the checkpoint."""
    channel = agenda_channel(channels)
    given = (checkpoint, pending_writes, processes, channels, managed, config, step, stop)
    if not channel.opens() or not checkpoint["channel_versions"]:
        return prepare_next_tasks(*given, for_execution=True, **options)
    if brought := commanded(pending_writes or ()):
        apply_writes(checkpoint, channels, [PregelTaskWrites((), INPUT, brought, [])], None, {})
    opened = Opened(channel, channel.agenda(), *given, options)
    tasks = opened.reach(read_task_statuses(pending_writes or ()), lambda turn: False)
    if opened.events:
        # LangGraph hands the channels what tasks have written, and knows nothing of what has come from outside.
        channel.ahead = opened.agenda
    if (reached := _reached.get(None)) is not None:
        reached.append(opened.agenda)
    return tasks


def first_tasks(
    checkpoint: Any, pending_writes: Any, *given: Any, for_execution: bool, **options: Any
) -> dict[str, Any]:
    """The same, for a checkpoint as it was when it was put."""
    return snapshot_tasks(checkpoint, [], *given, for_execution=for_execution, **options)


_reached: ContextVar[list[Agenda]] = ContextVar("reached")


def are_agendas_looked_for() -> bool:
    """Whether this runs inside of `reached_agendas`."""
    return _reached.get(None) is not None


@contextmanager
def reached_agendas() -> Iterator[list[Agenda]]:
    """The agendas of the snapshots that are taken here, as far as what is saved has led them."""
    agendas: list[Agenda] = []
    token = _reached.set(agendas)
    try:
        yield agendas
    finally:
        _reached.reset(token)


def unfinished(snapshot: StateSnapshot, saved: Any, *, live: bool = False, **options: Any) -> StateSnapshot:
    """A snapshot of the current state, without what has finished in the open step; that of a step as it is."""
    if not live or not saved:
        return snapshot
    statuses = read_task_statuses(saved.pending_writes or ())
    tasks = tuple(t for t in snapshot.tasks if t.id not in statuses or not statuses[t.id].finished)
    return snapshot._replace(tasks=tasks)
