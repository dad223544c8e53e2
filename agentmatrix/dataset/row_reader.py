"""The rows that are to be run: read in chunks, with their ids, without those that are left out or settled."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ormsgpack

from agentmatrix.dataset.async_source import AsyncSource
from agentmatrix.dataset.earlier_rows import EarlierRows
from agentmatrix.dataset.reader_thread import ReaderThread
from agentmatrix.dataset.row import DatasetRow, InputPosition, SourceRow
from agentmatrix.dataset.sources import Source
from agentmatrix.errors import DatasetError

__all__ = ["ReadOptions", "RowChunk", "RowReader", "digest_of"]

_canonical = json.JSONEncoder(sort_keys=True, default=str)

_CHUNK, _BLOCK = 256, 128
"""Rows that are handed on together, at most, and that are looked up together."""
_LONGEST_READ = 0.05
"""Seconds of reading after which a chunk is handed on although it is not full."""


@dataclass(frozen=True)
class ReadOptions:
    """How rows are read; the attributes are the arguments of `refine`.

    Attributes:
        id: a column, a function of the columns, or None for the hash of the content.
        repetitions: how often each row is run.
        where: a function of the columns that says whether the row is run at all.
        limit: rows of the input after which nothing is read any more.
        shard: `(i, n)`: only the i-th of n parts, by the hash of the id.
        skip_bad_lines: count lines that are no row instead of raising.
    """

    id: str | Callable[[dict[str, Any]], Any] | None = None
    repetitions: int = 1
    where: Callable[[dict[str, Any]], Any] | None = None
    limit: int | None = None
    shard: tuple[int, int] | None = None
    skip_bad_lines: bool = False


@dataclass(frozen=True)
class RowChunk:
    """Rows that were read together.

    Attributes:
        rows: those of them that are to be run, or are not as an earlier run has settled them.
        behind: where the input stands behind them.
        is_last: nothing is behind them.
    """

    rows: list[DatasetRow]
    behind: InputPosition
    is_last: bool


class RowReader:
    """Reads the input and makes rows of it.

    Args:
        source: the input.
        start: where to begin.
        earlier: the rows that earlier runs have settled, if there are any.
        options: how it is read.
    """

    def __init__(
        self, source: Source | AsyncSource, start: InputPosition, earlier: EarlierRows | None, options: ReadOptions
    ) -> None:
        self._source, self._earlier = source, earlier
        self._id, self._repetitions, self._where = options.id, options.repetitions, options.where
        self._limit, self._shard, self._skip_bad_lines = options.limit, options.shard, options.skip_bad_lines
        self._thread = ReaderThread()
        self._iterator: Iterator[SourceRow] | None = None
        self._error: Exception | None = None
        self._is_first = True
        self._position = start

    async def next_chunk(self) -> RowChunk:
        """The next rows; there may be none in it.

        Raises:
            DatasetError: a line is no row, or a row has no id; chunks before it come first.
        """
        if isinstance(self._source, AsyncSource):
            return await self._from_async(self._source)
        return self._read() if self._source.is_in_memory else await self._thread.call(self._read)

    def close(self) -> None:
        """Read no more."""
        self._thread.close()
        if isinstance(self._source, AsyncSource):
            self._source.close()

    async def _from_async(self, source: AsyncSource) -> RowChunk:
        found = [] if self.is_at_limit or self._error is not None else await source.next_rows(self._block_size)
        block = self._block_of(found)
        return self._chunk(self._left_of(block), is_last=not found and self._error is None)

    def _read(self) -> RowChunk:
        assert not isinstance(self._source, AsyncSource)
        if self._iterator is None:
            self._iterator = self._source.rows(self._position)
        rows: list[DatasetRow] = []
        is_last = False
        ends = time.monotonic() + _LONGEST_READ
        while self._error is None and not is_last and len(rows) <= _CHUNK - _BLOCK:
            before = self._position
            block = self._block_of(islice(self._iterator, self._block_size), ends)
            is_last = self._position is before and self._error is None
            rows += self._left_of(block)
            if time.monotonic() > ends:
                break
        return self._chunk(rows, is_last)

    @property
    def _block_size(self) -> int:
        return _BLOCK if self._limit is None else min(_BLOCK, self._limit - self._position.number)

    def _block_of(self, source_rows: Iterable[SourceRow], ends: float = math.inf) -> list[DatasetRow]:
        """What is to be run of rows that are looked up together. An error behind them is kept."""
        rows: list[DatasetRow] = []
        try:
            for found in source_rows:
                self._take(found, rows)
                if time.monotonic() > ends:
                    break
        except Exception as error:
            self._error = error
        return rows

    def _chunk(self, rows: list[DatasetRow], is_last: bool) -> RowChunk:
        if self._error is not None and (self._is_first or not rows):
            raise self._error
        self._is_first = False
        return RowChunk(rows, self._position, is_last)

    def _left_of(self, rows: list[DatasetRow]) -> list[DatasetRow]:
        return rows if self._earlier is None or not rows else self._earlier.left_of(rows)

    @property
    def is_at_limit(self) -> bool:
        """Whether it has read as many rows as it may."""
        return self._limit is not None and self._position.number >= self._limit

    def _take(self, found: SourceRow, rows: list[DatasetRow]) -> None:
        """Add what is to be run of a row of the input."""
        before, columns = self._position, found.columns
        after = before.behind(found)
        if isinstance(columns, str):
            if not self._skip_bad_lines:
                raise DatasetError(f"{found.name} is no row: {columns} (skip_bad_lines leaves such lines out)")
            self._position = after._replace(number=before.number, bad_lines=before.bad_lines + 1)
            return
        digest = digest_of(columns)
        id = digest if self._id is None else self._checked_id(columns, found.name)
        if self._shard and zlib.crc32(id.encode()) % self._shard[1] != self._shard[0] - 1:
            self._position = after._replace(elsewhere=before.elsewhere + 1)
            return
        if self._where is not None and not _asked("where", self._where, columns, found.name):
            self._position = after._replace(filtered=before.filtered + 1)
            return
        self._position = after
        if self._repetitions == 1:
            rows.append(DatasetRow(id, before.number, 0, columns, found.name, digest, before))
            return
        for n in range(self._repetitions):
            rows.append(DatasetRow(f"{id}/{n}", before.number, n, columns, found.name, digest, before))

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
