"""Datasets: an agent over rows, with each row exactly once in the output (`refine`, `arefine`).

`refinement` has the two verbs. A row's way: `sources` read it, `row_reader` gives it its id, `row_loop` gives it a
slot, `row_runner` runs the agent on it, `records` makes lines of the result, `row_writer` writes them with the progress
file.
"""

from agentmatrix.dataset.as_completed import arefine_as_completed, refine_as_completed
from agentmatrix.dataset.completed_row import CompletedRow
from agentmatrix.dataset.ray_hosts import Ray
from agentmatrix.dataset.refinement import arefine, refine
from agentmatrix.dataset.report import FailedRow, Report

__all__ = [
    "CompletedRow",
    "FailedRow",
    "Ray",
    "Report",
    "arefine",
    "arefine_as_completed",
    "refine",
    "refine_as_completed",
]
