"""Where the time of remote calls goes: microseconds of each stage, on either side.

Set AGENTMATRIX_STAGES=1 before the process starts; it prints its table to stderr when it exits. Otherwise nothing is
measured, and a call pays for one look at a variable.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections import defaultdict
from typing import Final

__all__ = ["StageClock", "stage_clock", "stage_table"]

VARIABLE: Final = "AGENTMATRIX_STAGES"

_taken: dict[str, list[float]] = defaultdict(list)
"""Seconds by stage, in the order in which stages were first seen. Threads append, which is atomic."""


class StageClock:
    """The clock of one run.

    Args:
        side: "caller" or "host", before the names of the stages.
    """

    __slots__ = ("_last", "_side")

    def __init__(self, side: str) -> None:
        self._side, self._last = side, time.perf_counter()

    def lap(self, stage: str) -> None:
        """A stage has ended, which began when the one before it ended."""
        now = time.perf_counter()
        _taken[f"{self._side}: {stage}"].append(now - self._last)
        self._last = now


def stage_clock(side: str) -> StageClock | None:
    """A clock for a new run; None where nothing is measured."""
    return StageClock(side) if _enabled else None


def stage_table() -> dict[str, float]:
    """Microseconds of each stage in the median of all runs so far."""
    import statistics

    return {stage: statistics.median(seconds) * 1e6 for stage, seconds in list(_taken.items())}


def _print_table() -> None:
    if _taken:
        sys.stderr.writelines(f"{micros:10,.0f} us  {stage}\n" for stage, micros in stage_table().items())


_enabled: Final = bool(os.environ.get(VARIABLE))
if _enabled:
    atexit.register(_print_table)
