"""Async iterables: one task reads some rows ahead, hands each on at once, and closes the iterable."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmatrix import arefine
from agentmatrix.dataset import async_source
from agentmatrix.dataset.async_source import AsyncSource
from agentmatrix.dataset.earlier_rows import EarlierRows
from agentmatrix.errors import DatasetError


async def answer(columns: dict[str, Any]) -> dict[str, Any]:
    return {"answer": columns["id"]}


class Numbers:
    """An async generator's rows; it remembers how many were asked for, by which tasks, and whether it was closed."""

    def __init__(self, count: int, *, error: BaseException | None = None) -> None:
        self.count, self.error = count, error
        self.asked, self.is_closed, self.at_end = 0, False, asyncio.Event()
        self.tasks: set[asyncio.Task[Any] | None] = set()

    async def rows(self) -> AsyncIterator[dict[str, Any]]:
        try:
            async with asyncio.timeout(600):
                for n in range(self.count):
                    self.asked += 1
                    self.tasks.add(asyncio.current_task())
                    yield {"id": n}
                if self.error is not None:
                    raise self.error
                self.at_end.set()
                await asyncio.sleep(600)
        finally:
            self.tasks.add(asyncio.current_task())
            await asyncio.sleep(0)
            self.is_closed = True


async def test_no_more_rows_are_asked_for_than_the_run_may_take() -> None:
    numbers = Numbers(1000)
    report = await arefine(answer, numbers.rows(), limit=3)
    assert (report.done, report.ended, numbers.asked, numbers.is_closed) == (3, "limit", 3, True)


@pytest.mark.parametrize("longest, count", [(math.inf, 10), (-1, 1)])
async def test_a_source_that_never_awaits_lets_others_run(
    monkeypatch: pytest.MonkeyPatch, longest: float, count: int
) -> None:
    monkeypatch.setattr(async_source, "_LONGEST_READ", longest)
    source = AsyncSource(Numbers(100).rows())
    assert len(await source.next_rows(10)) == count
    await source.aclose()


async def test_each_row_is_handed_on_at_once() -> None:
    ran: list[asyncio.Event] = [asyncio.Event() for _ in range(5)]

    async def noted(columns: dict[str, Any]) -> dict[str, Any]:
        ran[columns["id"]].set()
        return {}

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for n, event in enumerate(ran):
            yield {"id": n}
            await event.wait()

    assert (await arefine(noted, rows())).done == 5


async def test_settled_rows_are_looked_up_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for n in range(300):
            yield {"id": n}

    blocks: list[int] = []
    left_of = EarlierRows.left_of

    def noted(self: EarlierRows, block: list[Any]) -> list[Any]:
        blocks.append(len(block))
        return left_of(self, block)

    monkeypatch.setattr(EarlierRows, "left_of", noted)
    monkeypatch.setattr(async_source, "_LONGEST_READ", math.inf)
    output = tmp_path / "out.jsonl"
    assert (await arefine(answer, rows(), output)).asked == 300
    assert (await arefine(answer, rows(), output)).asked == 0
    assert sum(blocks) == 300 and len(blocks) < 10, blocks


@pytest.mark.parametrize(
    "error, raised, sentence",
    [
        (ValueError("the database is away"), ValueError, "the database is away"),
        (asyncio.CancelledError(), RuntimeError, "the iterable of rows raised CancelledError"),
    ],
)
async def test_errors_of_the_source_end_the_run(error: Any, raised: Any, sentence: str, tmp_path: Path) -> None:
    numbers, output = Numbers(3, error=error), tmp_path / "out.jsonl"
    with pytest.raises(raised, match=sentence):
        await arefine(answer, numbers.rows(), output)
    assert numbers.is_closed
    assert (await arefine(answer, [{"id": n} for n in range(3)], output, limit=3)).total == 3


async def test_a_row_that_is_none_is_named() -> None:
    async def rows() -> AsyncIterator[Any]:
        yield {"id": 1}
        yield 2

    with pytest.raises(DatasetError, match="row 2 is no row: it is of type int, not a dict"):
        await arefine(answer, rows())
    assert (await arefine(answer, rows(), skip_bad_lines=True)).bad_lines == 1


async def test_a_cancelled_run_cancels_its_source() -> None:
    numbers = Numbers(2)
    run = asyncio.create_task(arefine(answer, numbers.rows()))
    await numbers.at_end.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert numbers.is_closed and len(numbers.tasks) == 1


async def test_a_run_that_cannot_begin_closes_its_source(tmp_path: Path) -> None:
    numbers, output = Numbers(2), tmp_path / "out.jsonl"
    output.write_text("{}\n")
    with pytest.raises(DatasetError, match="knows nothing of it"):
        await arefine(answer, numbers.rows(), output)
    assert (numbers.asked, numbers.is_closed) == (1, True)


async def test_a_source_that_resists_ends_no_run() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    waiting = asyncio.Event()

    async def rows() -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"id": 0}
            try:
                waiting.set()
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                yield {"id": 1}
        finally:
            raise ValueError("no connection to close")

    source = AsyncSource(rows())
    assert [row.name for row in await source.next_rows(2)] == ["row 1"]
    await waiting.wait()
    await source.aclose()
    assert [str(context["exception"]) for context in told] == ["no connection to close"]
