"""What became of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentmatrix.dataset.report import Status
from agentmatrix.dataset.row import DatasetRow

__all__ = ["SettledRow"]


@dataclass(slots=True)
class SettledRow:
    """A row that was run to an end.

    Attributes:
        row: the row.
        status: what became of it.
        lines: its lines of the output.
        attempts: how often the agent was run.
        error_type: the type of the error, or `"interrupt"`; empty for a row that is done.
        error_text: the error, or the questions of a paused row as JSON.
        usage: tokens given to and made by each model, over all attempts.
        seconds: how long it took.
        previous: its status in the progress file before this run.
    """

    row: DatasetRow
    status: Status
    lines: Sequence[bytes] = ()
    attempts: int = 1
    error_type: str = ""
    error_text: str = ""
    usage: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    seconds: float = 0.0
    previous: str = ""
