"""Chat groups: who speaks, who sees what, when it ends, and what is left of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph, add_messages
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from agentmatrix.chat import ChatGroup
from agentmatrix.compose import CyclicGraph, Dag
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.speakers import broadcast, handoff, mention, random, round_robin, selector
from agentmatrix.stops import agreed, max_turns, says, when
from agentmatrix.testing import loopback
from agentmatrix.testing.scripted import ScriptedChatModel

THREAD: Any = {"configurable": {"thread_id": "1"}}


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


def talk(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]]


def whole(members: Any, **options: Any) -> Any:
    return ChatGroup(members, reply="transcript", **options).compile()


async def test_members_take_turns_and_see_each_other_by_name() -> None:
    ann, bob = model("ann 1", "ann 2"), model("bob 1", "DONE")
    group = whole({"ann": ann, "bob": bob}, stop=says("DONE"))
    result = await group.ainvoke({"messages": "begin"})
    said = [(None, "begin"), ("ann", "ann 1"), ("bob", "bob 1"), ("ann", "ann 2"), ("bob", "DONE")]
    assert talk(result) == said
    assert [(type(m), m.name, m.text) for m in ann.prompts[1]] == [
        (HumanMessage, None, "begin"),
        (AIMessage, "ann", "ann 1"),
        (HumanMessage, "bob", "<name>bob</name><content>bob 1</content>"),
    ]
    assert (result["stop_reason"], result["last_speaker"]) == ("says('DONE')", "bob")


def test_a_group_contributes_its_last_message_under_its_nodes_name() -> None:
    group = ChatGroup({"ann": model("one"), "bob": model("two")}, stop=max_turns(2), name="panel").compile()
    result = group.invoke({"messages": "begin"})
    assert talk(result) == [(None, "begin"), ("panel", "two")]
    assert result["messages"][-1].response_metadata == {"stop_reason": "max_turns(2)", "last_speaker": "bob"}
    dag = Dag()
    dag.add_node("inner", group)
    assert talk(dag.compile().invoke({"messages": "begin"})) == [(None, "begin"), ("inner", "two")]


@pytest.mark.parametrize("reply", [lambda said: f"{len(said)} said", lambda said: [AIMessage(f"{len(said)} said")]])
def test_a_function_makes_the_reply(reply: Any) -> None:
    group = ChatGroup({"ann": model("one")}, stop=max_turns(3), name="panel", reply=reply).compile()
    assert talk(group.invoke({"messages": "begin"})) == [(None, "begin"), ("panel", "3 said")]


@pytest.mark.parametrize("stop", [max_turns(0), when(lambda state: True), lambda state: "enough"])
def test_a_stop_before_the_first_turn_lets_nobody_speak(stop: Any) -> None:
    ann = model("never")
    result = ChatGroup({"ann": ann}, stop=stop).compile().invoke({"messages": "begin"})
    assert (ann.calls, talk(result), result["last_speaker"]) == (0, [(None, "begin")], None)
    assert result["stop_reason"] in ("max_turns(0)", "when(<lambda>)", "enough")


def test_stops_combine() -> None:
    members = {"ann": model("AGREE"), "bob": model("no", "AGREE")}
    result = whole(members, stop=agreed() & max_turns(3) | max_turns(40)).invoke({"messages": "begin"})
    assert (len(result["messages"]), result["stop_reason"]) == (5, "agreed('AGREE') and max_turns(3)")
    by_bob = whole({"ann": model("x"), "bob": model("y x")}, stop=says("x", by="bob"))
    assert by_bob.invoke({"messages": "x"})["last_speaker"] == "bob"


def test_without_a_stop_the_bound_ends_it() -> None:
    result = whole({"ann": model("on")}, max_turns=4).invoke({"messages": "begin"})
    assert (len(result["messages"]), result["stop_reason"]) == (5, "max_turns bound (4)")


def test_tool_traffic_and_scratch_stay_private() -> None:
    def busy(state: Any) -> Any:
        call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
        return {"messages": [call, ToolMessage("secret", tool_call_id="1"), AIMessage("found it")], "scratch": "secret"}

    ann = model("ok")
    group = whole({"busy": busy, "ann": ann}, stop=max_turns(2))
    result = group.invoke({"messages": "begin"})
    assert talk(result) == [(None, "begin"), ("busy", "found it"), ("ann", "ok")]
    assert "secret" not in str(ann.prompts) and set(result) == {"messages", "stop_reason", "last_speaker"}


def test_a_handoff_out_of_a_function_a_graph_or_a_tool() -> None:
    def from_function(messages: list[BaseMessage]) -> Command[Any]:
        return Command(goto="graph", update={"messages": [AIMessage("to graph")]})

    def leaves(state: MessagesState) -> Command[Any]:
        return Command(goto="deep", graph=Command.PARENT, update={"messages": [AIMessage("to deep")]})

    graph = StateGraph(MessagesState)
    graph.add_node("leaves", leaves)
    graph.add_edge(START, "leaves")

    def uses_tool(state: MessagesState) -> Command[Any]:
        call = AIMessage("I pass on", tool_calls=[{"name": "transfer", "args": {}, "id": "1"}])
        done = ToolMessage("transferred", tool_call_id="1")
        return Command(goto="last", graph=Command.PARENT, update={"messages": [*state["messages"], call, done]})

    tools = StateGraph(MessagesState)
    tools.add_node("tools", uses_tool)
    tools.add_edge(START, "tools")

    def last(state: Any) -> Any:
        return Command(goto=END, update={"messages": [AIMessage("bye")]})

    members = {"from_function": from_function, "last": last, "deep": tools.compile(), "graph": graph.compile()}
    for speaker in (handoff(), round_robin()):
        result = whole(members, speaker=speaker).invoke({"messages": "begin"})
        assert talk(result)[1:] == [
            ("from_function", "to graph"),
            ("graph", "to deep"),
            ("deep", "I pass on"),
            ("last", "bye"),
        ]
        assert result["stop_reason"] == "last ended it"


async def test_a_handoff_leaves_a_group_for_the_group_around_it() -> None:
    def out(state: Any) -> Command[Any]:
        return Command(goto="outer_b", graph=Command.PARENT, update={"messages": [AIMessage("up")]})

    inner = ChatGroup({"out": out}).compile()
    outer = whole({"inner": inner, "outer_a": model("a"), "outer_b": model("b")}, stop=max_turns(2))
    assert talk(await outer.ainvoke({"messages": "begin"})) == [(None, "begin"), ("inner", "up"), ("outer_b", "b")]


def test_without_a_handoff_the_swarm_ends() -> None:
    result = whole({"ann": model("one"), "bob": model("two")}, speaker=handoff("bob")).invoke({"messages": "begin"})
    assert (talk(result)[1:], result["stop_reason"]) == ([("bob", "two")], "handoff chose nobody")


def test_a_handoff_is_recorded_with_its_turn() -> None:
    asked: list[str] = []

    def ann(state: Any) -> Command[Any]:
        asked.append("ann")
        return Command(goto="bob", update={"messages": [AIMessage("your turn")]})

    def bob(state: Any) -> str:
        answer = interrupt("bob?")
        asked.append("bob")
        return str(answer)

    group = ChatGroup({"ann": ann, "eve": model("never"), "bob": bob}, stop=max_turns(2), reply="transcript")
    compiled = group.compile(checkpointer=InMemorySaver())
    compiled.invoke({"messages": "begin"}, THREAD)
    assert compiled.get_state(THREAD).next == ("bob",)
    result = compiled.invoke(Command(resume="here"), THREAD)
    assert (talk(result)[1:], asked) == ([("ann", "your turn"), ("bob", "here")], ["ann", "bob"])


def test_a_random_speaker_with_a_seed_is_the_same_in_every_run() -> None:
    def run() -> list[Any]:
        members = {name: model(name) for name in ("ann", "bob", "eve")}
        return talk(whole(members, speaker=random(seed=7), stop=max_turns(9)).invoke({"messages": "begin"}))

    said = run()
    assert said == run() and {name for name, _ in said[1:]} == {"ann", "bob", "eve"}
    assert all(first != second for first, second in zip(said, said[1:], strict=False))


async def test_a_model_chooses_and_is_asked_again() -> None:
    chooser = model("ann or bob", "Nobody!", "**bob**", "bob")
    group = whole({"ann": model("a"), "bob": model("b")}, speaker=selector(chooser), stop=max_turns(2))
    result = await group.ainvoke({"messages": "begin"})
    assert talk(result)[1:] == [("bob", "b"), ("bob", "b")]
    assert chooser.calls == 4 and "ann, bob" in chooser.prompts[1][-1].text
    streamed = [meta["langgraph_node"] async for _, meta in group.astream({"messages": "x"}, stream_mode="messages")]
    assert set(streamed) <= {"ann", "bob"}


def test_a_model_that_cannot_choose_gives_way() -> None:
    group = whole({"ann": model("a"), "bob": model("b")}, speaker=selector(model("eve")), stop=max_turns(2))
    assert talk(group.invoke({"messages": "begin"}))[1:] == [("ann", "a"), ("bob", "b")]


async def test_any_function_is_a_speaker() -> None:
    async def choose(state: Any) -> Any:
        return {1: "bob", 2: ["ann", "bob"]}.get(len(state["messages"]))

    group = whole({"ann": model("a"), "bob": model("b")}, speaker=choose)
    result = await group.ainvoke({"messages": "begin"})
    assert talk(result)[1:] == [("bob", "b"), ("ann", "a"), ("bob", "b")]
    assert result["stop_reason"] == "choose chose nobody"
    with pytest.raises(TypeError, match="choose is async.*ainvoke"):
        group.invoke({"messages": "begin"})


def test_a_broadcast_is_one_turn_from_one_transcript() -> None:
    ann, bob = model("a"), model("b")
    whole({"ann": ann, "bob": bob}, speaker=broadcast(), stop=max_turns(2)).invoke({"messages": "begin"})
    heard = "<name>{}</name><content>{}</content>".format
    assert [[m.text for m in p] for p in ann.prompts] == [["begin"], ["begin", "a", heard("bob", "b")]]
    assert [[m.text for m in p] for p in bob.prompts] == [["begin"], ["begin", heard("ann", "a"), "b", "Go on."]]


def test_a_mention_gives_the_floor() -> None:
    members = {"ann": model("ask @bob"), "bob": model("and @eve, @nobody"), "eve": model("thanks")}
    result = whole(members, speaker=mention()).invoke({"messages": "@ann?"})
    assert [name for name, _ in talk(result)] == [None, "ann", "bob", "eve"]


@pytest.mark.parametrize(
    ("member", "speaker"),
    [(model("x"), lambda state: "eve"), (lambda state: Command(goto="eve"), round_robin())],
)
def test_a_wrong_answer_names_the_members(member: Any, speaker: Any) -> None:
    with pytest.raises(SpeakerError, match="'eve'.*not in the group.*ann, bob"):
        whole({"ann": member, "bob": model("b")}, speaker=speaker).invoke({"messages": "begin"})


async def test_groups_in_groups_in_a_dag_keep_to_themselves() -> None:
    def pair(name: str) -> ChatGroup:
        return ChatGroup({f"{name}1": model(f"{name} one"), f"{name}2": model(f"{name} two")}, stop=max_turns(2))

    panel = ChatGroup({"left": pair("l"), "right": pair("r")}, stop=max_turns(3))
    dag = Dag()
    dag.add_node("first", panel)
    dag.add_node("second", pair("s"))
    dag.add_node("end", lambda state: f"{len(state['messages'])} messages")
    dag.add_edge(["first", "second"], "end")
    graph = dag.compile(checkpointer=InMemorySaver())
    result = await graph.ainvoke({"messages": "begin"}, THREAD)
    assert talk(result)[1:] == [("first", "l two"), ("second", "s two"), ("end", "3 messages")]
    assert set(result) == {"messages"}
    assert result["messages"][1].response_metadata["last_speaker"] == "left"


def test_a_thread_goes_on_and_each_run_counts_its_own_turns() -> None:
    compiled = ChatGroup({"ann": model("a1", "a2"), "bob": model("b1", "b2")}, stop=max_turns(2), name="g").compile(
        checkpointer=InMemorySaver()
    )
    compiled.invoke({"messages": "one"}, THREAD)
    result = compiled.invoke({"messages": "two"}, THREAD)
    assert talk(result) == [(None, "one"), ("g", "b1"), (None, "two"), ("g", "b2")]


def test_a_members_own_memory_survives_only_if_it_has_a_checkpointer() -> None:
    class Memory(MessagesState):
        count: int

    def counts(state: Any) -> Any:
        count = state.get("count", 0) + 1
        return {"count": count, "messages": [AIMessage(f"{count}")]}

    def member(checkpointer: Any) -> Any:
        graph = StateGraph(Memory)
        graph.add_node("counts", counts)
        graph.add_edge(START, "counts")
        return graph.compile(checkpointer=checkpointer)

    for checkpointer, said in ((None, ["1", "1"]), (True, ["1", "2"])):
        group = ChatGroup({"m": member(checkpointer)}, stop=max_turns(2), reply="transcript")
        result = group.compile(checkpointer=InMemorySaver()).invoke({"messages": "begin"}, THREAD)
        assert [text for _, text in talk(result)[1:]] == said


class Shared(MessagesState):
    topic: str
    votes: int


@dataclass
class SharedRecord:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)
    topic: str = ""
    votes: int = 0


class SharedModel(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []
    topic: str = ""
    votes: int = 0


@pytest.mark.parametrize("schema", [Shared, SharedRecord, SharedModel])
def test_members_share_the_groups_state_and_the_group_returns_it(schema: Any) -> None:
    def topic(state: Any) -> Any:
        value = state["topic"] if isinstance(state, dict) else state.topic
        return {"messages": [AIMessage(f"about {value}")], "votes": 1}

    def voted(state: Any) -> bool:
        return (state.get("votes", 0) if isinstance(state, dict) else state.votes) == 1

    group = ChatGroup({"ann": topic}, state_schema=schema, stop=voted, name="g").compile()
    result = group.invoke({"messages": [("human", "begin")], "topic": "bees"})
    assert talk(result) == [(None, "begin"), ("g", "about bees")]
    assert (result["topic"], result["votes"]) == ("bees", 1)


async def test_turns_stream_under_the_members_names() -> None:
    group = whole(
        {"ann": model("a b"), "bob": CyclicGraph().add_sequence([("m", model("c d"))]).add_edge(START, "m")},
        stop=max_turns(2),
    )
    updates = [part async for part in group.astream({"messages": "hi"}, stream_mode="updates")]
    assert [list(part) for part in updates] == [["ann"], ["bob"]]
    parts = group.astream({"messages": "hi"}, stream_mode="messages", subgraphs=True)
    words = [(meta["langgraph_node"], chunk.content) async for _, (chunk, meta) in parts if chunk.content]
    assert words == [("ann", "a "), ("ann", "b"), ("m", "c "), ("m", "d")]
    assert [name for name, _ in group.get_subgraphs()] == ["bob"]


def test_a_pause_inside_a_member_asks_nobody_twice() -> None:
    asked: list[str] = []

    def human(state: Any) -> Any:
        answer = interrupt("your move")
        asked.append("human")
        return {"messages": [HumanMessage(answer)]}

    ann = model("first")
    inner = ChatGroup({"ann": ann, "human": human}, stop=max_turns(2), reply="transcript").compile()
    dag = Dag()
    dag.add_node("group", inner)
    graph = dag.compile(checkpointer=InMemorySaver())
    graph.invoke({"messages": "begin"}, THREAD)
    result = graph.invoke(Command(resume="e4"), THREAD)
    assert talk(result)[1:] == [("ann", "first"), ("human", "e4")]
    assert (ann.calls, asked) == (1, ["human"])


def test_what_cannot_work_is_said_at_build_time() -> None:
    with pytest.raises(BuildError, match="at least one member"):
        ChatGroup([])
    with pytest.raises(BuildError, match="already a node 'f'"):

        def f(state: Any) -> Any: ...

        ChatGroup([f, f])
    with pytest.raises(BuildError, match="no name of its own"):
        ChatGroup([Dag().add_node("n", model("x")).compile()])
    with pytest.raises(BuildError, match="'messages'"):
        ChatGroup({"a": model("x")}, state_schema=type("Empty", (dict,), {"__annotations__": {"x": int}})).compile()
    with pytest.raises(BuildError, match="is no stop"):
        ChatGroup({"a": model("x")}, stop=12)
    with pytest.raises(BuildError, match="is no speaker"):
        ChatGroup({"a": model("x")}, speaker="ann")  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="reply="):
        ChatGroup({"a": model("x")}, reply="all")  # type: ignore[arg-type]


def test_a_group_in_a_group_in_a_remote_group_pauses_and_hands_over() -> None:
    def human(state: Any) -> Any:
        return interrupt("your move")

    def leaves(state: Any) -> Command[Any]:
        return Command(goto="far", graph=Command.PARENT, update={"messages": [AIMessage("up")]})

    inner = ChatGroup({"human": human, "leaves": leaves})
    outer = ChatGroup({"inner": inner, "far": model("far")}, stop=max_turns(2), reply="transcript").compile()

    def run(group: Any) -> Any:
        graph = whole({"group": group, "last": model("last")}, stop=max_turns(2)).copy(
            {"checkpointer": InMemorySaver()}
        )
        graph.invoke({"messages": "begin"}, THREAD)
        result = graph.invoke(Command(resume="e4"), THREAD)
        return talk(result), result["stop_reason"], result["last_speaker"]

    with loopback(outer) as remote:
        assert run(remote) == run(outer)
    assert run(outer)[0][1:] == [("group", "up"), ("group", "far"), ("last", "last")]
