"""A row that was run, as its user is told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentmatrix.dataset.report import Status
from agentmatrix.dataset.settled_row import SettledRow

__all__ = ["CompletedRow", "completed_row"]


@dataclass(frozen=True)
class CompletedRow:
    """A row that has been settled by a run, and is on disk.

    Attributes:
        id: its id.
        name: where it stands in the input: `"line 17"`.
        status: `"done"`, `"rejected"`, `"failed"`, `"tombstoned"` or `"paused"`.
        records: what is written of it: one record, several or none.
        attempts: how often the agent was run.
        error_type: the type of the last error, or `"interrupt"`; empty for a row that is done.
        error: the error; of a paused row its questions as JSON.
        usage: input and output tokens by model.
        seconds: how long it took, all attempts included.
    """

    id: str
    name: str
    status: Status
    records: Sequence[dict[str, Any]] = ()
    attempts: int = 1
    error_type: str = ""
    error: str = ""
    usage: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    seconds: float = 0.0


def completed_row(settled: SettledRow) -> CompletedRow:
    """A settled row for its user."""
    return CompletedRow(
        settled.row.id,
        settled.row.name,
        settled.status,
        [json.loads(line) for line in settled.lines],
        settled.attempts,
        settled.error_type,
        settled.error_text,
        settled.usage,
        settled.seconds,
    )
