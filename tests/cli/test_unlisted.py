"""A host in another process, whose classes nobody here has: what its callers and the command line get."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command
from typing_extensions import TypedDict

from agentmatrix import ChatGroup, Dag, RemoteAgent, UnlistedValue
from agentmatrix.errors import TypeNotAllowed
from agentmatrix.speakers import round_robin
from agentmatrix.stops import max_turns
from tests.cli.conftest import Project
from tests.cli.test_serve import address_of
from tests.forked import Forked

FAR = """
import enum
from dataclasses import dataclass, field
from typing import NamedTuple
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import CachePolicy, interrupt
from pydantic import BaseModel

class Mood(enum.StrEnum):
    GOOD = "good"

class Place(NamedTuple):
    town: str
    at: tuple[int, int]

class Report(BaseModel):
    title: str
    mood: Mood = Mood.GOOD
    places: list[Place] = []

@dataclass
class Note:
    text: str
    report: Report

class State(MessagesState, total=False):
    structured_response: Report
    note: Note
    kept: str
    asked: str

def report():
    return Report(title="On cats", places=[Place("Rome", (1, 2))])

def write(state, runtime):
    if runtime.store is not None:
        runtime.store.put(("reports",), "last", {"report": report()})
    return {"structured_response": report(), "note": Note("n", report()), "messages": [AIMessage("done", id="a")]}

def look(state, runtime):
    seen = [state["structured_response"], state["note"], state["note"].report.places[0]]
    if runtime.store is not None:
        seen.append(runtime.store.get(("reports",), "last").value["report"])
    assert state["structured_response"] == report() and state["note"] == Note("n", report())
    return {"kept": " ".join(type(value).__name__ for value in seen)}

def chain(*nodes):
    builder = StateGraph(State)
    builder.add_sequence(list(nodes))
    builder.add_edge(START, nodes[0].__name__)
    return builder

def ask(state):
    return {"asked": interrupt(Note("shall I?", report()))}

def fail(state):
    raise ValueError(report())

