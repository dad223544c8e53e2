"""What actors are told that cannot work: one sentence to whoever said it, and the run goes on where it can."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send

from agentmatrix import AgentSpec, CyclicGraph, get_activation
from agentmatrix.engine.actors_loop import LARGEST_MESSAGE
from agentmatrix.errors import BoundError, BuildError, NotAnAgentError, SendError
from tests.conftest import Verbs

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


class Memory(TypedDict, total=False):
    word: str
    heard: Annotated[list[str], operator.add]


def hears(state: Memory) -> Memory:
    return {"heard": [state["word"]]}


def said_to(*messages: tuple[str, Any], agent: Any = hears, **options: Any) -> Any:
    """A graph whose first node sends these one by one, and notes what it hears."""

    def begin(state: State) -> State:
        heard: list[str] = []
        for path, value in messages:
            try:
                get_activation().send(path, value)
            except Exception as error:
                heard.append(f"{type(error).__name__}: {error}")
        return {"log": heard}

    graph = CyclicGraph(State)
    graph.add_node("begin", begin).add_edge(START, "begin")
    graph.add_actors("staff", agent, state=Memory, **options)
    return graph.compile(checkpointer=InMemorySaver())


def refuses_bob(key: str, message: Any) -> Any:
    return None if key == "bob" else {}


def raises(key: str, message: Any) -> Any:
    raise KeyError("no such role")


ANN = ("staff/ann", {"word": "a"})


@pytest.mark.parametrize(
    ("message", "options", "said"),
    [
        (("clerks/ann", {}), {}, "SendError: no node and no actor has the path 'clerks/ann', in this graph"),
        ((None, {}), {}, "SendError: None is no path: name a node, as in 'office', or an actor, as in 'staff/ann'"),
        (
            ("staff/bob", {}),
            {"make": lambda k, m: {"age": 5} if k == "bob" else {}},
            "make('bob', ...) returned the key 'age', which its state has not got (there are: heard, word)",
        ),
        (("staff/", {}), {}, "SendError: no node and no actor has the path 'staff/', in this graph"),
        (("staff/bob", {}), {"make": refuses_bob}, "SendError: 'staff/bob' was refused: make('bob', ...)"),
        (
            ("staff/bob", {}),
            {"make": lambda k, m: 7 if k == "bob" else {}},
            "make('bob', ...) returned the type int",
        ),
        (("staff/bob", {"wrod": 1}), {}, "the message for 'staff/bob' has the key 'wrod', which its state has not got"),
        (("staff/bob", "hello"), {}, "SendError: the message for 'staff/bob' is of type str: send a dict of its state"),
        (("staff/bob", {"word": object()}), {}, "the checkpointer cannot keep it, 'dict': "),
        (("staff/bob", {"word": "x" * 10_000_000}), {}, f"and {LARGEST_MESSAGE:,} are the most"),
        (("staff/bob", {}), {"max_actors": 1}, "HiringError: 'staff/bob' was not hired: there are 1 actors 'staff'"),
    ],
)
async def test_the_sender_hears_of_it(message: Any, options: Any, said: str, verbs: Verbs) -> None:
    graph = said_to(ANN, message, ANN, **options)
    (heard,) = (await verbs.call(graph, "invoke", {"log": []}, THREAD))["log"]
    assert said in heard and "\n" not in heard
    assert {path: actor.values["heard"] for path, actor in graph.actors(THREAD).items()} == {"staff/ann": ["a", "a"]}


async def test_make_that_raises(verbs: Verbs) -> None:
    graph = said_to(ANN, make=raises)
    (heard,) = (await verbs.call(graph, "invoke", {"log": []}, THREAD))["log"]
    assert heard == "SendError: 'staff/ann' was not hired: make('ann', ...) has raised KeyError: 'no such role'"
    assert graph.actors(THREAD) == {}


async def test_a_command_fails_its_node(verbs: Verbs) -> None:
    """It has ended by then and can hear nothing. Nothing of it counts, and the thread goes on once that is mended."""
    refused = [True]
    graph = CyclicGraph(State)
    graph.add_node("begin", lambda state: Command(update={"log": ["x"]}, goto=[Send(*ANN), Send("staff/bob", {})]))
    graph.add_edge(START, "begin")
    graph.add_actors("staff", hears, state=Memory, make=lambda key, m: None if key == "bob" and refused else {})
    compiled = graph.compile(checkpointer=InMemorySaver())
    with pytest.raises(SendError, match="'staff/bob' was refused"):
        await verbs.call(compiled, "invoke", {"log": []}, THREAD)
    assert compiled.actors(THREAD) == {} and compiled.get_state(THREAD).next == ("begin",)
    refused.clear()
    with pytest.raises(KeyError, match="word"):
        await verbs.call(compiled, "invoke", None, THREAD)
    assert compiled.get_state(THREAD).next == ("staff/bob",)


async def test_hiring_without_end_is_an_error_to_whoever_hires(verbs: Verbs) -> None:
    errors: list[str] = []

    def hires(state: Memory) -> None:
        try:
            get_activation().send(f"staff/{get_activation().key}x", {"word": ""})
        except BoundError as error:
            errors.append(str(error))

    graph = said_to(ANN, agent=hires, max_depth=4)
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert len(graph.actors(THREAD)) == 4
    assert errors == [
        "'staff/annxxxx' was not hired: 4 actors 'staff' have hired each other in a chain, end it, or raise the bound "
        "with add_actors('staff', ..., max_depth=...)"
    ]


async def test_talk_without_end_has_a_bound(verbs: Verbs) -> None:
    def answers(state: Memory) -> Any:
        other = {"ann": "bob", "bob": "ann"}[str(get_activation().key)]
        return Command(goto=Send(f"staff/{other}", {"word": "and you?"}))

    with pytest.raises(BoundError, match="25 times"):
        await verbs.call(said_to(ANN, agent=answers), "invoke", {"log": []}, THREAD)


async def test_a_dismissed_actor(verbs: Verbs) -> None:
    def leaves(state: Memory) -> Memory:
        me = get_activation()
        if state["word"] == "go":
            me.dismiss(me.node)
        return {"heard": [state["word"]]}

    go = ("staff/ann", {"word": "go"})
    graph = said_to(ANN, go, ANN, agent=leaves, max_actors=1)
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    (ann,) = graph.actors(THREAD).values()
    assert (ann.dismissed, ann.values["heard"], ann.unread) == (True, ["a", "go"], ())
    (heard, *_) = (await verbs.call(graph, "invoke", {"log": []}, THREAD))["log"]
    assert heard == "SendError: 'staff/ann' was dismissed and takes no more messages: send to another key"
    other = said_to(("staff/bob", {"word": "b"}), max_actors=1)
    other.checkpointer = graph.checkpointer
    await verbs.call(other, "invoke", {"log": []}, THREAD)
    assert sorted(other.actors(THREAD)) == ["staff/ann", "staff/bob"]


@pytest.mark.parametrize("path", ["office", "staff/nobody"])
async def test_nobody_to_dismiss(path: str, verbs: Verbs) -> None:
    def begin(state: State) -> None:
        get_activation().dismiss(path)

    graph = CyclicGraph(State).add_node("office", begin).add_edge(START, "office")
    graph.add_actors("staff", hears, state=Memory)
    with pytest.raises(SendError, match="cannot be dismissed"):
        await verbs.call(graph.compile(), "invoke", {"log": []})


@pytest.mark.parametrize("on_error", ["error", "skip", "dismiss"])
async def test_an_actor_that_raises(on_error: Any, verbs: Verbs, caplog: pytest.LogCaptureFixture) -> None:
    def breaks(state: Memory) -> Memory:
        get_activation().send("staff/bob", {"word": "never"})
        if state["word"] == "b":
            raise ValueError("broken")
        return {"heard": [state["word"]]}

    def is_bob(state: Memory) -> Any:
        return hears(state) if get_activation().key == "bob" else breaks(state)

    sent = [("staff/ann", {"word": word}) for word in "abc"]
    graph = said_to(*sent, agent=is_bob, on_error=on_error)
    if on_error == "error":
        with pytest.raises(ValueError, match="broken"):
            await verbs.call(graph, "invoke", {"log": []}, THREAD)
    else:
        await verbs.call(graph, "invoke", {"log": []}, THREAD)
        assert "'staff/ann' has failed" in caplog.text
    staff = graph.actors(THREAD)
    told = {"error": (["a"], False, 2), "skip": (["a", "c"], False, 0), "dismiss": (["a"], True, 0)}[on_error]
    ann = staff["staff/ann"]
    assert (ann.values["heard"], ann.dismissed, len(ann.unread) + ann.at_work) == told
    bob = staff["staff/bob"]  # The error may have ended the run before he heard what was sent to him.
    assert len(bob.values.get("heard", ())) + len(bob.unread) + bob.at_work == len(ann.values["heard"])


async def test_an_actor_whose_command_nobody_takes(verbs: Verbs, caplog: pytest.LogCaptureFixture) -> None:
    """It has failed, and its state is what it was."""

    def hires(state: Memory) -> Any:
        goto = [Send("staff/mallory", {})] if state["word"] == "b" else []
        return Command(update={"heard": [state["word"]]}, goto=goto)

    sent = [("staff/ann", {"word": word}) for word in "abc"]
    graph = said_to(*sent, agent=hires, on_error="skip", make=lambda key, message: None if key == "mallory" else {})
    await verbs.call(graph, "invoke", {"log": []}, THREAD)
    assert {path: actor.values["heard"] for path, actor in graph.actors(THREAD).items()} == {"staff/ann": ["a", "c"]}
    assert "'staff/mallory' was refused" in caplog.text


KEYS = ["we|ird:x", "a/b/c", "100%", "ümläut", "line\nbreak", "x" * 300, "y" * 299 + "z", "", " "]


async def test_odd_keys(place: Callable[..., Any], verbs: Verbs) -> None:
    def tells(state: Memory) -> Any:
        return Command(graph=Command.PARENT, update={"log": [get_activation().key]})

    graph = CyclicGraph(State)
    sends = [Send(f"staff/{key}", {"word": "a"}) for key in KEYS if key]
    graph.add_node("begin", lambda state: Command(goto=sends)).add_edge(START, "begin")
    graph.add_actors("staff", tells, state=Memory)
    parts = await verbs.listed(place(graph.compile()), "stream", {"log": []}, stream_mode=["values", "tasks"])
    assert sorted(next(part for mode, part in reversed(parts) if mode == "values")["log"]) == sorted(filter(None, KEYS))
    names = {part["name"] for mode, part in parts if mode == "tasks"}
    assert len(names) == len(KEYS) and {"staff/we%7Cird%3Ax", "staff/a%2Fb%2Fc", "staff/100%25"} < names
    assert max(map(len, names)) <= 90


async def test_a_command_to_all_of_them(verbs: Verbs) -> None:
    graph = CyclicGraph(State).add_node("begin", lambda state: Command(goto="staff")).add_edge(START, "begin")
    graph.add_actors("staff", hears, state=Memory)
    with pytest.raises(InvalidUpdateError, match="stands for many agents: Send to 'staff/<key>'"):
        await verbs.call(graph.compile(), "invoke", {"log": []})


def built(**options: Any) -> CyclicGraph:
    graph = CyclicGraph(State).add_node("begin", lambda state: None).add_edge(START, "begin")
    return graph.add_actors(options.pop("name", "staff"), options.pop("agent", hears), **options)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: built(max_actors=0), "max_actors=0 of the actors 'staff' lets nobody in"),
        (lambda: built(max_depth=-1), "max_depth=-1"),
        (lambda: built(on_error="ignore"), "choose 'error', 'skip' or 'dismiss'"),
        (lambda: built(name="staff/x"), "leave out the '/'"),
        (lambda: built(name="begin"), "there is already a node 'begin'"),
        (lambda: built(name="a|b"), "LangGraph reserves"),
        (lambda: built(agent=None), "the actors 'staff' have no agent"),
        (lambda: built(make="no function"), "make= of the actors 'staff' is a function"),
        (lambda: built().add_edge("begin", "staff").compile(), "the edge 'begin' -> 'staff' leads to the actors"),
        (lambda: built().add_trigger("staff", "begin").compile(), "a trigger starts the actors 'staff'"),
        (lambda: built().add_node("staff/x", hears).compile(), "has the name of an actor"),
        (lambda: built(destinations=("offiec",)).compile(), "unknown node 'offiec'"),
        (lambda: built().compile(barriers=True), "leave out barriers=True"),
        (lambda: built(agent=AgentSpec(name="a", model="gpt")).compile(), "names the model 'gpt'"),
    ],
)
def test_what_cannot_be_built(build: Callable[[], Any], said: str) -> None:
    with pytest.raises(BuildError) as caught:
        build()
    assert said in str(caught.value)


def test_what_is_no_agent() -> None:
    with pytest.raises(NotAnAgentError):
        built(agent=7)
    keeps = StateGraph(MessagesState).add_node("a", lambda state: {}).add_edge(START, "a").add_edge("a", END)
    with pytest.raises(BuildError, match="checkpointer=True"):
        built(agent=keeps.compile(checkpointer=True), state=MessagesState)
