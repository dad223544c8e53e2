"""How a run shows itself while it works: a line that is kept up to date, a line now and then, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from agentmatrix.dataset.reader_thread import ReaderThread
from agentmatrix.dataset.report import STATUSES
from agentmatrix.dataset.row import InputPosition
from agentmatrix.dataset.row_loop import RowLoop

__all__ = ["Display", "PeriodicDisplay", "ProgressSnapshot", "display_of"]

CountRows = Callable[[InputPosition], int | None]

_TERMINAL_SECONDS = 0.5
_LINE_SECONDS = 30.0


class Display(Protocol):
    """Shows a run."""

    def showing(self, row_loop: RowLoop, count_rows: CountRows) -> AbstractContextManager[None]:
        """Show it while the context is open.

        Args:
            row_loop: the run.
            count_rows: how many rows are behind a position of the input.
        """


class ProgressSnapshot:
    """The numbers of a run at one moment.

    Args:
        row_loop: the run.
        unread: the rows that are not begun; None where that is unknown.
    """

    def __init__(self, row_loop: RowLoop, unread: int | None) -> None:
        self.counts = {status: row_loop.counts[status] for status in STATUSES}
        self.settled = sum(self.counts.values())
        self.total = None if unread is None else self.settled + row_loop.in_flight + unread
        seconds = time.monotonic() - row_loop.began
        self.rows_per_second = row_loop.settled_now.total() / seconds if seconds else 0.0
        self.tokens = row_loop.tokens
        self.cost = row_loop.cost if row_loop.has_prices else None
        self.slots = row_loop.slots.limit
        self.cool_down = row_loop.slots.cool_down
        self.hosts_away = row_loop.hosts_away()
        left = None if self.total is None else self.total - self.settled
        self.seconds_left = left / self.rows_per_second if left is not None and self.rows_per_second else None

    def as_text(self) -> str:
        """In one line."""
        parts = [f"{self.settled:,}" + (" rows" if self.total is None else f" of {self.total:,} rows")]
        parts += [f"{n:,} {status}" for status, n in self.counts.items() if n and status != "done"]
        parts.append(f"{self.rows_per_second:.3g} rows/s")
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        if self.cost is not None:
            parts.append(f"cost {self.cost:.4g}")
        if self.seconds_left is not None:
            parts.append(f"{_duration(self.seconds_left)} left")
        if self.cool_down:
            parts.append(f"cooling down for {self.cool_down:.0f} s, then {self.slots} at a time")
        if self.hosts_away:
            parts.append(f"waiting for {self.hosts_away} host{'s' if self.hosts_away > 1 else ''} to come back")
        return ", ".join(parts)


class PeriodicDisplay:
    """Hands a snapshot to a function now and then.

    Args:
        seconds: how often.
        show: what is called.
    """

    def __init__(self, seconds: float, show: Callable[[ProgressSnapshot], object]) -> None:
        self._seconds, self._show = seconds, show

    @contextlib.contextmanager
    def showing(self, row_loop: RowLoop, count_rows: CountRows) -> Iterator[None]:
        """See `Display`."""
        task = asyncio.create_task(self._run(row_loop, count_rows))
        try:
            yield
        finally:
            task.cancel()

    async def _run(self, row_loop: RowLoop, count_rows: CountRows) -> None:
        rows: int | None = None
        start = row_loop.position
        counter = ReaderThread()
        counting = asyncio.create_task(counter.call(lambda: count_rows(start)))
        try:
            while True:
                await asyncio.sleep(self._seconds)
                if counting.done() and not counting.exception() and (behind := counting.result()) is not None:
                    rows = start.number + behind
                unread = None if rows is None else max(0, rows - row_loop.position.number)
                self._show(ProgressSnapshot(row_loop, unread))
        finally:
            counting.cancel()
            counter.close()


class TerminalDisplay:
    """A line on stderr that is kept up to date."""

    @contextlib.contextmanager
    def showing(self, row_loop: RowLoop, count_rows: CountRows) -> Iterator[None]:
        """See `Display`."""
        with Live(Text(""), console=Console(stderr=True), auto_refresh=False) as live:
            show = PeriodicDisplay(_TERMINAL_SECONDS, lambda now: live.update(Text(now.as_text()), refresh=True))
            with show.showing(row_loop, count_rows):
                yield


class Silent:
    """Shows nothing."""

    def showing(self, row_loop: RowLoop, count_rows: CountRows) -> AbstractContextManager[None]:
        """See `Display`."""
        return contextlib.nullcontext()


def display_of(wanted: bool | Display) -> Display:
    """The display that was asked for; True is a line on a terminal, and else one every half minute."""
    if not isinstance(wanted, bool):
        return wanted
    if not wanted:
        return Silent()
    if sys.stderr.isatty():
        return TerminalDisplay()
    return PeriodicDisplay(_LINE_SECONDS, lambda now: print(now.as_text(), file=sys.stderr, flush=True))  # noqa: T201


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
