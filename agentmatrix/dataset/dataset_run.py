"""One run over a dataset: its input, output and progress file are opened and checked, its rows run, its report made."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from agentmatrix.dataset.async_source import AsyncSource
from agentmatrix.dataset.columns import check_columns
from agentmatrix.dataset.completed_row import CompletedRow
from agentmatrix.dataset.earlier_rows import EarlierRows
from agentmatrix.dataset.interrupted import on_interrupt
from agentmatrix.dataset.output_file import MemoryOutput, OutputFile
from agentmatrix.dataset.progress_display import Display
from agentmatrix.dataset.progress_file import ProgressFile
from agentmatrix.dataset.ray_hosts import Ray, RayHosts
from agentmatrix.dataset.report import Ended, Report
from agentmatrix.dataset.row import InputPosition
from agentmatrix.dataset.row_agent import row_agent
from agentmatrix.dataset.row_loop import Limits, RowLoop
from agentmatrix.dataset.row_reader import ReadOptions, RowReader
from agentmatrix.dataset.row_runner import RowRunner, RunOptions
from agentmatrix.dataset.settings import check_answers, check_same_settings, described, schema_digest
from agentmatrix.dataset.slots import Slots
from agentmatrix.dataset.sources import FileSource, open_source
from agentmatrix.errors import DatasetError, TooManyFailures
from agentmatrix.remote import RemoteAgent
from agentmatrix.remote.remote_agent import with_replicas

__all__ = ["DatasetRun"]

_MOST_FAILURES = 1000
_DEFAULT_ID = "id"


@dataclass
class DatasetRun:
    """A run; the attributes are the arguments of `refine`."""

    agents: Sequence[Any]
    source: Any
    output: Path | None
    progress: Path | None
    reading: ReadOptions
    running: RunOptions
    limits: Limits
    in_input_order: bool
    max_concurrency: int
    engine: Ray | None = None

    async def open(self, stack: ExitStack, *, restart: bool, retry_failed: bool) -> None:
        """Open the files and check the settings. No agent is run.

        Args:
            stack: closes what is opened.
            restart: forget what is done.
            retry_failed: take up again what has failed.

        Raises:
            DatasetError: something cannot be used.
        """
        self._source = open_source(self.source)
        self._check_paths()
        self._hosts = None if self.engine is None else RayHosts(self.engine)
        self._agent = await row_agent(_one_agent(self.agents), self.running.context)
        check_columns(self.running.input, self._agent)
        self._id, self._is_empty = self.reading.id, False
        if self._id is None:
            first = await self._source.peek() if isinstance(self._source, AsyncSource) else self._source.peek()
            self._id = _DEFAULT_ID if first is not None and _DEFAULT_ID in first else None
            self._is_empty = first is None
        self._output = MemoryOutput() if self.output is None else OutputFile(self.output)
        stack.callback(self._output.close)
        path = self.progress or (self.output and self.output.with_name(self.output.name + ".progress"))
        existed = path is not None and path.exists()
        if isinstance(self._output, OutputFile) and path is not None and not existed:
            stack.push(partial(self._remove_unused, self._output, path))
        self._progress = ProgressFile(path if self.output is not None else None)
        stack.callback(self._progress.close)
        if restart:
            self._progress.clear()
        self._take_up(existed and not restart, restart)
        if retry_failed:
            self._progress.take_again()
        if self.running.answers:
            paused = {row.id for row in self._progress.failures() if row.status == "paused"}
            check_answers(self.running.answers, paused)
        if self._hosts is not None:
            # Last: it takes seconds.
            stack.callback(self._hosts.stop)
            self._agent = replace(self._agent, runnable=await self._hosts.start(self._agent))

    def _remove_unused(self, output: OutputFile, progress: Path, error: type[BaseException] | None, *_: Any) -> None:
        """Leave no new files where the run ends with an error and nothing is in them, as on a full disk."""
        # A row that has not ended may have begun a thread, whose id has the run's.
        is_used = hasattr(self, "_progress") and (self._progress.counts.total() or self._agent.checkpointer)
        if error is not None and not is_used:
            ProgressFile.remove(progress)
            if output.is_new:
                output.remove()

    def _check_paths(self) -> None:
        if self.output is None:
            return
        if isinstance(self._source, FileSource) and self.output.exists() and self.output.samefile(self._source.path):
            raise DatasetError(f"{self.output} is input and output: give another output")
        if not self.output.parent.is_dir():
            raise DatasetError(f"there is no folder {self.output.parent}")
        if self.output.is_dir():
            raise DatasetError(f"{self.output} is a folder: name a file in it")

    def _take_up(self, goes_on: bool, restart: bool) -> None:
        """Bring output and progress file to where they agree, and compare the settings."""
        output, progress = self._output, self._progress
        recorded = progress.get("settings")
        if self._is_empty and recorded is not None:
            self._id = recorded["id"]
        settings = self._settings()
        self.goes_on = goes_on and recorded is not None
        self._crashes = progress.count_crash()
        if not isinstance(output, OutputFile):
            return
        if recorded is None or not progress.counts.total():
            # Nobody has seen a row of it yet: settings may be corrected.
            if recorded is None and output.length and not restart:
                raise DatasetError(
                    f"{output.lines_path} exists and {progress.path} knows nothing of it: restart overwrites it, "
                    "or give another output"
                )
            output.cut(0)
            progress.set(settings=settings, length=0)
            return
        check_same_settings(recorded, settings, progress.counts.total(), output.path)
        length = progress.get("length", 0)
        if output.length < length:
            raise DatasetError(
                f"{output.lines_path} has {output.length} bytes, and {progress.path} says {length}: "
                "it was cut or replaced; restart, or put it back"
            )
        output.cut(length)

    def _settings(self) -> dict[str, Any]:
        reading, running = self.reading, self.running
        settings: dict[str, Any] = {"the input": self._source.name}
        for kind in ("input", "output"):
            settings[f"the graph's {kind} schema"] = schema_digest(self._agent.json_schemas.get(kind))
        settings |= {
            "id": described(self._id), "input": described(running.input), "result": described(running.result),
            "where": described(reading.where), "accept": described(running.accept), "repetitions": reading.repetitions,
            "order": "input" if self.in_input_order else "done", "shard": described(reading.shard),
        }  # fmt: skip
        return settings

    async def run(self, display: Display, on_row: Callable[[CompletedRow], Any] | None = None) -> Report:
        """Run the rows.

        Args:
            display: shows how far it is.
            on_row: called with each row that is settled.

        Returns:
            The report; it is attached to `TooManyFailures`, too.
        """
        if on_row is not None and isinstance(self._output, MemoryOutput):
            self._output.is_kept = False
        loop_time = _loop_time()
        slots = Slots(self.max_concurrency, loop_time)
        start = self._start()
        options = replace(self.running, id_column=self._id_column(), is_csv=_is_csv(self.output))
        earlier = EarlierRows(self._progress, start, options.answers) if self._progress.next_sequence else None
        reader = RowReader(self._source, start, earlier, replace(self.reading, id=self._id))
        row_loop = RowLoop(
            reader, slots, self._hosts_away, self._output, self._progress, self.limits,
            in_input_order=self.in_input_order, answers=options.answers, crashes=self._crashes,
            on_row=on_row,
        )  # fmt: skip
        runner = RowRunner(
            self._agent, slots, options, self._progress.run_id, self.goes_on, lambda: row_loop.counts["done"] > 0
        )
        ended: Ended = "interrupted"
        try:
            with on_interrupt(row_loop), display.showing(row_loop, self._count_rows):
                ended = await row_loop.run(runner, start)
        except TooManyFailures as error:
            error.report = self._report(row_loop, ended)
            raise
        finally:
            self._stamp(row_loop.position)
        if row_loop.settled_now["done"] or not isinstance(self._output, OutputFile) or not self._output.path.exists():
            self._output.finish()
        return self._report(row_loop, ended)

    async def aclose(self) -> None:
        """Close an async input, also where the run could not be opened."""
        if isinstance(source := getattr(self, "_source", None), AsyncSource):
            await source.aclose()

    def _hosts_away(self) -> int:
        """How many hosts are waited for; 0 while one of them takes runs."""
        replicas = self._agent.runnable.replicas if isinstance(self._agent.runnable, RemoteAgent) else []
        away = [replica for replica in replicas if replica.state == "ejected"]
        return len(away) if len(away) == len(replicas) else 0

    def _start(self) -> InputPosition:
        """Where the input was worked off, if it is the same up to there; else its beginning."""
        position, stamp = self._progress.get("position"), self._progress.get("stamp")
        if not isinstance(self._source, FileSource):
            return InputPosition()
        now = self._source.stamp()
        found = InputPosition() if position is None else InputPosition.of(position)
        is_same = stamp is not None and (
            stamp["file"] == now or (stamp["prefix"] and stamp["prefix"] == _prefix_digest(self._source, found))
        )
        self._progress.set(stamp={"file": now, "prefix": None})
        # Rows that are run again are looked for from the beginning.
        return found if is_same and not self._progress.again and not self.running.answers else InputPosition()

    def _stamp(self, position: InputPosition) -> None:
        """Remember how the input looks up to where it was worked off."""
        if isinstance(self._source, FileSource) and self._progress.path is not None:
            with suppress(OSError, DatasetError):
                prefix = _prefix_digest(self._source, position)
                self._progress.set(stamp={"file": self._source.stamp(), "prefix": prefix})

    def _id_column(self) -> str | None:
        if self._id is None:
            return None
        return self._id if isinstance(self._id, str) else _DEFAULT_ID

    def _count_rows(self, position: InputPosition) -> int | None:
        """The rows behind a position, where that can be known."""
        if isinstance(self._source, AsyncSource):
            return None
        count = self._source.count(position)
        if count is not None and self.reading.limit is not None:
            count = min(count, self.reading.limit - position.number)
        return None if count is None else count * self.reading.repetitions // (self.reading.shard or (1, 1))[1]

    def _report(self, row_loop: RowLoop, ended: Ended) -> Report:
        counts, position = row_loop.progress.counts, row_loop.position
        unread = self._count_rows(position) or 0 if ended != "input" and ended != "limit" else 0
        taken = position.taken * self.reading.repetitions
        rows = self._output.rows if isinstance(self._output, MemoryOutput) else ()
        return Report(
            **{status: counts[status] for status in counts},
            left=max(taken + unread - counts.total(), row_loop.progress.again, row_loop.in_flight),
            duplicates=position.duplicates,
            filtered=position.filtered,
            bad_lines=position.bad_lines,
            asked=row_loop.settled_now.total(),
            usage=dict(row_loop.usage),
            cost=row_loop.cost if self.limits.prices is not None else None,
            seconds=time.monotonic() - row_loop.began,
            ended=ended,
            output=None if self.output is None else str(self.output),
            rows=rows,
            failures=list(islice(row_loop.progress.failures(), _MOST_FAILURES)),
        )


def _one_agent(agents: Sequence[Any]) -> Any:
    """The agent; several are one, at several hosts."""
    if not agents:
        raise DatasetError("no agent was given")
    if len(agents) == 1:
        return agents[0]
    for agent in agents:
        if not isinstance(agent, RemoteAgent):
            raise DatasetError(f"a list has RemoteAgents of one graph at several hosts, not {agent!r}")
    return with_replicas(agents)


def _loop_time() -> Callable[[], float]:
    return asyncio.get_running_loop().time


def _is_csv(output: Path | None) -> bool:
    return output is not None and output.suffix.lower() == ".csv"


def _prefix_digest(source: FileSource, position: InputPosition) -> str | None:
    """The hash of a text file up to a position; None for other files."""
    digest = hashlib.blake2b(digest_size=16)
    left = position.offset
    if not left or source.path.suffix == ".gz":
        return None
    with source.path.open("rb") as file:
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return None if left else digest.hexdigest()
