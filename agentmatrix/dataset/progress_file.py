"""The progress file: which rows are settled, and how long the output is with them; one sqlite3 transaction for both.

Rows that have begun are in it too: those that it has when a run starts were at work when the last one crashed.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmatrix.dataset.report import STATUSES, FailedRow
from agentmatrix.dataset.settled_row import SettledRow
from agentmatrix.errors import DatasetError

__all__ = ["CrashRecord", "ProgressFile", "RecordedRow"]

_TABLES = """
create table if not exists meta(key text primary key, value text) without rowid;
create table if not exists row(
    sequence integer primary key, id text unique, number integer, repetition integer, digest text, status text,
    name text, attempts integer, error_type text, error text, seconds real);
create index if not exists unsuccessful on row(status) where status <> 'done';
create table if not exists begun(
    id text primary key, is_at_work integer, crashes integer default 0, was_alone integer default 0) without rowid;
create table if not exists held(number integer, repetition integer, lines blob, primary key(number, repetition));
"""
_LARGEST_ERROR = 10_000
RETRIED = ("failed", "rejected", "tombstoned")
"""The statuses that `retry_failed` takes up again."""
RecordedRow = tuple[str, int, int, str, str]
"""A row's id, its place in the sequence in which rows were recorded, its number in the input, digest and status."""
_RECORDED = "id, sequence, number, digest, status"


@dataclass(frozen=True)
class CrashRecord:
    """At how many crashes of the process a row was at work, and whether it was the only one at the last."""

    count: int
    was_alone: bool


