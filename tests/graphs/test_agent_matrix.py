"""The AgentMatrix paper's systems, and each fault of its own code the other way round."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.messages import AnyMessage
from langgraph.graph import END, START
from langgraph.types import Command

from agentmatrix import ChatGroup, CyclicGraph, Dag
from agentmatrix.errors import BoundError
from agentmatrix.speakers import handoff, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback
from graphs import agent_matrix

PLACES = ["local", "remote"]


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def node(name: str) -> Any:
    def says(state: State) -> State:
        return {"log": [f"{name}({','.join(word.split('(')[0] for word in state['log'])})"]}

    return says


def at(place: str, graph: Any) -> Any:
    return loopback(graph) if place == "remote" else graph


def test_the_table_has_what_the_paper_says() -> None:
    assert [claim for claim in agent_matrix.table() if not claim.holds] == []


@pytest.mark.parametrize("place", PLACES)
async def test_translators_in_each_other_bring_the_text_back(place: str) -> None:
    graph = at(place, agent_matrix.build_translators(depth=5))
    given: Any = {"messages": agent_matrix.INPUT}
    for result in (graph.invoke(given), await graph.ainvoke(given)):
        assert result["messages"][-1].text == agent_matrix.INPUT


@pytest.mark.parametrize("place", PLACES)
def test_meta_prompting_asks_until_it_knows(place: str) -> None:
    result = at(place, agent_matrix.build_meta_prompting()).invoke({"messages": "How many legs have two spiders?"})
    assert result["messages"][-1].text == "FINAL ANSWER: 16"
    asked = [message.text for message in result["messages"] if message.name == "extract"]
    assert asked == ["How many legs has a spider?", "How much is two times eight?"]


def test_meta_prompting_has_a_bound() -> None:
    with pytest.raises(BoundError, match="max_rounds"):
        agent_matrix.build_meta_prompting(max_rounds=1).invoke({"messages": "How many legs have two spiders?"})


@pytest.mark.parametrize("said", ["no marks", "", "<expert></expert>", "</expert> first <expert>"])
def test_where_there_is_no_question_the_extractor_says_so(said: str) -> None:
    assert agent_matrix.extract([agent_matrix.HumanMessage(said)]) == "No match found."


@pytest.mark.parametrize("said", ["", "I do not know. " * 500, "FINAL ANSWER", "最终答案: 16", "<expert>Who?</expert>"])
def test_the_table_of_a_model_that_follows_no_instruction(said: str) -> None:
    rows = agent_matrix.table(ScriptedChatModel(said, cycle=True))
    differing = [claim.what for claim in rows if not claim.holds]
    assert differing == ([] if said == "FINAL ANSWER" else ["meta-prompting: an answer"])


# Its own code ran a node behind two others twice, and ended twice.
def test_1_a_node_behind_two_others_runs_once_with_what_both_have_said() -> None:
    dag = Dag(State)
    for name in "abcd":
        dag.add_node(name, node(name))
    for edge in ("ab", "ac", "bd", "cd"):
        dag.add_edge(*edge)
    assert dag.compile().invoke({"log": []})["log"] == ["a()", "b(a)", "c(a)", "d(a,b,c)"]


# Only the first of two children without an edge between them ran.
@pytest.mark.parametrize("place", PLACES)
def test_2_all_children_without_predecessors_are_started(place: str) -> None:
    inner = Dag(State, name="inner").add_node("first", node("first")).add_node("second", node("second"))
    outer = Dag(State).add_node("inner", at(place, inner.compile()))
    assert outer.compile().invoke({"log": []})["log"] == ["first()", "second()"]


def group(depth: int) -> Any:
    members: dict[str, Any] = {"ann": lambda messages: f"ann {depth}"}
    members["inside" if depth > 1 else "bob"] = group(depth - 1) if depth > 1 else (lambda messages: "bob")
    return ChatGroup(members, speaker=round_robin(), stop=max_turns(2), reply="transcript", name=f"g{depth}").compile()


# 3 and 4: a group worked at the top alone; in another agent it raised a ValueError.
@pytest.mark.parametrize("place", PLACES)
def test_4_a_group_works_at_any_depth(place: str) -> None:
    dag = Dag().add_node("talk", at(place, group(4)))
    said = [message.text for message in dag.compile().invoke({"messages": "go"})["messages"]]
    assert said == ["go", "ann 4", "ann 3", "ann 2", "ann 1", "bob"]


# A host that ended the chat in its first turn still had a member speak.
@pytest.mark.parametrize("place", PLACES)
def test_5_a_chat_that_is_ended_in_its_first_turn_has_no_second_one(place: str) -> None:
    ran: Counter[str] = Counter()

    def host(messages: list[AnyMessage]) -> Any:
        ran["host"] += 1
        return Command(goto=END, update={"messages": "There is nothing to say."})

    def guest(messages: list[AnyMessage]) -> str:
        ran["guest"] += 1
        return "But I would."

    chat = ChatGroup({"host": host, "guest": guest}, speaker=handoff("host")).compile()
    result = at(place, chat).invoke({"messages": "go"})
    assert result["messages"][-1].text == "There is nothing to say." and ran == {"host": 1}


# A choice of one chat was never forgotten: the container after it began with the member chosen in the one before.
@pytest.mark.parametrize("place", PLACES)
def test_6_a_handoff_is_for_one_turn_of_one_group(place: str) -> None:
    def hands_over(messages: list[AnyMessage]) -> Any:
        return Command(goto="second", update={"messages": "Second, please."})

    members: dict[str, Any] = {"first": hands_over, "second": lambda messages: "Here."}
    chosen = ChatGroup(members, speaker=handoff("first"), stop=max_turns(2), reply="transcript", name="one")
    plain = {"first": lambda messages: "first", "second": lambda messages: "second"}
    after = ChatGroup(plain, speaker=round_robin(), stop=max_turns(2), reply="transcript", name="two")
    dag = Dag().add_node("one", at(place, chosen.compile())).add_node("two", at(place, after.compile()))
    said = dag.add_edge("one", "two").compile().invoke({"messages": "go"})["messages"]
    assert [message.text for message in said] == ["go", "Second, please.", "Here.", "first", "second"]


# The choice of a switch leaked on: an agent behind it woke itself for ever.
@pytest.mark.parametrize("kind", [Dag, CyclicGraph])
def test_7_the_choice_of_a_switch_is_for_one_hop(kind: Any) -> None:
    def switch(state: State) -> Literal["echo", "other"]:
        return "echo"

    graph = kind(State)
    for name in ("choose", "echo", "other", "last"):
        graph.add_node(name, node(name))
    graph.add_edge(START, "choose")
    graph.add_conditional_edges("choose", switch)
    graph.add_edge("echo", "last")
    assert graph.compile().invoke({"log": []})["log"] == ["choose()", "echo(choose)", "last(choose,echo)"]


# A list of edges made no edge at all.
def test_8_a_list_makes_edges() -> None:
    dag = Dag(State)
    for name in "abc":
        dag.add_node(name, node(name))
    dag.add_edge(["a", "b"], "c")
    assert dag.compile().invoke({"log": []})["log"] == ["a()", "b()", "c(a,b)"]


# An exception left whoever waited for the answer waiting for ever.
@pytest.mark.parametrize("place", PLACES)
def test_an_error_reaches_the_caller(place: str) -> None:
    def fails(state: State) -> State:
        raise ValueError("the well is dry")

    inner = Dag(State, name="inner").add_node("fails", fails).compile()
    with pytest.raises(ValueError, match="the well is dry"):
        Dag(State).add_node("inner", at(place, inner)).compile().invoke({"log": []})
