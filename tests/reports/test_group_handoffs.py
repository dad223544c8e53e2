"""Handing over: by tools, several at once, to oneself, to nobody, out of a team, and over a user's next turn."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END
from langgraph.prebuilt import InjectedState, create_react_agent
from langgraph.types import Command

from agentmatrix import ChatGroup
from agentmatrix.speakers import handoff
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent")

THREAD: Any = {"configurable": {"thread_id": "1"}}
PLACES = pytest.mark.parametrize("place", [lambda graph: graph, loopback], ids=["here", "remote"])


def model(*answers: Any, cycle: bool = False) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=cycle)


def calls(text: str, *names: str) -> AIMessage:
    return AIMessage(text, tool_calls=[{"name": n, "args": {}, "id": f"c{i}"} for i, n in enumerate(names)])


def to(name: str, *, whole: bool = False) -> Any:
    @tool(f"to_{name.lower()}")
    def go(state: Annotated[dict[str, Any], InjectedState], tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Hand over."""
        before = state["messages"] if whole else []
        update = {"messages": [*before, ToolMessage("moved", tool_call_id=tool_call_id)]}
        return Command(goto=name, graph=Command.PARENT, update=update)

    return go


@tool
def lookup() -> str:
    """Look something up."""
    return "42"


def texts(result: dict[str, Any]) -> list[str]:
    return [message.text for message in result["messages"]]


@PLACES
def test_words_beside_a_handoff_are_said(place: Any) -> None:
    """microsoft/autogen#6295: what an agent says while it hands over belongs to the conversation: the next one must
    know it, and so must the stops."""
    ann = place(create_react_agent(model(calls("The city is Rome.", "to_bob")), [to("bob")]))
    bob = model("Booked.")
    group = ChatGroup({"ann": ann, "bob": bob}, speaker=handoff(), reply="transcript")
    result = group.compile().invoke({"messages": "Book a car."})
    assert texts(result) == ["Book a car.", "The city is Rome.", "Booked."]


@PLACES
def test_a_handoff_that_brings_its_history(place: Any) -> None:
    """langchain-ai/langgraph-swarm-py#69: a handoff tool that passes all messages on: none twice, no tool messages."""
    ann = place(create_react_agent(model(calls("I pass on.", "to_bob")), [to("bob", whole=True)]))
    bob = model("Here.")
    group = ChatGroup({"ann": ann, "bob": bob}, speaker=handoff(), reply="transcript")
    assert texts(group.compile().invoke({"messages": "Go."})) == ["Go.", "I pass on.", "Here."]
    assert [type(m) for m in bob.prompts[0]] == [HumanMessage, HumanMessage]


@pytest.mark.parametrize("order", [("lookup", "to_bob"), ("to_bob", "lookup")])
def test_a_tool_and_a_handoff_together(order: tuple[str, str]) -> None:
    """langchain-ai/langgraph-swarm-py#26, google/adk-python#6541: a handoff beside another call, in either order."""
    ann = create_react_agent(model(calls("", *order)), [lookup, to("bob")])
    bob = model("Here.")
    group = ChatGroup({"ann": ann, "bob": bob}, speaker=handoff())
    assert group.compile().invoke({"messages": "Go."})["last_speaker"] == "bob"
    assert not [m for m in bob.prompts[0] if isinstance(m, ToolMessage)]


def test_two_handoffs_in_one_answer() -> None:
    """langchain-ai/langgraph-swarm-py#30, #58, openai/openai-agents-python#499: a model hands over to two at once: the
    first one speaks, as in OpenAI's SDK, and the model is told so when it speaks again."""
    ann_model = model(calls("", "to_bob", "to_eve"), "ann here")
    ann = create_react_agent(ann_model, [to("bob"), to("eve")])
    bob = create_react_agent(model(calls("bob here", "to_ann")), [to("ann")])
    group = ChatGroup({"ann": ann, "bob": bob, "eve": model("no")}, speaker=handoff(), reply="transcript")
    assert texts(group.compile().invoke({"messages": "Both of you."})) == ["Both of you.", "bob here", "ann here"]
    assert ann_model.prompts[1][-1].text == "An answer hands over once. You have not handed over to 'eve'."


def test_who_had_the_floor_keeps_it_for_the_users_next_words() -> None:
    """langchain-ai/langgraph-swarm-py#29, #31, openai/openai-agents-python#741: the agent that asked the user a
    question gets the answer, and not the one who began."""
    triage = create_react_agent(model(calls("", "to_cars"), calls("", "to_cars")), [to("cars")])
    cars = model("Which city?", "Booked.")
    group = ChatGroup({"triage": triage, "cars": cars}, speaker=handoff(), reply="transcript")
    graph = group.compile(checkpointer=InMemorySaver())
    graph.invoke({"messages": "A car, please."}, THREAD)
    heard: list[str] = []
    for chunk in graph.stream({"messages": "Rome."}, THREAD, stream_mode="updates"):
        heard += [name for name in chunk if name in ("triage", "cars")]
    assert heard == ["cars"]


@PLACES
def test_a_team_stays_a_team_when_one_inside_ends_it(place: Any) -> None:
    """google/adk-python#2808, google/adk-go#522: who ends the inner conversation does not end the outer one."""

    def ann(state: Any) -> Command[Any]:
        return Command(goto=END, update={"messages": [AIMessage("bye")]})

    team = place(ChatGroup({"ann": ann, "bob": model("b")}).compile())
    group = ChatGroup({"team": team, "zoe": model("z", cycle=True)}, stop=max_turns(4), reply="transcript")
    assert texts(group.compile().invoke({"messages": "Go."})) == ["Go.", "bye", "z", "bye", "z"]


def test_names_inside_and_outside_of_a_team() -> None:
    """google/adk-python#7110: a handoff inside a team means its own member, though the outer group has one of the
    name."""

    def bob(state: Any) -> Command[Any]:
        return Command(goto="ann", update={"messages": [AIMessage("ann, please")]})

    team = ChatGroup({"bob": bob, "ann": model("inner ann")}, speaker=handoff())
    group = ChatGroup({"team": team, "ann": model("outer ann", cycle=True)}, stop=max_turns(1))
    result = group.compile().invoke({"messages": "Go."})
    assert (texts(result)[-1], result["last_speaker"]) == ("inner ann", "team")


@PLACES
def test_a_member_of_a_team_hands_over_to_one_outside(place: Any) -> None:
    """google/adk-python#367: from within a team to a member of the group around it, by a command for the parent."""

    def bob(state: Any) -> Command[Any]:
        return Command(goto="zoe", graph=Command.PARENT, update={"messages": [AIMessage("zoe, please")]})

    team = place(ChatGroup({"bob": bob, "ann": model("a")}).compile())
    group = ChatGroup({"team": team, "max": model("m"), "zoe": model("here")}, stop=max_turns(2), reply="transcript")
    assert texts(group.compile().invoke({"messages": "Go."})) == ["Go.", "zoe, please", "here"]


def test_the_users_picture_is_there_after_a_handoff() -> None:
    """openai/openai-agents-python#2220: a picture of the user is lost when the agent hands over in the same turn."""
    ann = create_react_agent(model(calls("", "to_bob")), [to("bob")])
    bob = model("I see.")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    asked = HumanMessage([{"type": "text", "text": "What is it?"}, picture])
    ChatGroup({"ann": ann, "bob": bob}, speaker=handoff()).compile().invoke({"messages": [asked]})
    assert bob.prompts[0][0].content[1] == picture
