"""A superstep that stays open for what comes from outside: signals of a live run, and timers.

A task that is no node's keeps the step open and waits. LangGraph's runner starts it with the others; nobody sees it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langgraph._internal._constants import CONF, CONFIG_KEY_CHECKPOINT_NS, PULL
from langgraph._internal._runnable import RunnableCallable
from langgraph.constants import TAG_HIDDEN
from langgraph.pregel._loop import PregelLoop
from langgraph.types import PregelExecutableTask

from agentmatrix.cancel_scope import current_scope
from agentmatrix.errors import SignalError
from agentmatrix.ledger_engine.scheduler import Agenda, Turn, Write
from agentmatrix.ledger_engine.tasks import Opened, Task
from agentmatrix.live.signal_router import (
    SIGNAL_ROUTER,
    SIGNAL_TASK_PATH,
    ClosedTargets,
    PendingSignal,
    SignalRouter,
    node_path,
)
from agentmatrix.pregel.run_control import watch_drain

__all__ = ["BUFFER", "Listening", "Start", "acknowledge"]

BUFFER = 1_000
"""How many signals of one name, which nobody has read, a graph keeps; a further one waits."""
LONG = 500
"""How many writes a step holds before it ends, for a checkpoint, at the next moment at which nothing is at work."""


@dataclass(frozen=True)
class Start:
    """How LangGraph's runner started a task: what follows it is started in the same way."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Ear:
    """Takes signals for one graph of a run, and knows when its timers are due.

    Args:
        path: the nodes from the root graph.
        names: the signals that the graph declares.
        timers: by label, the seconds and whether it fires again and again.
        wake: lets the task that waits look again; called on any thread.

    Attributes:
        ticking: whether timers that fire again and again do so now; where they do not, their ticks are put off.
    """

    names: frozenset[str] | None

    def __init__(
        self,
        path: tuple[str, ...],
        names: frozenset[str],
        timers: Mapping[str, tuple[float, bool]],
        wake: Callable[[], None],
    ) -> None:
        self.path, self.names, self.wake = path, names, wake
        self._sent: dict[str, deque[tuple[int, PendingSignal]]] = {}
        self._numbers = count()
        self.closed, self.ticking = False, True
        self._timers = dict(timers)
        now = time.monotonic()
        self._due = {label: now + seconds for label, (seconds, _) in timers.items()}

    @property
    def ticks(self) -> bool:
        """Whether a timer fires again and again."""
        return any(repeats for _, repeats in self._timers.values())

    def receive(self, sent: PendingSignal) -> None:
        """Take a signal."""
        self._sent.setdefault(sent.name, deque()).append((next(self._numbers), sent))
        self.wake()

    def next_sent(self, wanted: Callable[[PendingSignal], bool]) -> PendingSignal | None:
        """The signal that came first of those that are next of their name and wanted."""
        heads = [queue[0] for queue in list(self._sent.values()) if queue]
        return next((sent for _, sent in sorted(heads, key=itemgetter(0)) if wanted(sent)), None)

    def take(self, sent: PendingSignal) -> None:
        """That signal is under way no more."""
        self._sent[sent.name].popleft()
        sent.accepted = True

    def close(self) -> None:
        """No more signals will come."""
        self.closed = True
        self.wake()

    def tick(self) -> str | None:
        """A timer that is due."""
        now = time.monotonic()
        label = next((label for label, due in self._running() if due <= now), None)
        if label is not None:
            seconds, repeats = self._timers[label]
            del self._due[label]
            if repeats:
                self._due[label] = now + seconds
        return label

    def seconds(self) -> float | None:
        """How long until the next timer is due."""
        times = [due for _, due in self._running()]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _running(self) -> list[tuple[str, float]]:
        return [(label, due) for label, due in self._due.items() if self.ticking or not self._timers[label][1]]


