"""A readers-writer lock for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["ReadersWriterLock"]


class ReadersWriterLock:
    """A lock that many share, or that one has alone. Who waits to be alone goes before those that come later."""

    def __init__(self) -> None:
        self._shared_by = 0
        self._entry = asyncio.Lock()
        self._is_free = asyncio.Event()
        self._is_free.set()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Hold it with others."""
        async with self._entry:
            self._shared_by += 1
            self._is_free.clear()
        try:
            yield
        finally:
            self._shared_by -= 1
            if not self._shared_by:
                self._is_free.set()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold it alone."""
        async with self._entry:
            await self._is_free.wait()
            yield
