"""The rows that are to be run: read in chunks, with their ids, without those that are left out."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import ormsgpack

from agentmatrix.dataset.reader_thread import ReaderThread
from agentmatrix.dataset.row import DatasetRow, InputPosition, SourceRow
from agentmatrix.dataset.sources import AsyncSource, Source
from agentmatrix.errors import DatasetError

__all__ = ["RowReader", "digest_of"]

_canonical = json.JSONEncoder(sort_keys=True, default=str)

_CHUNK = 256
_LONGEST_READ = 0.05
"""Seconds of reading after which a chunk is handed on although it is not full."""


class RowReader:
    """Reads the input and makes rows of it.

    Args:
        source: the input.
        start: where to begin.
        id: a column, a function of the columns, or None for the hash of the content.
        repetitions: how often each row is run.
        where: a function of the columns that says whether the row is run at all.
        limit: rows of the input after which nothing is read any more.
        shard: `(i, n)`: only the i-th of n parts, by the hash of the id.
        skip_bad_lines: count lines that are no row instead of raising.
    """

    def __init__(
        self,
        source: Source | AsyncSource,
        start: InputPosition,
        *,
        id: str | Callable[[dict[str, Any]], Any] | None,
        repetitions: int,
        where: Callable[[dict[str, Any]], Any] | None,
        limit: int | None,
        shard: tuple[int, int] | None,
        skip_bad_lines: bool,
    ) -> None:
        self._source = source
        self._id, self._repetitions, self._where = id, repetitions, where
        self._limit, self._shard, self._skip_bad_lines = limit, shard, skip_bad_lines
        self._thread = ReaderThread()
        self._iterator: Iterator[SourceRow] | None = None
        self._error: Exception | None = None
        self._position = start

    async def next_chunk(self) -> tuple[list[DatasetRow], InputPosition]:
        """The next rows, none at the end, and where the input stands behind them.

        Raises:
            DatasetError: a line is no row, or a row has no id; the rows before it come first.
        """
        if isinstance(self._source, AsyncSource):
            return await self._from_async(self._source)
        return self._read() if self._source.is_in_memory else await self._thread.call(self._read)

    def close(self) -> None:
        """Read no more."""
        self._thread.close()

    async def _from_async(self, source: AsyncSource) -> tuple[list[DatasetRow], InputPosition]:
        while not self.is_at_limit and (found := await source.next_row()):
            if rows := self._rows_of(found):
                return rows, self._position
        return [], self._position

    def _read(self) -> tuple[list[DatasetRow], InputPosition]:
        if self._error is not None:
            raise self._error
        assert not isinstance(self._source, AsyncSource)
        if self._iterator is None:
            self._iterator = self._source.rows(self._position)
        rows: list[DatasetRow] = []
        ends = time.monotonic() + _LONGEST_READ
        try:
            while len(rows) < _CHUNK and not self.is_at_limit:
                found = next(self._iterator, None)
                if found is None:
                    break
                rows += self._rows_of(found)
                if rows and time.monotonic() > ends:
                    break
        except Exception as error:
            if not rows:
                raise
            self._error = error
        return rows, self._position

    @property
    def is_at_limit(self) -> bool:
        """Whether it has read as many rows as it may."""
        return self._limit is not None and self._position.number >= self._limit

    def _rows_of(self, found: SourceRow) -> list[DatasetRow]:
        before = self._position
        after = before.behind(found)
        columns = found.columns
        if isinstance(columns, str):
            if not self._skip_bad_lines:
                raise DatasetError(f"{found.name} is no row: {columns} (skip_bad_lines leaves such lines out)")
            self._position = after._replace(number=before.number, bad_lines=before.bad_lines + 1)
            return []
        digest = digest_of(columns)
        id = digest if self._id is None else self._checked_id(columns, found.name)
        if self._shard and zlib.crc32(id.encode()) % self._shard[1] != self._shard[0] - 1:
            self._position = after._replace(elsewhere=before.elsewhere + 1)
            return []
        if self._where is not None and not _asked("where", self._where, columns, found.name):
            self._position = after._replace(filtered=before.filtered + 1)
            return []
        self._position = after
        if self._repetitions == 1:
            return [DatasetRow(id, before.number, 0, columns, found.name, digest, before)]
        return [
            DatasetRow(f"{id}/{n}", before.number, n, columns, found.name, digest, before)
            for n in range(self._repetitions)
        ]

    def _checked_id(self, columns: dict[str, Any], name: str) -> str:
        if isinstance(self._id, str):
            if self._id not in columns:
                raise DatasetError(
                    f"{name} has no column {self._id!r} for its id; it has {', '.join(columns) or 'none'}"
                )
            value = columns[self._id]
        else:
            assert self._id is not None
            value = _asked("id", self._id, columns, name)
        if type(value) is int:
            return str(value)
        if value is None or value == "" or isinstance(value, (dict, list, bool)):
            raise DatasetError(f"{name} has no id: {value!r} stands where a text or a number should")
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DatasetError(f"{name} has an id that is no text: it has half a surrogate pair") from None
        return text


def _asked(argument: str, function: Callable[[dict[str, Any]], Any], columns: dict[str, Any], name: str) -> Any:
    """What a function of `refine`'s arguments says of a row."""
    try:
        said = function(columns)
    except Exception as error:
        raise DatasetError(f"{argument}= failed at {name} with {type(error).__name__}: {error}") from error
    if inspect.isawaitable(said):
        raise DatasetError(f"{argument}= is asked while rows are read: give a function that is not async")
    return said


def digest_of(columns: dict[str, Any]) -> str:
    """The hash of a row's content."""
    try:
        content = ormsgpack.packb(columns, default=str, option=ormsgpack.OPT_SORT_KEYS)
    except TypeError:
        # Numbers beyond 64 bits, halves of surrogate pairs, keys that are no text.
        content = _canonical.encode(columns).encode()
    return hashlib.blake2b(content, digest_size=12).hexdigest()
