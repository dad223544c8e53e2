"""Agents that organize themselves: who is asked when and reads what, roles and their memory, shocks, the experiment."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.errors import BuildError
from agentmatrix.testing import ScriptedChatModel, loopback
from graphs import self_organizing
from graphs._claims import Claim
from graphs.self_organizing import PROTOCOLS, build, contributions, role_of
from graphs.self_organizing import __main__ as table
from graphs.self_organizing.competence import draw_task, quality, simulated
from graphs.self_organizing.experiment import (
    SIZES,
    experiment,
    gini,
    judged_by,
    remove_hub,
    remove_one,
    swap_models,
)

NAMES = [f"a{number}" for number in range(1, 6)]
PLAN = "\n".join(f"- **{name}**: part {name}" for name in NAMES)
THREAD: Any = {"configurable": {"thread_id": "1"}}


def recording(abstains: str = "") -> dict[str, ScriptedChatModel]:
    words = {name: "ABSTAIN" if name == abstains else f"role {name}: done" for name in NAMES}
    words["coordinator"] = PLAN
    return {name: ScriptedChatModel(text, cycle=True, usage=True) for name, text in words.items()}


def read_by(model: ScriptedChatModel, call: int = -1) -> list[tuple[str | None, str]]:
    """What a model was given behind its instructions, by whom."""
    return [(message.name, message.text) for message in model.prompts[call][1:]]


def test_the_table_has_what_the_paper_says() -> None:
    rows = [*table.calls_and_depth(), *table.visibility(), *table.simulation(seeds=4), *table.shocks()]
    assert [claim for claim in rows if not claim.holds] == []
    assert len(rows) == 18


@pytest.mark.parametrize("n", [4, 32])
def test_the_calls_are_those_of_the_protocol_at_any_size(n: int) -> None:
    rows = table.calls_and_depth(n)
    assert [row[2] for row in rows[:4]] == [str(calls) for calls in (n + 1, n, 2 * n, n)]
    assert [row[2] for row in rows[4:]] == [str(depth) for depth in (2, n, 2, 1)]


@pytest.mark.parametrize("place", ["here", "on a host"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_who_reads_what(protocol: str, place: str) -> None:
    agents = recording()
    graph: Any = build(protocol, agents)
    if place == "on a host":
        graph = loopback(graph)
    first = await graph.ainvoke({"messages": "An earlier task."})
    graph.invoke({"messages": "The task.", "memory": first["memory"]})
    others = [read_by(agents[name]) for name in NAMES]
    said = {name: (name, f"<name>{name}</name><content>role {name}: done</content>") for name in NAMES}
    for position, (name, read) in enumerate(zip(NAMES, others, strict=True)):
        assert read[0] == (None, "The task.")
        assert not any("An earlier task." in text for _, text in read)
        if protocol == "coordinator":
            assert read[1:] == [("coordinator", f"<name>coordinator</name><content>part {name}</content>")]
        elif protocol == "sequential":
            assert read[1:] == [said[before] for before in NAMES[:position]]
        elif protocol == "broadcast":
            assert read_by(agents[name], -2) == [(None, "The task.")]
            assert [who for who, _ in read[1:] if who] == NAMES
            assert set(said.values()) - set(read) == {said[name]}
        else:
            roles = ", ".join(f"{other}: role {other}" for other in NAMES)
            assert [who for who, _ in read[1:]] == ["memory"] and f"Task 1: {roles}" in read[1][1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_abstains_says_nothing_and_has_no_role(protocol: str) -> None:
    agents = recording(abstains="a2")
    result = build(protocol, agents).invoke({"messages": "The task."})
    done = contributions(result)
    assert [one["agent"] for one in done] == ["a1", "a3", "a4", "a5"]
    assert [one["role"] for one in done] == ["role a1", "role a3", "role a4", "role a5"]
    assert result["memory"] == [{one["agent"]: one["role"] for one in done}]
    if protocol == "sequential":
        assert [one["depth"] for one in done] == [1, 2, 3, 4]
        assert not any("ABSTAIN" in text for _, text in read_by(agents["a5"]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_roles_are_remembered_on_a_thread(protocol: str) -> None:
    agents = recording()
    graph = build(protocol, agents, InMemorySaver())
    for task in ("One.", "Two.", "Three."):
        result = graph.invoke({"messages": task}, THREAD)
    assert result["memory"] == [{name: f"role {name}" for name in NAMES}] * 3
    assert len(contributions(result)) == 5
    assert [text for _, text in read_by(agents["a1"])][0] == "Three."
    assert ("Task 2: a1: role a1" in read_by(agents["a1"])[-1][1]) == (protocol == "shared")


def test_whom_the_coordinator_forgets_has_the_task_alone() -> None:
    agents = recording()
    agents["coordinator"] = ScriptedChatModel("a1: all of it\nWell.")
    result = build("coordinator", agents).invoke({"messages": "The task."})
    assert len(read_by(agents["a1"])) == 2 and read_by(agents["a2"]) == [(None, "The task.")]
    assert [one["depth"] for one in contributions(result)] == [2, 1, 1, 1, 1]


def test_a_plan_is_read_as_models_write_it() -> None:
    agents = recording()
    plan = (
        "Here is the plan:\n1. **a1**: one\n2) a2 : two: and more\n### A3: three\n* **a4:** four\n5. nobody: five\na5:"
    )
    agents["coordinator"] = ScriptedChatModel(plan)
    build("coordinator", agents).invoke({"messages": "The task."})
    read = [[re.sub("<name>.*?</name>|<[^>]*>", "", text) for _, text in read_by(agents[name])[1:]] for name in NAMES]
    assert read == [["one"], ["two: and more"], ["three"], ["four"], []]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("said", ["", " \n", '"ABSTAIN"', "**Abstain.**"])
def test_who_says_nothing_abstains(protocol: str, said: str) -> None:
    team = dict.fromkeys([*NAMES, "coordinator"], ScriptedChatModel(said, cycle=True))
    result = build(protocol, team).invoke({"messages": "The task."})
    assert contributions(result) == [] and result["memory"] == [{}]


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("Analyst: I look.", "analyst"),
        ("**Risk  Officer**: I look.", "risk officer"),
        ("I look.", "unnamed"),
        (": I look.", "unnamed"),
        ("What I would do about this thing is: look.", "unnamed"),
    ],
)
def test_a_role_is_what_stands_in_front(text: str, role: str) -> None:
    assert role_of(text) == role


@pytest.mark.parametrize(("protocol", "why"), [("ripple", "only named by the paper"), ("anarchy", "is unknown")])
def test_no_other_protocol_is_offered(protocol: str, why: str) -> None:
    with pytest.raises(BuildError, match=f"{why}.*: choose one of coordinator, sequential, broadcast, shared"):
        build(protocol, recording())


def test_an_experiment_measures_each_protocol_and_model() -> None:
    teams = {"simulated": simulated, "willing": lambda n, seed: recording()}
    found = experiment(teams, sizes=[5], tasks=2, repeat=2)
    assert found.graphs == [f"{protocol} 5 {team}" for team in teams for protocol in PROTOCOLS]
    costs = ["calls", "tokens", "seconds", "critical_path", "silent_turns"]
    assert found.measures == [*costs, "Q", "depth", "roles", "gini", "abstention"]
    assert found.values("sequential 5 willing", "calls") == [5] * 4
    assert found.mean("sequential 5 willing", "roles") == 5 and found.mean("sequential 5 willing", "gini") == 0
    assert found.mean("broadcast 5 willing", "tokens") > found.mean("sequential 5 willing", "tokens") > 0
    again = experiment(teams, sizes=[5], tasks=2, repeat=2)
    assert [run.measures["Q"] for run in again.runs] == [run.measures["Q"] for run in found.runs]


def test_many_agents_mostly_abstain() -> None:
    assert SIZES == (4, 8, 16, 32, 64, 128, 256)
    found = experiment(protocols=["sequential"], sizes=[4, 128], tasks=1)
    assert found.mean("sequential 128 simulated", "calls") == 128
    assert (
        found.mean("sequential 128 simulated", "abstention") > 0.8 > found.mean("sequential 4 simulated", "abstention")
    )


def test_shocks_change_the_team_and_nothing_else() -> None:
    team, draw = {**simulated(8, 0)}, random.Random(1)
    memory = [{"a3": "law", "a5": "law"}, {"a5": "budget"}]
    assert team.keys() - remove_hub(team, draw, memory).keys() == {"a5"}
    gone = team.keys() - remove_one(team, draw, memory).keys()
    assert len(gone) == 1 and gone != {"coordinator"}
    swapped = swap_models(simulated(8, 1))(team, draw, memory)
    assert swapped.keys() == team.keys() and sum(swapped[name] is not team[name] for name in team) == 2
    found = experiment(protocols=["shared"], sizes=[4], tasks=3, shock=remove_one, shock_before=1)
    assert [run.measures["calls"] for run in found.runs] == [4, 3, 3]


def test_a_task_that_fails_is_counted_and_the_others_go_on() -> None:
    broken = {"a1": ScriptedChatModel([ValueError("no line"), "law: done"])}
    found = experiment({"broken": lambda n, seed: broken}, protocols=["sequential"], sizes=[1], tasks=2)
    assert [run.error for run in found.runs] == ["ValueError: no line", None]
    assert found.values("sequential 1 broken", "calls") == [1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_after_a_task_that_has_failed_each_agent_is_asked_anew(protocol: str) -> None:
    def one_fails_in_the_second_task(messages: list[BaseMessage]) -> str:
        if messages[1].text == "Two." and "you mean to take" not in messages[0].text:
            raise ValueError("no line")
        return "law: done"

    def team(n: int, seed: int) -> dict[str, ScriptedChatModel]:
        return {**recording(), "a3": ScriptedChatModel(one_fails_in_the_second_task, cycle=True)}

    found = experiment({"one": team}, protocols=[protocol], sizes=[5], tasks=["One.", "Two.", "Three."])
    calls = {"coordinator": 6, "sequential": 5, "broadcast": 10, "shared": 5}[protocol]
    assert [run.error for run in found.runs] == [None, "ValueError: no line", None]
    assert found.values(f"{protocol} 5 one", "calls") == [calls, calls]
    assert found.values(f"{protocol} 5 one", "abstention") == [0, 0]


def test_a_shock_before_no_task_is_refused() -> None:
    with pytest.raises(ValueError, match="before task 3, and there are tasks 0 to 2"):
        experiment(sizes=[4], shock=remove_one, shock_before=3)


def test_a_judge_gives_four_numbers_or_nothing() -> None:
    done = contributions(build("sequential", recording()).invoke({"messages": "The task."}))
    judge = ScriptedChatModel(["4, 3, 4 and 2", "Very good!", "4 4 4"])
    score = judged_by(judge)
    assert [score("The task.", done) for _ in range(3)] == [13 / 16, None, None]
    assert "role a1: done" in judge.prompts[0][0].text
    found = experiment({"one": lambda n, seed: recording()}, sizes=[5], tasks=["The task."], score=lambda *_: None)
    assert "Q" not in found.measures


def test_quality_is_what_is_covered_less_what_is_done_twice() -> None:
    def one(role: str, skill: float) -> Any:
        return {"agent": "a1", "role": role, "text": f"{role}: done as well as {skill:.3f}", "depth": 1}

    task = "It needs budget 0.500, law 0.500"
    assert quality(task, []) == quality(task, [one("design", 1.0)]) == 0.25
    assert quality(task, [one("law", 0.8), one("budget", 0.4)]) == pytest.approx(0.25 + 0.75 * 0.6)
    assert quality(task, [one("law", 0.8), one("law", 0.4)], 0.6) == pytest.approx(0.25 + 0.75 * (0.4 - 0.3))


def test_gini() -> None:
    assert gini([]) == gini([3, 3, 3]) == 0
    assert gini([0, 0, 0, 1]) == pytest.approx(0.75)


def test_the_graph_of_the_package_is_servable_and_main_prints_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = loopback(self_organizing.graph).invoke({"messages": [HumanMessage(draw_task(0))]})
    assert contributions(result)
    monkeypatch.setattr(table, "simulation", lambda: [Claim("claim", "this", "that")])
    monkeypatch.setattr(table, "shocks", lambda: [Claim("other", "this", "this")])
    assert table.main([]) == 0
    printed = capsys.readouterr().out
    assert "broadcast, N=8: calls" in printed and "claim" in printed and "this   that   differs" in printed
    assert "sequential 16 simulated" in printed
