"""What `refine` returns: how many rows ended in which way, what they cost, and which are not done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["STATUSES", "Ended", "FailedRow", "Report", "Status"]

Status = Literal["done", "rejected", "failed", "tombstoned", "paused"]
STATUSES: Final[tuple[Status, ...]] = ("done", "rejected", "failed", "tombstoned", "paused")

Ended = Literal["input", "limit", "budget", "interrupted"]


@dataclass(frozen=True)
class FailedRow:
    """A row that is not done.

    Attributes:
        id: its id.
        name: where it stands in the input: `"line 17"`.
        status: `"failed"`, `"rejected"`, `"tombstoned"` or `"paused"`.
        attempts: how often the agent was run.
        error_type: the type of the last error, or `"interrupt"`.
        error: the error; of a paused row its questions as JSON: `[{"id": ..., "value": ...}]`.
    """

    id: str
    name: str
    status: Status
    attempts: int
    error_type: str
    error: str


@dataclass(frozen=True)
class Report:
    """The state of a dataset after a run; its numbers count what earlier runs of the same output did, too.

    `total == done + rejected + failed + tombstoned + paused + left`.

    Attributes:
        done: rows that are in the output, or whose result was None.
        rejected: rows whose results `accept` did not take in any attempt.
        failed: rows that failed in their last attempt.
        tombstoned: rows whose host was lost in each attempt, or which crashed this process (`max_crashes`).
        paused: rows that wait for a person's answer.
        left: rows that are not settled. Rows that were not read count where the input has a length, but for those that
            are beyond `limit`.
        duplicates: rows with id and content of an earlier one, which were not run.
        filtered: rows that `where` left out.
        bad_lines: lines that are no row (`skip_bad_lines`).
        asked: rows that this run has settled; 0 where all had been settled before.
        usage: input and output tokens by model.
        cost: what they cost by `prices`; None without prices.
        seconds: how long this run took.
        ended: why it ended: `"input"` was worked off, or `"limit"`, `"budget"`, `"interrupted"`.
        output: the file with the rows; None without one.
        rows: the rows of the output, where there is no file.
        failures: rows that are not done, at most a thousand; `agentmatrix refine --failures` prints all.
    """

    done: int = 0
    rejected: int = 0
    failed: int = 0
    tombstoned: int = 0
    paused: int = 0
    left: int = 0
    duplicates: int = 0
    filtered: int = 0
    bad_lines: int = 0
    asked: int = 0
    usage: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    cost: float | None = None
    seconds: float = 0.0
    ended: Ended = "input"
    output: str | None = None
    rows: Sequence[dict[str, Any]] = ()
    failures: Sequence[FailedRow] = ()

    @property
    def total(self) -> int:
        """All rows."""
        return self.settled + self.left

    @property
    def settled(self) -> int:
        """The rows that are not left."""
        return self.done + self.rejected + self.failed + self.tombstoned + self.paused

    @property
    def tokens(self) -> int:
        """Input and output tokens of all models."""
        return sum(given + made for given, made in self.usage.values())
