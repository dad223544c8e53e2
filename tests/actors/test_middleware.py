"""Middleware on messages to actors: before one is kept, wherever it is sent from; what is blocked is not sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState
from langgraph.types import Command, Send

from agentmatrix import ChatGroup, CyclicGraph, get_activation
from agentmatrix.errors import BoundError, BuildError, SendError
from agentmatrix.middleware import Block, Mailbox
from agentmatrix.stops import max_turns
from agentmatrix.testing import loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
SECRET = HumanMessage("the number is 1234", id="m1")


def redact(message: AnyMessage, sender: str, hearers: Sequence[str], mailbox: Mailbox) -> Any:
    seen.append((message.text, sender, tuple(hearers), mailbox.path))
    return message.model_copy(update={"content": message.text.replace("1234", "****")})


def policy(message: AnyMessage, sender: str, hearers: Sequence[str], mailbox: Mailbox) -> Any:
    return Block("rude") if "fool" in message.text else message


seen: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def sends_itself(value: Any) -> Any:
    get_activation().send("staff/ann", value)


def commands(value: Any) -> Any:
    return Command(goto=Send("staff/ann", value))


def in_a_member(value: Any) -> Any:
    ChatGroup({"bob": lambda messages: sends_itself(value)}, stop=max_turns(1)).compile().invoke({"messages": "go"})


def office(send: Any, value: Any, *, agent: Any = lambda state: {}, **options: Any) -> Any:
    graph = CyclicGraph(MessagesState)
    graph.add_node("begin", lambda state: send(value))
    graph.add_edge(START, "begin")
    graph.add_actors("staff", agent, **{"middleware": [redact, policy], **options})
    return graph.compile(checkpointer=InMemorySaver())


def heard(graph: Any, key: str = "ann") -> list[str]:
    found = graph.actors(THREAD).get(f"staff/{key}")
    return [message.text for message in found.values["messages"]] if found else []


@pytest.mark.parametrize("send", [sends_itself, commands, in_a_member])
@pytest.mark.parametrize(
    "value",
    [
        *("the number is 1234", SECRET, [SECRET], {"messages": [SECRET]}),
        *({"messages": [{"role": "user", "content": SECRET.text}]}, {"messages": ("user", SECRET.text)}),
    ],
    ids=range(6),
)
@pytest.mark.parametrize("verb", ["invoke", "ainvoke"])
def test_it_changes_what_is_kept_and_is_asked_once(send: Any, value: Any, verb: str) -> None:
    graph = office(send, value)
    _ = graph.invoke({}, THREAD) if verb == "invoke" else asyncio.run(graph.ainvoke({}, THREAD))
    assert heard(graph) == ["the number is ****"]
    assert seen == [("the number is 1234", "begin", ("staff/ann",), "staff/ann")]


@pytest.mark.parametrize("send", [sends_itself, commands, in_a_member])
def test_what_is_blocked_is_not_sent_and_hires_nobody(send: Any) -> None:
    graph = office(send, "you fool")
    graph.invoke({}, THREAD)
    assert graph.actors(THREAD) == {}


def test_a_notice_stands_in_its_place() -> None:
    graph = office(commands, "you fool", middleware=[lambda *given: Block("rude", notice="(withheld)")])
    graph.invoke({}, THREAD)
    assert heard(graph) == ["(withheld)"]


def test_one_that_fails_lets_nothing_pass() -> None:
    def broken(*given: Any) -> Any:
        raise KeyError("no")

    graph = office(commands, "hello", middleware=[broken])
    graph.invoke({}, THREAD)
    assert graph.actors(THREAD) == {}


def test_actors_write_to_each_other_through_it_and_a_resumed_run_does_not_ask_again() -> None:
    fails = [True]

    def agent(state: MessagesState) -> Any:
        me = get_activation()
        if me.key == "ann":
            me.send("staff/bob", "call 1234")
            return Command(goto=Send("staff/cat", "fool"))
        if fails:
            raise ConnectionError("no line")
        return {}

    graph = office(commands, "start", agent=agent)
    with pytest.raises(ConnectionError):
        graph.invoke({}, THREAD)
    fails.clear()
    graph.invoke(None, THREAD)
    assert heard(graph, "bob") == ["call ****"]
    assert "staff/cat" not in graph.actors(THREAD)
    assert [text for text, *_ in seen] == ["start", "call 1234", "fool"]
    assert [sender for _, sender, *_ in seen] == ["begin", "staff/ann", "staff/ann"]


def test_a_message_without_words_passes() -> None:
    class Memory(MessagesState, total=False):
        number: int

    graph = office(commands, {"number": 1234}, state=Memory)
    graph.invoke({}, THREAD)
    assert graph.actors(THREAD)["staff/ann"].values["number"] == 1234
    assert seen == []


def test_an_async_function_is_refused() -> None:
    async def later(*given: Any) -> Any:
        return given[0]

    with pytest.raises(BuildError, match="async"):
        office(commands, "hello", middleware=[later])
    with pytest.raises(BuildError, match="no function"):
        office(commands, "hello", middleware=["redact"])


def test_the_kind_of_a_send_that_nobody_takes() -> None:
    kinds: list[str] = []

    def begin(value: Any) -> None:
        for path, message in (
            ("nobody", "x"),
            ("staff/mallory", "x"),
            ("staff/ann", 7),
            ("staff/ann", {"messages": ["x" * 10_000_000]}),
            ("staff/ann", "x"),
            ("staff/bob", "x"),
        ):
            try:
                get_activation().send(path, message)
            except SendError as error:
                kinds.append(error.kind)
                assert (error.kind == "full") is isinstance(error, BoundError)

    graph = office(begin, None, middleware=(), make=lambda key, m: None if key == "mallory" else {}, max_actors=1)
    graph.invoke({}, THREAD)
    assert kinds == ["unknown", "refused", "unfit", "kept", "full"]


@pytest.mark.parametrize("verb", ["actors", "aactors"])
def test_who_the_actors_of_a_hosted_graph_are(verb: str) -> None:
    graph = office(commands, "hello", middleware=())
    there = loopback(graph)
    graph.invoke({}, THREAD)
    found = there.actors(THREAD) if verb == "actors" else asyncio.run(there.aactors(THREAD))
    assert found == graph.actors(THREAD)
    assert found["staff/ann"].values["messages"][0].text == "hello"
    assert there.actors({"configurable": {"thread_id": "2"}}) == {}


def test_a_picture_tells_how_many_there_are() -> None:
    from agentmatrix import watching
    from agentmatrix.watch.html_view import html_of

    def begin(value: Any) -> Any:
        return Command(goto=[Send(f"staff/{number}", "x") for number in range(30)])

    with watching() as run:
        office(begin, None, middleware=()).invoke({}, THREAD)
    assert "30 actors" in html_of(run)
