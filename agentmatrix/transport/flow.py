"""How much may be under way, and how much may be held: the bounds of a connection in bytes, free of I/O.

Three bounds, since each protects something else. `BytesInFlight` bounds what was written and not yet read by the peer,
by the time that it takes: so pings pass on a slow link. `CreditGrant` bounds what a peer may send in one run and the
session has not consumed: so a slow reader slows its run, and no other. `ByteBudget` bounds what a run, a caller and a
process hold in all, whatever peers announce.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

__all__ = ["RUN_CREDIT", "ByteBudget", "CreditGrant", "BytesInFlight", "BudgetExceeded"]

MIB: Final = 1 << 20

RUN_CREDIT: Final = MIB
"""Bytes that each side may send in a run before it got any credit. Part of the protocol."""

_KEPT: Final = 5 * RUN_CREDIT // 8
_LEAST_IN_FLIGHT: Final = 128 * 1024
_FIRST_IN_FLIGHT: Final = 256 * 1024
_MOST_IN_FLIGHT: Final = 32 * MIB
_QUICK, _SLOW = 0.25, 1.0
"""Seconds until written bytes have been read, below which more, above which fewer may be under way."""


class BytesInFlight:
    """How many bytes of messages may be under way. Grows while they are read quickly, shrinks when they are not.

    Not thread-safe: the outbox that uses it has a lock.
    """

    def __init__(self) -> None:
        self.most = _FIRST_IN_FLIGHT
        self._written = self._read = 0
        self._times: deque[tuple[int, float]] = deque()

    @property
    def room(self) -> int:
        """Bytes that may still be written."""
        return self.most - (self._written - self._read)

    @property
    def idle(self) -> bool:
        """Whether the peer has read all."""
        return self._written == self._read

    def write(self, size: int, now: float) -> None:
        """A message is written."""
        self._written += size
        self._times.append((self._written, now))

    def read(self, received: int, now: float) -> None:
        """The peer says how much it has read in all. Numbers that cannot be are ignored."""
        if not self._read < received <= self._written:
            return
        took, progress = 0.0, received - self._read
        was_full = self._written - self._read >= self.most // 2
        self._read = received
        while self._times and self._times[0][0] <= received:
            took = now - self._times.popleft()[1]
        if took > _SLOW:
            self.most = max(_LEAST_IN_FLIGHT, self.most // 2)
        elif took < _QUICK and was_full:
            self.most = min(_MOST_IN_FLIGHT, self.most + progress)

    def restart(self, received: int) -> None:
        """A new line, on which nothing is under way, goes on behind what the peer has read in all."""
        self.most = _FIRST_IN_FLIGHT
        self._written = self._read = received
        self._times.clear()


class CreditGrant:
    """The credit that this side gives to a peer in one run. Not thread-safe.

    A large frame, for which a budget has room, is granted when it is announced, so that one run can fill a long link;
    all but the last of it, so that a sender who looks for half of its credit waits until the frame is consumed. A
    second one is granted when the first is consumed.

    Attributes:
        received: bytes that have arrived.
        granted: bytes that may arrive in all.
    """

    __slots__ = ("_ahead", "_held", "_owed", "granted", "received")

    def __init__(self) -> None:
        self.received, self.granted = 0, RUN_CREDIT
        self._owed = 0
        self._held = 0
        """Bytes of large fields that are announced and not consumed."""
        self._ahead = 0
        """Those of them that are not granted yet."""

    def receive(self, size: int) -> bool:
        """Bytes arrive; returns False where the peer had no credit for them."""
        allowed = self.received < self.granted
        self.received += size
        return allowed

    def announce(self, bulk: int) -> None:
        """A frame is to bring `bulk` bytes of large fields."""
        alone, self._held, self._ahead = not self._held, self._held + bulk, self._ahead + bulk
        if alone:
            self._settle()

    def consume(self, size: int, bulk: int = 0) -> None:
        """A frame of `size` bytes, with `bulk` bytes of large fields besides, has been consumed."""
        self._owed += size
        if bulk:
            self._held -= bulk
            self._settle()

    def due(self) -> int:
        """The credit to tell the peer; 0 while it is not worth a frame."""
        if self._owed < RUN_CREDIT // 4:
            return 0
        self.granted += self._owed
        self._owed = 0
        return self.granted

    def _settle(self) -> None:
        kept = min(self._ahead, _KEPT) if self._held else 0
        self._owed += self._ahead - kept
        self._ahead = kept


class BudgetExceeded(Exception):
    """Bytes that a budget does not allow; the text says which budget."""


class ByteBudget:
    """Bytes that may be held, within a wider budget. Thread-safe.

    Args:
        limit: bytes.
        what: what holds them, for the error: `"the host holds"`.
        option: where the limit is set, for the error.
        within: a wider budget, which counts them as well.
    """

    __slots__ = ("_limit", "_lock", "_option", "_what", "_within", "held")

    def __init__(self, limit: int, what: str, option: str, within: ByteBudget | None = None) -> None:
        self._limit, self._what, self._option, self._within = limit, what, option, within
        self._lock = threading.Lock()
        self.held = 0

    def take(self, size: int) -> None:
        """Bytes are to be held.

        Raises:
            BudgetExceeded: there is no room for them, here or in a wider budget; nothing was taken.
        """
        with self._lock:
            if self.held + size > self._limit:
                raise BudgetExceeded(
                    f"{self._what} {self.held:,} bytes, and {size:,} more are over its {self._limit:,} ({self._option})"
                )
            self.held += size
        if self._within is not None:
            try:
                self._within.take(size)
            except BudgetExceeded:
                self._give_back(size)
                raise

    def give(self, size: int) -> None:
        """Bytes are held no more."""
        self._give_back(size)
        if self._within is not None:
            self._within.give(size)

    def _give_back(self, size: int) -> None:
        with self._lock:
            self.held -= size
