"""Rows of an async iterable: a task reads some ahead, so that they are looked up together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable
from typing import Any

from agentmatrix.dataset.reader_thread import raisable
from agentmatrix.dataset.row import SourceRow, row_of

__all__ = ["AsyncSource"]

_LONGEST_READ = 0.005
"""Seconds after which a source that never awaits lets the event loop go on."""


class AsyncSource:
    """Rows of an async iterable.

    One task reads it from the first row to `aclose`, as timeouts and task groups around a `yield` need it.

    Args:
        given: the async iterable.
    """

    name = "iterable"

    def __init__(self, given: AsyncIterable[Any]) -> None:
        self._rows = aiter(given)
        self._reading: asyncio.Task[None] | None = None
        self._read: list[SourceRow] = []
        """Rows that nobody has taken yet."""
        self._count = 0
        self._most = 0
        """How many rows the iterable may be asked for, of which `_count` were read."""
        self._is_wanted, self._has_arrived = asyncio.Event(), asyncio.Event()
        self._is_at_end = self._is_closed = False
        self._error: BaseException | None = None

    async def peek(self) -> dict[str, Any] | None:
        """The first row; None where there is none. It is still to come."""
        await self._arrival(1)
        columns = self._read[0].columns if self._read else None
        return columns if isinstance(columns, dict) else None

    async def next_rows(self, most: int) -> list[SourceRow]:
        """The rows that are there, one at least; none at the end. So many at most are read, also until the next call.

        Raises:
            Exception: of the iterable, when the rows before it were taken.
        """
        await self._arrival(most)
        rows, self._read = self._read, []
        return rows

    def close(self) -> None:
        """Read no more; where the iterable is waited for, it is cancelled."""
        if not self._is_closed:
            self._is_closed = True
            if self._reading is not None:
                self._reading.cancel()

    async def aclose(self) -> None:
        """Read no more; returns when the iterable is closed."""
        self.close()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _arrival(self, most: int) -> None:
        """Wait for a row or the end."""
        self._most = self._count - len(self._read) + most
        self._is_wanted.set()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_and_close())
        while not self._read and not self._is_at_end:
            self._has_arrived.clear()
            await self._has_arrived.wait()
        if self._error is not None and not self._read:
            raise self._error

    async def _read_and_close(self) -> None:
        try:
            await self._read_rows()
        except (Exception, asyncio.CancelledError) as error:
            if not self._is_closed:
                self._error = raisable(error)
            elif isinstance(error, Exception):
                self._tell(error)
        finally:
            self._is_at_end = True
            self._has_arrived.set()
        if (aclose := getattr(self._rows, "aclose", None)) is not None:
            try:
                await aclose()
            except Exception as error:
                self._tell(error)

    async def _read_rows(self) -> None:
        ends = time.monotonic() + _LONGEST_READ
        async for columns in self._rows:
            self._count += 1
            self._read.append(row_of(columns, self._count))
            self._has_arrived.set()
            while self._count >= self._most and not self._is_closed:
                self._is_wanted.clear()
                await self._is_wanted.wait()
            if self._is_closed:
                # It has caught the cancellation.
                return
            if time.monotonic() > ends:
                await asyncio.sleep(0)
                ends = time.monotonic() + _LONGEST_READ

    def _tell(self, error: Exception) -> None:
        """An iterable that cannot be closed ends no run, as asyncio has it for generators."""
        message = "the async iterable of rows could not be closed"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
