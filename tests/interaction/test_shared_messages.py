"""The messages of a run's input cross once: they come back by their numbers, unless a node has changed them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.transport.outbox import Outbox


def child(node: Any) -> Any:
    return StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile()


def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage("yes", id="answer")]}


def conversation(many: int) -> list[AnyMessage]:
    return [HumanMessage(f"{number} " + "x" * 400, id=str(number)) for number in range(many)]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the frames that this process sends, of host and caller."""
    sizes: list[int] = []
    put = Outbox.put

    def counted(self: Outbox, frame: Any, large: Any, **options: Any) -> int:
        sizes.append(frame.ByteSize() + sum(len(piece) for pieces in large.values() for piece in pieces))
        return put(self, frame, large, **options)

    monkeypatch.setattr(Outbox, "put", counted)
    return sizes


async def test_a_conversation_crosses_once(verbs: Any, sent: list[int]) -> None:
    with Host({"child": child(answer)}) as host:
        remote = RemoteAgent(f"{host.address}/child")
        builder = StateGraph(MessagesState).add_node("far", remote).add_edge(START, "far")
        graph, local = builder.compile(checkpointer=InMemorySaver()), child(answer)
        config: Any = {"configurable": {"thread_id": "1"}}
        await verbs.invoke(remote, {"messages": []})
        sent.clear()
        result = await verbs.invoke(graph, {"messages": conversation(100)}, config)
        once = sum(len(message.text) for message in conversation(100))
        assert once < sum(sent) < 2 * once  # there, and no more than numbers back, in checkpoints and the result
        assert result == await verbs.invoke(local, {"messages": conversation(100)})
        saved = [snapshot async for snapshot in graph.aget_state_history(config)]
        assert saved[0].values == result


CHANGES = {
    "content": lambda message: setattr(message, "content", "changed"),
    "in place": lambda message: message.additional_kwargs.update(seen=True),
    "deep": lambda message: message.additional_kwargs["deep"]["list"].append(2),
    "list": lambda message: message.content.append("more"),
    "extra": lambda message: setattr(message, "mark", 1),
    "name": lambda message: setattr(message, "name", "ann"),
    "nothing": lambda message: None,
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_a_node_changes_in_place_comes_back_changed(verbs: Any, change: str) -> None:
    def node(state: MessagesState) -> dict[str, Any]:
        CHANGES[change](state["messages"][0])
        return {"messages": [AIMessage("done", id="answer")]}

    def given() -> list[AnyMessage]:
        content: Any = ["a list"] if change == "list" else "hello"
        return [HumanMessage(content, id="1", additional_kwargs={"deep": {"list": [1]}}), SystemMessage("s", id="2")]

    with Host({"child": child(node)}) as host:
        remote = RemoteAgent(f"{host.address}/child")
        local, far = await verbs.invoke(child(node), {"messages": given()}), given()
        assert await verbs.invoke(remote, {"messages": far}) == local
        assert far == given()  # the caller's own are as they were


async def test_ids_that_a_host_gives_and_replaced_messages(verbs: Any) -> None:
    def node(state: MessagesState) -> dict[str, Any]:
        first = state["messages"][0]
        return {"messages": [HumanMessage("another", id=first.id)]}

    with Host({"child": child(node)}) as host:
        result = await verbs.invoke(RemoteAgent(f"{host.address}/child"), {"messages": [HumanMessage("no id")]})
        assert [message.text for message in result["messages"]] == ["another"]
        assert result["messages"][0].id


async def test_two_hosts_in_a_row_and_streams(verbs: Any) -> None:
    with Host({"child": child(answer)}) as inner:
        middle = StateGraph(MessagesState).add_node("far", RemoteAgent(f"{inner.address}/child"))
        with Host({"middle": middle.add_edge(START, "far").compile()}) as outer:
            remote = RemoteAgent(f"{outer.address}/middle")
            given = {"messages": conversation(5)}
            parts = await verbs.listed(remote, "stream", given, stream_mode="values")
            assert parts == await verbs.listed(child(answer), "stream", given, stream_mode="values")
