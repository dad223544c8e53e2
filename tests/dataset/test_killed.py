"""Twenty SIGKILLs: no row is lost, none is twice in the output, and few are run again."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

from tests.dataset.killed_rows import AT_ONCE, go_on_in_the_middle, lines_of, run_rows, write_rows
from tests.forked import Forked

ROWS, KILLS = 2000, 20


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_calls(process: Forked, folder: Path, count: int) -> None:
    """Until so many calls have been made, or the process has ended."""
    patience = time.monotonic() + 100
    while len(calls(folder)) < count:
        assert process._process.is_alive(), process.stderr.read()
        assert time.monotonic() < patience
        time.sleep(0.005)


def check_files(folder: Path, order: str) -> int:
    """That output and progress file agree after a kill; returns how many rows are settled."""
    if not (folder / "out.jsonl.progress").exists():
        return 0
    with sqlite3.connect(folder / "out.jsonl.progress") as progress:
        meta = {key: json.loads(value) for key, value in progress.execute("select key, value from meta")}
        statuses = dict(progress.execute("select status, count(*) from row group by status"))
        done = {id for (id,) in progress.execute("select id from row where status='done'")}
    progress.close()
    recorded = {status: count for status, count in meta.get("counts", {}).items() if count}
    assert recorded == statuses
    written = (folder / "out.jsonl").read_bytes()
    assert len(written) >= meta.get("length", 0)
    lines = [json.loads(line) for line in written[: meta.get("length", 0)].splitlines()]
    found = Counter(line["id"] for line in lines)
    if order == "done":
        assert found == Counter({id: lines_of(int(id[1:])) for id in done})
    else:
        assert found.keys() <= done
    return sum(statuses.values())


@pytest.mark.parametrize("order", ["done", "input"])
def test_twenty_kills(tmp_path: Path, order: str) -> None:
    rows, kills = (ROWS, KILLS) if order == "done" else (600, 6)
    write_rows(tmp_path, rows)
    chance = random.Random(5)
    settled = 0
    for _ in range(kills):
        with Forked(run_rows, tmp_path, order) as process:
            wait_for_calls(process, tmp_path, len(calls(tmp_path)) + chance.randrange(20, rows // kills - 20))
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        now = check_files(tmp_path, order)
        assert now >= settled
        settled = now
    with Forked(run_rows, tmp_path, order) as process:
        said, errors = process.communicate(100)
    failed = sum(number % 97 == 5 for number in range(rows))
    assert json.loads(said) == {"done": rows - failed, "failed": failed, "left": 0, "total": rows}, errors
    check_files(tmp_path, order)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = [(f"r{number}", part) for number in range(rows) for part in range(lines_of(number))]
    found = [(line["id"], line["part"]) for line in lines]
    assert (sorted(found) == sorted(expected)) if order == "done" else (found == expected)
    begun = Counter(calls(tmp_path))
    assert len(begun) == rows
    assert sum(begun.values()) - rows <= kills * AT_ONCE


def test_with_a_checkpointer_a_row_goes_on_in_its_middle(tmp_path: Path) -> None:
    write_rows(tmp_path, 4)
    for kill in range(3):
        with Forked(go_on_in_the_middle, tmp_path) as process:
            # All four rows are in their last node.
            wait_for_calls(process, tmp_path, 12 + 4 * kill)
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
    (tmp_path / "go").touch()
    with Forked(go_on_in_the_middle, tmp_path) as process:
        _, errors = process.communicate(100)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["log"] for line in lines] == [["a", "b", "c"]] * 4, errors
    begun = Counter(calls(tmp_path))
    assert {begun[f"begun r{number} {name}"] for number in range(4) for name in "ab"} == {1}
