"""What comes out of a group: its state, its schemas, its metadata; and the group itself, sent to another process."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import cloudpickle
import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import MessagesState
from typing_extensions import TypedDict

from agentmatrix import ChatGroup, Dag
from agentmatrix.errors import BuildError
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

PLACES = pytest.mark.parametrize("place", [lambda graph: graph, loopback], ids=["here", "remote"])


class Review(MessagesState):
    approved: bool
    notes: Annotated[list[str], operator.add]


class Verdict(TypedDict):
    approved: bool


def judge(state: Review) -> Any:
    return {"approved": True, "notes": ["fine"], "messages": [AIMessage("Yes.")]}


@PLACES
def test_its_state_reaches_the_result_and_the_graph_around_it(place: Any) -> None:
    group = place(ChatGroup({"judge": judge}, stop=max_turns(1), state_schema=Review).compile())
    result = group.invoke({"messages": "Go."})
    assert (result["approved"], result["notes"]) == (True, ["fine"])
    dag = Dag(Review)
    dag.add_node("panel", group)
    dag.add_node("after", lambda state: {"notes": [f"approved: {state['approved']}"]})
    dag.add_edge("panel", "after")
    assert dag.compile().invoke({"messages": "Go.", "notes": []})["notes"] == ["fine", "approved: True"]


def test_an_output_schema_says_which_keys() -> None:
    group = ChatGroup({"judge": judge}, stop=max_turns(1), state_schema=Review, output_schema=Verdict).compile()
    assert set(group.invoke({"messages": "Go."})) == {"approved", "stop_reason", "last_speaker"}
    with pytest.raises(BuildError, match="'approved'.*state_schema"):
        ChatGroup({"judge": judge}, output_schema=Verdict).compile()


def test_its_output_has_a_json_schema() -> None:
    schema = ChatGroup({"judge": judge}, state_schema=Review).compile().get_output_jsonschema()
    assert {"messages", "approved", "notes", "stop_reason", "last_speaker"} <= set(schema["properties"])


@pytest.mark.parametrize("speaker", [None, broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_a_compiled_group_is_pickled(speaker: Any) -> None:
    members = {"ann": ScriptedChatModel(["a", ""]), "judge": lambda messages: "" if len(messages) > 2 else "Yes."}
    graph = ChatGroup(members, speaker=speaker, stop=max_turns(2), reply="transcript").compile()
    copy = cloudpickle.loads(cloudpickle.dumps(graph))
    texts = {message.text for message in copy.invoke({"messages": "Go."})["messages"]}
    assert texts >= {"Go.", "a"}


def test_the_providers_stop_reason_stays() -> None:
    cut = AIMessage("Cut o", response_metadata={"stop_reason": "max_tokens"})
    inner = ChatGroup({"ann": ScriptedChatModel([cut], cycle=True)}, stop=max_turns(1))
    metadata = ChatGroup({"team": inner}, stop=max_turns(1)).compile().invoke({"messages": "Go."})["messages"][-1]
    assert metadata.response_metadata["stop_reason"] == "max_tokens"
    assert metadata.response_metadata["group_stop_reason"] == "max_turns(1)"
    assert metadata.response_metadata["last_speaker"] == "team"


def last_three(before: Any, new: Any) -> list[AnyMessage]:
    return [*(before or []), *(new if isinstance(new, list) else [new])][-3:]


class Short(TypedDict):
    messages: Annotated[list[AnyMessage], last_three]


@pytest.mark.parametrize("speaker", [None, broadcast(), free()], ids=["turns", "broadcast", "free"])
@pytest.mark.parametrize("reply", ["last", "transcript"])
def test_a_reducer_of_ones_own(speaker: Any, reply: Any) -> None:
    """microsoft/autogen#4648, #1467: a state that keeps the last messages only, without ids and `add_messages`."""
    members = {"ann": ScriptedChatModel(["a1", "a2", "", ""]), "bob": ScriptedChatModel(["b1", "b2", "", ""])}
    group = ChatGroup(members, speaker=speaker, stop=max_turns(4), state_schema=Short, reply=reply).compile()
    result = group.invoke({"messages": [("human", "Go.")]})
    assert len(result["messages"]) <= 3 and result["last_speaker"] in members


def test_messages_without_a_reducer_are_refused() -> None:
    class Plain(TypedDict):
        messages: list[AnyMessage]

    with pytest.raises(BuildError, match="'messages'.*no reducer"):
        ChatGroup({"ann": ScriptedChatModel("a")}, state_schema=Plain).compile()
