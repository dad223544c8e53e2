"""Messages cross once: they come back, and are sent in the next turn, by their numbers, unless they have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import AgentMatrixError
from agentmatrix.transport.grpc_client import GrpcTransport
from agentmatrix.transport.outbox import Outbox
from agentmatrix.wire import shared_messages
from agentmatrix.wire.message_cache import MessageCache


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


class Turns:
    """A conversation with a remote node under the parent's saver, and the same with a local one."""

    def __init__(self, verbs: Any, address: str, node: Any = answer) -> None:
        self.verbs = verbs
        self.graphs = [
            StateGraph(MessagesState).add_node("n", nested).add_edge(START, "n").compile(checkpointer=InMemorySaver())
            for nested in (RemoteAgent(f"{address}/child"), child(node))
        ]

    async def take(self, turn: int, many: int = 1) -> None:
        """One more turn of both, which end alike."""
        config: Any = {"configurable": {"thread_id": "1"}}
        given = [HumanMessage(f"{turn}-{number} " + "x" * 400, id=f"{turn}-{number}") for number in range(many)]
        remote, local = [await self.verbs.invoke(graph, {"messages": given}, config) for graph in self.graphs]
        assert remote == local and len(remote["messages"]) >= many


async def test_the_next_turn_sends_what_is_new(verbs: Any, sent: list[int]) -> None:
    with Host({"child": child(answer)}) as host:
        turns = Turns(verbs, host.address)
        await turns.take(1, 100)
        await turns.take(2)  # from the saver messages come with all of their fields set, and so are others
        sent.clear()
        await turns.take(3)
        assert sum(sent) < 10_000  # and not 40,000


async def test_a_next_turn_sees_what_the_caller_has_though_a_node_has_changed_its_own(verbs: Any) -> None:
    seen: list[Any] = []

    def node(state: MessagesState) -> dict[str, Any]:
        seen.append([message.additional_kwargs for message in state["messages"]])
        for message in state["messages"]:
            message.additional_kwargs["turn"] = len(seen)
        return {"messages": []}

    with Host({"child": child(node)}) as host:
        remote = RemoteAgent(f"{host.address}/child")
        for _ in range(3):
            await verbs.invoke(remote, {"messages": conversation(10)})
    assert [kwargs for run in seen for kwargs in run if kwargs.get("turn") not in (len(seen), 1, 2, 3)] == []
    assert all(message.additional_kwargs == {} for message in conversation(10))


LACKING = {
    "evicted": lambda patch: patch.setattr(shared_messages, "_received", MessageCache(0)),
    "evicted in part": lambda patch: patch.setattr(shared_messages, "_received", MessageCache(5_000)),
    "forgotten by the caller": lambda patch: patch.setattr(shared_messages, "_sent", MessageCache(5_000)),
    "another connection": lambda patch: patch.setattr(GrpcTransport, "connection", 0),
}


@pytest.mark.parametrize("lacking", LACKING)
async def test_a_host_asks_for_messages_that_it_does_not_have(
    verbs: Any, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    LACKING[lacking](monkeypatch)
    keep = shared_messages.SentMessages.keep
    if lacking == "another connection":
        monkeypatch.setattr(shared_messages.SentMessages, "keep", lambda self, connection: keep(self, 0))
    with Host({"child": child(answer)}) as first:
        turns = Turns(verbs, first.address)
        for turn in range(3):
            await turns.take(turn, 10)
    if lacking == "another connection":
        with Host({"child": child(answer)}) as second:
            remote = RemoteAgent(f"{second.address}/child")
            given = {"messages": conversation(10)}
            assert await verbs.invoke(remote, given) == await verbs.invoke(child(answer), given)


async def test_a_host_that_began_anew_is_sent_all_again(verbs: Any, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/host.sock"
    with Host({"child": child(answer)}, address=address):
        turns = Turns(verbs, address)
        await turns.take(1, 10)
        await turns.take(2, 10)
    with Host({"child": child(answer)}, address=address):
        await turns.take(3, 10)
        await turns.take(4, 10)


class Marked(HumanMessage):
    """A message that one of two agents of a host knows."""


class MarkedState(TypedDict):
    messages: Annotated[list[Marked | AnyMessage], add_messages]


async def test_a_message_that_another_agent_of_the_host_knows_is_refused_where_it_is_not_allowed(verbs: Any) -> None:
    knows = StateGraph(MarkedState).add_node("n", answer).add_edge(START, "n").compile()  # type: ignore[arg-type]
    given = {"messages": [Marked(str(number), id=str(number)) for number in range(10)]}
    with Host({"knows": knows, "other": child(answer)}) as host:
        knowing, other = (RemoteAgent(f"{host.address}/{name}") for name in ("knows", "other"))
        with pytest.raises(AgentMatrixError) as before:
            await verbs.invoke(other, given)
        for _ in range(2):
            assert type((await verbs.invoke(knowing, given))["messages"][0]) is Marked
        with pytest.raises(AgentMatrixError) as after:
            await verbs.invoke(other, given)
        assert (
            type(after.value) is type(before.value) and "Marked" in str(before.value) and "Marked" in str(after.value)
        )
