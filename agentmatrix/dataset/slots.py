"""How many rows are run at the same time: as many as there may be, and fewer for a while after a provider's 429."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Slots"]

_FIRST_COOL_DOWN = 1.0
_LONGEST_COOL_DOWN = 60.0
_ROWS_FOR_A_SLOT = 4
"""Rows that have to end well before a slot is added again."""


class Slots:
    """The slots of one run, for one event loop.

    Args:
        most: how many there are.
        time: the loop's clock. Handlers of callbacks read it in other threads, too.
    """

    def __init__(self, most: int, time: Callable[[], float]) -> None:
        self.limit = self._most = most
        self.used = 0
        self._time = time
        self._cooled_at = 0.0
        self._cooling_since = 0.0
        self._next_cool_down = _FIRST_COOL_DOWN
        self._ended_well = 0
        self._first: deque[asyncio.Future[None]] = deque()
        self._then: deque[asyncio.Future[None]] = deque()

    @property
    def cool_down(self) -> float:
        """Seconds until models may be called again; 0 where they may be."""
        return max(0.0, self._cooled_at - self._time())

    async def acquire(self, *, again: bool = False) -> float:
        """Take a slot.

        Args:
            again: for a row that has had one: it comes before new rows.

        Returns:
            When it was taken, by the loop's clock.
        """
        waiting = self._first if again else self._then
        while self.used >= self.limit or self.cool_down or (self._first and not again):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._wake()
                raise
            finally:
                if future in waiting:
                    waiting.remove(future)
        self.used += 1
        return self._time()

    def release(self) -> None:
        """Give a slot back."""
        self.used -= 1
        self._wake()

    def ended_well(self) -> None:
        """A row has ended without a 429."""
        if self.limit < self._most and not self.cool_down:
            self._ended_well += 1
            if self._ended_well >= _ROWS_FOR_A_SLOT:
                self._ended_well = 0
                self.limit += 1
                self._next_cool_down = _FIRST_COOL_DOWN
                self._wake()

    def rate_limited(self, began: float, wait: float | None) -> None:
        """A provider has said 429: nobody calls it for a while, and half of the slots are left.

        Args:
            began: when the attempt began: those that were under way already do not count again.
            wait: the seconds that it asked for, if it did.
        """
        now = self._time()
        if began >= self._cooling_since or not self._cooled_at:
            self._cooling_since = now
            self.limit = max(1, self.limit // 2)
            self._ended_well = 0
            seconds = self._next_cool_down if wait is None else wait
            self._next_cool_down = min(self._next_cool_down * 2, _LONGEST_COOL_DOWN)
        else:
            seconds = wait or 0.0
        self._cooled_at = max(self._cooled_at, now + seconds)
        asyncio.get_running_loop().call_later(self._cooled_at - now, self._wake)

    def _wake(self) -> None:
        """Let those try whose turn it may be."""
        if self.cool_down:
            # A timer may come a little early.
            asyncio.get_running_loop().call_later(self.cool_down, self._wake)
            return
        free = self.limit - self.used
        for waiting in (self._first, self._then):
            while free > 0 and waiting:
                future = waiting.popleft()
                if not future.done():
                    future.set_result(None)
                    free -= 1
