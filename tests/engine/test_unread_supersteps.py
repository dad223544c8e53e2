"""Supersteps of a run of which nobody reads the stream: with a saver too, the next one begins without LangGraph's loop
in between. History, result and failures are those of a StateGraph."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained, GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, interrupt

from agentmatrix import CyclicGraph, Dag
from tests.conftest import Verbs

DURABILITIES = ["exit", "async", "sync"]
KINDS = [CyclicGraph, StateGraph]
CONFIG: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    last: str


def loop(kind: Any, saver: Any, *, rounds: int = 4, act: Any = None) -> Any:
    """A loop of a node that writes, and one that writes nothing and chooses."""

    def work(state: State) -> State:
        name = f"w{len(state['log'])}"
        answer = act(state) if act is not None else None
        return {"log": [name if answer is None else answer], "last": name}

    graph = kind(State).add_node("work", work).add_node("choose", lambda state: None)
    graph.add_edge(START, "work").add_edge("work", "choose")
    graph.add_conditional_edges("choose", lambda state: END if len(state["log"]) > rounds else "work", [END, "work"])
    return graph.compile(checkpointer=saver)


def told(graph: Any) -> list[Any]:
    found = []
    for one in graph.get_state_history(CONFIG):
        tasks = [(task.name, task.result, bool(task.error), [i.value for i in task.interrupts]) for task in one.tasks]
        found.append((one.values, one.next, one.metadata["source"], one.metadata["step"], tasks))
    return found


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_the_history_is_that_of_a_state_graph(verbs: Verbs, durability: str) -> None:
    found = []
    for kind in KINDS:
        graph = loop(kind, InMemorySaver())
        results = [await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability=durability) for _ in range(2)]
        found.append((results, told(graph)))
    assert found[0] == found[1]
    assert found[0][0][0]["last"] == "w4"


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_question_shows_what_was_written_before_it(verbs: Verbs, durability: str) -> None:
    found = []
    for kind in KINDS:
        graph = loop(kind, InMemorySaver(), act=lambda state: interrupt("?") if len(state["log"]) == 3 else None)
        paused = await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability=durability)
        asked = [one.value for one in paused.pop("__interrupt__")]
        resumed = await verbs.invoke(graph, Command(resume="yes"), CONFIG, durability=durability)
        found.append((paused, asked, resumed))
    assert found[0] == found[1]
    assert found[0][0]["log"] == ["x", "w1", "w2"] and found[0][2]["log"] == ["x", "w1", "w2", "yes", "w4"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_the_limit_of_steps(verbs: Verbs, durability: str) -> None:
    found = []
    for kind in KINDS:
        graph = loop(kind, InMemorySaver())
        with pytest.raises(GraphRecursionError):
            await verbs.invoke(graph, {"log": ["x"]}, {**CONFIG, "recursion_limit": 4}, durability=durability)
        stopped = told(graph)[0]
        found.append((stopped, await verbs.invoke(graph, None, CONFIG, durability=durability)))
    assert found[0] == found[1]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_drain_that_a_node_asks_for(verbs: Verbs, durability: str) -> None:
    found = []
    for kind in KINDS:
        control = RunControl()
        graph = loop(
            kind, InMemorySaver(), act=lambda state, c=control: len(state["log"]) == 3 and c.request_drain("now") or "a"
        )
        with pytest.raises(GraphDrained):
            await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability=durability, control=control)
        stopped = told(graph)[0]
        found.append((stopped, await verbs.invoke(graph, None, CONFIG, durability=durability)))
    assert found[0] == found[1]


class Drains(InMemorySaver):
    """Asks for a drain while it puts a checkpoint."""

    def __init__(self, control: RunControl) -> None:
        super().__init__()
        self.control = control

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] == 3:
            self.control.request_drain("now")
        return super().put(config, checkpoint, metadata, new_versions)


async def test_under_sync_a_drain_that_comes_with_a_checkpoint_stops_behind_it(verbs: Verbs) -> None:
    found = []
    for kind in KINDS:
        control = RunControl()
        graph = loop(kind, Drains(control))
        with pytest.raises(GraphDrained):
            await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability="sync", control=control)
        stopped = told(graph)
        found.append((stopped, await verbs.invoke(graph, None, CONFIG, durability="async")))
    assert found[0] == found[1]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_node_that_fails(verbs: Verbs, durability: str) -> None:
    found = []
    for kind in KINDS:
        failures = iter([ValueError("three")])

        def act(state: State, failures: Any = failures) -> None:
            if len(state["log"]) == 3 and (error := next(failures, None)):
                raise error

        graph = loop(kind, InMemorySaver(), act=act)
        with pytest.raises(ValueError, match="three"):
            await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability=durability)
        found.append((told(graph)[0], await verbs.invoke(graph, None, CONFIG, durability=durability)))
    assert found[0] == found[1]


class Refuses(InMemorySaver):
    """Fails at one checkpoint."""

    refuses_at: int | None = 3

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] == self.refuses_at:
            raise ConnectionError("the disk is gone")
        return super().put(config, checkpoint, metadata, new_versions)


async def test_under_sync_nothing_runs_behind_a_checkpoint_that_failed(verbs: Verbs) -> None:
    found = []
    for kind in KINDS:
        ran: list[int] = []
        graph = loop(kind, Refuses(), act=lambda state, ran=ran: ran.append(len(state["log"])))
        with pytest.raises(ConnectionError, match="the disk is gone"):
            await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability="sync")
        found.append((ran, told(graph)[0]))
    assert found[0] == found[1]


@pytest.mark.parametrize("durability", ["async", "sync"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_checkpoint_that_failed_behind_a_node_that_leads_to_itself(
    verbs: Verbs, durability: str, stream: bool
) -> None:
    """All of the superstep lies beside the checkpoint before it. The next run puts the one that failed, and goes on."""
    found = []
    for kind in KINDS:
        saver: Any = Refuses()
        graph: Any = kind(State).add_node("work", lambda state: {"log": [f"w{len(state['log'])}"]})
        graph.add_edge(START, "work")
        graph.add_conditional_edges("work", lambda state: "work" if len(state["log"]) < 6 else END, ["work", END])
        graph = graph.compile(checkpointer=saver)
        with pytest.raises(ConnectionError):
            await verbs.invoke(graph, {"log": ["x"]}, CONFIG, durability=durability)
        saver.refuses_at = None
        stopped = graph.get_state(CONFIG).values
        if stream:
            await verbs.listed(graph, "stream", None, CONFIG)
        else:
            await verbs.invoke(graph, None, CONFIG)
        found.append((stopped, told(graph)))
    assert found[0] == found[1]
    assert found[0][1][0][0]["log"] == ["x", "w1", "w2", "w3", "w4", "w5"]


@pytest.mark.parametrize("durability", ["async", "sync"])
async def test_a_join_into_a_deferred_node(verbs: Verbs, durability: str) -> None:
    """Its channel holds more than that of another join: also whether the run is about to end."""
    found = []
    for kind in KINDS:
        graph: Any = kind(State)
        for name in "abc":
            graph.add_node(name, lambda state, name=name: {"log": [name]})
        graph.add_node("last", lambda state: {"log": [interrupt("?")]}, defer=True)
        graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").add_edge(["a", "b"], "last")
        graph.add_conditional_edges("c", lambda state: "a" if len(state["log"]) < 5 else END, ["a", END])
        graph = graph.compile(InMemorySaver())
        await verbs.invoke(graph, {"log": []}, CONFIG, durability=durability)
        result = await verbs.invoke(graph, Command(resume="end"), CONFIG, durability=durability)
        found.append((result, told(graph)))
    assert found[0] == found[1]
    assert found[0][0]["log"] == ["a", "b", "c", "a", "b", "c", "end"]


async def test_under_sync_a_node_finds_the_checkpoint_before_it(verbs: Verbs) -> None:
    found = []
    for kind in KINDS:
        kept: list[Any] = []
        saver = InMemorySaver()

        def act(state: State, saver: Any = saver, kept: Any = kept) -> None:
            kept.append(saver.get_tuple(CONFIG).metadata["step"])

        await verbs.invoke(loop(kind, saver, act=act), {"log": ["x"]}, CONFIG, durability="sync")
        found.append(kept)
    assert found[0] == found[1] == [0, 2, 4, 6]


@pytest.mark.parametrize("durability", ["async", "sync"])
@pytest.mark.parametrize("value", [object(), lambda: None], ids=["object", "function"])
async def test_of_writes_that_cannot_be_kept_none_is(verbs: Verbs, durability: str, value: Any) -> None:
    saver = InMemorySaver()
    graph: Any = Dag(State).add_node("work", lambda state: {"log": ["w"], "last": value}).add_edge(START, "work")
    with pytest.raises(Exception, match="serializ") as failed:
        await verbs.invoke(graph.compile(saver), {"log": ["x"]}, CONFIG, durability=durability)
    assert any("'work'" in note and "'last'" in note for note in failed.value.__notes__)
    assert not [channel for kept in saver.writes.values() for _, channel, _, path in kept.values() if "work" in path]


@pytest.mark.parametrize("kind", [CyclicGraph, Dag])
async def test_a_command_that_cannot_be_kept_leaves_the_one_before_it(verbs: Verbs, kind: Any) -> None:
    """Both lie beside one checkpoint, and the saver gets the writes of the first one again with those of the second."""

    def ask(state: State) -> State:
        return {"log": [interrupt("who?"), interrupt("when?")]}

    graph: Any = kind(State).add_node("ask", ask).add_edge(START, "ask").compile(InMemorySaver())
    asked = await verbs.invoke(graph, {"log": []}, CONFIG)
    first = Command(update={"log": ["note"]}, resume={asked["__interrupt__"][0].id: "me"})
    await verbs.invoke(graph, first, CONFIG)
    with pytest.raises(TypeError, match="serializ"):
        await verbs.invoke(graph, Command(update={"log": ["lost"], "last": object()}), CONFIG, durability="sync")
    resumed = await verbs.invoke(graph, Command(resume="now"), CONFIG)
    assert resumed["log"] == ["note", "me", "now"]
