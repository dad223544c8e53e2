"""A member with a memory of its own whose turn has ended in the middle: its calls of tools get results all the same."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import ChatGroup
from agentmatrix.stops import max_turns

THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.mark.parametrize("id", ["call_1", "", None])
def test_a_call_without_a_result_gets_one(id: str | None) -> None:
    read: list[list[Any]] = []

    def model(state: MessagesState) -> Any:
        read.append(state["messages"])
        call = {"name": "look", "args": {}, "id": id, "type": "tool_call"}
        return {"messages": AIMessage("", tool_calls=[call]) if len(read) == 1 else AIMessage("Done.")}

    def tools(state: MessagesState) -> None:
        if len(read) == 1:
            raise ConnectionError("no answer")

    worker = StateGraph(MessagesState)
    worker.add_node("model", model)
    worker.add_node("tools", tools)
    worker.add_edge(START, "model")
    worker.add_edge("model", "tools")
    group = ChatGroup({"ann": worker.compile(checkpointer=True)}, stop=max_turns(1))
    graph = group.compile(checkpointer=InMemorySaver())
    with pytest.raises(ConnectionError):
        graph.invoke({"messages": "one"}, THREAD)
    assert graph.invoke({"messages": "two"}, THREAD)["messages"][-1].text == "Done."
    [result] = [message for message in read[1] if isinstance(message, ToolMessage)]
    assert (result.tool_call_id, result.text) == (id or "", "Your turn ended with this call.")
