"""Which of several replicas of an agent gets a run: pure, without I/O, with a clock that is given.

The replica with the fewest outstanding runs of this process gets the next one, and those with equally many take turns
(gRPC's `least_request`, over all of them). One that is lost, stops or does not answer is ejected: it gets no run before
it was asked for its health and said that it serves, first after half a second, then after twice as long each time, up
to half a minute. Where all are ejected, runs are tried with them all the same: nothing that lives is left out.

Threads: runs begin and end on any thread. `_lock` guards everything; nothing is called under it but the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from agentmatrix.transport.target import Target

__all__ = ["Replica", "ReplicaStatus", "Replicas"]

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between an ejection and the next question for the health of a replica."""
_BUSY_SECONDS: Final = 0.5
"""How long a replica that was busy comes after the others, where it does not say for how long."""


@dataclass(frozen=True)
class ReplicaStatus:
    """A replica as its callers see it.

    Attributes:
        target: where it is, `"grpc://a:50051/x"`.
        state: `"ready"`, or `"ejected"` where it gets no runs for now.
        runs: that this process has there.
    """

    target: str
    state: Literal["ready", "ejected"]
    runs: int


@dataclass(eq=False)
class Replica:
    """One replica. Its attributes belong to `Replicas`, but the target, which anybody may read."""

    target: Target
    runs: int = 0
    is_ejected: bool = False
    changed: float = 0.0
    """When it was ejected or restored last."""
    pause: float = FIRST_PAUSE
    due: float = 0.0
    """When to ask for its health."""
    busy_until: float = 0.0
    threads: dict[str, int] = field(default_factory=dict)
    """The runs by their threads."""


class Replicas:
    """The replicas of one agent.

    Args:
        targets: where they are.
        clock: seconds.
    """

    def __init__(self, targets: Iterable[Target] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._replicas: list[Replica] = []
        self._last = -1
        """The place of the replica that was chosen last."""
        self.update(targets)

    def __len__(self) -> int:
        return len(self._replicas)

    def all(self) -> list[Replica]:
        """All of them."""
        return list(self._replicas)

    def update(self, targets: Iterable[Target]) -> None:
        """From now on the replicas are at these targets. Those that were known keep what is known of them."""
        with self._lock:
            known = {replica.target: replica for replica in self._replicas}
            wanted = list(dict.fromkeys(targets))
            self._replicas = [known.get(target) or Replica(target) for target in wanted]

    def begin(self, avoided: Collection[Replica] = (), thread: str | None = None) -> Replica | None:
        """Chooses the replica for a run, and counts the run there until `end`.

        Args:
            avoided: where the run was tried already.
            thread: where a run of this thread is under way, there it goes; for what concerns such a run.

        Returns:
            The replica; None where all are avoided.
        """
        with self._lock:
            now, count = self._clock(), len(self._replicas)
            order = [self._replicas[(self._last + 1 + n) % count] for n in range(count)]
            choices = [replica for replica in order if replica not in avoided]
            if not choices:
                return None
            chosen = min(
                choices,
                key=lambda replica: (
                    thread is None or thread not in replica.threads,
                    replica.is_ejected,
                    replica.busy_until > now,
                    replica.due if replica.is_ejected else 0.0,
                    replica.runs,
                ),
            )
            self._last = self._replicas.index(chosen)
            chosen.runs += 1
            return chosen

    def enter_thread(self, replica: Replica, thread: str) -> None:
        """A run of this thread is under way at a replica, until `leave_thread`."""
        with self._lock:
            replica.threads[thread] = replica.threads.get(thread, 0) + 1

    def leave_thread(self, replica: Replica, thread: str) -> None:
        """It is not any more."""
        with self._lock:
            replica.threads[thread] -= 1
            if not replica.threads[thread]:
                del replica.threads[thread]

    def end(self, replica: Replica, *, answered: bool = True) -> None:
        """A run has ended there.

        Args:
            answered: the replica has taken it, and answered.
        """
        with self._lock:
            replica.runs -= 1
            if answered:
                replica.pause, replica.busy_until = FIRST_PAUSE, 0.0

    def eject(self, replica: Replica, since: float) -> bool:
        """No run goes there for now. Returns whether that is news.

        Args:
            since: when it was last seen to be well, such as the beginning of a run that it has lost: what has been
                found out of it after that counts more.
        """
        with self._lock:
            if replica.is_ejected or replica.changed > since:
                return False
            now = self._clock()
            replica.is_ejected, replica.changed, replica.due = True, now, now + replica.pause
            return True

    def restore(self, replica: Replica, since: float | None = None) -> bool:
        """It serves. Returns whether that is news.

        Args:
            since: when it took the run by which this was seen: a replica that drains still ends those from before.
        """
        with self._lock:
            if not replica.is_ejected or (since is not None and replica.changed > since):
                return False
            replica.is_ejected, replica.changed = False, self._clock()
            return True

    def note_busy(self, replica: Replica, seconds: float | None) -> None:
        """It has no place for a run: for a while, others come first."""
        with self._lock:
            replica.busy_until = self._clock() + (seconds or _BUSY_SECONDS)

    def due(self) -> list[Replica]:
        """The ejected replicas whose health is to be asked for now. Each is due again after its next pause."""
        with self._lock:
            now = self._clock()
            found = [replica for replica in self._replicas if replica.is_ejected and replica.due <= now]
            for replica in found:
                replica.pause = min(replica.pause * 2, LONGEST_PAUSE)
                replica.due = now + replica.pause
            return found

    def now(self) -> float:
        """The clock."""
        return self._clock()

    def status(self) -> list[ReplicaStatus]:
        """All replicas."""
        with self._lock:
            return [
                ReplicaStatus(str(replica.target), "ejected" if replica.is_ejected else "ready", replica.runs)
                for replica in self._replicas
            ]
