"""The progress file: which rows are settled, and how long the output is with them; one sqlite3 transaction for both."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agentmatrix.dataset.report import STATUSES, FailedRow
from agentmatrix.dataset.settled_row import SettledRow
from agentmatrix.errors import DatasetError

__all__ = ["ProgressFile"]

_TABLES = """
create table if not exists meta(key text primary key, value text) without rowid;
create table if not exists row(
    id text primary key, number integer, repetition integer, digest text, status text, name text, attempts integer,
    error_type text, error text, seconds real) without rowid;
create index if not exists unsuccessful on row(status) where status <> 'done';
create table if not exists held(number integer, repetition integer, lines blob, primary key(number, repetition));
"""
_LARGEST_ERROR = 10_000
RETRIED = ("failed", "rejected", "tombstoned")
"""The statuses that `retry_failed` takes up again."""


class ProgressFile:
    """What is known of the rows of one output.

    The loop's thread reads it, a thread of its own writes it: two connections.

    Args:
        path: the file; None keeps all in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            self._writer = _connect(path)
            self._writer.executescript(_TABLES)
            self._reader = self._writer if path is None else _connect(path)
        except sqlite3.DatabaseError as error:
            raise DatasetError(f"the progress file {path} cannot be used: {error}") from None
        counts: Mapping[str, int] = self.get("counts", {})
        self.counts: Counter[str] = Counter({status: counts.get(status, 0) for status in STATUSES})
        self.again: int = self.get("again", 0)
        self.usage: dict[str, list[int]] = self.get("usage", {})

    def close(self) -> None:
        """Close it. What was written stays."""
        self._reader.close()
        self._writer.close()

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the file as a whole, such as `"length"` or `"settings"`."""
        found = self._writer.execute("select value from meta where key=?", (key,)).fetchone()
        return default if found is None else json.loads(found[0])

    def set(self, **values: Any) -> None:
        """Set values of the file as a whole, in a transaction of their own."""
        self._writer.execute("begin immediate")
        self._set(values)
        self._writer.execute("commit")

    def _set(self, values: Mapping[str, Any]) -> None:
        pairs = [(key, json.dumps(value)) for key, value in values.items()]
        self._writer.executemany("insert or replace into meta values(?,?)", pairs)

    @property
    def run_id(self) -> str:
        """The id of this output's run; threads of a checkpointer begin with it."""
        found: str | None = self.get("run")
        if found is None:
            found = uuid.uuid4().hex[:12]
            self.set(run=found)
        return found

    def settled(self, ids: Iterable[str]) -> dict[str, tuple[int, str, str]]:
        """Of these ids, those that are known: number, digest and status of each."""
        wanted = list(ids)
        marks = ",".join("?" * len(wanted))
        found = self._reader.execute(f"select id, number, digest, status from row where id in ({marks})", wanted)
        return {id: (number, digest, status) for id, number, digest, status in found}

    def name(self, id: str) -> str:
        """Where the row of an id stood in the input."""
        return str(self._reader.execute("select name from row where id=?", (id,)).fetchone()[0])

    def failures(self) -> Iterator[FailedRow]:
        """The rows that are not done, with their errors and questions."""
        found = self._reader.execute(
            "select id, name, status, attempts, error_type, error from row where status not in ('done', 'again') "
            "order by number, repetition"
        )
        yield from (FailedRow(*values) for values in found)

    def take_again(self, statuses: Iterable[str] = RETRIED) -> int:
        """Count the rows of these statuses as left, so that they are run again. Returns how many there are."""
        again = 0
        for status in statuses:
            again += self._writer.execute("update row set status='again' where status=?", (status,)).rowcount
            self.counts[status] = 0
        self.again += again
        self.set(counts=self.counts, again=self.again)
        return again

    def clear(self) -> None:
        """Forget everything."""
        for table in ("meta", "row", "held"):
            self._writer.execute(f"delete from {table}")
        self.counts, self.usage, self.again = Counter(dict.fromkeys(STATUSES, 0)), {}, 0

    def commit(
        self, settled: Iterable[SettledRow], held: Iterable[SettledRow], released: int | None, **values: Any
    ) -> None:
        """Record rows, in one transaction.

        Args:
            settled: the rows.
            held: those of them whose lines wait for rows before them.
            released: the lines of held rows before this number are in the output now.
            values: values of the file as a whole.
        """
        counts, usage, again = Counter(self.counts), dict(self.usage), self.again
        records = []
        for row in settled:
            counts[row.status] += 1
            again -= row.previous == "again"
            if row.previous and row.previous != "again":
                counts[row.previous] -= 1
            for model, (given, made) in row.usage.items():
                before = usage.get(model, [0, 0])
                usage[model] = [before[0] + given, before[1] + made]
            records.append(_record(row))
        execute = self._writer.execute
        execute("begin immediate")
        try:
            self._writer.executemany("insert or replace into row values(?,?,?,?,?,?,?,?,?,?)", records)
            lines = [(row.row.number, row.row.repetition, b"".join(row.lines)) for row in held]
            self._writer.executemany("insert or replace into held values(?,?,?)", lines)
            if released is not None:
                execute("delete from held where number < ?", (released,))
            self._set({"counts": counts, "usage": usage, "again": again, **values})
            execute("commit")
        except BaseException as error:
            if self._writer.in_transaction:
                execute("rollback")
            if isinstance(error, sqlite3.Error):
                raise DatasetError(f"the progress file {self.path} cannot be written: {error}") from None
            raise
        self.counts, self.usage, self.again = counts, usage, again

    def held_lines(self, before: int) -> list[tuple[int, int, bytes]]:
        """The lines that wait, of rows before this number, in their order: number, repetition, lines."""
        return self._writer.execute(
            "select number, repetition, lines from held where number < ? order by number, repetition", (before,)
        ).fetchall()


def _connect(path: Path | None) -> sqlite3.Connection:
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=60)
    if path is not None:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
    return connection


def _record(settled: SettledRow) -> tuple[Any, ...]:
    row = settled.row
    error = settled.error_text.encode(errors="replace").decode()[:_LARGEST_ERROR]
    return (
        row.id, row.number, row.repetition, row.digest, settled.status, row.name, settled.attempts,
        settled.error_type, error, settled.seconds,
    )  # fmt: skip
