"""A thread that has gone back to an earlier checkpoint: the branch knows nothing of what actors have done later."""

from __future__ import annotations

import operator
import sqlite3
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from agentmatrix import CyclicGraph
from tests.conftest import Verbs
from tests.live.prefix_saver import RecordingSaver

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    to: list[str]
    log: Annotated[list[str], operator.add]


class Remembered(TypedDict, total=False):
    to: list[str]
    said: Annotated[list[str], operator.add]


class Memory(TypedDict, total=False):
    word: str
    heard: Annotated[list[str], operator.add]


def hears(state: Memory) -> Memory:
    word = interrupt("well?") if state["word"] == "ask" else state["word"]
    return {"heard": [word]}


def firm(saver: Any, **options: Any) -> Any:
    """Sends what it is told to: "ann=1"."""

    def begin(state: State) -> Any:
        words = (each.split("=") for each in state["to"])
        return Command(goto=[Send(f"staff/{key}", {"word": word}) for key, word in words])

    graph = CyclicGraph(State)
    graph.add_actors("staff", hears, state=Memory, **options)
    graph.add_node("begin", begin, destinations=("staff",)).add_edge(START, "begin")
    return graph.compile(checkpointer=saver)


class Thread:
    """A thread of such a graph."""

    def __init__(self, verbs: Verbs, saver: Any, **options: Any) -> None:
        self.verbs, self.graph = verbs, firm(saver, **options)

    async def run(self, *to: str, at: Any = THREAD) -> Any:
        """Sends, and returns where the thread stands then."""
        await self.verbs.call(self.graph, "invoke", {"to": list(to)}, at)
        return self.graph.get_state(THREAD).config

    async def staff(self, at: Any = THREAD) -> dict[str, str]:
        """What each has heard, in the order in which they were hired."""
        found = await self.verbs.call(self.graph, "actors", at)
        assert all(len(actor.values.get("heard", ())) == actor.count for actor in found.values())
        return {actor.key: "".join(actor.values.get("heard", ())) for actor in found.values()}


async def test_who_was_hired_later_is_unknown_and_what_was_read_later_too(verbs: Verbs) -> None:
    thread = Thread(verbs, InMemorySaver(), max_actors=2)
    first = await thread.run("ann=1")
    second = await thread.run("ann=2", "bob=2")
    assert await thread.staff() == {"ann": "12", "bob": "2"}
    # There is room for carl: bob was not hired in this branch.
    third = await thread.run("ann=3", "carl=3", at=first)
    assert await thread.staff() == {"ann": "13", "carl": "3"}
    await thread.run("ann=4")
    assert await thread.staff() == {"ann": "134", "carl": "3"}
    # Back in the first branch, and in the second one once more.
    await thread.run("bob=5", at=second)
    assert await thread.staff() == {"ann": "12", "bob": "25"}
    await thread.run("carl=6", at=third)
    assert await thread.staff() == {"ann": "13", "carl": "36"}
    # What is past stays as it was.
    assert [await thread.staff(at) for at in (first, second, third)] == [
        {"ann": "1"},
        {"ann": "12", "bob": "2"},
        {"ann": "13", "carl": "3"},
    ]


async def test_an_update_of_an_earlier_checkpoint(verbs: Verbs) -> None:
    thread = Thread(verbs, InMemorySaver())
    first = await thread.run("ann=1")
    await thread.run("ann=2", "bob=2")
    for word in ("edited", "twice"):
        await verbs.call(thread.graph, "update_state", first, {"log": [word]})
        assert await thread.staff() == {"ann": "1"}
    await verbs.call(thread.graph, "update_state", THREAD, {"log": ["on top"]})
    await thread.run("ann=3", "carl=3")
    assert await thread.staff() == {"ann": "13", "carl": "3"}
    await thread.run("carl=4")
    assert await thread.staff() == {"ann": "13", "carl": "34"}


async def test_a_copy_of_any_checkpoint_has_the_actors_of_that_one(verbs: Verbs) -> None:
    saver: Any = InMemorySaver()
    if not verbs.is_async:  # it holds a lock until all of a listing is read
        sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
        saver = sqlite.SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))
    thread = Thread(verbs, saver)
    await thread.run("ann=1")
    await thread.run("ann=2", "bob=2")
    copied = [(state.config, await thread.staff(state.config)) for state in thread.graph.get_state_history(THREAD)]
    assert len({str(staff) for _, staff in copied}) > 2
    for config, staff in (*copied, *copied):
        copy = await verbs.call(thread.graph, "update_state", config, None, as_node="__copy__")
        assert await thread.staff() == await thread.staff(copy) == staff
        again = await verbs.call(thread.graph, "update_state", copy, None, as_node="__copy__")
        assert await thread.staff(again) == staff
        await thread.run("carl=3", at=again)
        assert await thread.staff() == {**staff, "carl": "3"}
    for config, staff in copied:
        assert await thread.staff(config) == staff


