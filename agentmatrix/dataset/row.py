"""A row of the input, and where the input stood before it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

__all__ = ["InputPosition", "DatasetRow", "SourceRow", "row_of"]


class InputPosition(NamedTuple):
    """A position between two rows of the input, and what was counted before it.

    Attributes:
        number: rows before it.
        offset: bytes before it, in a file that is text.
        line: lines before it, in a file that is text.
        duplicates: rows before it that had the id and the content of an earlier one.
        filtered: rows before it that `where` left out.
        bad_lines: lines before it that are no row.
        elsewhere: rows before it that are of another shard.
    """

    number: int = 0
    offset: int = 0
    line: int = 0
    duplicates: int = 0
    filtered: int = 0
    bad_lines: int = 0
    elsewhere: int = 0

    def as_dict(self) -> dict[str, int]:
        """As plain data, for the progress file."""
        return self._asdict()

    @classmethod
    def of(cls, data: Mapping[str, int]) -> Self:
        """The position of the progress file."""
        return cls(**{field: data[field] for field in cls._fields})

    def behind(self, found: SourceRow) -> InputPosition:
        """The position behind a row that is taken."""
        # `_replace` takes three times as long, which a million rows feel.
        return InputPosition(
            self.number + 1,
            found.offset,
            found.line,
            self.duplicates,
            self.filtered,
            self.bad_lines,
            self.elsewhere,
        )

    @property
    def taken(self) -> int:
        """How many rows before it are to be run."""
        return self.number - self.duplicates - self.filtered - self.elsewhere


@dataclass(slots=True)
class SourceRow:
    """A row as a source reads it.

    Attributes:
        columns: the values by column; a text in place of a dict says why the line is no row.
        name: where it stands, for people: `"line 17"`.
        offset: bytes up to its end, in a file that is text.
        line: lines up to its end, in a file that is text.
    """

    columns: dict[str, Any] | str
    name: str
    offset: int = 0
    line: int = 0


def row_of(columns: Any, number: int) -> SourceRow:
    """An item of an iterable as a row."""
    name = f"row {number}"
    if isinstance(columns, dict):
        return SourceRow(columns, name)
    if isinstance(columns, Mapping):
        return SourceRow(dict(columns), name)
    return SourceRow(f"it is of type {type(columns).__name__}, not a dict", name)


@dataclass(slots=True)
class DatasetRow:
    """One run of the agent: a row of the input, once or in one of its repetitions.

    Attributes:
        id: its id, with `/n` behind it where a row has several repetitions.
        number: how many rows of the input are before it.
        repetition: which of its repetitions, from 0.
        columns: the values by column.
        name: where it stands, for people: `"line 17"`.
        digest: the hash of its content.
        before: where the input stood before it.
    """

    id: str
    number: int
    repetition: int
    columns: dict[str, Any]
    name: str
    digest: str
    before: InputPosition