graph = chain(write).compile()
asking = chain(write, ask, look).compile()
failing = chain(fail).compile()
cached = chain(write, look)
cached.nodes["write"].cache_policy = CachePolicy()
cached = cached.compile()
"""

REPORT = {
    "title": "On cats",
    "mood": {"name": "GOOD", "value": "good"},
    "places": [{"town": "Rome", "at": (1, 2)}],
}
Start = Callable[..., Forked]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    Project(folder).write("far.py", FAR)
    names = ("graph", "asking", "failing", "cached")
    with Project(folder).start("serve", *(f"far.py:{name}" for name in names), "--port", "0") as process:
        yield address_of(process)


def test_the_command_line_shows_data(project: Project, address: str) -> None:
    for as_json in ((), ("--json",)):
        outcome = project.cli("run", f"{address}/graph", "-i", "hi", *as_json)
        assert outcome.code == 0 and '"title": "On cats"' in outcome.out, outcome.err
    lines = project.cli("run", f"{address}/graph", "-i", "hi", "--json").out.splitlines()
    assert json.loads(lines[-1])["data"]["structured_response"] == json.loads(json.dumps(REPORT))


def test_results_parts_and_errors(address: str) -> None:
    remote = RemoteAgent(f"{address}/graph")
    result = remote.invoke({"messages": "hi"})
    assert result["structured_response"] == REPORT and result["note"] == {"text": "n", "report": REPORT}
    assert isinstance(result["structured_response"], UnlistedValue)
    assert result["structured_response"].type == "far.Report"
    with pytest.raises(AttributeError, match=r"far\.Report is not listed.*allow=\[\"far\"\] or allow=\[Report\]"):
        _ = result["structured_response"].title
    (part,) = remote.stream({"messages": "hi"}, stream_mode="updates")
    assert part["write"]["note"]["report"] == REPORT
    with pytest.raises(ValueError, match="On cats") as caught:
        RemoteAgent(f"{address}/failing").invoke({"messages": "hi"})
    assert caught.value.args == (REPORT,)
    with pytest.raises(TypeNotAllowed, match="allow="):
        RemoteAgent(f"{address}/graph", unlisted="error").invoke({"messages": "hi"})


async def test_nodes_members_and_events(address: str) -> None:
    class Wide(MessagesState, total=False):
        structured_response: Any

    def parent(builder: Any, schema: Any) -> Any:
        graph = builder(schema).add_node("far", RemoteAgent(f"{address}/graph"))
        return (graph.add_edge(START, "far") or graph).compile()

    for builder in (StateGraph, Dag):
        assert parent(builder, Wide).invoke({"messages": "hi"})["structured_response"] == REPORT
        assert parent(builder, MessagesState).invoke({"messages": "hi"})["messages"][-1].text == "done"
    events = [event async for event in parent(StateGraph, Wide).astream_events({"messages": "hi"}, version="v2")]
    assert events[-1]["data"]["output"]["structured_response"] == REPORT
    ann = RemoteAgent(f"{address}/graph", name="ann")
    group = ChatGroup([ann], speaker=round_robin(), stop=max_turns(1)).compile()
    assert len(group.invoke({"messages": "hi"})["messages"]) == 2


SAVERS: dict[str, Callable[[], Any]] = {
    "memory": InMemorySaver,
    "strict": lambda: InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=None)),
    "sqlite": lambda: SqliteSaver.from_conn_string(":memory:"),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_what_it_has_checkpointed_returns_to_it_as_its_own(address: str, saver: str) -> None:
    made = SAVERS[saver]()
    with made if saver == "sqlite" else _nothing(made) as checkpointer:
        builder = StateGraph(MessagesState).add_node("far", RemoteAgent(f"{address}/asking", store_prefix=["reports"]))
        builder.add_node("read", lambda state: None).add_edge(START, "far").add_edge("far", "read")
        graph = builder.compile(checkpointer=checkpointer, store=InMemoryStore())
        thread: Any = {"configurable": {"thread_id": "1"}}
        (question,) = graph.invoke({"messages": "hi"}, thread)["__interrupt__"]
        assert question.value == {"text": "shall I?", "report": REPORT}
        inner = graph.get_state(thread, subgraphs=True).tasks[0].state
        assert inner.values["structured_response"] == REPORT and inner.next == ("ask",)
        parts = list(graph.stream(Command(resume="yes"), thread, subgraphs=True, stream_mode="values"))
        assert parts[-2][1]["kept"] == "Report Note Place Report"


async def test_what_it_has_cached_and_stored_returns_to_it_as_its_own(address: str) -> None:
    from langgraph.cache.memory import InMemoryCache

    builder = StateGraph(MessagesState).add_node("far", RemoteAgent(f"{address}/cached", store_prefix=["reports"]))
    graph = builder.add_edge(START, "far").compile(cache=InMemoryCache(), store=InMemoryStore())
    for _ in range(2):
        message = {"messages": [AIMessage("hi", id="1")]}
        parts = [part async for part in graph.astream(message, subgraphs=True, stream_mode="values")]
        assert parts[-2][1]["kept"] == "Report Note Place Report"


def test_what_a_caller_sends_back_is_its_own(address: str) -> None:
    remote = RemoteAgent(f"{address}/graph")
    result = remote.invoke({"messages": "hi"})
    again = remote.invoke({**result, "kept": "x"})
    assert again["structured_response"] == REPORT and again["note"].type == "far.Note"


def test_two_hosts_in_a_row(project: Project, started: Start, address: str) -> None:
    """The host between has not got the classes either: they pass it, and its caller's checkpointer keeps them."""
    project.write(
        "between.py",
        f"""
        from langgraph.graph import START, MessagesState, StateGraph
        from agentmatrix import RemoteAgent
        far = RemoteAgent("{address}/asking", store_prefix=())
        graph = StateGraph(MessagesState).add_node("far", far).add_edge(START, "far").compile()
        """,
    )
    between = address_of(started("serve", "between.py:graph", "--port", "0"))
    builder = StateGraph(MessagesState).add_node("between", RemoteAgent(f"{between}/graph", store_prefix=()))
    graph = builder.add_edge(START, "between").compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    (question,) = graph.invoke({"messages": "hi"}, thread)["__interrupt__"]
    assert question.value == {"text": "shall I?", "report": REPORT}
    parts = list(graph.stream(Command(resume="yes"), thread, subgraphs=True, stream_mode="values"))
    assert [values["kept"] for _, values in parts if "kept" in values] == ["Report Note Place"]


def test_the_state_around_it_lists_its_classes(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the caller has the module too, and its own schema names the class."""
    monkeypatch.syspath_prepend(str(folder))
    import far  # type: ignore[import-not-found]

    Wide = TypedDict("Wide", {"messages": list[Any], "structured_response": far.Report}, total=False)  # noqa: UP013
    for builder in (StateGraph, Dag):
        remote = RemoteAgent(f"{address}/graph")
        graph: Any = builder(Wide)
        graph.add_node("far", remote)
        graph.add_edge(START, "far")
        assert graph.compile().invoke({"messages": []})["structured_response"] == far.report()
        assert remote.invoke({"messages": []})["note"]["report"] == far.report()


def test_a_state_that_is_read_before_any_run(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    import far

    Wide = TypedDict("Wide", {"messages": list[Any], "structured_response": far.Report}, total=False)  # noqa: UP013
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}

    def parent() -> Any:
        graph: Any = Dag(Wide)
        graph.add_node("far", RemoteAgent(f"{address}/asking"))
        return graph.compile(checkpointer=saver)

    parent().invoke({"messages": []}, thread)
    state = parent().get_state(thread, subgraphs=True).tasks[0].state
    assert state.values["structured_response"] == far.report()


class _nothing:
    """A context without an end."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __enter__(self) -> Any:
        return self.value

    def __exit__(self, *exc: object) -> None:
        """Nothing to close."""
