"""Where rows come from: files of JSON lines, CSV and Parquet, stdin, iterables; read lazily."""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

from agentmatrix.dataset.async_source import AsyncSource
from agentmatrix.dataset.row import InputPosition, SourceRow, row_of
from agentmatrix.errors import DatasetError, MissingExtra

__all__ = ["FileSource", "Source", "open_source"]

_LARGEST_CELL = 1 << 30
_JSON_SPACE = " \t\r\n"
_KINDS = (".jsonl", ".ndjson", ".csv", ".parquet")


class Source(Protocol):
    """Rows that are read by a plain iterator.

    Attributes:
        name: how settings and errors call it.
        is_in_memory: its rows are there already: reading them blocks nobody.
    """

    name: str
    is_in_memory: bool

    def rows(self, start: InputPosition) -> Iterator[SourceRow]:
        """The rows from a position on."""

    def count(self, start: InputPosition) -> int | None:
        """How many rows there are from a position on, where that can be known."""

    def peek(self) -> dict[str, Any] | None:
        """The first row; None where there is none. It is still to come."""


def open_source(given: Any) -> Source | AsyncSource:
    """The source of what `refine` was given.

    Args:
        given: a path, `"-"` for stdin, a dataset or an iterable of dicts, or an async iterable.

    Raises:
        DatasetError: there is no such file, its ending is unknown, or it is none of these.
        MissingExtra: Parquet without pyarrow.
    """
    if isinstance(given, str | os.PathLike):
        return _StdinSource() if str(given) == "-" else _open_file(Path(given))
    if isinstance(given, Mapping):
        raise DatasetError(
            f"a dataset of several splits was given ({', '.join(map(str, given))}): give one of them"
            if all(hasattr(part, "__iter__") and not isinstance(part, str) for part in given.values()) and given
            else "a single row was given: put it into a list"
        )
    if isinstance(given, AsyncIterable):
        return AsyncSource(given)
    if isinstance(given, Iterable):
        return _IterableSource(given)
    raise DatasetError(f"rows come from a path, an iterable or an async iterable of dicts, not {type(given).__name__}")


