"""Signals and timers of one graph of a run: taken one by one between the ends of tasks, saved, then counted.

Any thread may give the listener a signal; it only queues it and wakes the runner. The runner's own thread or asyncio
task takes it from there, under the loop's lock. A signal is acknowledged when the saver has it, or at once where there
is none.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from operator import itemgetter
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from agentmatrix.cancel_scope import current_scope
from agentmatrix.engine.channels import RUN
from agentmatrix.engine.supersteps import SuperstepLoop
from agentmatrix.errors import SignalError
from agentmatrix.event_loop import call_on
from agentmatrix.live.signal_router import (
    SIGNAL_ROUTER,
    SIGNAL_TASK_PATH,
    ClosedTargets,
    PendingSignal,
    SignalRouter,
    node_path,
)
from agentmatrix.pregel.checkpoint_order import SaverFuture, checkpoints_under_way, loops_of, put_after
from agentmatrix.pregel.execution import CONF, CONFIG_KEY_CHECKPOINT_ID, CONFIG_KEY_CHECKPOINT_NS, with_configurable
from agentmatrix.pregel.run_control import watch_drain
from agentmatrix.scheduling.graph_scheduler import Record
from agentmatrix.scheduling.scheduled_activation import Write
from agentmatrix.triggers import Every

__all__ = ["BUFFER", "LONG", "ListeningLoop", "SignalListener"]

BUFFER = 1_000
"""How many signals of one name, which no node has read, a graph keeps; a further one waits."""
LONG = 500
"""How many writes a step holds before it ends, for a checkpoint, at the next moment at which nothing is at work."""


class SignalListener:
    """Takes signals for one graph of a run, and knows when its timers are due.

    Args:
        path: the nodes from the root graph.
        names: the signals that the graph declares.
        timers: by label, the seconds and whether it fires again and again.
        wake: lets the runner look again; called on any thread.

    Attributes:
        closed: whether no more signals will come.
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
        self._signals: dict[str, deque[tuple[int, PendingSignal]]] = {}
        self._numbers = count()
        self.closed, self.ticking = False, True
        self._timers = dict(timers)
        now = time.monotonic()
        self._due = {label: now + seconds for label, (seconds, _) in timers.items()}

    @property
    def repeats(self) -> bool:
        """Whether a timer fires again and again."""
        return any(repeats for _, repeats in self._timers.values())

    def receive(self, sent: PendingSignal) -> None:
        """Take a signal. On any thread."""
        self._signals.setdefault(sent.name, deque()).append((next(self._numbers), sent))
        self.wake()

    def close(self) -> None:
        """No more signals will come. On any thread."""
        self.closed = True
        self.wake()

    def next_signal(self, wanted: Callable[[PendingSignal], bool]) -> PendingSignal | None:
        """The signal that came first of those that are next of their name and wanted."""
        heads = [queue[0] for queue in list(self._signals.values()) if queue]
        return next((sent for _, sent in sorted(heads, key=itemgetter(0)) if wanted(sent)), None)

    def take(self, sent: PendingSignal) -> None:
        """That signal is under way no more."""
        self._signals[sent.name].popleft()
        sent.accepted = True

    def next_tick(self) -> str | None:
        """A timer that is due. One that fires again and again keeps time: it is due again a period after it was due."""
        now = time.monotonic()
        label = next((label for label, due in self._running() if due <= now), None)
        if label is not None:
            seconds, repeats = self._timers[label]
            due = self._due.pop(label)
            if repeats:
                self._due[label] = due + seconds * (1 + int((now - due) // seconds))
        return label

    def seconds(self) -> float | None:
        """How long until the next timer is due."""
        times = [due for _, due in self._running()]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _running(self) -> list[tuple[str, float]]:
        return [(label, due) for label, due in self._due.items() if self.ticking or not self._timers[label][1]]


class ListeningLoop(SuperstepLoop):
    """What a loop without barriers does about signals and timers."""

    stack: Any
    _listener: SignalListener | None = None
    _closed_targets: ClosedTargets | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stops: list[Callable[[], None]] = []
        self._saving: list[Any] = []
        self._tells_changes = SIGNAL_ROUTER in self.config[CONF]

    def _is_input_open(self) -> bool:
        router: SignalRouter | None = self.config[CONF].get(SIGNAL_ROUTER)
        if router is None or self._is_input_closed:
            return False
        # Where no signal can come, an open input keeps only the live graph itself going, for its timers to fire.
        repeats = any(isinstance(timer, Every) for timer in self.schedule.topology.timers)
        here = node_path(self.config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, ""))
        return bool(self.schedule.topology.signals) or (repeats and here == router.root)

    # LangGraph's loop

    def tick(self) -> bool:
        if super().tick():
            self._show_replayed()
            return True
        # Without a task there may still be something to wait for.
        if self.status != "done" or self.open_step is None:
            return False
        if self.control is not None and self.control.drain_requested:
            self.status = "draining"
            return False
        self.status = "pending"
        self._show_replayed()
        return True

    # called by the runner

    def start_listening(self, wake: Callable[[], None]) -> None:
        """Take signals from here on, if the graph wants any. Called when the tasks of the step have been made."""
        step, router = self.open_step, self.config[CONF].get(SIGNAL_ROUTER)
        assert step is not None
        if router is None and not (self.schedule.topology.timers or self.schedule.topology.idles):
            return
        scheduler, path = step.scheduler, node_path(self.config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, ""))
        if router is not None:
            if self._closed_targets is None:
                self._closed_targets = router.track(path)
                self.stack.callback(self._closed_targets.remove)
            self._closed_targets.update(scheduler.rules.closed_targets())
        if self._listener is not None:
            # It goes on from the step before.
            self._listener.wake = wake
            return
        timers = scheduler.inputs.timers()
        reads = timers or scheduler.rules.reads_external() or self.schedule.topology.idles
        if not (scheduler.awaits_external() or (reads and step.activations)):
            return
        self._listener = listener = SignalListener(path, scheduler.inputs.signals, timers, wake)
        self.is_listening = True
        self.stack.callback(self.stop_listening)
        if router is not None and scheduler.inputs.open:
            router.attach(listener)
            self._stops.append(lambda: router.detach(listener))
            if (scope := current_scope.get()) is not None:
                self._stops.append(scope.on_cancel(lambda: _on_cancelled(router, listener)))
        if self.control is not None:
            self._stops.append(watch_drain(self.control, lambda reason: listener.wake()))

    def stop_listening(self) -> None:
        """Nothing from outside is taken any more."""
        stops, self._stops = self._stops, []
        for stop in stops:
            stop()
        self._listener, self.is_listening = None, False

    def awaits_event(self, *, at_work: bool) -> bool:
        """Whether something from outside may come that changes the run.

        Args:
            at_work: whether an activation is at work.
        """
        listener, step = self._listener, self.open_step
        if listener is None or step is None or step.held:
            return False
        if self.control is not None and self.control.drain_requested:
            return False
        scheduler = step.scheduler
        listener.ticking = scheduler.inputs.open or scheduler.rules.is_going()
        if scheduler.awaits_external():
            return True
        return at_work and (listener.repeats or scheduler.rules.reads_external())

    def seconds_to_timer(self) -> float | None:
        """How long until a timer is due; None where there is none."""
        return self._listener.seconds() if self._listener is not None else None

    def take_event(self, *, at_work: bool) -> bool:
        """Let the next event from outside count. Returns whether there was one."""
        with self.lock:
            if not self.awaits_event(at_work=at_work):
                return False
            listener, step = self._listener, self.open_step
            assert listener is not None and step is not None
            scheduler = step.scheduler
            # After the last signal a full buffer holds nothing back: what waits would never be taken.
            room = listener.closed
            while scheduler.inputs.open:
                sent = listener.next_signal(lambda s: room or scheduler.unread(s.name) < BUFFER)
                if sent is None:
                    break
                listener.take(sent)
                if sent.future.done() or self._refuses(sent):
                    continue
                record = scheduler.signal(sent.name, sent.value, sent.id)
                if record is None:
                    sent.acknowledge()
                    continue
                _acknowledge(sent, self._futures_of(self._save(record)))
                self._on_event()
                return True
            if (label := listener.next_tick()) is not None:
                if (record := scheduler.timer(label)) is not None:
                    self._save(record)
                self._on_event()
                return True
            if not at_work and scheduler.rules.is_idle_due():
                self._save(scheduler.idle())
                self._on_event()
                return True
            if room and scheduler.inputs.open:
                self._is_input_closed = True
                if (record := scheduler.set_input_open(False)) is not None:
                    self._save(record)
                self._on_event()
                return True
            return False

    def rests(self) -> bool:
        """Whether the step ends for the sake of a checkpoint: what lies beside the last one has become long.

        Called when nothing is at work; the run goes on afterwards.
        """
        if self._listener is None or len(self.checkpoint_pending_writes) < LONG:
            return False
        if self.interrupt_before or self.interrupt_after:
            return False
        # What is not acknowledged yet would wait for the next step.
        self._saving = [future for future in self._saving if not future.done()]
        self._is_resting = not self._saving
        return self._is_resting

    def _on_event(self) -> None:
        step = self.open_step
        assert step is not None
        self.give_up(step.scheduler.take_cancelled())
        self._on_change()

    def _on_change(self) -> None:
        if (router := self.config[CONF].get(SIGNAL_ROUTER)) is None or (step := self.open_step) is None:
            return
        if self._closed_targets is not None:
            self._closed_targets.update(step.scheduler.rules.closed_targets())
        if (listener := self._listener) is not None and not listener.repeats:
            if not (step.scheduler.awaits_external() or step.scheduler.rules.reads_external()):
                # Nothing wants a signal any more: those under way are for others, or to be refused.
                router.detach(listener)

    def _refuses(self, sent: PendingSignal) -> bool:
        """Whether the saver could not keep a signal: that is for its sender to know, and fails no run."""
        serde = getattr(self.checkpointer, "serde", None)
        if serde is None or sent.value is None or type(sent.value) is bytes:
            return False
        try:
            serde.dumps_typed(sent.value)
        except Exception as error:
            why = f"the checkpointer cannot keep its value, {type(sent.value).__name__!r}: {error}"
            sent.refuse(SignalError(f"the signal {sent.address!r} was not taken: {why}"))
            return True
        return False

    def _save(self, record: Record) -> Any:
        """Keep a record beside the checkpoint. Returns the future of the saver, or None."""
        task_id = str(uuid5(NAMESPACE_OID, f"{self.checkpoint['id']}:{record.get('n', 'opening')}:{record['heard']}"))
        self.checkpoint_pending_writes.append((task_id, RUN, record))
        return self._put_beside_now(task_id, [(RUN, record)])

    def _futures_of(self, saved: Any) -> list[Any]:
        """What must be done before a record counts that the saver was given: a write beside a checkpoint that is not
        there, or in the namespace of a node whose graph's checkpoint is not there, is found by nobody after a kill."""
        if saved is None:
            return []
        own = getattr(self, "_put_checkpoint_fut", None)
        return [saved, *([own] if own is not None else []), *checkpoints_under_way(loops_of(self.config))]

    def _put_beside_now(self, task_id: str, writes: Sequence[Write], after: Sequence[SaverFuture] = ()) -> Any:
        """Keep writes beside the checkpoint that the run stands at, after these futures. Returns the future of the
        saver, or None."""
        if self.durability == "exit":
            self._written_task_ids.add(task_id)
            return None
        if self.checkpointer_put_writes is None:
            return None
        namespace = self.config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, "")
        here = {CONFIG_KEY_CHECKPOINT_NS: namespace, CONFIG_KEY_CHECKPOINT_ID: self.checkpoint["id"]}
        arguments: list[Any] = [with_configurable(self.checkpoint_config, here), writes, task_id]
        if self.checkpointer_put_writes_accepts_task_path:
            arguments.append(SIGNAL_TASK_PATH)
        future = self.submit(put_after(after, self.checkpointer_put_writes, self), *arguments)
        self._saving.append(future)
        if self._put_futures is not None:
            self.saved[task_id] = future
        return future


def _on_cancelled(router: SignalRouter, listener: SignalListener) -> None:
    """The graph is given up: it hears nothing more, and ends when nothing is at work."""
    router.detach(listener)
    listener.close()


def _acknowledge(sent: PendingSignal, futures: Sequence[Any]) -> None:
    """Tell the sender of a signal once all these futures are done, or that one of them has failed."""
    if not futures:
        sent.acknowledge()
        return
    first, *others = futures

    def answer(done: asyncio.Future[None] | concurrent.futures.Future[None]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        _acknowledge(sent, others) if error is None else sent.refuse(error)

    if isinstance(first, asyncio.Future):
        call_on(first.get_loop(), first.add_done_callback, answer)
    else:
        first.add_done_callback(answer)
