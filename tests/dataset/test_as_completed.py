"""Rows by an iterator as they are settled, for async and sync readers, who may be slow, fail or leave."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from agentmatrix import arefine_as_completed, refine, refine_as_completed
from agentmatrix.errors import DatasetError


async def answer(columns: dict[str, Any]) -> dict[str, Any]:
    if columns["id"] == 3:
        raise ValueError("no")
    return {"answer": columns["id"] * 2}


def result(columns: dict[str, Any], state: dict[str, Any]) -> Any:
    return None if columns["id"] == 1 else [{"id": columns["id"], **state}] * (2 if columns["id"] == 2 else 1)


ROWS = [{"id": n} for n in range(6)]
RECORDS = {str(n): [] if n in (1, 3) else [{"id": n, "answer": 2 * n}] * (2 if n == 2 else 1) for n in range(6)}


@pytest.mark.parametrize("is_sync", [True, False])
async def test_rows_come_as_they_are_settled(tmp_path: Path, is_sync: bool) -> None:
    output = tmp_path / "out.jsonl"
    for expected in (RECORDS, {}):
        if is_sync:
            found = await asyncio.to_thread(lambda: list(refine_as_completed(answer, ROWS, output, result=result)))
        else:
            found = [row async for row in arefine_as_completed(answer, ROWS, output, result=result)]
        assert {row.id: row.records for row in found} == expected
        failed = [(row.id, row.name, row.error_type, row.error) for row in found if row.status != "done"]
        assert failed == ([("3", "row 4", "ValueError", "no")] if expected else [])
    assert len(output.read_text().splitlines()) == 5


async def test_a_row_comes_while_others_are_at_work() -> None:
    go_on = asyncio.Event()

    async def wait(columns: dict[str, Any]) -> dict[str, Any]:
        if columns["id"]:
            await go_on.wait()
        return {}

    found = []
    async for row in arefine_as_completed(wait, ROWS):
        found.append(row.id)
        go_on.set()
    assert found[0] == "0" and len(found) == 6


def test_what_was_yielded_is_on_disk_and_the_rest_is_left(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    seen: set[str] = set()
    for row in refine_as_completed(answer, [{"id": n + 10} for n in range(100)], output, max_concurrency=2):
        seen.add(row.id)
        assert f'"id": {row.id}, ' in output.read_text()
        if len(seen) == 5:
            break
    assert not [thread for thread in threading.enumerate() if thread.name == "agentmatrix-refine"]
    # Two at work and one that was ready, but not the hundred.
    assert len(output.read_text().splitlines()) <= 5 + 4
    report = refine(answer, [{"id": n + 10} for n in range(100)], output)
    assert (report.done, report.left) == (100, 0)


async def test_errors_reach_the_reader(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no file"):
        _ = [row async for row in arefine_as_completed(answer, tmp_path / "no.jsonl")]
    with pytest.raises(DatasetError, match="row 3 is no row"):
        await asyncio.to_thread(lambda: list(refine_as_completed(answer, [*ROWS[:2], "x"])))


async def test_who_is_told_of_rows_may_fail() -> None:
    def tell(row: Any) -> None:
        raise RuntimeError(f"{row.id} is not wanted")

    from agentmatrix import arefine

    with pytest.raises(RuntimeError, match="is not wanted"):
        await arefine(answer, ROWS, on_row=tell)
