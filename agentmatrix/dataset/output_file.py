"""The output: a file of JSON lines that only grows, and CSV or Parquet that is made of it at the end."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from agentmatrix.errors import DatasetError, MissingExtra

__all__ = ["MemoryOutput", "OutputFile"]

_BATCH = 4096


class MemoryOutput:
    """Rows for the report, where no file is wanted."""

    length = 0

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.is_kept = True
        """Whether anybody wants them: who is told of each row by itself does not."""

    def append(self, lines: list[bytes]) -> int:
        """Add lines."""
        if self.is_kept:
            self.rows += map(json.loads, lines)
        return 0

    def close(self) -> None:
        """Nothing is open."""

    def finish(self) -> None:
        """Nothing is to be made."""


class OutputFile:
    """A file of lines, locked for this process.

    Args:
        path: what was asked for: `.jsonl`, or `.csv` and `.parquet`, whose lines are kept in a file beside.

    Raises:
        DatasetError: the ending is unknown, it cannot be written, or another process writes it.
        MissingExtra: Parquet without pyarrow.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = path.suffix.lower()
        if self.kind not in (".jsonl", ".ndjson", ".csv", ".parquet"):
            raise DatasetError(f"{path} has an unknown ending: rows are written to .jsonl, .csv and .parquet")
        if self.kind == ".parquet":
            _arrow()
        self.lines_path = path if self.kind in (".jsonl", ".ndjson") else path.with_name(path.name + ".jsonl")
        self.is_new = not self.lines_path.exists()
        """Whether this made it."""
        try:
            self._file = os.open(self.lines_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise DatasetError(f"{path} cannot be written: {error.strerror}") from None
        if not _is_locked(self._file):
            os.close(self._file)
            raise DatasetError(f"{path} is being written by another run: wait for its end, or give another output")
        self.length = os.fstat(self._file).st_size

    def cut(self, length: int) -> None:
        """Cut off what is behind a length: it was written and never recorded."""
        os.ftruncate(self._file, length)
        self.length = length

    def append(self, lines: list[bytes]) -> int:
        """Add lines; they are on disk when it returns. Returns the length then.

        Raises:
            DatasetError: they cannot be written; the file is as before.
        """
        if not lines:
            return self.length
        data = b"".join(lines)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self.length)
            raise DatasetError(f"{self.lines_path} cannot be written: {error.strerror}") from None
        self.length += len(data)
        return self.length

    def finish(self) -> None:
        """Make the CSV or the Parquet file of the lines. A reader sees the old one or the new one, never a half.

        Raises:
            DatasetError: it cannot be made of these rows; their lines stay.
        """
        if self.lines_path == self.path:
            return
        new = self.path.with_name(self.path.name + ".new")
        try:
            (self._write_csv if self.kind == ".csv" else self._write_parquet)(new)
            os.replace(new, self.path)
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be written: {error.strerror or error}") from None
        finally:
            new.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file of lines."""
        self.lines_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it, which gives up the lock."""
        os.close(self._file)

    def _records(self) -> Iterator[dict[str, Any]]:
        with self.lines_path.open("rb") as file:
            yield from map(json.loads, file)

    def _write_csv(self, new: Path) -> None:
        columns: dict[str, None] = {}
        for record in self._records():
            columns.update(dict.fromkeys(record))
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(self._records())

    def _write_parquet(self, new: Path) -> None:
        arrow, parquet = _arrow()
        try:
            schemas = [arrow.Table.from_pylist(batch).schema for batch in self._batches()]
            schema = arrow.unify_schemas(schemas, promote_options="permissive") if schemas else arrow.schema([])
            with parquet.ParquetWriter(new, schema) as writer:
                for batch in self._batches():
                    writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
        except arrow.ArrowException as error:
            raise DatasetError(f"{self.path} cannot be made of {self.lines_path}: {error}") from None

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        records = self._records()
        while batch := list(islice(records, _BATCH)):
            yield batch


def _is_locked(file: int) -> bool:
    """Lock a file for this process; false where another has locked it. It is open again when the process has ended."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks.
        return True
    return True


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("Parquet needs pyarrow: pip install 'agentmatrix[data]'") from None
    return pyarrow, pyarrow.parquet
