"""Tokens and money of rows, exact where the models' answers are, local, remote and nested; and the budget."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import MessagesState
from langgraph.types import RetryPolicy

from agentmatrix import ChatGroup, Dag, Host, RemoteAgent, refine
from agentmatrix.errors import DatasetError
from agentmatrix.speakers import broadcast, free, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel

ROWS = [{"id": n, "text": " ".join(["word"] * n)} for n in range(1, 11)]
INPUT = {"messages": "text"}


def two_models() -> Any:
    """A node that says two words, and one that says three."""
    dag = Dag(MessagesState)
    dag.add_node("first", ScriptedChatModel("one two", cycle=True, usage=True))
    dag.add_node("second", ScriptedChatModel("one two three", cycle=True, usage=True))
    dag.add_edge("first", "second")
    return dag.compile()


def given_and_made() -> tuple[int, int]:
    """By hand: the first model reads the row, the second the row and two words."""
    return sum(2 * len(row["text"].split()) + 2 for row in ROWS), 5 * len(ROWS)


@pytest.mark.parametrize("where", ["local", "remote", "nested", "nested remote"])
def test_tokens_are_exact(where: str) -> None:
    graph = two_models()
    with Host({"two": graph}) as host:
        agent = RemoteAgent(f"{host.address}/two") if "remote" in where else graph
        if "nested" in where:
            agent = Dag(MessagesState).add_node("inner", agent).compile()
        report = refine(agent, ROWS, input=INPUT, prices={"scripted": (1.0, 10.0)})
    given, made = given_and_made()
    assert report.usage == {"scripted": (given, made)}
    assert report.tokens == given + made
    assert report.cost == pytest.approx((given + 10 * made) / 1_000_000)


@pytest.mark.parametrize("speaker", [round_robin, broadcast, free])
def test_tokens_of_members_of_a_group_are_counted(speaker: Any) -> None:
    members = {name: ScriptedChatModel("one two", cycle=True, usage=True) for name in ("ann", "bob", "eve")}
    group = ChatGroup(members, speaker=speaker(), stop=max_turns(3)).compile()
    report = refine(group, ROWS, input=INPUT)
    calls = sum(model.calls for model in members.values())
    assert report.usage["scripted"][1] == 2 * calls > 0


def test_tokens_of_failed_attempts_count_and_earlier_runs_do(tmp_path: Path) -> None:
    calls = []

    def answer(messages: Any) -> str:
        calls.append(messages)
        return "yes"

    def check(state: MessagesState) -> dict[str, Any]:
        if len(calls) % 2:
            raise ConnectionError("once more")
        return {}

    dag = Dag(MessagesState)
    dag.add_node("answer", ScriptedChatModel(answer, cycle=True, usage=True))
    dag.add_node("check", check)
    dag.add_edge("answer", "check")
    options: Any = {
        "input": INPUT,
        "max_concurrency": 1,
        "retry": RetryPolicy(initial_interval=0.001, jitter=False),
        "limit": 4,
    }
    report = refine(dag.compile(), ROWS, tmp_path / "out.jsonl", **options)
    assert report.usage == {"scripted": (2 * (1 + 2 + 3 + 4), 8)}
    options["limit"] = 5
    report = refine(dag.compile(), ROWS, tmp_path / "out.jsonl", **options)
    assert report.usage == {"scripted": (2 * (1 + 2 + 3 + 4 + 5), 10)}


def test_a_model_without_a_name_is_counted() -> None:
    usage: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    model = ScriptedChatModel(AIMessage("x", usage_metadata=usage), cycle=True)
    assert refine(model, ROWS, input=INPUT).usage == {"unnamed": (30, 40)}


@pytest.mark.parametrize("prices", [None, {"scripted": (0.0, 1_000_000.0)}])
def test_a_budget_ends_it_and_is_overshot_by_rows_in_flight_only(tmp_path: Path, prices: Any) -> None:
    # A row makes one token and is given none.
    rows = [{"id": n, "text": ""} for n in range(200)]
    model = ScriptedChatModel("yes", cycle=True, usage=True)
    options: Any = {"input": INPUT, "max_concurrency": 8, "budget": 50, "prices": prices}
    report = refine(model, rows, tmp_path / "out.jsonl", **options)
    assert report.ended == "budget"
    assert 50 <= report.done <= 58
    assert report.done + report.left == report.total == 200
    # The same line again spends nothing more; a bigger budget does.
    assert refine(model, rows, tmp_path / "out.jsonl", **options).asked == 0
    options["budget"] = 10_000
    assert refine(model, rows, tmp_path / "out.jsonl", **options).done == 200


def test_a_model_without_a_price_ends_it(tmp_path: Path) -> None:
    model = ScriptedChatModel("yes", cycle=True, usage=True)
    output = tmp_path / "out.jsonl"
    with pytest.raises(DatasetError, match="the model 'scripted' has no price"):
        refine(model, ROWS, output, input=INPUT, prices={"another": (1.0, 1.0)}, max_concurrency=1)
    # What it has cost is not asked for twice.
    paid = len([json.loads(line) for line in output.read_text().splitlines()])
    assert 1 <= paid <= 2
    refine(model, ROWS, output, input=INPUT, prices={"scripted": (1.0, 1.0)})
    assert model.calls == len(ROWS)


def test_models_with_a_date_have_the_price_of_their_name() -> None:
    usage: Any = {"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000}
    dated = AIMessage("x", usage_metadata=usage, response_metadata={"model_name": "small-2026-01-01"})
    report = refine(
        ScriptedChatModel(dated), ROWS[:1], input=INPUT, prices={"small": (0.5, 1.0), "small-2025": (9.0, 9.0)}
    )
    assert report.cost == 0.5


def test_model_calls_of_rows_at_the_same_time_are_told_apart() -> None:
    async def answer(messages: list[Any]) -> str:
        await asyncio.sleep(0.001)
        return "yes"

    dag = Dag(MessagesState)
    dag.add_node("wait", answer)
    dag.add_node("count", ScriptedChatModel("done", cycle=True, usage=True))
    dag.add_edge("wait", "count")
    report = refine(dag.compile(), ROWS * 1, input=INPUT)
    assert report.usage["scripted"][1] == len(ROWS)
