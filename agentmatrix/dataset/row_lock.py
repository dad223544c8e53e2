"""The lock that lets a row run alone: a readers-writer lock for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["RowLock"]


class RowLock:
    """Rows run together, or one of them alone. One that waits to be alone goes before those that come after it."""

    def __init__(self) -> None:
        self._running = 0
        self._alone = asyncio.Lock()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def held(self, *, alone: bool) -> AsyncIterator[None]:
        """A row runs.

        Args:
            alone: no other row runs meanwhile.
        """
        await self._alone.acquire()
        try:
            while alone and self._running:
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._running)
            self._running += 1
        finally:
            if not alone:
                self._alone.release()
        try:
            yield
        finally:
            self._running -= 1
            if alone:
                self._alone.release()
            async with self._changed:
                self._changed.notify_all()
