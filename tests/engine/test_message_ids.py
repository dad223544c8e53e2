"""Messages get their ids before they are recorded, so that a thread that is read again has the same."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState
from langgraph.types import CachePolicy

from agentmatrix import CyclicGraph, Dag, all_of

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(MessagesState, total=False):
    notes: Annotated[list[BaseMessage], operator.add]


def says(state: State) -> Any:
    return {
        "messages": [AIMessage("said"), ("ai", "told"), {"role": "user", "content": "asked"}],
        "notes": [AIMessage("noted")],
    }


@pytest.mark.parametrize("kind", ["Dag", "barriers", "CyclicGraph", "Dag with triggers", "CyclicGraph with triggers"])
@pytest.mark.parametrize("verb", ["sync", "async"])
def test_a_node_sees_the_ids_that_are_kept(kind: str, verb: str) -> None:
    """Read in flight: what a killed process would leave is folded anew from the saver."""
    seen: list[list[str | None]] = []

    def compares(state: State) -> Any:
        kept = graph.get_state(THREAD).values
        for values in (kept, state):
            seen.append([message.id for key in ("messages", "notes") for message in values[key]])
        return {}

    builder: Any = (CyclicGraph if kind.startswith("CyclicGraph") else Dag)(State)
    builder.add_node("says", says)
    builder.add_node("compares", compares)
    builder.add_edge(START, "says")
    if "triggers" in kind:
        builder.add_trigger("compares", all_of("says"))
    else:
        builder.add_edge("says", "compares")
    graph = builder.compile(checkpointer=InMemorySaver(), **({"barriers": True} if kind == "barriers" else {}))
    if verb == "sync":
        graph.invoke({"messages": []}, THREAD, durability="sync")
    else:
        asyncio.run(graph.ainvoke({"messages": []}, THREAD, durability="sync"))
    assert seen[0] == seen[1] and len(seen[0]) == 4 and all(seen[0])


def test_the_stream_shows_what_was_returned() -> None:
    dag = Dag(State)
    dag.add_node("says", says)
    [part] = dag.compile(checkpointer=InMemorySaver()).stream({"messages": []}, THREAD, stream_mode="updates")
    assert part["says"]["messages"][1:] == [("ai", "told"), {"role": "user", "content": "asked"}]


def test_a_cached_message_is_another_one_in_each_run() -> None:
    """Else the second turn of a thread would take the place of the first, as it does in a StateGraph now and then."""
    graph = Dag(State)
    graph.add_node(
        "says", lambda state: {"messages": [AIMessage("said")]}, cache_policy=CachePolicy(key_func=lambda _: "same")
    )
    graph.add_edge(START, "says")
    compiled = graph.compile(checkpointer=InMemorySaver(), cache=InMemoryCache())
    for _ in range(3):
        compiled.invoke({"messages": []}, THREAD)
    messages = compiled.get_state(THREAD).values["messages"]
    assert len({message.id for message in messages}) == 3
    assert {message.content for message in messages} == {"said"}
