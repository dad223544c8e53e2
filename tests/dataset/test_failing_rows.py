"""Rows that fail: which are tried again, which end the run, how they are found again; questions; what a 429 does."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import MessagesState
from langgraph.types import RetryPolicy, interrupt

from agentmatrix import Dag, Host, RemoteAgent, arefine, refine
from agentmatrix.dataset.slots import Slots
from agentmatrix.errors import AgentNotFound, DatasetError, HostUnreachable, TooManyFailures, Unauthenticated
from agentmatrix.testing import ScriptedChatModel

QUICK = RetryPolicy(initial_interval=0.001, jitter=False)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "text": f"text {n}"} for n in range(count)]


def chat(model: ScriptedChatModel) -> Any:
    return Dag(MessagesState).add_node("m", model).compile()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_bad_row_of_a_thousand(tmp_path: Path) -> None:
    asked: Counter[int] = Counter()
    is_mended = False

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        asked[columns["id"]] += 1
        if columns["id"] == 700 and not is_mended:
            raise KeyError("no such word")
        return {}

    output = tmp_path / "out.jsonl"
    report = refine(answer, rows(1000), output)
    assert (report.done, report.failed, report.total) == (999, 1, 1000)
    (failed,) = report.failures
    assert (failed.id, failed.name, failed.status, failed.attempts) == ("700", "row 701", "failed", 1)
    assert (failed.error_type, failed.error) == ("KeyError", "'no such word'")
    asked.clear()
    assert refine(answer, rows(1000), output).asked == 0
    is_mended = True
    report = refine(answer, rows(1000), output, retry_failed=True)
    assert (report.done, report.failed, report.total, dict(asked)) == (1000, 0, 1000, {700: 1})
    assert sorted(record["id"] for record in read(output)) == list(range(1000))


def test_failures_that_may_pass_are_tried_again() -> None:
    asked: Counter[int] = Counter()

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        asked[columns["id"]] += 1
        if columns["id"] == 1 or (columns["id"] == 2 and asked[2] < 3):
            raise ConnectionError("gone")
        return {}

    report = refine(answer, rows(4), retry=QUICK)
    assert (report.done, report.failed, asked) == (3, 1, Counter({0: 1, 1: 3, 2: 3, 3: 1}))
    (failed,) = report.failures
    assert (failed.id, failed.error_type, failed.error, failed.attempts) == ("1", "ConnectionError", "gone", 3)


def test_a_row_that_takes_too_long_is_tried_again() -> None:
    async def hang(columns: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(1000)
        return {}

    (failed,) = refine(hang, rows(1), retry=QUICK, timeout=0.1).failures
    assert (failed.error_type, failed.error, failed.attempts) == (
        "TimeoutError",
        "the row took longer than 0.1 seconds",
        3,
    )


def test_a_cancelled_run_is_a_failure_of_its_row() -> None:
    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        if columns["id"] == 1:
            raise asyncio.CancelledError
        return {}

    report = refine(answer, rows(3))
    assert (report.done, report.failed, report.failures[0].error_type) == (2, 1, "CancelledError")


def test_too_many_failures_end_it_and_what_is_done_is_kept(tmp_path: Path) -> None:
    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        if columns["id"] % 2:
            raise ValueError("odd")
        return {}

    with pytest.raises(TooManyFailures, match=r"10 of 20 rows have failed, the last with ValueError: odd") as raised:
        refine(answer, rows(1000), tmp_path / "out.jsonl", max_concurrency=1)
    report: Any = raised.value.report
    assert (report.done, report.failed, report.left, report.total) == (10, 10, 980, 1000)
    assert len(read(tmp_path / "out.jsonl")) == 10


def test_what_can_never_succeed_ends_it_at_once(tmp_path: Path) -> None:
    graph = chat(ScriptedChatModel("x", cycle=True))
    with Host({"chat": graph}, token="secret") as host:
        for agent, kind in (
            (RemoteAgent(f"{host.address}/chat", token="wrong"), Unauthenticated),
            (RemoteAgent(f"{host.address}/chut", token="secret"), AgentNotFound),
        ):
            with pytest.raises(kind):
                refine(agent, rows(1000), tmp_path / "out.jsonl", input={"messages": "text"})
    with pytest.raises(HostUnreachable):
        refine(RemoteAgent("127.0.0.1:1/chat"), rows(10), input={"messages": "text"})
    began: list[int] = []

    async def unlisted(columns: dict[str, Any]) -> dict[str, Any]:
        began.append(columns["id"])
        raise Unauthenticated("the provider's key has expired")

    with pytest.raises(Unauthenticated) as raised:
        refine(unlisted, rows(1000), max_concurrency=4)
    assert "row 1 (id '0') ended so" in raised.value.__notes__[0]
    assert len(began) <= 8


class TooManyRequests(Exception):
    """A provider's 429."""

    status_code = 429

    def __init__(self, seconds: float) -> None:
        super().__init__("too many requests")
        self.response = type("Response", (), {"headers": {"retry-after": str(seconds)}})()


