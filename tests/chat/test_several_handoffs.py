"""Several handoffs in one answer: the first has the floor, and the model is told of the others. And what a member with
a memory of its own is given after a turn that ended with calls of tools."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix.chat import ChatGroup
from agentmatrix.chat.authorship import without_inline_name
from agentmatrix.speakers import create_handoff_tool, free, handoff, round_robin
from agentmatrix.stops import max_turns, silence
from agentmatrix.testing import ScriptedChatModel, loopback
from tests.chat.provider_rules import why_refused

THREAD: Any = {"configurable": {"thread_id": "1"}}
TOOLS = [create_handoff_tool(agent_name=name) for name in ("bob", "eve", "zed")]
PLACES = pytest.mark.parametrize("place", ["here", "on a host"])


def calls(*names: str, words: str = "") -> AIMessage:
    made = [{"name": name, "args": {}, "id": f"{words}{n}"} for n, name in enumerate(names)]
    return AIMessage(words, tool_calls=made)


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


def talk(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]]


def texts(prompt: list[BaseMessage]) -> list[str]:
    return [without_inline_name(message.text) for message in prompt]


@PLACES
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("order", [("bob", "eve"), ("eve", "bob")], ids="-".join)
async def test_the_first_has_the_floor_and_the_model_is_told_of_the_others(
    order: tuple[str, str], sync: bool, place: str
) -> None:
    first, other = order
    for _ in range(5):
        ann_model = ScriptedChatModel([calls(*(f"transfer_to_{name}" for name in order), words="Help!"), "Well."])
        ann = create_agent(ann_model, TOOLS, name="ann")
        to_ann = create_handoff_tool(agent_name="ann")
        members = {name: create_agent(model(calls(to_ann.name, words=name)), [to_ann]) for name in ("bob", "eve")}
        with loopback(ann) as remote:
            members |= {"ann": remote if place == "on a host" else ann}
            group = ChatGroup(members, speaker=handoff("ann"), reply="transcript").compile()
            given: Any = {"messages": "?"}
            result = group.invoke(given) if sync else await group.ainvoke(given)
        assert talk(result) == [(None, "?"), ("ann", "Help!"), (first, first), ("ann", "Well.")]
        assert texts(ann_model.prompts[1])[-1] == f"An answer hands over once. You have not handed over to '{other}'."


def test_it_is_told_once() -> None:
    ann_model = model(calls("transfer_to_bob", "transfer_to_eve"), "one", "two")
    members = {"ann": create_agent(ann_model, TOOLS), "bob": model("b"), "eve": model("e")}
    ChatGroup(members, stop=max_turns(7)).compile().invoke({"messages": "?"})
    told = [["hands over once" in str(prompt) for prompt in ann_model.prompts]]
    assert told == [[False, True, False]]


def test_the_first_may_be_one_whom_nobody_knows() -> None:
    ann_model = ScriptedChatModel([calls("transfer_to_zed", "transfer_to_bob"), "I do it."])
    group = ChatGroup({"ann": create_agent(ann_model, TOOLS), "bob": model("b")}, speaker=handoff("ann"))
    assert group.compile().invoke({"messages": "?"})["messages"][-1].text == "I do it."
    told = texts(ann_model.prompts[1])[-1]
    assert told == (
        "There is no 'zed' to hand over to. Hand over to one of: bob; or answer yourself. "
        "An answer hands over once. You have not handed over to 'bob'."
    )


def test_one_command_to_several_gives_all_of_them_the_floor() -> None:
    def ann(messages: list[AnyMessage]) -> Any:
        return Command(goto=["bob", "eve"], update={"messages": [AIMessage("Both.")]})

    group = ChatGroup({"ann": ann, "bob": model("b"), "eve": model("e")}, speaker=handoff(), reply="transcript")
    assert talk(group.compile().invoke({"messages": "?"}))[1:] == [("ann", "Both."), ("bob", "b"), ("eve", "e")]


# a memory of its own


@tool
def look() -> str:
    """Look it up."""
    return "42"


@tool
def fail() -> str:
    """Fail."""
    raise ConnectionError("no line")


def can_be_sent(prompts: list[list[BaseMessage]]) -> None:
    for prompt in prompts:
        assert not why_refused(prompt), prompt


@PLACES
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("speaker", [round_robin(), handoff(keep_floor=False), free()], ids=lambda s: s.label)
@pytest.mark.parametrize(
    "wanted", [("transfer_to_bob",), ("transfer_to_bob", "transfer_to_eve"), ("look", "transfer_to_bob")], ids="-".join
)
async def test_what_it_remembers_can_be_sent_after_a_handoff(
    wanted: tuple[str, ...], speaker: Any, sync: bool, place: str
) -> None:
    ann_model = ScriptedChatModel([calls(*wanted, words="Help!"), "Well.", *["" if speaker.is_free else "Yes."] * 3])
    ann = create_agent(ann_model, [*TOOLS, look], name="ann", checkpointer=True)
    with loopback(ann) as remote:
        members = {
            "ann": remote if place == "on a host" else ann,
            "bob": ScriptedChatModel(["b", "", "", ""] if speaker.is_free else "b", cycle=True),
            "eve": ScriptedChatModel("", cycle=True),
        }
        stop = silence() if speaker.is_free else max_turns(4)
        graph = ChatGroup(members, speaker=speaker, stop=stop).compile(InMemorySaver())
        for words in ("?", "And now?"):
            given: Any = {"messages": words}
            result = graph.invoke(given, THREAD) if sync else await graph.ainvoke(given, THREAD)
    assert result
    can_be_sent(ann_model.prompts)
    results = {m.tool_call_id: m.text for m in ann_model.prompts[1] if isinstance(m, ToolMessage)}
    assert len(results) == len(wanted)
    assert ("42" in results.values()) == ("look" in wanted)


@pytest.mark.parametrize("on_error", ["skip", "say"])
@PLACES
def test_what_it_remembers_can_be_sent_after_a_failure(place: str, on_error: Any) -> None:
    ann_model = model(calls("fail", words="I look."), "Done.")
    ann = create_agent(ann_model, [fail], name="ann", checkpointer=True)
    with loopback(ann) as remote:
        group = ChatGroup({"bob": model("b")}, stop=max_turns(4))
        group.add_node("ann", remote if place == "on a host" else ann, on_error=on_error)
        group.compile(InMemorySaver()).invoke({"messages": "?"}, THREAD)
    assert ann_model.calls == 2
    can_be_sent(ann_model.prompts)
