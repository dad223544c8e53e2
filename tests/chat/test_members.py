"""`members(n, make)`: many members that one node stands for do what members with nodes of their own do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from agentmatrix import AgentSpec, ChatGroup, Dag, members, watching
from agentmatrix.display import draw_text
from agentmatrix.errors import BuildError, NotAnAgentError, SpeakerError
from agentmatrix.speakers import broadcast, free, handoff, human, random, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

KEYS = ["ann", "bob", "cid"]
Make = Callable[[str], Any]


def model(key: str) -> Any:
    return ScriptedChatModel(f"I am {key}.", cycle=True)


def function(key: str) -> Any:
    return lambda messages: f"{key} has read {len(messages)}."


def asking(key: str) -> Any:
    def ask(messages: list[Any]) -> str:
        return f"{key} heard {interrupt(f'What, {key}?')}"

    return ask


def passing_on(key: str) -> Any:
    after = KEYS[(KEYS.index(key) + 1) % 3] if key != "cid" else END
    return lambda state: Command(goto=after, update={"messages": [AIMessage(f"{key} to {after}")]})


def graph_of(key: str) -> Any:
    def think(state: MessagesState) -> Any:
        return {"messages": [AIMessage(f"{key} heard {interrupt(key)}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_edge(START, "think")
    return builder.compile()


def spec(key: str) -> AgentSpec:
    return AgentSpec(name=key, system_prompt=f"You are {key}.")


def both(make: Make, speaker: Any, **options: Any) -> tuple[ChatGroup, ChatGroup]:
    """A group of members that share a node, and one of members that have nodes of their own."""
    options = {"stop": max_turns(3), "reply": "transcript", **options}
    given = {key: make(key) for key in KEYS}
    return ChatGroup(members(KEYS, make), speaker=speaker, **options), ChatGroup(given, speaker=speaker, **options)


def plain(values: Any) -> Any:
    """Without ids, which differ from run to run, and without the names of channels."""
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items() if key not in ("id", "triggers", "conversation")}
    if hasattr(values, "content"):
        return type(values).__name__, values.name, values.content
    return values


def config(thread: str = "1") -> Any:
    return {"configurable": {"thread_id": thread}}


SPEAKERS = {
    "round_robin": round_robin(),
    "broadcast": broadcast(),
    "random": random(7),
    "free": free(),
    "handoff": handoff(),
    "function": lambda state: ["cid", "ann"] if len(state["messages"]) < 4 else None,
}


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize("make", [model, function, passing_on])
@pytest.mark.parametrize("mode", ["updates", "values", "tasks"])
async def test_streams_are_those_of_members_with_nodes_of_their_own(
    make: Make, speaker: str, mode: Any, saves: bool
) -> None:
    told = []
    for group in both(make, SPEAKERS[speaker]):
        graph = group.compile(InMemorySaver() if saves else None)
        parts = [plain(part) async for part in graph.astream({"messages": "Go."}, config(), stream_mode=mode)]
        # Members who speak at once end in any order.
        told.append(sorted(map(str, parts)))
        parts = [plain(part) for part in graph.stream({"messages": "Go."}, config("2"), stream_mode=mode)]
        told.append(sorted(map(str, parts)))
    if speaker != "free":
        assert told[:2] == told[2:]
    assert all(told)


@pytest.mark.parametrize("speaker", ["round_robin", "broadcast", "function"])
@pytest.mark.parametrize("make", [asking, graph_of])
@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_a_question_of_a_member_is_answered(make: Make, speaker: str, durability: Any) -> None:
    told = []
    for group in both(make, SPEAKERS[speaker]):
        saver, steps = InMemorySaver(), list[Any]()
        graph = group.compile(saver)
        result: Any = graph.invoke({"messages": "Go."}, config(), durability=durability)
        for number in range(9):
            state = group.compile(saver).get_state(config(), subgraphs=True)
            asked = {one.id: one.value for one in result.get("__interrupt__", ())}
            inner = [task.state.next for task in state.tasks if task.state is not None and make is graph_of]
            steps.append((state.next, sorted(asked.values()), inner))
            if not asked:
                break
            # As another process would: nothing of the members was made yet.
            graph = group.compile(saver)
            result = graph.invoke(Command(resume=dict.fromkeys(asked, number)), config(), durability=durability)
        steps.append(plain(result["messages"]))
        told.append(steps)
    assert told[0] == told[1]


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
def test_breakpoints_name_members_or_their_node(where: str) -> None:
    def stops(group: ChatGroup, names: Any) -> list[Any]:
        graph, steps = group.compile(InMemorySaver(), **{where: names}), list[Any]()
        given: Any = {"messages": "Go."}
        for _ in range(9):
            graph.invoke(given, config())
            steps.append(graph.get_state(config()).next)
            given = None
        return steps

    shared, own = both(model, round_robin())
    assert stops(shared, ["bob"]) == stops(own, ["bob"])
    assert stops(shared, ["members"]) == stops(own, KEYS) == stops(shared, KEYS)


@pytest.mark.parametrize("make", [model, asking])
@pytest.mark.parametrize("speaker", ["round_robin", "broadcast"])
def test_an_edit_in_the_name_of_a_member_is_its_turn(make: Make, speaker: str) -> None:
    told = []
    for group in both(make, SPEAKERS[speaker]):
        graph = group.compile(InMemorySaver(), interrupt_before="*" if make is model else None)
        graph.invoke({"messages": "Go."}, config())
        graph.invoke(None, config())
        said = {"messages": [AIMessage("Said by somebody else.")]}
        graph.update_state(config(), said, as_node="ann")
        steps = [graph.get_state(config()).next, plain(graph.get_state(config()).values)]
        graph.invoke(None, config())
        steps += [graph.get_state(config()).next, plain(graph.get_state(config()).values)]
        told.append(steps)
    assert told[0] == told[1]


def test_an_edit_after_the_end_goes_on() -> None:
    told = []
    for group in both(model, round_robin()):
        graph = group.compile(InMemorySaver())
        graph.invoke({"messages": "Go."}, config())
        graph.update_state(config(), {"messages": [AIMessage("One more.")]}, as_node="bob")
        state = graph.get_state(config())
        told.append((state.next, plain(state.values)))
    assert told[0] == told[1]


@pytest.mark.parametrize("place", ["local", "remote"])
def test_a_group_of_many_works_as_a_node_and_on_a_host(place: str) -> None:
    group = ChatGroup(members(90, model), speaker=broadcast(), stop=max_turns(1), reply="transcript").compile()
    with loopback(group) if place == "remote" else nullcontext(group) as agent:
        dag = Dag()
        dag.add_node("crowd", agent)
        result = dag.compile().invoke({"messages": "Go."})
        assert [message.name for message in result["messages"][1:]] == sorted(map(str, range(1, 91)))
        text = draw_text(dag.compile())
        assert "90 members" in text and "next_turn" not in result


def test_an_agent_is_made_once_and_when_it_is_needed() -> None:
    made: list[str] = []

    def make(key: str) -> Any:
        made.append(key)
        return model(key)

    graph = ChatGroup(members(KEYS, make), speaker=lambda state: "cid", stop=max_turns(2)).compile()
    assert made == ["ann"]  # the first, to see that it makes agents
    graph.invoke({"messages": "Go."})
    graph.invoke({"messages": "Go."})
    assert made == ["ann", "cid"]


def test_specs_of_one_kind_are_compiled_once() -> None:
    chat = ScriptedChatModel("Yes.", cycle=True)
    group = ChatGroup(members(KEYS, spec), speaker=broadcast(), stop=max_turns(1), reply="transcript")
    graph = group.compile(InMemorySaver(), models={"default": chat})
    result = graph.invoke({"messages": "Go."}, config())
    assert [message.name for message in result["messages"][1:]] == KEYS
    assert sorted(prompt[0].text for prompt in chat.prompts) == [f"You are {key}." for key in KEYS]
    asyncio.run(graph.ainvoke({"messages": "Go."}, config("2")))
    assert sorted(prompt[0].text for prompt in chat.prompts[3:]) == [f"You are {key}." for key in KEYS]
    agents = {id(graph._members[key]._agent._agent) for key in KEYS}
    assert len(agents) == 1


def test_specs_with_tools_keep_their_instructions_apart() -> None:
    def look(word: str) -> str:
        """Look a word up."""
        return word.upper()

    def answer(messages: list[Any]) -> Any:
        if messages[-1].type == "tool":
            return f"{messages[0].text} {messages[-1].text}"
        return AIMessage("", tool_calls=[{"name": "look", "args": {"word": messages[0].text[-4:]}, "id": "1"}])

    def make(key: str) -> AgentSpec:
        return AgentSpec(name=key, system_prompt=f"You are {key}.", tools=("look",))

    group = ChatGroup(members(KEYS, make), speaker=broadcast(), stop=max_turns(1), reply="transcript")
    graph = group.compile(models={"default": ScriptedChatModel(answer, cycle=True)}, tools=[look])
    for result in (graph.invoke({"messages": "Go."}), asyncio.run(graph.ainvoke({"messages": "Go."}))):
        assert [m.text for m in result["messages"][1:]] == [f"You are {key}. {key.upper()}." for key in KEYS]


def test_one_agent_for_all() -> None:
    chat = ScriptedChatModel("Yes.", cycle=True)
    group = ChatGroup(members(3, chat), speaker=broadcast(), stop=max_turns(1), reply="transcript")
    result = group.compile().invoke({"messages": "Go."})
    assert [message.name for message in result["messages"]] == [None, "1", "2", "3"]


def test_persons_are_asked_by_name() -> None:
    group = ChatGroup(
        members(["ann", "bob"], lambda key: human(prompt="Your vote?")), speaker=broadcast(), stop=max_turns(1)
    )
    graph = group.compile(InMemorySaver())
    asked = graph.invoke({"messages": "Vote."}, config())["__interrupt__"]
    assert sorted(one.value for one in asked) == ["ann: Your vote?", "bob: Your vote?"]


def test_options_count_for_all_of_them() -> None:
    tries: list[str] = []

    def failing(key: str) -> Any:
        def fail(messages: list[Any]) -> str:
            tries.append(key)
            raise ConnectionError(f"{key} is away")

        return fail

    group = ChatGroup({"chair": model("chair")}, speaker=broadcast(), stop=max_turns(1), reply="transcript")
    policy = RetryPolicy(max_attempts=2, initial_interval=0.0, jitter=False)
    group.add_node("staff", members(2, failing), on_error="skip", retry_policy=policy)
    result = group.compile().invoke({"messages": "Go."})
    assert [message.name for message in result["messages"]] == [None, "chair"]
    assert sorted(tries) == ["1", "1", "2", "2"]


def test_what_cannot_be_is_said() -> None:
    async def amake(key: str) -> Any:
        return model(key)

    class Wrong(TypedDict):
        key: str

    for make, what in (
        (lambda: members(0, model), "nobody"),
        (lambda: members([], model), "nobody"),
        (lambda: members("ann", model), "one text"),
        (lambda: members(2, amake), "not async"),
        (lambda: members([1], model), "no text"),
        (lambda: members(["ann", "ann"], model), "'ann' twice"),
        (lambda: ChatGroup({"ann": model("ann"), "staff": members(KEYS, model)}), "'ann'"),
        (lambda: ChatGroup({"staff": members(["staff"], model)}), "'staff'"),
        (lambda: ChatGroup([members(2, model), members(2, model)]), "'members'"),
        (lambda: ChatGroup(members(["a:b"], model)), "'a:b'"),
        (lambda: ChatGroup(members(KEYS, lambda key: None)).compile(), "returned None"),
        (lambda: ChatGroup(members(KEYS, lambda key: {}[key])).compile(), "KeyError: 'ann'"),
        (lambda: ChatGroup(members(KEYS, model), visible_to={"dan": ["ann"]}).compile(), "'dan'"),
    ):
        with pytest.raises(BuildError, match=what):
            make()
    for wrong in (7, Wrong):
        with pytest.raises(NotAnAgentError):
            members(2, wrong)
    with pytest.raises(SpeakerError, match="'dan', who is not in the group"):
        ChatGroup(members(KEYS, model), speaker=lambda state: "dan").compile().invoke({"messages": "Go."})


def test_a_picture_counts_those_who_have_no_box_of_their_own() -> None:
    given = {"chair": model("chair"), "staff": members(70, model)}
    graph = ChatGroup(given, speaker=broadcast(), stop=max_turns(1)).compile()
    with watching() as run:
        graph.invoke({"messages": "Go."})
    picture = str(run._repr_html_())
    assert "staff: 70 members" in picture and "70 done" in picture