def test_a_429_cools_all_rows_down(monkeypatch: pytest.MonkeyPatch) -> None:
    cool_down, calls, limits = 0.4, [], []
    cooled: list[float] = []
    acquire, rate_limited = Slots.acquire, Slots.rate_limited

    async def acquired(self: Slots, *, again: bool = False) -> float:
        limits.append(self.limit)
        return await acquire(self, again=again)

    def limited(self: Slots, began: float, wait: float | None) -> None:
        cooled.append(time.monotonic())
        rate_limited(self, began, wait)

    monkeypatch.setattr(Slots, "acquire", acquired)
    monkeypatch.setattr(Slots, "rate_limited", limited)

    def answer(messages: Any) -> Any:
        calls.append(time.monotonic())
        if len(calls) in (40, 41, 42):
            raise TooManyRequests(cool_down)
        return AIMessage("yes")

    first, second = ScriptedChatModel(answer, cycle=True), ScriptedChatModel(answer, cycle=True)
    dag = Dag(MessagesState)
    dag.add_node("first", first)
    dag.add_node("second", second)
    dag.add_edge("first", "second")
    report = refine(dag.compile(), rows(200), input={"messages": "text"}, max_concurrency=16, retry=QUICK)
    assert (report.done, report.failed) == (200, 0)
    assert len(cooled) == 3
    # Also rows in their middle have made no call.
    assert [moment for moment in calls if cooled[0] < moment < cooled[0] + cool_down] == []
    assert min(limits) in (4, 8) and limits[-1] > min(limits)


def test_a_rate_limiter_is_asked() -> None:
    limiter = InMemoryRateLimiter(requests_per_second=200, check_every_n_seconds=0.001, max_bucket_size=1)

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        return {}

    began = time.monotonic()
    assert refine(answer, rows(21), rate_limiter=limiter).done == 21
    assert time.monotonic() - began >= 0.1


def asking(saver: Any, name: str = "ask") -> Any:
    async def ask(state: MessagesState) -> Mapping[str, Any]:
        text = state["messages"][-1].text
        return {"messages": [("ai", interrupt(f"is {text} right?") if text.endswith("3") else "plain")]}

    return Dag(MessagesState).add_node(name, ask).compile(checkpointer=saver)


async def test_questions_are_kept_and_answered(tmp_path: Path) -> None:
    graph, output = asking(InMemorySaver()), tmp_path / "out.jsonl"
    report = await arefine(graph, rows(5), output, input={"messages": "text"})
    assert (report.done, report.paused, report.total) == (4, 1, 5)
    (paused,) = report.failures
    assert (paused.id, paused.status, json.loads(paused.error)[0]["value"]) == ("3", "paused", "is text 3 right?")
    assert (await arefine(graph, rows(5), output, input={"messages": "text"})).asked == 0
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "4", "answer": "no"}\n')
    with pytest.raises(DatasetError, match="there is an answer for the row '4', which is not paused"):
        await arefine(graph, rows(5), output, input={"messages": "text"}, answers=answers)
    answers.write_text('{"id": "3", "answer": "it is"}\n')
    report = await arefine(graph, rows(5), output, input={"messages": "text"}, answers=answers)
    assert (report.done, report.paused, report.asked) == (5, 0, 1)
    assert read(output)[-1]["messages"][-1]["content"] == "it is"
    answers.write_text("yes\n")
    with pytest.raises(DatasetError, match="line 1 of .* is no answer"):
        await arefine(graph, rows(5), output, input={"messages": "text"}, answers=answers)


def test_a_sync_checkpointer_is_refused(tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "db")) as saver:
        with pytest.raises(DatasetError, match="SqliteSaver has sync methods only"):
            refine(asking(saver), rows(1), input={"messages": "text"})


async def test_with_a_checkpointer_a_retry_goes_on_behind_the_last_finished_node() -> None:
    asked: Counter[str] = Counter()

    def node(name: str) -> Any:
        async def run(state: MessagesState) -> Mapping[str, Any]:
            asked[name] += 1
            if name == "b" and asked["b"] < 3:
                raise ConnectionError("gone")
            return {"messages": [("ai", name)]}

        return run

    dag = Dag(MessagesState)
    for name in "abc":
        dag.add_node(name, node(name))
    dag.add_edge("a", "b")
    dag.add_edge("b", "c")
    report = await arefine(dag.compile(checkpointer=InMemorySaver()), rows(1), input={"messages": "text"}, retry=QUICK)
    assert (report.done, asked) == (1, {"a": 1, "b": 3, "c": 1})
    assert [message["content"] for message in report.rows[0]["messages"]] == ["text 0", "a", "b", "c"]