class ProgressFile:
    """What is known of the rows of one output.

    The loop's thread and that of the input read it, a thread of its own writes it: two connections.

    Args:
        path: the file; None keeps all in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._reading = threading.Lock()
        try:
            with ExitStack() as opened:
                self._writer = opened.enter_context(closing(_connect(path)))
                self._writer.executescript(_TABLES)
                self._reader = self._writer if path is None else _connect(path)
                opened.pop_all()
        except sqlite3.DatabaseError as error:
            raise DatasetError(f"the progress file {path} cannot be used: {error}") from None
        counts: Mapping[str, int] = self.get("counts", {})
        self.counts: Counter[str] = Counter({status: counts.get(status, 0) for status in STATUSES})
        self.again: int = self.get("again", 0)
        self.usage: dict[str, list[int]] = self.get("usage", {})
        self.next_sequence: int = self.get("next_sequence", 0)
        """The place of the row that is recorded next."""

    def close(self) -> None:
        """Close it. What was written stays."""
        with self._reading:
            self._reader.close()
        self._writer.close()

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a file that is closed, with those that sqlite has beside it."""
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the file as a whole, such as `"length"` or `"settings"`."""
        found = self._writer.execute("select value from meta where key=?", (key,)).fetchone()
        return default if found is None else json.loads(found[0])

    def set(self, **values: Any) -> None:
        """Set values of the file as a whole, in a transaction of their own."""
        with self._transaction():
            self._set(values)

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

    def recorded(self, ids: Sequence[str]) -> dict[str, RecordedRow]:
        """What is recorded of these ids."""
        marks = ",".join("?" * len(ids))
        with self._reading:
            found = self._reader.execute(f"select {_RECORDED} from row where id in ({marks})", ids)
            return {row[0]: row for row in found}

    def recorded_from(self, sequence: int, most: int) -> list[RecordedRow]:
        """What is recorded from a place in the sequence on."""
        query = f"select {_RECORDED} from row where sequence >= ? order by sequence limit ?"
        with self._reading:
            return self._reader.execute(query, (sequence, most)).fetchall()

    def name(self, id: str) -> str:
        """Where the row of an id stood in the input."""
        with self._reading:
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
        with self._transaction():
            for status in statuses:
                again += self._writer.execute("update row set status='again' where status=?", (status,)).rowcount
                self.counts[status] = 0
            self.again += again
            self._set({"counts": self.counts, "again": self.again})
        return again

    def clear(self) -> None:
        """Forget everything."""
        with self._transaction():
            for table in ("meta", "row", "held", "begun"):
                self._writer.execute(f"delete from {table}")
        self.counts, self.usage, self.again = Counter(dict.fromkeys(STATUSES, 0)), {}, 0
        self.next_sequence = 0

    def begin(self, ids: Iterable[str]) -> None:
        """Record that rows begin. It survives the end of the process, and need not survive that of the machine.

        Raises:
            DatasetError: the file cannot be written.
        """
        with self._transaction("normal"):
            self._begin(ids)

    def _begin(self, ids: Iterable[str]) -> None:
        self._writer.executemany(
            "insert into begun(id, is_at_work) values(?, 1) on conflict(id) do update set is_at_work=1",
            [(id,) for id in ids],
        )

    def end_begun(self) -> None:
        """Record that no row is at work: the process does not crash."""
        with suppress(DatasetError), self._transaction("normal"):
            self._writer.execute("delete from begun where crashes=0")
            self._writer.execute("update begun set is_at_work=0 where is_at_work")

    def count_crash(self) -> dict[str, CrashRecord]:
        """Count a crash for the rows that were at work when the last process ended, if there are any.

        Returns:
            The rows that were at work at any crash and are not settled, by their ids.
        """
        with self._transaction():
            at_work = self._writer.execute("select count(*) from begun where is_at_work").fetchone()[0]
            self._writer.execute(
                "update begun set crashes=crashes+1, was_alone=?, is_at_work=0 where is_at_work", (at_work == 1,)
            )
        found = self._writer.execute("select id, crashes, was_alone from begun")
        return {id: CrashRecord(crashes, bool(was_alone)) for id, crashes, was_alone in found}

    def commit(
        self,
        settled: Iterable[SettledRow],
        held: Iterable[SettledRow],
        released: int | None,
        begun: Iterable[str] = (),
        **values: Any,
    ) -> None:
        """Record rows, in one transaction.

        Args:
            settled: the rows.
            held: those of them whose lines wait for rows before them.
            released: the lines of held rows before this number are in the output now.
            begun: the ids of rows that begin.
            values: values of the file as a whole.

        Raises:
            DatasetError: the file cannot be written.
        """
        counts, usage, again = Counter(self.counts), dict(self.usage), self.again
        records = []
        for sequence, row in enumerate(settled, self.next_sequence):
            counts[row.status] += 1
            again -= row.previous == "again"
            if row.previous and row.previous != "again":
                counts[row.previous] -= 1
            for model, (given, made) in row.usage.items():
                before = usage.get(model, [0, 0])
                usage[model] = [before[0] + given, before[1] + made]
            records.append(_record(row, sequence))
        with self._transaction():
            self._begin(begun)
            self._writer.executemany("insert or replace into row values(?,?,?,?,?,?,?,?,?,?,?)", records)
            self._writer.executemany("delete from begun where id=?", [(record[0],) for record in records])
            lines = [(row.row.number, row.row.repetition, b"".join(row.lines)) for row in held]
            self._writer.executemany("insert or replace into held values(?,?,?)", lines)
            if released is not None:
                self._writer.execute("delete from held where number < ?", (released,))
            next_sequence = self.next_sequence + len(records)
            self._set({"counts": counts, "usage": usage, "again": again, "next_sequence": next_sequence, **values})
        self.counts, self.usage, self.again, self.next_sequence = counts, usage, again, next_sequence

    @contextmanager
    def _transaction(self, synchronous: str = "full") -> Iterator[None]:
        execute = self._writer.execute
        try:
            execute(f"pragma synchronous={synchronous}")
            execute("begin immediate")
            yield
            execute("commit")
        except BaseException as error:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    execute("rollback")
            if isinstance(error, sqlite3.Error):
                raise DatasetError(f"the progress file {self.path} cannot be written: {error}") from None
            raise

    def held_lines(self, before: int) -> list[tuple[int, int, bytes]]:
        """The lines that wait, of rows before this number, in their order: number, repetition, lines."""
        return self._writer.execute(
            "select number, repetition, lines from held where number < ? order by number, repetition", (before,)
        ).fetchall()


def _connect(path: Path | None) -> sqlite3.Connection:
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=60)
    if path is not None:
        connection.execute("pragma journal_mode=wal")
    return connection


def _record(settled: SettledRow, sequence: int) -> tuple[Any, ...]:
    row = settled.row
    error = settled.error_text.encode(errors="replace").decode()[:_LARGEST_ERROR]
    return (
        sequence, row.id, row.number, row.repetition, row.digest, settled.status, row.name, settled.attempts,
        settled.error_type, error, settled.seconds,
    )  # fmt: skip
