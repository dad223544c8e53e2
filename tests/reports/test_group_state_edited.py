"""Pauses, edits of the state, other reducers, forks of the past: what users of checkpoints do with a conversation."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, add_messages
from langgraph.types import Command, interrupt

from agentmatrix import ChatGroup, CyclicGraph, Dag, all_of
from agentmatrix.speakers import broadcast, free, human, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
HINT = {"messages": [HumanMessage("A hint.")]}


def model(*answers: Any, cycle: bool = False) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=cycle)


def texts(values: dict[str, Any]) -> list[str]:
    return [message.text for message in values["messages"]]


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_words_added_while_a_person_is_asked(speaker: Any) -> None:
    """langchain-ai/langgraph#3003: while a question waits, a moderator adds something; then the person answers. The
    answer must not be lost."""
    group = ChatGroup(
        {"ann": model("a", "", ""), "joe": human()}, speaker=speaker, stop=max_turns(2), reply="transcript"
    )
    graph = group.compile(InMemorySaver())
    assert "__interrupt__" in graph.invoke({"messages": "Go."}, THREAD)
    graph.update_state(THREAD, HINT)
    result = graph.invoke(Command(resume="Tuesday."), THREAD)
    assert {"Go.", "a", "A hint.", "Tuesday."} <= {*texts(result)}


@pytest.mark.parametrize("place", [lambda graph: graph, loopback], ids=["here", "remote"])
def test_words_added_while_a_person_in_a_team_is_asked(place: Any) -> None:
    """langchain-ai/langgraph#4523: the sibling: the person sits in a team, and the state of the group around it is
    edited."""
    team = place(ChatGroup({"ann": model("a", "b"), "joe": human()}, stop=max_turns(3)).compile())
    graph = ChatGroup({"team": team}, stop=max_turns(1), reply="transcript").compile(InMemorySaver())
    assert "__interrupt__" in graph.invoke({"messages": "Go."}, THREAD)
    graph.update_state(THREAD, HINT)
    result = graph.invoke(Command(resume="Tuesday."), THREAD)
    assert (texts(result), result.get("stop_reason")) == (["Go.", "A hint.", "b"], "max_turns(1)")


def asks(state: Any) -> Any:
    return {"messages": [AIMessage(f"got {interrupt('?')}")]}


@pytest.mark.parametrize("kind", ["dag", "cyclic", "triggers"])
def test_the_other_builders_keep_what_was_to_come(kind: str) -> None:
    """langchain-ai/langgraph#3003: the siblings: an edit while a node of a Dag or a CyclicGraph asks."""
    graph = Dag() if kind == "dag" else CyclicGraph()
    graph.add_node("a", lambda state: {"messages": [AIMessage("a")]})
    graph.add_node("b", asks)
    graph.add_edge(START, "a")
    if kind == "triggers":
        graph.add_trigger("b", all_of("a"))
    else:
        graph.add_edge("a", "b")
    compiled = graph.compile(InMemorySaver())
    compiled.invoke({"messages": "Go."}, THREAD)
    compiled.update_state(THREAD, HINT)
    assert texts(compiled.invoke(Command(resume="x"), THREAD)) == ["Go.", "a", "A hint.", "got x"]


def test_a_replay_of_the_past() -> None:
    """microsoft/autogen#4100: the sibling without other words: it ends as it did, and counts the turns as it did."""
    echo = model(lambda messages: f"heard {len(messages)}", cycle=True)
    graph = ChatGroup({"ann": echo, "bob": echo}, stop=max_turns(4), reply="transcript").compile(InMemorySaver())
    first = graph.invoke({"messages": "Go."}, THREAD)
    for snapshot in [s for s in graph.get_state_history(THREAD) if s.next and s.values.get("messages")]:
        assert texts(graph.invoke(None, snapshot.config)) == texts(first)


def last_three(before: Any, new: Any) -> list[AnyMessage]:
    return list(add_messages(before or [], new))[-3:]


class Short(TypedDict):
    messages: Annotated[list[AnyMessage], last_three]


@pytest.mark.parametrize("speaker", [broadcast(), free()], ids=["broadcast", "free"])
def test_an_error_beside_a_question_is_not_swallowed(speaker: Any) -> None:
    """prasadgaikwad/langchain4j-demo#261, langchain-ai/langgraph#3875: one member asks a person while another one
    fails: the error comes out, now or when the run goes on."""
    tries: list[int] = []

    def bad(messages: list[AnyMessage]) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("rate limit")
        return "ok" if len(tries) == 2 else ""

    group = ChatGroup(
        {"bad": bad, "joe": human()}, speaker=speaker, stop=max_turns(1 if speaker.label == "broadcast" else 2)
    )
    graph = group.compile(InMemorySaver())
    seen: list[str] = []
    for step in ({"messages": "Go."}, None, Command(resume="yes")):
        try:
            graph.invoke(step, THREAD)
        except ConnectionError as error:
            seen.append(str(error))
    assert seen == ["rate limit"]
