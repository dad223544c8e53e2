"""Handoffs: ready-made tools, groups further out, names that nobody has, and the floor over a user's turns."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from agentmatrix.agent import as_agent
from agentmatrix.chat import ChatGroup
from agentmatrix.chat.authorship import without_inline_name
from agentmatrix.chat.transcript import GO_ON
from agentmatrix.compose import Dag
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.speakers import create_handoff_tool, free, handoff, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


def calls(tool: str, words: str = "") -> AIMessage:
    return AIMessage(words, tool_calls=[{"name": tool, "args": {}, "id": "1"}])


def talk(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]]


def texts(prompt: list[BaseMessage]) -> list[str]:
    """The texts of a prompt, without what it says of authors, and without what is there for providers only."""
    return [without_inline_name(message.text) for message in prompt if message.text != GO_ON]


TO_BOB = create_handoff_tool(agent_name="bob", description="Knows the weather.")


def test_a_ready_made_tool_has_swarms_words() -> None:
    assert (TO_BOB.name, TO_BOB.description, TO_BOB.args) == ("transfer_to_bob", "Knows the weather.", {})
    assert create_handoff_tool(agent_name="Ann Marie").name == "transfer_to_ann_marie"
    assert create_handoff_tool(agent_name="bob", name="ask_bob").description == "Ask bob for help."
    for wrong in ("", None, 3):
        with pytest.raises(BuildError, match="name a member"):
            create_handoff_tool(agent_name=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("speaker", [handoff(), round_robin(), free()], ids=lambda speaker: speaker.label)
async def test_a_tool_hands_over_here_and_on_a_host(speaker: Any) -> None:
    ann = as_agent(model(calls("transfer_to_bob")), tools=[TO_BOB], name="ann")
    with loopback(ann) as remote:
        for member in (ann, remote):
            members = {"ann": member, "eve": model("no"), "bob": model("Sunny.")}
            group = ChatGroup(members, speaker=speaker, stop=max_turns(2), reply="transcript").compile()
            for result in (group.invoke({"messages": "?"}), await group.ainvoke({"messages": "?"})):
                assert ("bob", "Sunny.") in talk(result)
                assert speaker.is_free or talk(result) == [(None, "?"), ("bob", "Sunny.")]


@pytest.mark.parametrize("rule", [1, ("messages", 1), lambda messages: messages[-1:]], ids=["n", "pair", "function"])
def test_a_tool_chooses_what_the_next_one_is_given(rule: Any) -> None:
    tool = create_handoff_tool(agent_name="bob", history=rule)
    ann = create_agent(model("one", "two", calls("transfer_to_bob")), [tool], name="ann")
    bob = model("b1", "b2", "b3")
    with loopback(ann) as remote:
        for member in (ann, remote):
            group = ChatGroup(
                {"ann": member, "bob": bob, "eve": model("e1", "e2")}, include_agent_name=None, stop=max_turns(9)
            ).compile()
            group.invoke({"messages": "begin"})
            heard = texts(bob.prompts[2])
            assert "one" not in heard and "b1" not in heard
            assert texts(bob.prompts[1]) == ["begin", "one", "b1", "e1", "two"]
            bob._calls.prompts.clear()


def test_a_tool_may_say_a_word_of_its_own() -> None:
    def digest(messages: list[BaseMessage]) -> list[BaseMessage]:
        return [AIMessage(f"So far: {len(messages)} messages.")]

    tool = create_handoff_tool(agent_name="bob", history=digest)
    bob = model("Thanks.")
    ann = create_agent(model(calls("transfer_to_bob")), [tool])
    group = ChatGroup(
        {"ann": ann, "bob": bob}, include_agent_name=None, speaker=handoff(), reply="transcript"
    ).compile()
    result = group.invoke({"messages": "begin"})
    assert talk(result) == [(None, "begin"), ("ann", "So far: 2 messages."), ("bob", "Thanks.")]
    assert texts(bob.prompts[0]) == ["So far: 2 messages."]


# groups further out


def nested(inner: Any, *between: str) -> Any:
    for name in between:
        inner = ChatGroup({name: inner, f"{name}2": model("never")}).compile()
    return ChatGroup({"team": inner, "desk": model("no"), "boss": model("Decided.")}, speaker=handoff())


@pytest.mark.parametrize("between", [(), ("a",), ("a", "b")], ids=len)
@pytest.mark.parametrize("hosted", [False, True], ids=["local", "hosted"])
async def test_a_handoff_goes_to_a_group_further_out(between: tuple[str, ...], hosted: bool) -> None:
    to_boss = create_handoff_tool(agent_name="boss")
    ann = as_agent(model(calls("transfer_to_boss", "Too hard.")), tools=[to_boss], name="ann")
    team = ChatGroup({"ann": ann, "bob": model("never")}, name="team").compile()
    with loopback(team) as remote:
        group = nested(remote if hosted else team, *between)
        group.reply = "transcript"
        for result in (group.compile().invoke({"messages": "?"}), await group.compile().ainvoke({"messages": "?"})):
            assert talk(result)[-1] == ("boss", "Decided.")
            assert result["last_speaker"] == "boss"


def test_a_function_hands_over_further_out_with_its_words() -> None:
    def ann(state: Any) -> Command[Any]:
        return Command(goto="boss", update={"messages": [AIMessage("Too hard.")]})

    group = nested(ChatGroup({"ann": ann}).compile(), "a")
    group.reply = "transcript"
    assert talk(group.compile().invoke({"messages": "?"}))[1:] == [("team", "Too hard."), ("boss", "Decided.")]


# names that nobody has


@pytest.mark.parametrize("speaker", [handoff(), free()], ids=lambda speaker: speaker.label)
@pytest.mark.parametrize("hosted", [False, True], ids=["local", "hosted"])
async def test_an_unknown_name_is_told_to_the_model(speaker: Any, hosted: bool) -> None:
    tools = [create_handoff_tool(agent_name=name) for name in ("eve", "bob")]
    ann_model = ScriptedChatModel([calls("transfer_to_eve"), calls("transfer_to_bob"), "", ""])
    ann = as_agent(ann_model, tools=tools, name="ann")
    with loopback(ann) as remote:
        members = {
            "ann": remote if hosted else ann,
            "bob": ScriptedChatModel(["", "Hello.", ""] if speaker.is_free else "Hello."),
        }
        group = ChatGroup(members, speaker=speaker, reply="transcript").compile()
        result = await group.ainvoke({"messages": "?"})
    assert ("bob", "Hello.") in talk(result)
    assert "There is no 'eve' to hand over to. Hand over to one of: bob; or answer yourself." in texts(
        ann_model.prompts[1]
    )
    assert "There is no" not in str(talk(result))


def test_who_does_not_learn_ends_the_run() -> None:
    ann_model = model(calls("transfer_to_eve"))
    ann = as_agent(ann_model, tools=[create_handoff_tool(agent_name="eve")], name="ann")
    group = ChatGroup({"ann": ann, "bob": model("x")}, speaker=handoff()).compile()
    with pytest.raises(SpeakerError, match="'ann' hands over to 'eve', who is not in the group: go to one of ann, bob"):
        group.invoke({"messages": "?"})
    assert ann_model.calls == 3


def test_a_function_that_names_nobody_fails_at_once() -> None:
    asked: list[int] = []

    def ann(state: Any) -> Command[Any]:
        asked.append(1)
        return Command(goto="eve")

    with pytest.raises(SpeakerError, match="'eve', who is not in the group"):
        ChatGroup({"ann": ann, "bob": model("x")}).compile().invoke({"messages": "?"})
    assert len(asked) == 1


def test_a_graph_of_another_kind_in_between_stops_a_handoff() -> None:
    ann = as_agent(model(calls("transfer_to_boss"), "I do it."), tools=[create_handoff_tool(agent_name="boss")])
    dag = Dag().add_node("group", ChatGroup({"ann": ann, "bob": model("x")}, speaker=handoff()))
    outer = ChatGroup({"team": dag.compile(), "boss": model("no")}, speaker=handoff())
    assert outer.compile().invoke({"messages": "?"})["messages"][-1].text == "I do it."


# the floor over a user's turns


def swarm(speaker: Any, *, member: Any = None) -> Any:
    ann = as_agent(model(calls("transfer_to_bob"), "ann again"), tools=[TO_BOB], name="ann")
    return ChatGroup({"ann": member or ann, "bob": model("bob 1", "bob 2")}, speaker=speaker).compile(InMemorySaver())


@pytest.mark.parametrize(("speaker", "second"), [(handoff(), "bob 2"), (handoff(keep_floor=False), "ann again")])
def test_the_next_words_go_to_who_has_the_floor(speaker: Any, second: str) -> None:
    graph = swarm(speaker)
    graph.invoke({"messages": "one"}, THREAD)
    assert graph.invoke({"messages": "two"}, THREAD)["messages"][-1].text == second
    other = {"configurable": {"thread_id": "2"}}
    graph.invoke({"messages": "three"}, other)
    assert graph.get_state(other).values["last_speaker"] in ("ann", "bob")


def test_a_floor_that_was_handed_over_and_not_taken_is_kept() -> None:
    ann = as_agent(model(calls("transfer_to_bob", "Over to bob.")), tools=[TO_BOB], name="ann")
    group = ChatGroup({"ann": ann, "bob": model("Here.")}, speaker=handoff(), stop=max_turns(1))
    graph = group.compile(InMemorySaver())
    graph.invoke({"messages": "one"}, THREAD)
    assert graph.invoke({"messages": "two"}, THREAD)["last_speaker"] == "bob"


def test_round_robin_keeps_the_floor_when_told_to() -> None:
    def run(speaker: Any) -> list[str]:
        members = {name: model(name) for name in ("ann", "bob", "eve")}
        graph = ChatGroup(members, speaker=speaker, stop=max_turns(2)).compile(InMemorySaver())
        return [graph.invoke({"messages": "x"}, THREAD)["last_speaker"] for _ in range(3)]

    assert run(round_robin()) == ["bob", "bob", "bob"]
    assert run(round_robin(keep_floor=True)) == ["bob", "ann", "eve"]


def test_the_floor_is_kept_over_a_run_in_which_nobody_spoke() -> None:
    stop = max_turns(1)
    graph = ChatGroup({"ann": model("a"), "bob": model("b")}, speaker=round_robin(keep_floor=True), stop=stop)
    silent = ChatGroup({"ann": model("a"), "bob": model("b")}, stop=max_turns(0))
    saver = InMemorySaver()
    assert graph.compile(saver).invoke({"messages": "x"}, THREAD)["last_speaker"] == "ann"
    silent.compile(saver).invoke({"messages": "x"}, THREAD)
    assert graph.compile(saver).invoke({"messages": "x"}, THREAD)["last_speaker"] == "bob"


def test_a_member_that_has_left_has_no_floor() -> None:
    saver = InMemorySaver()
    ChatGroup({"eve": model("e")}, speaker=handoff()).compile(saver).invoke({"messages": "x"}, THREAD)
    later = ChatGroup({"ann": model("a"), "bob": model("b")}, speaker=handoff("bob")).compile(saver)
    assert later.invoke({"messages": "x"}, THREAD)["last_speaker"] == "bob"


def test_a_swarm_on_a_host_keeps_the_floor_too() -> None:
    def graph(inner: Any) -> list[str]:
        outer = StateGraph(MessagesState).add_node("swarm", inner).add_edge(START, "swarm").compile(InMemorySaver())
        return [outer.invoke({"messages": [HumanMessage("x")]}, THREAD)["messages"][-1].text for _ in range(3)]

    def member() -> Any:
        ann = as_agent(model(calls("transfer_to_bob"), "ann again"), tools=[TO_BOB], name="ann")
        group = ChatGroup({"ann": ann, "bob": model("bob 1", "bob 2", "bob 3")}, speaker=handoff())
        return group.compile(checkpointer=True)

    with loopback(member()) as remote:
        assert graph(remote) == graph(member()) == ["bob 1", "bob 2", "bob 3"]
