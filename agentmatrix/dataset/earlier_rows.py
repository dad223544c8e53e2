"""The rows that earlier runs of an output have settled: they are left out while the input is read."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from agentmatrix.dataset.progress_file import ProgressFile, RecordedRow
from agentmatrix.dataset.row import DatasetRow, InputPosition

__all__ = ["EarlierRows"]

_UNKNOWN: RecordedRow = ("", 0, 0, "", "")
_MOST_EXPECTED = 4096


class EarlierRows:
    """Rows that were settled when this run began. It takes a bit of memory for each.

    Rows come mostly in the sequence in which they were recorded. So the next of that are expected; to look them up
    by their ids, one by one, takes three times as long.

    Args:
        progress: the progress file.
        start: where the input is read from; what is before it is not read again.
        answered: ids of paused rows that are run again.
    """

    def __init__(self, progress: ProgressFile, start: InputPosition, answered: Collection[str]) -> None:
        self._progress, self._start, self._answered = progress, start.number, answered
        self._end = progress.next_sequence
        self._is_read = bytearray(self._end // 8 + 1)
        self._expected: dict[str, RecordedRow] = {}
        self._next = 0

    def left_of(self, rows: list[DatasetRow]) -> list[DatasetRow]:
        """Those of these rows that are not settled, that were read before, or that have other content now."""
        self._expect(len(rows))
        recorded, is_read = self._expected, self._is_read
        if unexpected := [row.id for row in rows if row.id not in recorded]:
            recorded.update(self._progress.recorded(unexpected))
        left = []
        for row in rows:
            _, sequence, number, digest, status = recorded.pop(row.id, _UNKNOWN)
            # Wherever it stands now it is the same row when it is met first, and a duplicate the second time.
            if (
                digest != row.digest
                or status == "again"
                or (status == "paused" and row.id in self._answered)
                or number < self._start
                or sequence >= self._end
                or is_read[sequence >> 3] & 1 << (sequence & 7)
            ):
                left.append(row)
            else:
                is_read[sequence >> 3] |= 1 << (sequence & 7)
        return left

    def _expect(self, count: int) -> None:
        """Take the next of the sequence; forget the oldest of those that have not come."""
        if self._start or self._next >= self._end:
            return
        coming = self._progress.recorded_from(self._next, count)
        self._next = coming[-1][1] + 1 if coming else self._end
        self._expected.update((row[0], row) for row in coming)
        for id in list(islice(self._expected, max(0, len(self._expected) - _MOST_EXPECTED))):
            del self._expected[id]
