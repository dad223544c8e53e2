"""Rows that end the process that runs them: they are found and tombstoned, and no other is taken for one of them."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentmatrix import refine
from tests.dataset.crashing_rows import CRASHING, interrupt_and_fail, run_rows
from tests.forked import Forked

COUNT = 60


def write_rows(folder: Path) -> None:
    (folder / "in.jsonl").write_text("".join(f'{{"id": {n}}}\n' for n in range(COUNT)))


def run_until_it_ends(folder: Path, order: str = "done", options: dict[str, Any] | None = None) -> tuple[Any, int]:
    """The same run again and again, as a user's loop does. Returns what it said at last, and how often it crashed."""
    for crashes in range(20):
        with Forked(run_rows, folder, order, options) as process:
            said, errors = process.communicate(100)
        if said:
            return json.loads(said), crashes
        assert "Traceback" not in errors, errors
    raise AssertionError("it crashes for ever")


@pytest.mark.parametrize("order", ["done", "input"])
def test_rows_that_crash_the_process_are_tombstoned_and_no_other(tmp_path: Path, order: str) -> None:
    write_rows(tmp_path)
    said, crashes = run_until_it_ends(tmp_path, order)
    guilty = [[str(number), "tombstoned", 3, "WorkerCrashedError"] for number in CRASHING]
    assert said == {"done": COUNT - len(CRASHING), "left": 0, "failures": guilty}
    # Rows 9 and 10 are at work together: each of them ends alone, once.
    assert crashes <= 3 * len(CRASHING)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = [{"id": n, "answer": 2 * n} for n in range(COUNT) if n not in CRASHING]
    assert (lines if order == "input" else sorted(lines, key=lambda line: line["id"])) == expected
    begun = Counter((tmp_path / "calls").read_text().split())
    assert sum(begun.values()) - COUNT <= crashes * 8


def test_it_is_tried_again_when_it_is_told_so(tmp_path: Path) -> None:
    write_rows(tmp_path)
    run_until_it_ends(tmp_path, options={"max_crashes": 2})

    async def mended(columns: dict[str, Any]) -> dict[str, Any]:
        return {"answer": columns["id"] * 2}

    # The name of the function is no setting, and its schema is the same.
    report = refine(mended, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (report.asked, report.tombstoned) == (0, 3)
    report = refine(mended, tmp_path / "in.jsonl", tmp_path / "out.jsonl", retry_failed=True)
    assert (report.done, report.asked, report.tombstoned) == (COUNT, 3, 0)


@pytest.mark.parametrize("in_notebook", [False, True])
def test_an_interrupted_run_is_no_crash(tmp_path: Path, in_notebook: bool) -> None:
    write_rows(tmp_path)
    for _ in range(4):
        with Forked(interrupt_and_fail, tmp_path, in_notebook) as process:
            said, errors = process.communicate(60)
        assert said == "interrupted []\n", errors
    with sqlite3.connect(tmp_path / "out.jsonl.progress") as progress:
        assert progress.execute("select count(*) from begun").fetchone() == (0,)
    progress.close()
