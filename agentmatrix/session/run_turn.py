"""How a run on a host waits for its turn, and tells its caller of its place in the queue; 0 when its turn has come.

All of it happens on the I/O thread, but `leave`, which any thread may call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from agentmatrix.errors import HostBusy
from agentmatrix.session.host_state import HostState
from agentmatrix.session.run_queue import AgentSlot, QueuedRun
from agentmatrix.transport.iothread import io_thread
from agentmatrix.wire.codec import Codec

__all__ = ["RunTurn"]


class QueueingRun(Protocol):
    """A run of a host, as far as its turn is concerned.

    Attributes:
        codec: writes what it tells its caller.
    """

    codec: Codec

    def send_event(self, kind: str, arguments: bytes) -> None:
        """Sends an event to the caller."""

    def refuse(self, error: BaseException) -> None:
        """Ends the run, which has not begun."""


class RunTurn:
    """The turn of one run: a `WaitingRun`.

    Args:
        run: the run.
        begin: lets it begin.
        host: the host's state.
    """

    def __init__(self, run: QueueingRun, begin: Callable[[AgentSlot], None], host: HostState) -> None:
        self._run, self._begin, self._host = run, begin, host
        self._queued: QueuedRun | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._since = 0.0
        self._place = self._told = 0

    def enter(self, agent: str, caller: str, tickets: Iterable[str]) -> AgentSlot | None:
        """The place of the run; None where it waits.

        Raises:
            HostBusy: it cannot even wait.
        """
        entered = self._host.queue.enter(agent, caller, tickets, self)
        if isinstance(entered, AgentSlot):
            return entered
        self._queued = entered
        timeout = self._host.queue_timeout
        loop = io_thread().loop
        if timeout is not None:
            self._timers.append(loop.call_later(timeout, self._give_up, timeout))
        if self._host.queue.may_hang_elsewhere(tickets):
            self._since = loop.time()
            self._timers.append(loop.call_later(self._host.queue.patience(agent), self._check_circle, agent))
        return None

    def leave(self) -> bool:
        """Gives the turn up; returns whether the run was still waiting for it."""
        if self._timers:
            io_thread().call(self._cancel_timers)
        return self._queued is not None and self._queued.leave()

    def tell(self) -> None:
        """Tells the caller of the place, once it is told that the host has taken the run."""
        if self._queued is not None and self._place != self._told:
            self._told = self._place
            self._run.send_event("queue", self._run.codec.encode((self._place,), "event queue"))

    def _give_up(self, seconds: float) -> None:
        if self._queued is not None and self._queued.leave():
            self._run.refuse(HostBusy(f"the run has waited for its turn for {seconds:g} s (--queue-timeout)"))

    def _check_circle(self, agent: str) -> None:
        """Gives up where nothing moves: the run holds a place elsewhere, for which those ahead of it may be waiting."""
        loop, patience = io_thread().loop, self._host.queue.patience(agent)
        idle = min(loop.time() - self._since, self._host.queue.idle(agent))
        if idle < patience:
            self._timers.append(loop.call_later(patience - idle, self._check_circle, agent))
        elif self._queued is not None and self._queued.leave():
            self._run.refuse(
                HostBusy(
                    f"no run of the agent {agent!r} has ended for {patience:.3g} s, while this one waited for its turn "
                    "as part of a run that holds a place on another host: the hosts may be waiting for each other in a "
                    "circle. Let one of their agents have more runs at a time (concurrency=)"
                )
            )

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    # WaitingRun: called under the queue's lock, on any thread.

    def on_place(self, place: int) -> None:
        self._place = place
        if self._queued is not None:
            io_thread().call(self.tell)

    def on_turn(self, slot: AgentSlot) -> None:
        io_thread().call(self._take, slot)

    def on_refused(self, error: HostBusy) -> None:
        io_thread().call(self._refused, error)

    def _take(self, slot: AgentSlot) -> None:
        self._cancel_timers()
        if self._told:
            self._run.send_event("queue", self._run.codec.encode((0,), "event queue"))
        self._begin(slot)

    def _refused(self, error: HostBusy) -> None:
        self._cancel_timers()
        self._run.refuse(error)