class Listening(PregelLoop):
    """What a loop whose steps stay open does about signals and timers."""

    stack: Any
    _opened: Opened | None
    _order: Any
    _engine: Any
    _stopping: bool
    _holding: bool
    _alive: int
    _lock: Any
    _drop: Callable[[Sequence[Turn]], None]
    _beside: Callable[[Any], Any]
    _new_wake: Callable[[], Callable[[], None]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ear: Ear | None = None
        self._ear_task: str | None = None
        self._closed_targets: ClosedTargets | None = None
        self._hung_up = self._closed_input = False
        self._quiet_down: list[Callable[[], None]] = []
        self._saving: list[Any] = []
        self._resting = False

    # before the step

    def _listen(self) -> list[Task]:
        """Begins to take what comes from outside, if the graph wants any. Returns the task that waits for it."""
        assert self._opened is not None
        agenda = self._opened.agenda
        if self._ear is not None:
            self._hang_up()
        self._ear = None
        router = self.config[CONF].get(SIGNAL_ROUTER)
        path = node_path(self.config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, ""))
        # Where no signal can come, an open input keeps only the live graph itself going, for its timers to fire.
        repeats = any(repeats for _, repeats in agenda.timers.values())
        hears = router is not None and (bool(agenda.signals) or (repeats and path == router.root))
        opens = hears and not self._closed_input
        if agenda.open is not opens:
            self._count(self._happened({"open": opens})[0])
        if router is not None:
            if self._closed_targets is None:
                self._closed_targets = router.track(path)
                self.stack.callback(self._closed_targets.remove)
            agenda.watch(self._closed_targets.update)
        if not (agenda.expects() or ((agenda.timers or agenda.reads()) and self.tasks)):
            return []
        self._ear = ear = Ear(path, agenda.signals, agenda.timers, self._new_wake())
        self._hung_up = False
        if router is not None and agenda.open:
            router.attach(ear)
            self._quiet_down.append(lambda: router.detach(ear))
            if (scope := current_scope.get()) is not None:
                self._quiet_down.append(scope.on_cancel(lambda: _turn_away(router, ear)))
        if self.control is not None:
            self._quiet_down.append(watch_drain(self.control, lambda reason: ear.wake()))
        task = _waiting(str(uuid5(NAMESPACE_OID, f"{self.checkpoint['id']}:ear")))
        self._ear_task = task.id
        return [task]

    def _hang_up(self) -> None:
        """Nothing from outside is taken any more."""
        self._hung_up = True
        quiet_down, self._quiet_down = self._quiet_down, []
        for stop in quiet_down:
            stop()
        if self._ear is not None:
            self._ear.wake()

    # while it is open

    def _next_event(self) -> tuple[Mapping[str, Any] | None, PendingSignal | None] | None:
        """What has come, with the signal that it came as; nothing where there is to be waited; None at the end."""
        ear, opened = self._ear, self._opened
        if ear is None or opened is None or self._hung_up or self._stopping or self._holding:
            return None
        agenda = opened.agenda
        if self.control is not None and self.control.drain_requested:
            return None
        if not agenda.expects() and not (self._alive and (ear.ticks or agenda.reads())):
            return None
        if self._is_long(agenda):
            self._resting = True
            return None
        # After the last signal a full buffer holds nothing back: what waits would never be taken.
        room = ear.closed
        while agenda.open and (sent := ear.next_sent(lambda s: room or agenda.unread(s.name) < BUFFER)) is not None:
            ear.take(sent)
            if not (sent.future.done() or self._refuses(sent)):
                if not agenda.knows(sent.id):
                    return {"signal": sent.name, "value": sent.value, "id": sent.id}, sent
                sent.acknowledge()
        ear.ticking = agenda.expects() or agenda.is_going()
        if (label := ear.tick()) is not None:
            return {"tick": label}, None
        if room and agenda.open:
            self._closed_input = True
            return {"open": False}, None
        return None, None

    def _is_long(self, agenda: Agenda) -> bool:
        """Whether the step has become long and may end: to go on and to resume costs more, the longer it is."""
        if len(self.checkpoint_pending_writes) < LONG or self._alive or not self.tasks:
            return False
        if self.interrupt_before or self.interrupt_after:
            return False
        # What is not acknowledged yet would wait for the next step, and be known there before it is saved.
        self._saving = [future for future in self._saving if not future.done()]
        return not self._saving and agenda.is_idle()

    def _refuses(self, sent: PendingSignal) -> bool:
        """Whether the saver could not keep a signal: that is for its sender to know, and nothing that fails the run."""
        serde = getattr(self.checkpointer, "serde", None)
        if serde is None:
            return False
        try:
            serde.dumps_typed(sent.value)
        except Exception as error:
            why = f"the checkpointer cannot keep its value, {type(sent.value).__name__!r}: {error}"
            sent.refuse(SignalError(f"the signal {sent.address!r} was not taken: {why}"))
            return True
        return False

    def _happened(self, event: Mapping[str, Any]) -> tuple[Sequence[Write], Any]:
        """Keeps an event. Returns what it is kept as, and the future of the saver or None."""
        assert self._opened is not None
        writes = self._opened.agenda.happened(event)
        number = self._opened.agenda.arrival(writes)
        task_id = str(uuid5(NAMESPACE_OID, f"{self.checkpoint['id']}:{number}"))
        self.checkpoint_pending_writes.extend((task_id, channel, value) for channel, value in writes)
        if self.durability == "exit" or self.checkpointer_put_writes is None:
            return writes, None
        arguments = [self._beside(self.checkpoint), list(writes), task_id]
        if self.checkpointer_put_writes_accepts_task_path:
            arguments.append(SIGNAL_TASK_PATH)
        self._saving.append(self._engine(self.checkpointer_put_writes, *arguments))
        return writes, self._saving[-1]

    def _count(self, writes: Iterable[Write]) -> None:
        """Lets an event count that is kept."""
        assert self._opened is not None
        self._opened.agenda.heed(writes)
        self._drop(self._opened.agenda.take_dropped())


def _turn_away(router: SignalRouter, ear: Ear) -> None:
    """The graph is given up: it hears nothing more, and ends when nothing is at work."""
    router.detach(ear)
    ear.close()


def _waiting(id: str) -> Task:
    """A task that does nothing by itself, and that no stream shows."""
    nothing = RunnableCallable(lambda _: None, name="listen", trace=False)
    return PregelExecutableTask(
        name="listen", input=None, proc=nothing, writes=deque(), config={"tags": [TAG_HIDDEN]}, triggers=(),
        retry_policy=(), cache_key=None, id=id, path=(PULL, "listen"),
    )  # fmt: skip


def acknowledge(sent: PendingSignal, saved: Any) -> None:
    """Tells the sender of a signal, once it is kept."""
    if saved is None:
        sent.acknowledge()
        return

    def answer(future: asyncio.Future[None] | concurrent.futures.Future[None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        sent.acknowledge() if error is None else sent.refuse(error)

    saved.add_done_callback(answer)
