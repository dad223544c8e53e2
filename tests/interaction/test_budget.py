"""Budgets shrink down the tree of agents, and over the wire."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from langchain_core.messages import AnyMessage
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import Budget, Dag, Host, RemoteAgent
from agentmatrix.budget import calls_left, seconds_left, tokens_left
from agentmatrix.errors import BudgetError, DeadlineExceeded, ProtocolError
from agentmatrix.session.remote_usage import CallerUsage
from agentmatrix.testing import ScriptedChatModel
from tests.attacks.kit import eventually


def caller_of(model: Any, calls: int) -> Any:
    """A graph of one node that calls a model so many times."""

    def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke("a question") for _ in range(calls)]}

    return StateGraph(MessagesState).add_node(think).add_edge(START, "think").compile()


def words(count: int) -> ScriptedChatModel:
    return ScriptedChatModel(" ".join(["word"] * count), cycle=True, usage=True)


async def test_calls_and_tokens_are_counted_wherever_the_model_is(verbs: Any, place: Any) -> None:
    graph = place(caller_of(words(3), 2))
    parent = Dag(MessagesState).add_node("inner", graph).add_node("own", words(3)).add_edge("inner", "own").compile()
    with Budget(calls=10, tokens=1000) as outer, Budget(calls=7) as inner:
        await verbs.invoke(parent, {"messages": "hello"})
        assert (outer.used_calls, outer.calls_left, inner.calls_left) == (3, 7, 4)
        assert outer.used_tokens == inner.used_tokens and outer.used_tokens > 9
        assert outer.tokens_left == 1000 - outer.used_tokens
        streamed = await verbs.listed(graph, "stream", {"messages": "hello"})
        assert streamed and outer.used_calls == 5


@pytest.mark.parametrize(("limit", "words_said"), [({"calls": 3}, "3 calls of models"), ({"tokens": 9}, "9 tokens")])
async def test_what_is_over_its_budget_stops_where_the_model_is_called(
    verbs: Any, place: Any, limit: dict[str, int], words_said: str
) -> None:
    graph = place(caller_of(words(1), 10))
    with Budget(**limit) as budget, pytest.raises(BudgetError, match=f"the budget of {words_said} is used up"):
        await verbs.invoke(graph, {"messages": "hello"})
    assert budget.used_calls == 3 and 0 in (budget.calls_left, budget.tokens_left)


async def test_a_host_gets_what_is_left_and_passes_that_on(verbs: Any) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(messages: list[AnyMessage]) -> None:
        seen.append((calls_left(), tokens_left(), seconds_left()))

    with Host({"look": look}) as far, Host({"think": caller_of(words(1), 2)}) as near:
        tree = Dag(MessagesState).add_node("think", RemoteAgent("think", url=near.address))
        tree.add_node("look", RemoteAgent("look", url=far.address)).add_edge("think", "look")
        near.add("tree", tree.compile())
        remote = RemoteAgent("tree", url=near.address, timeout=500)
        with Budget(calls=5, tokens=1000, seconds=80) as budget:
            await verbs.invoke(remote, {"messages": "hello"})
            assert budget.used_calls == 2
        await verbs.invoke(remote, {"messages": "hello"})
    (calls, tokens, seconds), (_, _, by_timeout) = seen
    assert calls == 3 and tokens == 1000 - budget.used_tokens and 0 < seconds < 80
    assert 80 < by_timeout < 500


@pytest.mark.parametrize(("limit", "words_said"), [({"calls": 3}, "3 calls of models"), ({"tokens": 9}, "9 tokens")])
async def test_a_host_that_has_too_little_left_names_the_whole_budget(
    verbs: Any, limit: dict[str, int], words_said: str
) -> None:
    """The second host behind the first has the rest of a rest."""
    with Host({"think": caller_of(words(1), 10)}) as far:
        near = Dag(MessagesState).add_node("think", RemoteAgent("think", url=far.address))
        with Host({"near": near.compile()}) as host:
            tree = Dag(MessagesState).add_node("plan", caller_of(words(1), 1))
            tree.add_node("near", RemoteAgent("near", url=host.address)).add_edge("plan", "near")
            with Budget(**limit), pytest.raises(BudgetError, match=f"the budget of {words_said} is used up"):
                await verbs.invoke(tree.compile(), {"messages": "hello"})


async def test_time_that_is_over_ends_runs_elsewhere(verbs: Any) -> None:
    async def sleep(state: MessagesState) -> None:
        import asyncio

        await asyncio.sleep(600)

    graph = StateGraph(MessagesState).add_node(sleep).add_edge(START, "sleep").compile()
    with Host({"slow": graph}) as host:
        remote = RemoteAgent("slow", url=host.address)
        with Budget(seconds=0.3), pytest.raises(DeadlineExceeded):
            await verbs.invoke(remote, {"messages": "hello"})
    with Budget(seconds=0.001):
        time.sleep(0.01)
        with pytest.raises(BudgetError, match="0.001 seconds"):
            words(1).invoke("hello")


def test_a_budget_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 tokens"):
        Budget(tokens=-1)
    with pytest.raises(ValueError, match="nan seconds"):
        Budget(seconds=float("nan"))
    budget = Budget(calls=1)
    with budget, pytest.raises(RuntimeError, match="entered once"):
        budget.__enter__()


@pytest.mark.parametrize("said", [(-1, 0, 0), (0, 1.5, 0), (0, 0, True), ("many", 0, 0)])
def test_a_host_cannot_give_a_budget_back(said: tuple[Any, ...]) -> None:
    with Budget(tokens=10) as budget, pytest.raises(ProtocolError, match="usage"):
        CallerUsage().add(*said)
    assert budget.tokens_left == 10


def test_what_others_use_while_a_run_is_sent_off_is_told() -> None:
    told: list[Any] = []
    with Budget(tokens=20) as budget:
        usage = CallerUsage()
        usage.pack()
        budget.add(9, 0)
        usage.follow(told.append)
        usage.close()
    assert told == [(11, None)]


@pytest.mark.parametrize("limits", [{"calls": 10}, {"tokens": 20}])
async def test_branches_on_two_hosts_and_here_draw_on_one_budget(verbs: Any, limits: dict[str, int]) -> None:
    """Each waits until it has heard what the others have used, and then uses all that is left."""
    model, done = words(1), threading.Event()
    left = calls_left if "calls" in limits else tokens_left
    said: dict[str, int] = {}

    def first(state: MessagesState) -> None:
        before = left()
        assert before is not None
        for _ in range(3):
            model.invoke("a question")
        said["a call"] = before - (left() or 0)
        done.wait(60)

    def second(state: MessagesState) -> None:
        total = next(iter(limits.values()))
        assert eventually(lambda: said.get("a call") and left() == total - said["a call"], 60), left()
        model.invoke("a question")
        assert eventually(lambda: "here" in said and left() == said["here"], 60), (left(), said)
        with pytest.raises(BudgetError):
            for _ in range(100):
                model.invoke("a question")
        done.set()

    def here(state: MessagesState) -> None:
        total = next(iter(limits.values()))
        one = lambda: said.get("a call", 0) // 3  # noqa: E731
        assert eventually(lambda: one() and left() == total - 4 * one(), 60), left()
        model.invoke("a question")
        said["here"] = left() or 0

    with Host({"first": one_node(first)}) as a, Host({"second": one_node(second)}) as b, Budget(**limits) as budget:
        parent = StateGraph(MessagesState)
        for name, node in (("a", RemoteAgent(f"{a.address}/first")), ("b", RemoteAgent(f"{b.address}/second"))):
            parent.add_node(name, node).add_edge(START, name)
        parent.add_node("here", here).add_edge(START, "here")
        await verbs.invoke(parent.compile(), {"messages": "hello"})
    if "calls" in limits:
        assert budget.used_calls == 10
    else:
        assert 20 <= budget.used_tokens < 20 + budget.used_tokens // budget.used_calls


def one_node(node: Any) -> Any:
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()
