"""Settled rows to the output and the progress file: what has come together is written together, off the loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from agentmatrix.dataset.output_file import MemoryOutput, OutputFile
from agentmatrix.dataset.progress_file import ProgressFile
from agentmatrix.dataset.row import DatasetRow, InputPosition
from agentmatrix.dataset.settled_row import SettledRow

__all__ = ["RowWriter"]


class RowWriter:
    """Writes settled rows, one group after the other.

    A row is in the output and settled in the progress file, or neither. That it begins is written before it does: so a
    row that ends this process is known to the next.

    Args:
        output: the lines.
        progress: the progress file.
        in_input_order: lines wait in the progress file until all rows before them are settled.
    """

    def __init__(self, output: OutputFile | MemoryOutput, progress: ProgressFile, *, in_input_order: bool) -> None:
        self._output, self._progress = output, progress
        self._in_input_order = in_input_order
        self._pending = _Batch()
        self._has_pending = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, "agentmatrix-progress")
        self.in_flight: dict[str, DatasetRow] = {}
        """The rows that are run or not on disk yet, in the order in which they were begun."""
        self.position = InputPosition()
        """Where the input stands behind all rows that were begun."""
        self.error: BaseException | None = None
        """Why it has ended."""

    async def begin(self, row: DatasetRow) -> None:
        """Write that a row begins; it is written when this returns."""
        if self._progress.path is not None:
            self._pending.begun.append(row.id)
            await self._written()

    async def settle(self, settled: SettledRow) -> None:
        """Write a row as soon as possible; it is on disk when this returns."""
        self._pending.settled.append(settled)
        await self._written()

    def _written(self) -> asyncio.Future[None]:
        self._has_pending.set()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.waiting.append(written)
        return written

    async def run(self) -> None:
        """Write what comes, until it is cancelled. An error ends it."""
        while True:
            await self._has_pending.wait()
            await self.write()

    async def write(self) -> None:
        """Write what has come.

        Raises:
            DatasetError: the output cannot be written.
        """
        batch, self._pending = self._pending, _Batch()
        self._has_pending.clear()
        ids = {settled.row.id for settled in batch.settled}
        first = next((row for id, row in self.in_flight.items() if id not in ids), None)
        position = self.position if first is None else first.before
        # Shielded: who is cancelled in the middle must find in memory what is on disk.
        writing = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(self._executor, self._write, batch, position)
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            self._note(batch, writing)
            raise
        except BaseException as error:
            self.error = error
            raise
        self._note(batch, writing)

    def _note(self, batch: _Batch, writing: asyncio.Future[None]) -> None:
        if writing.exception() is None:
            for settled in batch.settled:
                self.in_flight.pop(settled.row.id, None)
            for written in batch.waiting:
                if not written.done():
                    written.set_result(None)

    async def close(self) -> None:
        """Write what is left, and end the thread that writes. No row is at work any more."""
        try:
            if self.error is None:
                await self.write()
        finally:
            # Also where nothing else can be written: else rows would be taken for the reason of a crash.
            self._executor.submit(self._progress.end_begun)
            self._executor.shutdown()

    def _write(self, batch: _Batch, position: InputPosition) -> None:
        if batch.begun and not batch.settled:
            self._progress.begin(batch.begun)
            return
        if not self._in_input_order:
            held: list[SettledRow] = []
            lines = [line for settled in batch.settled for line in settled.lines]
            released = None
        else:
            released = position.number
            held = [settled for settled in batch.settled if settled.lines and settled.row.number >= released]
            waited = self._progress.held_lines(released)
            order = count(1)
            ready: list[tuple[int, int, int, bytes]] = [(number, n, 0, text) for number, n, text in waited]
            ready += [
                (settled.row.number, settled.row.repetition, next(order), b"".join(settled.lines))
                for settled in batch.settled
                if settled.lines and settled.row.number < released
            ]
            lines = [text for *_, text in sorted(ready)]
        length = self._output.append(lines)
        # Where this fails, the next run cuts the output to the length that is recorded.
        self._progress.commit(
            batch.settled, held, released, begun=batch.begun, length=length, position=position.as_dict()
        )


@dataclass(slots=True)
class _Batch:
    """What is written together, and who waits for it."""

    begun: list[str] = field(default_factory=list)
    settled: list[SettledRow] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
