"""The queue of a host: runs that wait for their turn, since the host, their caller or their agent has all it may have.

It is bounded, and fair to callers: each in turn has one of its runs taken, so that one caller with many runs does not
keep the others waiting. Where it is full, the caller with the most waiting runs loses its newest one.

A run may call another agent of the host, and wait for it while it holds the place of its own. Where such waits would
wait for each other in a circle, the run is let in at once: a limit is exceeded rather than that anything hangs.

Threads: runs come on the I/O thread and leave on any. `_lock` guards everything, and is held while the runs that wait
are told: they return at once.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from agentmatrix.errors import HostBusy
from agentmatrix.session.run_limiter import RunLimiter, RunSlot

__all__ = ["AgentSlot", "QueuedRun", "RunQueue", "WaitingRun"]

_LEAST_RETRY: Final = 0.5
"""Seconds; no caller is told to come back sooner."""
_UNKNOWN_SECONDS: Final = 1.0
"""How long a run of an agent takes that has had none yet."""
_NEWEST: Final = 0.2
"""What the last run counts in the mean of their seconds."""


_HOLDS: Final = "holds-"
"""Tickets that begin so are of runs that hold a place of an agent; other hosts see by them that one is held."""
LEAST_PATIENCE: Final = 60.0
"""Seconds without the end of any run of an agent, after which hosts may be waiting for each other; see `patience`."""


class WaitingRun(Protocol):
    """A run that waits. All methods return at once."""

    def on_place(self, place: int) -> None:
        """It has this place in the queue of its agent, from 1."""

    def on_turn(self, slot: AgentSlot) -> None:
        """It may begin."""

    def on_refused(self, error: HostBusy) -> None:
        """It will not be taken."""


class AgentSlot:
    """The place of a run on the host and among the runs of its agent.

    Args:
        queue: gave it.
        agent: of the run.
        slot: the run's place on the host.
        counts: whether it is one of those that the agent may have.
    """

    __slots__ = ("_agent", "_began", "_counts", "_left", "_queue", "_slot", "_ticket")

    def __init__(self, queue: RunQueue, agent: str, slot: RunSlot, ticket: str, began: float, *, counts: bool) -> None:
        self._queue, self._agent, self._slot, self._counts = queue, agent, slot, counts
        self._ticket, self._began, self._left = ticket, began, False

    def tickets(self, shown: Iterable[str]) -> tuple[str, ...]:
        """The tickets for the code of the run, whose caller has shown these."""
        own = self._slot.tickets(shown)
        return (*own, self._ticket) if self._ticket else own

    def leave(self) -> None:
        """The run has ended. Idempotent."""
        if not self._left:
            self._left = True
            self._slot.leave()
            self._queue._left(self._agent, self._ticket, self._began, self._counts)


class QueuedRun:
    """A run in the queue.

    Attributes:
        agent: that it is for.
        caller: that has begun it.
        shown: the tickets that the caller shows.
        held: the agents whose places the runs around it hold.
        run: is told of its turn.
        place: what it was told last.
    """

    __slots__ = ("_queue", "agent", "caller", "held", "place", "run", "shown")

    def __init__(
        self, queue: RunQueue, agent: str, caller: str, shown: tuple[str, ...], held: frozenset[str], run: WaitingRun
    ) -> None:
        self._queue, self.agent, self.caller, self.shown, self.held, self.run = queue, agent, caller, shown, held, run
        self.place = 0

    def leave(self) -> bool:
        """Gives up its place; returns whether it was still waiting."""
        return self._queue._remove(self)


class RunQueue:
    """Lets runs in, one after the other.

    Args:
        limiter: the places of the host.
        concurrency: runs at a time by agent, or of each; of others there may be as many as the host takes.
        most: runs that may wait.
        clock: seconds.

    Raises:
        ValueError: an agent may have less than one run.
    """

    def __init__(
        self,
        limiter: RunLimiter,
        concurrency: Mapping[str, int] | int | None = None,
        most: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter, self._most, self._clock = limiter, most, clock
        self._of_each = concurrency if isinstance(concurrency, int) else None
        self._concurrency = {} if concurrency is None or isinstance(concurrency, int) else dict(concurrency)
        for limit in (self._of_each, *self._concurrency.values()):
            if limit is not None and limit < 1:
                raise ValueError(f"an agent may have at least 1 run at a time, not {limit}")
        self._lock = threading.Lock()
        self._callers: dict[str, deque[QueuedRun]] = {}
        """Whose turn it is, first to last."""
        self._active = Counter[str]()
        self._holders: dict[str, str] = {}
        """The agents whose places are held, by the tickets of those who hold them."""
        self._seconds: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def enter(self, agent: str, caller: str, shown: Iterable[str], run: WaitingRun) -> AgentSlot | QueuedRun:
        """The place of a new run; or its place in the queue, and the run is told of the rest.

        Args:
            agent: that it is for; empty for what only reads or writes state, and waits for no agent.
            caller: who begins it.
            shown: the tickets that the caller shows.
            run: is told when its turn comes.

        Raises:
            HostBusy: the queue is full; says when to come again.
        """
        tickets = tuple(shown)
        with self._lock:
            held = frozenset(self._holders[ticket] for ticket in tickets if ticket in self._holders)
            waiting = QueuedRun(self, agent, caller, tickets, held, run)
            if self._would_hang(waiting):
                return self._slot(waiting, self._limiter.enter(caller, tickets), counts=False)
            try:
                slot = self._try(waiting)
            except HostBusy as busy:
                self._make_room(waiting, str(busy))
            else:
                if slot is not None:
                    return slot
                self._make_room(waiting, f"the agent {agent!r} has {self._active[agent]} runs, as many as it may")
            self._callers.setdefault(caller, deque()).append(waiting)
            self._tell_places()
        return waiting

    def may_hang_elsewhere(self, shown: Iterable[str]) -> bool:
        """Whether a run with these tickets is part of one that holds a place of an agent on another host.

        A wait in a circle over several hosts is seen by none of them.
        """
        with self._lock:
            return any(ticket.startswith(_HOLDS) and ticket not in self._holders for ticket in shown)

    def patience(self, agent: str) -> float:
        """Seconds without the end of a run of an agent that are long: three times what its runs take."""
        with self._lock:
            return max(LEAST_PATIENCE, 3 * self._seconds.get(agent, 0.0))

    def idle(self, agent: str) -> float:
        """Seconds since a run of an agent has ended last."""
        with self._lock:
            return self._clock() - self._ended.get(agent, -math.inf)

    def close(self, error: Callable[[], HostBusy]) -> None:
        """Refuses all runs that wait."""
        with self._lock:
            waiting = list(self._in_order())
            self._callers.clear()
        for queued in waiting:
            queued.run.on_refused(error())

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._callers.values()))

    # Called by what has a place.

    def _left(self, agent: str, ticket: str, began: float, counts: bool) -> None:
        with self._lock:
            self._holders.pop(ticket, None)
            if counts:
                self._active[agent] -= 1
            self._ended[agent] = self._clock()
            seconds = self._ended[agent] - began
            known = self._seconds.get(agent, seconds)
            self._seconds[agent] = known + _NEWEST * (seconds - known)
            if self._callers:
                self._advance()

    def _remove(self, queued: QueuedRun) -> bool:
        with self._lock:
            line = self._callers.get(queued.caller)
            if line is None or queued not in line:
                return False
            line.remove(queued)
            if not line:
                del self._callers[queued.caller]
            self._tell_places()
        return True

    def _limit(self, agent: str) -> int | None:
        return self._concurrency.get(agent, self._of_each) if agent else None

    # Under the lock.

    def _try(self, queued: QueuedRun) -> AgentSlot | None:
        """A place for a run; None where its agent has none. Raises HostBusy where the host has none."""
        limit = self._limit(queued.agent)
        if limit is not None and self._active[queued.agent] >= limit:
            return None
        return self._slot(queued, self._limiter.enter(queued.caller, queued.shown), counts=limit is not None)

    def _slot(self, queued: QueuedRun, slot: RunSlot, *, counts: bool) -> AgentSlot:
        ticket = ""
        if counts:
            self._active[queued.agent] += 1
            ticket = _HOLDS + secrets.token_hex(16)
            self._holders[ticket] = queued.agent
        return AgentSlot(self, queued.agent, slot, ticket, self._clock(), counts=counts)

    def _would_hang(self, queued: QueuedRun) -> bool:
        """Whether the agent that a run wants may be waiting, over others, for one that is held around the run."""
        if not queued.held or self._limit(queued.agent) is None:
            return False
        waits = [(other.held, other.agent) for other in self._in_order()]
        reached, frontier = set[str](), {queued.agent}
        while frontier:
            reached |= frontier
            frontier = {wanted for held, wanted in waits if held & reached} - reached
        return bool(reached & queued.held)

    def _make_room(self, queued: QueuedRun, why: str) -> None:
        """Room for one more in the queue, at the cost of whoever has the most there.

        Raises:
            HostBusy: there is none.
        """
        total = sum(map(len, self._callers.values()))
        if total < self._most:
            return
        greedy = max(self._callers.values(), key=len, default=deque())
        if len(greedy) <= len(self._callers.get(queued.caller, ())) + 1:
            raise self._busy(queued.agent, why, total)
        last = greedy.pop()
        last.run.on_refused(self._busy(last.agent, "its place in the queue went to another caller", total))

    def _busy(self, agent: str, why: str, waiting: int) -> HostBusy:
        seconds = self._retry_after(agent)
        queue = f", and {waiting} wait (--max-queue)" if waiting else ""
        return HostBusy(f"{why}{queue}; try again in about {seconds:.3g} s", retry_after=seconds)

    def _retry_after(self, agent: str) -> float:
        """Seconds until an agent may have taken all runs that wait for it."""
        waiting = sum(queued.agent == agent for queued in self._in_order())
        at_once = self._limit(agent) or self._limiter.most
        return max(_LEAST_RETRY, self._seconds.get(agent, _UNKNOWN_SECONDS) * (waiting + 1) / at_once)

    def _advance(self) -> None:
        """Lets in all that may go now."""
        while (found := self._next()) is not None:
            queued, slot = found
            line = self._callers.pop(queued.caller)
            line.remove(queued)
            if line:
                self._callers[queued.caller] = line  # behind the other callers
            queued.run.on_turn(slot)
        self._tell_places()

    def _next(self) -> tuple[QueuedRun, AgentSlot] | None:
        blocked = set[str]()
        for line in self._callers.values():
            for queued in line:
                if queued.agent in blocked:
                    continue
                try:
                    slot = self._try(queued)
                except HostBusy:
                    continue  # the host, or this caller, has as many as it may; a run inside of another may go
                if slot is not None:
                    return queued, slot
                blocked.add(queued.agent)
        return None

    def _in_order(self) -> Iterator[QueuedRun]:
        """The runs that wait, as their turns come: of each caller one, then of each the next."""
        lines = [list(line) for line in self._callers.values()]
        for number in range(max(map(len, lines), default=0)):
            yield from (line[number] for line in lines if number < len(line))

    def _tell_places(self) -> None:
        places = Counter[str]()
        for queued in self._in_order():
            places[queued.agent] += 1
            if queued.place != places[queued.agent]:
                queued.place = places[queued.agent]
                queued.run.on_place(queued.place)
