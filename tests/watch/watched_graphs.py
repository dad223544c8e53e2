"""Graphs to look at, each in one shape: local, or with the part that `wrap` puts on a host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from agentmatrix import ChatGroup, Dag
from agentmatrix.speakers import broadcast
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
from agentmatrix.watch import RunEvent

Wrap = Callable[[Any], Any]
INPUT: dict[str, Any] = {"messages": "Shall we?"}
THREAD: Any = {"configurable": {"thread_id": "1"}}


def model(*answers: str) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers) or ["yes"], cycle=True, usage=True)


def one(name: str, agent: Any, graph: str = "", **options: Any) -> Any:
    dag = Dag(name=graph or name)
    dag.add_node(name, agent)
    return dag.compile(**options)


def deep(wrap: Wrap) -> Any:
    """Four levels, the third of them wrapped."""
    inner = wrap(one("b", one("c", one("say", model()))))
    return one("a", inner, "deep")


def asks(wrap: Wrap) -> Any:
    return one("e", wrap(one("ask", lambda messages: interrupt("why?"))), "asks", checkpointer=InMemorySaver())


def fails(wrap: Wrap) -> Any:
    def boom(messages: Any) -> str:
        raise ValueError("no facts")

    return one("e", wrap(one("boom", boom)), "fails")


def cast(wrap: Wrap) -> Any:
    members = {"loud": model("hear, hear"), "quiet": lambda messages: None}
    return one("g", wrap(ChatGroup(members, speaker=broadcast(), stop=max_turns(2)).compile()), "cast")


def panel(wrap: Wrap) -> Any:
    expert = Dag(name="expert")
    expert.add_sequence([("look", lambda messages: "looked"), ("write", model("facts"))])
    members = {"optimist": model("quick"), "expert": wrap(expert.compile()), "quiet": lambda messages: None}
    report = Dag(name="report")
    report.add_sequence([("plan", lambda messages: "a plan"), ("panel", ChatGroup(members, stop=max_turns(3)))])
    return report.compile()


def plain(wrap: Wrap) -> Any:
    """Of LangGraph alone, with a model that is called by the code of a node."""

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model().invoke(state["messages"])]}

    inner = StateGraph(MessagesState).add_node("call", call).add_edge(START, "call").compile(name="inner")
    return StateGraph(MessagesState).add_node("s", wrap(inner)).add_edge(START, "s").compile(name="plain")


def crowd(wrap: Wrap) -> Any:
    """A broadcast that is started itself, more members than a picture has room for."""
    members: dict[str, Any] = {f"m{number:02}": model(f"I am {number}") for number in range(70)}
    return wrap(ChatGroup(members, speaker=broadcast(), stop=max_turns(1), name="crowd").compile())


def root(wrap: Wrap) -> Any:
    """The graph that is started is the wrapped one."""
    return wrap(one("plan", one("say", model()), "root"))


SHAPES = {shape.__name__: shape for shape in (deep, asks, fails, cast, panel, plain, crowd, root)}


def told(events: Iterable[RunEvent]) -> list[tuple[str, str, Any]]:
    """Events without ids and times, which are others in each run."""
    return [(event.kind, event.path, _data(event)) for event in events]


def _data(event: RunEvent) -> Any:
    if event.kind == "ask":
        return [question["value"] for question in event.data["questions"]]
    return {key: value for key, value in event.data.items() if key not in ("seconds", "id", "ids", "name")}
