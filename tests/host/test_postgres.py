"""A host that keeps its threads in PostgreSQL: a real server, which the tests start."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from agentmatrix import Dag, Host, RemoteAgent
from agentmatrix.errors import AddressError
from tests.postgres_server import postgres_missing, postgres_server

pytestmark = pytest.mark.skipif(bool(postgres_missing()), reason=postgres_missing())


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as url:
        yield url


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def asking(build: Any) -> Any:
    def ask(state: State) -> State:
        return {"log": [interrupt("go on?")]}

    builder = build(State).add_node("say", lambda state: {"log": ["said"]}).add_node("ask", ask)
    return builder.add_edge(START, "say").add_edge("say", "ask").compile()


@pytest.mark.parametrize("build", [StateGraph, Dag])
async def test_a_thread_goes_on_at_another_host_after_a_question(verbs: Any, build: Any, database: str) -> None:
    thread: Any = {"configurable": {"thread_id": f"{verbs.is_async} {build}"}}
    with Host({"agent": asking(build)}, checkpointer=database) as host:
        remote = RemoteAgent("agent", url=host.address)
        assert (await verbs.invoke(remote, {"log": []}, thread))["__interrupt__"][0].value == "go on?"
    with Host({"agent": asking(build)}, checkpointer=database) as other:
        remote = RemoteAgent("agent", url=other.address)
        assert (await verbs.call(remote, "get_state", thread)).next == ("ask",)
        assert await verbs.invoke(remote, Command(resume="yes"), thread) == {"log": ["said", "yes"]}
        assert len(await verbs.listed(remote, "get_state_history", thread)) >= 2


async def test_many_runs_share_the_connections(database: str) -> None:
    graph = StateGraph(State).add_node("say", lambda state: {"log": ["said"]}).add_edge(START, "say").compile()
    with Host({"agent": graph}, checkpointer=database) as host:
        remote = RemoteAgent("agent", url=host.address)
        configs: list[Any] = [{"configurable": {"thread_id": f"many {number}"}} for number in range(60)]
        results = await asyncio.gather(*(remote.ainvoke({"log": []}, config) for config in configs))
    assert results == [{"log": ["said"]}] * 60


@pytest.mark.parametrize(
    "wrong", ["?host=/no/such/folder", "nobody:top-secret@127.0.0.1:1/x?connect_timeout=2&password=top-secret"]
)
def test_a_server_that_is_not_there_is_one_sentence_without_the_password(wrong: str) -> None:
    with pytest.raises(AddressError, match="the checkpointer postgresql://.* cannot be opened") as caught:
        Host({"agent": asking(StateGraph)}, checkpointer=f"postgresql://{wrong}").start()
    assert "top-secret" not in str(caught.value)
