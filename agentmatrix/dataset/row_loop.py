"""The loop over rows: a row is begun when a slot is free, and no row waits for another."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentmatrix.dataset.columns import awaited
from agentmatrix.dataset.completed_row import CompletedRow, completed_row
from agentmatrix.dataset.output_file import MemoryOutput, OutputFile
from agentmatrix.dataset.progress_file import CrashRecord, ProgressFile
from agentmatrix.dataset.report import Ended
from agentmatrix.dataset.row import DatasetRow, InputPosition
from agentmatrix.dataset.row_reader import RowChunk, RowReader
from agentmatrix.dataset.row_runner import NonRetryableError, RowRunner
from agentmatrix.dataset.row_usage import Prices, cost_of
from agentmatrix.dataset.row_writer import RowWriter
from agentmatrix.dataset.settled_row import SettledRow
from agentmatrix.dataset.slots import Slots
from agentmatrix.errors import DatasetError, TooManyFailures

__all__ = ["RowLoop", "Limits"]

_ROWS_BEFORE_FAILURES_COUNT = 20
_DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Limits:
    """When no row is begun any more; the attributes are the arguments of `refine`."""

    budget: float | None = None
    prices: Prices | None = None
    max_failures: float = 0.5
    max_crashes: int = 3
    grace: float = 60.0


class RowLoop:
    """Runs the rows of a reader.

    Args:
        reader: the rows.
        slots: how many are run at the same time.
        hosts_away: tells how many hosts are waited for.
        output: where their lines go.
        progress: the progress file.
        limits: when it ends before the input does.
        in_input_order: the output has the order of the input.
        answers: rows that are paused and are run again, by their ids.
        crashes: rows that were at work when earlier processes crashed, by their ids.
        on_row: called with each row that is settled and on disk.
    """

    def __init__(
        self,
        reader: RowReader,
        slots: Slots,
        hosts_away: Callable[[], int],
        output: OutputFile | MemoryOutput,
        progress: ProgressFile,
        limits: Limits,
        *,
        in_input_order: bool,
        answers: Mapping[str, Any],
        crashes: Mapping[str, CrashRecord],
        on_row: Callable[[CompletedRow], Any] | None,
    ) -> None:
        self.slots, self.hosts_away, self.progress = slots, hosts_away, progress
        self._reader, self._limits, self._answers = reader, limits, answers
        self._writer = RowWriter(output, progress, in_input_order=in_input_order)
        self._crashes, self._on_row = crashes, on_row
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeding: asyncio.Task[None] | None = None
        self._ended: Ended = "input"
        self._failure: BaseException | None = None
        self._duplicates = 0
        self.began = time.monotonic()
        self.counts: Counter[str] = Counter(progress.counts)
        self.settled_now: Counter[str] = Counter()
        """The rows that this run has settled, by status."""
        self.usage: dict[str, tuple[int, int]] = {m: (i, o) for m, (i, o) in progress.usage.items()}
        self.cost = cost_of(self.usage, limits.prices)

    @property
    def position(self) -> InputPosition:
        """Where the input stands behind all rows that were begun."""
        return self._writer.position

    @property
    def has_prices(self) -> bool:
        """Whether the cost is known."""
        return self._limits.prices is not None

    @property
    def in_flight(self) -> int:
        """How many rows are run."""
        return len(self._writer.in_flight)

    @property
    def tokens(self) -> int:
        """Input and output tokens of all models."""
        return sum(given + made for given, made in self.usage.values())

    def drain(self) -> None:
        """Begin no row any more; those under way have `grace` seconds to end."""
        self._stop("interrupted")
        asyncio.get_running_loop().call_later(self._limits.grace, self.cancel)

    def cancel(self) -> None:
        """End the rows that are under way. They are left, and run again the next time."""
        self._stop("interrupted")
        for task in self._tasks:
            task.cancel()

    async def run(self, runner: RowRunner, start: InputPosition) -> Ended:
        """Run all rows.

        Args:
            runner: runs one of them.
            start: where the input stands.

        Returns:
            Why it ended.

        Raises:
            DatasetError: the input cannot be read on, or the output cannot be written; what is done is kept.
            TooManyFailures: as its name says.
            Exception: of a row, where no row can succeed.
        """
        self._writer.position = start
        self._duplicates = start.duplicates
        self._feeding = asyncio.create_task(self._feed(runner))
        writing = asyncio.create_task(self._writer.run())
        writing.add_done_callback(lambda task: None if task.cancelled() else self._fail(task.exception()))
        try:
            await asyncio.wait([self._feeding])
            while self._tasks:
                await asyncio.wait(self._tasks)
            if not self._feeding.cancelled():
                self._feeding.result()
        finally:
            # Also where this run is cancelled: its rows end, and what was done stays.
            ours = [self._feeding, writing, *self._tasks]
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            await self._writer.close()
        if self._failure is not None:
            raise self._failure
        return self._ended

    async def _feed(self, runner: RowRunner) -> None:
        coming = asyncio.create_task(self._reader.next_chunk())
        try:
            while True:
                chunk = await coming
                if not chunk.is_last:
                    coming = asyncio.create_task(self._reader.next_chunk())
                await self._begin(chunk, runner)
                if chunk.is_last:
                    if self._reader.is_at_limit:
                        self._ended = "limit"
                    return
        finally:
            coming.cancel()
            self._reader.close()
            await asyncio.gather(coming, return_exceptions=True)

    async def _begin(self, chunk: RowChunk, runner: RowRunner) -> None:
        """Begin the rows of a chunk that are no duplicates, each as soon as there is a slot."""
        rows, behind = chunk.rows, chunk.behind
        for index, (row, status) in enumerate(zip(rows, self._known(rows), strict=True), 1):
            if status == _DUPLICATE:
                self._duplicates += row.repetition == 0
                continue
            row.before = self._with_duplicates(row.before)
            is_suspect = row.id in self._crashes and self._crashes[row.id].count >= self._limits.max_crashes - 1
            await (self._run_alone if is_suspect else self._begin_row)(row, status, runner)
            self._writer.position = self._with_duplicates(rows[index].before if index < len(rows) else behind)
        self._writer.position = self._with_duplicates(behind)

    async def _begin_row(self, row: DatasetRow, status: str, runner: RowRunner) -> asyncio.Task[None]:
        began = await self.slots.acquire()
        if self._is_over_budget():
            self.slots.release()
            self._stop("budget")
            # The cancellation arrives here.
            await asyncio.sleep(0)
        self._writer.in_flight[row.id] = row
        task = asyncio.create_task(self._run_row(row, runner, began, status))
        self._tasks.add(task)
        task.add_done_callback(self._on_row_end)
        return task

    async def _run_alone(self, row: DatasetRow, status: str, runner: RowRunner) -> None:
        """Run a row while no other one is at work: if the process crashes again it is known for which."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.wait([await self._begin_row(row, status, runner)])

    def _with_duplicates(self, position: InputPosition) -> InputPosition:
        """The reader does not know of duplicates: it keeps no ids."""
        return position if position.duplicates == self._duplicates else position._replace(duplicates=self._duplicates)

    def _known(self, rows: list[DatasetRow]) -> list[str]:
        """What is known of each row of a chunk: its status before, or `_DUPLICATE`; empty for a new one.

        Raises:
            DatasetError: two rows have one id and different content.
        """
        recorded = self.progress.recorded([row.id for row in rows]) if rows else {}
        first: dict[str, DatasetRow] = {}
        known = []
        for row in rows:
            twin = first.setdefault(row.id, self._writer.in_flight.get(row.id, row))
            if twin is not row:
                if twin.digest != row.digest:
                    raise DatasetError(_has_other_content(row, twin.name))
                known.append(_DUPLICATE)
                continue
            _, _, number, digest, status = recorded.get(row.id, ("", 0, row.number, row.digest, ""))
            # A failed row may have been corrected meanwhile.
            if status in ("", "again") or (status == "paused" and row.id in self._answers):
                known.append(status)
            elif digest == row.digest:
                # Where an earlier run has settled it, it would not have been read.
                known.append(_DUPLICATE)
            elif number == row.number:
                raise DatasetError(
                    f"{row.name} (id {row.id!r}) has changed since it was run: restart, or give it another id"
                )
            else:
                before = self.progress.name(row.id)
                raise DatasetError(
                    f"{_has_other_content(row, before)}, or restart where it was {before} and has changed"
                )
        return known

    async def _run_row(self, row: DatasetRow, runner: RowRunner, began: float, previous: str) -> None:
        try:
            settled = self._tombstone(row)
            if settled is None:
                await self._writer.begin(row)
                settled = await runner.run(row, began)
        except NonRetryableError as hopeless:
            error = hopeless.__cause__ or hopeless
            error.add_note(f"no row can succeed: {row.name} (id {row.id!r}) ended so")
            self._fail(error)
            return
        settled.previous = previous
        self._count(settled)
        # It keeps its slot until it is on disk: so many rows at most are run again after a kill.
        await self._writer.settle(settled)
        if self._on_row is not None:
            await awaited(self._on_row(completed_row(settled)))
        self.slots.release()

    def _tombstone(self, row: DatasetRow) -> SettledRow | None:
        """What becomes of a row that has crashed the process too often; None for all others."""
        crashes = self._crashes.get(row.id)
        if crashes is None or not crashes.was_alone or crashes.count < self._limits.max_crashes:
            return None
        return SettledRow(
            row,
            "tombstoned",
            attempts=crashes.count,
            error_type="WorkerCrashedError",
            error_text=f"the process ended {crashes.count} times while it ran this row, at last this one alone",
        )

    def _count(self, settled: SettledRow) -> None:
        self.counts[settled.status] += 1
        self.settled_now[settled.status] += 1
        if settled.previous and settled.previous != "again":
            self.counts[settled.previous] -= 1
        if settled.status in ("done", "rejected"):
            self.slots.ended_well()
        for model, (given, made) in settled.usage.items():
            before = self.usage.get(model, (0, 0))
            self.usage[model] = (before[0] + given, before[1] + made)
        try:
            self.cost = cost_of(self.usage, self._limits.prices)
        except DatasetError as error:
            self._fail(error, at_once=False)
        failures = self.settled_now["failed"] + self.settled_now["tombstoned"]
        settled_now = self.settled_now.total()
        if settled_now >= _ROWS_BEFORE_FAILURES_COUNT and failures >= self._limits.max_failures * settled_now:
            last = f"the last with {settled.error_type}: {settled.error_text}" if settled.error_type else "see failures"
            self._fail(
                TooManyFailures(f"{failures} of {settled_now} rows have failed, {last} (max_failures)"), at_once=False
            )

    def _on_row_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())

    def _is_over_budget(self) -> bool:
        if self._limits.budget is None:
            return False
        spent = self.tokens if self._limits.prices is None else self.cost
        return spent >= self._limits.budget

    def _stop(self, why: Ended) -> None:
        """Begin no row any more."""
        if self._ended == "input":
            self._ended = why
        if self._feeding is not None:
            self._feeding.cancel()

    def _fail(self, error: BaseException | None, *, at_once: bool = True) -> None:
        """End with an error; `at_once` the rows under way, too, which can come to nothing."""
        if self._failure is None:
            self._failure = error
        if at_once:
            self.cancel()
        else:
            self.drain()


def _has_other_content(row: DatasetRow, twin: str) -> str:
    return f"{row.name} has the id {row.id!r} of {twin} and other content: give each row an id of its own"