async def test_a_run_that_is_replayed_hires_and_tells_once(verbs: Verbs) -> None:
    thread = Thread(verbs, InMemorySaver())
    await thread.run("ann=1")
    await thread.run("ann=2", "bob=2")
    history = await verbs.listed(thread.graph, "get_state_history", THREAD)
    (second,) = [state.config for state in history if state.next and state.values.get("to") == ["ann=2", "bob=2"]][:1]
    for _ in range(2):
        await verbs.call(thread.graph, "invoke", None, second)
        assert await thread.staff() == {"ann": "12", "bob": "2"}


async def test_messages_on_the_way_belong_to_their_branch(verbs: Verbs) -> None:
    """What nobody has read at a pause is read in the branch that begins there, and in the other one: once in each."""
    thread = Thread(verbs, InMemorySaver())
    await thread.run("ann=ask", "ann=2", "bob=1")
    paused = thread.graph.get_state(THREAD).config
    assert [actor.unread for actor in thread.graph.actors(paused).values()] == [({"word": "2"},), ()]
    await verbs.call(thread.graph, "invoke", Command(resume="a"), THREAD)
    assert await thread.staff() == {"ann": "a2", "bob": "1"}
    await verbs.call(thread.graph, "invoke", Command(resume="b"), paused)
    assert await thread.staff() == {"ann": "b2", "bob": "1"}


@pytest.mark.parametrize("begins", ["input", "update", "replay"])
async def test_a_graph_in_a_node_does_what_a_subgraph_of_langgraph_does(verbs: Verbs, begins: str) -> None:
    """One that was compiled with checkpointer=True: its namespace is the same in each branch."""
    remembers = StateGraph(Remembered).add_node("remember", lambda state: {"said": state["to"]})
    plain = remembers.add_edge(START, "remember").compile(checkpointer=True)
    heard = []
    for inner in (firm(True), plain):
        saver = InMemorySaver()
        graph: Any = StateGraph(State).add_node("firm", inner).add_edge(START, "firm").compile(checkpointer=saver)
        await verbs.call(graph, "invoke", {"to": ["ann=1"]}, THREAD)
        first = graph.get_state(THREAD).config
        await verbs.call(graph, "invoke", {"to": ["ann=2"]}, THREAD)
        second = next(state.config for state in graph.get_state_history(THREAD) if state.next == ("firm",))
        if begins == "update":
            second = await verbs.call(graph, "update_state", second, {"to": ["ann=3"]})
        given: Any = {"to": ["ann=3"]} if begins == "input" else None
        await verbs.call(graph, "invoke", given, first if begins == "input" else second)
        await verbs.call(graph, "invoke", {"to": ["ann=4"]}, THREAD)
        namespace = "firm" if inner is plain else "firm|staff/ann"
        saved = saver.get_tuple({"configurable": {"thread_id": "1", "checkpoint_ns": namespace}})
        assert saved is not None
        values = saved.checkpoint["channel_values"]
        heard.append(values["said"] if inner is plain else [f"ann={word}" for word in values["heard"]])
    assert heard[0] == heard[1]


@pytest.mark.parametrize("begins", ["input", "update", "replay"])
async def test_a_branch_that_is_killed_anywhere(verbs: Verbs, begins: str) -> None:
    saver = RecordingSaver()
    thread = Thread(verbs, saver)
    first = await thread.run("ann=1")
    await thread.run("ann=2", "bob=2")
    before = len(saver.operations)
    if begins == "update":
        await verbs.call(thread.graph, "update_state", first, {"log": ["edited"]})
    if begins == "replay":
        history = await verbs.listed(thread.graph, "get_state_history", THREAD)
        (second,) = [state.config for state in history if state.next and state.values.get("to") == ["ann=2", "bob=2"]][
            :1
        ]
        await verbs.call(thread.graph, "invoke", None, second)
    else:
        await thread.run("ann=3", "carl=3", at=first if begins == "input" else THREAD)
    whole = await thread.staff()
    assert whole == ({"ann": "12", "bob": "2"} if begins == "replay" else {"ann": "13", "carl": "3"})
    for number in range(before, len(saver.operations) + 1):
        resumed = Thread(verbs, saver.killed_after(number)[0])
        await verbs.call(resumed.graph, "invoke", None, THREAD)
        # The branch has begun, or nothing has happened; or what is to be done in it was not yet told.
        assert await resumed.staff() in (whole, {"ann": "12", "bob": "2"}, {"ann": "1"}), number
        await resumed.run("ann=9")
        assert (await resumed.staff())["ann"] in ("139", "129", "19"), number
