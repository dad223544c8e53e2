"""Settled rows to the output and the progress file: what has come together is written together, off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from agentmatrix.dataset.output_file import MemoryOutput, OutputFile
from agentmatrix.dataset.progress_file import ProgressFile
from agentmatrix.dataset.row import DatasetRow, Place
from agentmatrix.dataset.settled_row import SettledRow

__all__ = ["Commits"]


class Commits:
    """Writes settled rows, one group after the other.

    A row is in the output and settled in the progress file, or neither.

    Args:
        output: the lines.
        progress: the progress file.
        in_input_order: lines wait in the progress file until all rows before them are settled.
        on_commit: called on the loop for each row that is on disk.
    """

    def __init__(
        self,
        output: OutputFile | MemoryOutput,
        progress: ProgressFile,
        *,
        in_input_order: bool,
        on_commit: Callable[[SettledRow], None],
    ) -> None:
        self._output, self._progress = output, progress
        self._in_input_order, self._on_commit = in_input_order, on_commit
        self._pending: list[SettledRow] = []
        self._has_pending = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, "agentmatrix-progress")
        self.in_flight: dict[str, DatasetRow] = {}
        """The rows that are run or not on disk yet, in the order in which they were begun."""
        self.place = Place()
        """Where the input stands behind all rows that were begun."""
        self.error: BaseException | None = None
        """Why it has ended."""

    def add(self, settled: SettledRow) -> None:
        """Write a row as soon as possible."""
        self._pending.append(settled)
        self._has_pending.set()

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
        batch, self._pending = self._pending, []
        self._has_pending.clear()
        ids = {settled.row.id for settled in batch}
        first = next((row for id, row in self.in_flight.items() if id not in ids), None)
        place = self.place if first is None else first.before
        # Shielded: who is cancelled in the middle must find in memory what is on disk.
        writing = asyncio.ensure_future(
            asyncio.get_running_loop().run_in_executor(self._executor, self._write, batch, place)
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

    def _note(self, batch: list[SettledRow], writing: asyncio.Future[None]) -> None:
        if writing.exception() is None:
            for settled in batch:
                self.in_flight.pop(settled.row.id, None)
                self._on_commit(settled)

    def close(self) -> None:
        """End the thread that writes."""
        self._executor.shutdown()

    def _write(self, batch: list[SettledRow], place: Place) -> None:
        if not self._in_input_order:
            held: list[SettledRow] = []
            lines = [line for settled in batch for line in settled.lines]
            released = None
        else:
            released = place.number
            held = [settled for settled in batch if settled.lines and settled.row.number >= released]
            waited = self._progress.held_lines(released)
            order = count(1)
            ready: list[tuple[int, int, int, bytes]] = [(number, n, 0, text) for number, n, text in waited]
            ready += [
                (settled.row.number, settled.row.repetition, next(order), b"".join(settled.lines))
                for settled in batch
                if settled.lines and settled.row.number < released
            ]
            lines = [text for *_, text in sorted(ready)]
        length = self._output.append(lines)
        # Where this fails, the next run cuts the output to the length that is recorded.
        self._progress.commit(batch, held, released, length=length, place=place.as_dict())
