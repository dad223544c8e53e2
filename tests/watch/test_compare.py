"""Graphs side by side: what each costs by task and repetition, with what fails, pauses, and cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt

from agentmatrix import ChatGroup, Dag, acompare, compare
from agentmatrix.errors import BuildError
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback
from agentmatrix.watch import Comparison
from tests.watch.watched_graphs import model, one


def talk(turns: int) -> ChatGroup:
    members = {"ann": model("Tuesday it is."), "bob": model("")}
    return ChatGroup(members, stop=max_turns(turns), name=f"talk{turns}")


def said(result: Any) -> str:
    return str(result["messages"][-1].text)


async def compared(verb: str, *args: Any, **options: Any) -> Comparison:
    return await acompare(*args, **options) if verb == "async" else compare(*args, **options)


@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize("place", ["here", "on a host"])
async def test_each_graph_has_each_task_as_often(verb: str, place: str) -> None:
    graphs = {f"talk{turns}": talk(turns).compile() for turns in (1, 4)}
    if place == "on a host":
        graphs = {name: loopback(graph) for name, graph in graphs.items()}
    found = await compared(verb, graphs, ["Which day?", "Which month?"], repeat=3)
    assert len(found.runs) == 12
    assert {(run.graph, run.task, run.repetition) for run in found.runs} == {
        (name, task, repetition)
        for name in graphs
        for task in ("Which day?", "Which month?")
        for repetition in range(3)
    }
    assert found.values("talk4", "calls") == [4] * 6 and found.spread("talk4", "calls") == 0
    assert found.mean("talk4", "silent_turns") == 2 and found.mean("talk1", "silent_turns") == 0
    assert found.mean("talk4", "tokens", task="Which day?") > found.mean("talk1", "tokens") > 0
    assert found.mean("talk4", "seconds") >= found.mean("talk4", "critical_path") > 0
    assert all(run.summary and run.summary.calls == run.measures["calls"] for run in found.runs)


def test_a_table_has_mean_and_spread() -> None:
    words = Dag(name="words").add_node("say", lambda state: "x" * (1 if state["messages"][-1].text == "a" else 3))
    found = compare([words, talk(2)], ["a", "b"], score=lambda task, result: {"length": len(said(result))})
    assert (found.mean("words", "length"), found.spread("words", "length")) == (2, math.sqrt(2))
    head, row, other = str(found).splitlines()
    assert head.split() == "graph runs failed calls tokens seconds critical path silent turns length".split()
    assert row.split()[:4] == ["words", "2", "0", "0"] and row.endswith("2.000 ± 1.414")
    assert other.split()[:4] == ["talk2", "2", "0", "2"] and other.endswith("14")


def test_a_seed_reaches_the_nodes_and_fixes_the_order() -> None:
    seen: list[tuple[str, int]] = []
    made: list[int] = []

    def node(state: Any, config: RunnableConfig) -> str:
        seen.append((state["messages"][-1].text, config["configurable"]["seed"]))
        return "ok"

    def fresh(seed: int) -> Any:
        made.append(seed)
        return Dag(name="fresh").add_node("say", ScriptedChatModel("only once"))

    orders = []
    for seed in (7, 7, 100):
        seen.clear()
        runs = compare({"seeded": one("say", node), "fresh": fresh}, ["a", "b", "c"], repeat=2, seed=seed).runs
        assert all(run.error is None and run.seed == seed + run.repetition for run in runs)
        assert [run.task for run in runs[:6]] == ["a", "a", "b", "b", "c", "c"]
        orders.append([task for task, _ in seen])
        assert sorted(number for _, number in seen) == sorted(made[-6:]) == [seed] * 3 + [seed + 1] * 3
    assert orders[0] == orders[1] != orders[2]


def test_a_run_that_fails_or_pauses_counts_as_failed_and_the_others_go_on() -> None:
    def picky(state: Any) -> str:
        if state["messages"][-1].text == "b":
            raise ValueError("no b")
        return "ok"

    asks = one("ask", lambda state: interrupt("why?"), checkpointer=InMemorySaver())
    found = compare({"picky": one("say", picky), "asks": asks}, ["a", "b"], score=lambda task, result: 1)
    assert [run.error for run in found.failures("picky")] == ["ValueError: no b"]
    assert found.values("picky", "score") == [1]
    assert {run.error for run in found.failures("asks")} == {
        "ask has paused with the question 'why?': compare without people"
    }
    assert math.isnan(found.mean("asks", "calls")) and math.isnan(found.spread("asks", "calls"))
    assert str(found).splitlines()[-1].split()[1:4] in (["2", "1", "0"], ["2", "2", "-"])


def test_a_score_that_fails_is_said_and_its_run_kept() -> None:
    found = compare({"talk": talk(1)}, ["a"], score=lambda task, result: result["nothing"])
    (run,) = found.failures("talk")
    assert run.error == "score= has failed: KeyError: 'nothing'" and run.measures["calls"] == 1


def test_each_run_has_a_thread_of_its_own() -> None:
    remembers = one("say", lambda state: str(len(state["messages"])), checkpointer=InMemorySaver())
    found = compare({"remembers": remembers}, ["a", "b"], score=lambda task, result: int(said(result)))
    assert found.values("remembers", "score") == [1, 1]


def test_what_was_compared_is_json() -> None:
    (run,) = compare({"talk": talk(1)}, {"day": "Which day?"}).as_json()
    assert (run["graph"], run["task"], run["summary"]["calls"]) == ("talk", "day", 1)


@pytest.mark.parametrize(
    ("graphs", "tasks", "options", "said"),
    [
        ({}, ["a"], {}, "no graphs to compare"),
        ({"talk": talk(1)}, [], {}, "no tasks to compare"),
        ({"talk": talk(1)}, "a", {}, r"one text: give a list of tasks, \['a'\]"),
        ({"talk": talk(1)}, ["a"], {"repeat": 0}, "repeat=0 is no number of repetitions"),
        (talk(1), ["a"], {}, "graphs= is one graph"),
        ([talk(1), talk(1)], ["a"], {}, "two graphs are named 'talk1'"),
        ([model()], ["a"], {}, "has no name"),
        ({"five": 5}, ["a"], {}, "five is 5, which is no graph"),
        ({"made": lambda seed: 5}, ["a"], {}, r"made\(0\) is 5, which is no graph"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(graphs: Any, tasks: Any, options: Any, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        compare(graphs, tasks, **options)


def test_an_unknown_name_says_which_there_are() -> None:
    found = compare({"talk": talk(1)}, ["a"])
    for arguments in (("talks", "calls"), ("talk", "cost")):
        with pytest.raises(KeyError, match="there are: .*(talk|calls)"):
            found.mean(*arguments)