def _open_file(path: Path) -> FileSource:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    is_packed = suffixes[-1:] == [".gz"]
    kind = "".join((suffixes[:-1] if is_packed else suffixes)[-1:])
    if kind not in _KINDS or (is_packed and kind == ".parquet"):
        raise DatasetError(
            f"{path} has an unknown ending: rows are read from .jsonl, .csv (both also .gz) and .parquet"
        )
    if not path.is_file():
        raise DatasetError(f"there is no file {path}" if not path.exists() else f"{path} is no file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    if kind == ".parquet":
        return _ParquetSource(path)
    return (_CsvSource if kind == ".csv" else _JsonSource)(path, is_packed)


class FileSource:
    """A file. The progress file remembers how far it was worked off, and how it looked then."""

    is_in_memory = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def rows(self, start: InputPosition) -> Iterator[SourceRow]:
        raise NotImplementedError

    def count(self, start: InputPosition) -> int | None:
        raise NotImplementedError

    def peek(self) -> dict[str, Any] | None:
        return next((row.columns for row in self.rows(InputPosition()) if isinstance(row.columns, dict)), None)

    def stamp(self) -> list[int]:
        """Size and time of change: while they are the same, so is the file."""
        status = self.path.stat()
        return [status.st_size, status.st_mtime_ns]


class _TextSource(FileSource):
    def __init__(self, path: Path, is_packed: bool) -> None:
        super().__init__(path)
        self._is_packed = is_packed

    def _open(self, offset: int = 0) -> IO[bytes]:
        file: Any = gzip.open(self.path, "rb") if self._is_packed else self.path.open("rb")
        file.seek(offset)
        return file  # type: ignore[no-any-return]

    def _failed(self, error: Exception) -> NoReturn:
        raise DatasetError(f"{self.path} cannot be read: {error}") from None


class _JsonSource(_TextSource):
    def rows(self, start: InputPosition) -> Iterator[SourceRow]:
        try:
            with self._open(start.offset) as file:
                yield from _json_rows(file, start)
        except (OSError, EOFError) as error:
            self._failed(error)

    def count(self, start: InputPosition) -> int | None:
        with self._open(start.offset) as file:
            return sum(1 for line in file if not line.isspace())


class _CsvSource(_TextSource):
    def rows(self, start: InputPosition) -> Iterator[SourceRow]:
        try:
            with self._open() as file:
                yield from _csv_rows(file, start)
        except (OSError, EOFError) as error:
            self._failed(error)

    def count(self, start: InputPosition) -> int | None:
        return sum(1 for _ in self.rows(start))


class _ParquetSource(FileSource):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        parquet = _parquet()
        with self._readable():
            self._file = parquet.ParquetFile(path)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # pyarrow's errors are of these types
            raise DatasetError(f"{self.path} cannot be read: {error}") from None

    def rows(self, start: InputPosition) -> Iterator[SourceRow]:
        number = 0
        batches = self._file.iter_batches(batch_size=256)
        while True:
            with self._readable():
                batch = next(batches, None)
            if batch is None:
                return
            if number + batch.num_rows > start.number:
                for index, columns in enumerate(batch.to_pylist(), number):
                    if index >= start.number:
                        yield SourceRow(columns, f"row {index + 1}")
            number += batch.num_rows

    def count(self, start: InputPosition) -> int | None:
        return int(self._file.metadata.num_rows) - start.number


class _StdinSource:
    name = "stdin"
    is_in_memory = False

    def __init__(self) -> None:
        self._rows = _json_rows(sys.stdin.buffer, InputPosition())

    def rows(self, start: InputPosition) -> Iterator[SourceRow]:
        return self._rows

    def peek(self) -> dict[str, Any] | None:
        self._rows, columns = _peeked(self._rows)
        return columns

    def count(self, start: InputPosition) -> int | None:
        return None


class _IterableSource:
    def __init__(self, given: Iterable[Any]) -> None:
        self.name = "iterable"
        self.is_in_memory = isinstance(given, list | tuple)
        self._given = given
        self._rows: Iterator[SourceRow] = (row_of(columns, number) for number, columns in enumerate(given, 1))

    def rows(self, start: InputPosition) -> Iterator[SourceRow]:
        return self._rows

    def peek(self) -> dict[str, Any] | None:
        self._rows, columns = _peeked(self._rows)
        return columns

    def count(self, start: InputPosition) -> int | None:
        try:
            return len(self._given) - start.number  # type: ignore[arg-type]
        except TypeError:
            return None


def _peeked(rows: Iterator[SourceRow]) -> tuple[Iterator[SourceRow], dict[str, Any] | None]:
    """The rows, and the columns of the first."""
    first = next(rows, None)
    if first is None:
        return rows, None
    return chain([first], rows), first.columns if isinstance(first.columns, dict) else None


def _json_rows(lines: Iterable[bytes], start: InputPosition) -> Iterator[SourceRow]:
    offset, number = start.offset, start.line
    for line in lines:
        offset += len(line)
        number += 1
        if offset == len(line):
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.isspace():
            yield SourceRow(_json_object(line), f"line {number}", offset, number)


def _json_object(line: bytes) -> dict[str, Any] | str:
    try:
        text = line.decode().strip(_JSON_SPACE)
        value, end = _decoder.raw_decode(text)
        if end < len(text):
            return _what_is_wrong(line)
    except ValueError:
        return _what_is_wrong(line)
    except RecursionError:
        return "it is nested too deep"
    return value if isinstance(value, dict) else f"it is no object {{...}} but {_kind(value)}"


def _what_is_wrong(line: bytes) -> str:
    try:
        # Without the line's end: what is missing is missing here, and not in the next line.
        json.loads(line.decode().rstrip("\r\n"), parse_constant=_no_json)
    except UnicodeDecodeError as error:
        return f"it is no UTF-8 text: {error.reason} at byte {error.start + 1}"
    except ValueError as error:
        reason = (getattr(error, "msg", None) or str(error)).removesuffix(" at")
        column = getattr(error, "colno", None)
        return f"it is not JSON: {reason}" + (f" at column {column}" if column else "")
    return "it is not JSON"


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_no_json)
"""`json.loads` with an argument makes one for each line, which takes most of its time."""


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _csv_rows(file: IO[bytes], start: InputPosition) -> Iterator[SourceRow]:
    csv.field_size_limit(_LARGEST_CELL)
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    header = _header(next(_records(reader, lines), None))
    if start.offset > lines.offset:
        file.seek(start.offset)
        lines.offset, lines.number = start.offset, start.line
    for values in _records(reader, lines):
        if isinstance(values, str):
            yield SourceRow(values, f"line {lines.first}", lines.offset, lines.number)
        elif values:
            columns: dict[str, Any] | str = dict(zip(header, values, strict=False))
            if len(values) != len(header):
                columns = f"it has {len(values)} cells, and the header {len(header)}"
            yield SourceRow(columns, f"line {lines.first}", lines.offset, lines.number)


def _records(reader: Iterator[list[str]], lines: _Lines) -> Iterator[list[str] | str]:
    """The records of a CSV file; in place of one that is none, the reason."""
    while True:
        lines.first = lines.number + 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            yield f"it is no UTF-8 text: {error.reason} at byte {error.start + 1}"
        except csv.Error as error:
            yield f"it is not CSV: {error}"


def _header(header: list[str] | str | None) -> Sequence[str]:
    if isinstance(header, str):
        raise DatasetError(f"line 1: {header}")
    names = header or []
    if twice := {name for name in names if names.count(name) > 1}:
        raise DatasetError(f"line 1: the header names {', '.join(map(repr, sorted(twice)))} twice")
    return names


class _Lines:
    """The lines of a file as text, with the count of bytes and lines so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.offset = 0
        self.number = 0
        self.first = 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        self.number += 1
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8")


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("Parquet needs pyarrow: pip install 'agentmatrix[data]'") from None
    return pyarrow.parquet
