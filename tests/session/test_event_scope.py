"""What a host may say: in streams, callbacks and commands, for its own node and below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypedDict
from uuid import UUID, uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.errors import InvalidUpdateError, ParentCommand
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, PregelTask, Send, StateSnapshot

from agentmatrix import RemoteAgent
from agentmatrix.errors import ProtocolError, RemoteError
from agentmatrix.session.event_encoding import GATHERED
from tests.attacks.internals import decoded, encoded, failure, named_failure, pb, result
from tests.attacks.peers import FakeHost, Granted


class State(TypedDict, total=False):
    text: str


class Heard(BaseCallbackHandler):
    """Hears what the runs of chains and models say."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.events.append(str(outputs))

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.events.append(token)

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("model")


@pytest.fixture
def hostile() -> Iterator[Callable[..., Any]]:
    """A parent whose node is on a host that says what it is told to, after it has seen its start."""
    host = FakeHost()

    def parent(behave: Callable[[Granted, pb.Start, Any], None], **node: Any) -> Any:
        def answer(run: Granted) -> None:
            run.say(accepted=pb.Accepted())
            behave(run, run.start, decoded(run.start.config)["configurable"].get("checkpoint_ns"))

        host.behave = answer
        builder = StateGraph(State).add_node("far", RemoteAgent(f"127.0.0.1:{host.port}/x"), **node)
        builder.add_node("other", lambda state: {"text": "other ran"}).add_node(
            "third", lambda state: {"text": "third"}
        )
        return builder.add_edge(START, "far").compile()

    yield parent
    host.stop()


def event(kind: str, *args: Any) -> dict[str, Any]:
    return {"event": pb.Event(kind=kind, arguments=encoded((args,) if kind in GATHERED else args))}


def says(*bodies: Callable[[str], dict[str, Any]]) -> Callable[[Granted, pb.Start, str], None]:
    def behave(run: Granted, start: pb.Start, namespace: str) -> None:
        for body in bodies:
            run.say(**body(namespace))
        run.say(**result({"text": "done"}))

    return behave


FORGED: dict[str, Callable[[str], dict[str, Any]]] = {
    "values of the root": lambda ns: event("stream", ((), "values", {"text": "forged"})),
    "updates of another node": lambda ns: event("stream", (("other:1",), "updates", {"other": {"text": "forged"}})),
    "a name that begins alike": lambda ns: event("stream", ((ns + "0",), "values", {"text": "forged"})),
    "a namespace that is none": lambda ns: event("stream", (7, "values", {"text": "forged"})),
    "a part that is none": lambda ns: event("stream", "forged"),
    "a mode that nobody reads": lambda ns: event("stream", ((ns,), "forged", {"text": "forged"})),
    "custom parts of the root": lambda ns: event("writer", "", "forged"),
    "custom parts of another node": lambda ns: event("writer", "other:1", "forged"),
    "a visit of another node": lambda ns: event("visited", "other"),
    "too few arguments": lambda ns: event("stream"),
    "an unknown event": lambda ns: event("forged"),
    "a handler that is not lent": lambda ns: event("callback", -1, "on_chain_end", ("forged",), {"run_id": uuid4()}),
    "a twin that is not lent": lambda ns: event("replica", 99, ((ns,), "messages", ("forged", {}))),
}


@pytest.mark.parametrize("name", FORGED)
async def test_what_is_said_for_others_is_refused(hostile: Any, verbs: Any, name: str) -> None:
    graph, parts = hostile(says(FORGED[name])), []
    with pytest.raises(ProtocolError):
        for part in await verbs.listed(
            graph, "stream", {}, stream_mode=["values", "updates", "custom"], subgraphs=True
        ):
            parts.append(part)
    assert "forged" not in str(parts)


async def test_what_is_said_for_the_node_and_below_arrives(hostile: Any, verbs: Any) -> None:
    graph = hostile(
        says(
            lambda ns: event("stream", ((ns,), "values", {"text": "own"})),
            lambda ns: event("stream", ((ns, "inner:1"), "values", {"text": "below"})),
            lambda ns: event("stream", (("far",), "values", {"text": "kept"})),
            lambda ns: event("writer", f"{ns}|inner:1", "custom"),
        )
    )
    parts = await verbs.listed(graph, "stream", {}, stream_mode=["values", "custom"], subgraphs=True)
    told = [payload["text"] if mode == "values" else payload for _, mode, payload in parts if payload]
    assert told == ["own", "below", "kept", "custom", "done"]


FORGED_EVENTS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "the end of the caller's run": lambda parent: ("on_chain_end", ("forged",), {"run_id": parent}),
    "a token of another node": lambda parent: (
        "on_chat_model_start",
        ({}, [[]]),
        {"run_id": uuid4(), "metadata": {"langgraph_checkpoint_ns": "other:1"}},
    ),
}


@pytest.mark.parametrize("name", FORGED_EVENTS)
async def test_callbacks_for_others_are_refused(hostile: Any, verbs: Any, name: str) -> None:
    def behave(run: Granted, start: pb.Start, namespace: str) -> None:
        packed = decoded(start.config)["callbacks"]
        group = next(entry["group"] for entry in packed["handlers"] if "on_chain_end" in entry.get("events", ()))
        run.say(**event("callback", group, *FORGED_EVENTS[name](UUID(bytes=packed["parent_run_id"]))))
        run.say(**result({"text": "done"}))

    heard = Heard()
    with pytest.raises(ProtocolError, match="the host"):
        await verbs.invoke(hostile(behave), {}, {"callbacks": [heard]})
    assert "forged" not in str(heard.events) and "model" not in heard.events


def commanded(**fields: Any) -> Callable[[str], dict[str, Any]]:
    graph = fields.pop("graph", None)
    return lambda ns: failure(ParentCommand(Command(graph=graph or ns, **fields)))


async def test_a_command_reaches_the_direct_parent(hostile: Any, verbs: Any) -> None:
    graph = hostile(says(commanded(goto="other")))
    assert await verbs.invoke(graph, {}) == {"text": "other ran"}


@pytest.mark.parametrize("graph", ["", "elsewhere", "elsewhere:1|x", Command.PARENT, "other"])
async def test_a_command_to_another_graph_is_refused(hostile: Any, verbs: Any, graph: str) -> None:
    inner = hostile(lambda run, start, ns: run.say(**failure(ParentCommand(Command(graph=graph, goto="other")))))
    outer = StateGraph(State).add_node("inner", inner).add_node("other", lambda state: {"text": "reached"})
    with pytest.raises(ProtocolError, match="commands its direct parent alone"):
        await verbs.invoke(outer.add_edge(START, "inner").compile(), {})


@pytest.mark.parametrize("goto", ["third", ["other", "third"], [Send("third", {})], "nowhere"], ids=str)
async def test_a_node_with_destinations_is_held_to_them(hostile: Any, verbs: Any, goto: Any) -> None:
    graph = hostile(says(commanded(goto=goto)), destinations=("other",))
    with pytest.raises(InvalidUpdateError, match="not among the destinations= of its node"):
        await verbs.invoke(graph, {})


@pytest.mark.parametrize("goto", ["other", [], END, [Send("other", {})]], ids=str)
async def test_a_node_may_go_to_its_destinations(hostile: Any, verbs: Any, goto: Any) -> None:
    graph = hostile(says(commanded(goto=goto, update={"text": "far"})), destinations=("other",))
    assert (await verbs.invoke(graph, {}))["text"] == ("far" if goto in ([], END) else "other ran")


async def test_a_command_in_answer_to_a_state_verb_is_refused(hostile: Any, verbs: Any) -> None:
    remote = hostile(lambda run, start, ns: run.say(**commanded(goto="other")(ns))).nodes["far"].bound
    with pytest.raises(ProtocolError, match="runs nothing"):
        await verbs.call(remote, "get_state", {"configurable": {"thread_id": "1"}})


def snapshot(thread: str = "1", namespace: str = "", inner: Any = None) -> StateSnapshot:
    config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": "x"}}
    tasks = (PregelTask("t", "n", (), state=inner),) if inner else ()
    return StateSnapshot({}, (), config, None, None, None, tasks, ())


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (snapshot("victim"), "of the thread 'victim', not of '1'"),
        (snapshot(namespace="other:1"), "of 'other:1', not of 'far:t' or what is below"),
        (snapshot(namespace="far:t", inner=snapshot("victim")), "of the thread 'victim', not of '1'"),
        (snapshot(namespace="far:t", inner=snapshot(namespace="far:t|n:u")), None),
        (snapshot(namespace="far"), None),
    ],
)
async def test_a_state_of_another_thread_is_refused(hostile: Any, verbs: Any, state: Any, sentence: str | None) -> None:
    """Who reads a state may write to its config next."""
    remote = hostile(lambda run, start, ns: run.say(**result(state))).nodes["far"].bound
    asked: Any = {"configurable": {"thread_id": "1", "checkpoint_ns": "far:t"}}
    if sentence is None:
        assert await verbs.call(remote, "get_state", asked) == state
        return
    with pytest.raises(ProtocolError, match=sentence):
        await verbs.call(remote, "get_state", asked)


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException"])
async def test_no_host_ends_the_process_of_its_caller(hostile: Any, verbs: Any, name: str) -> None:
    graph = hostile(lambda run, start, ns: run.say(**named_failure(f"builtins:{name}", 0)))
    with pytest.raises(RemoteError, match=name) as caught:
        await verbs.invoke(graph, {})
    assert caught.value.type_name == f"builtins.{name}"


async def test_callbacks_of_an_honest_host_arrive_from_two_levels_below(place: Any, verbs: Any) -> None:
    """LangChain keeps in the metadata of all runs below what it was given first: a namespace further out."""

    class Ends(BaseCallbackHandler):
        def __init__(self) -> None:
            self.names: list[str] = []

        def on_chain_start(self, serialized: Any, inputs: Any, *, metadata: Any = None, **kwargs: Any) -> None:
            self.names.append(str((metadata or {}).get("langgraph_node")))

    def chain(node: Any, name: str) -> Any:
        return StateGraph(State).add_node(name, node).add_edge(START, name).compile()

    nested = place(chain(lambda state: {"text": "said"}, "inmost"))
    heard = {}
    for kind, graph in (("far", nested), ("near", chain(lambda state: {"text": "said"}, "inmost"))):
        ends = Ends()
        outer = chain(chain(graph, "inner"), "outer")
        await verbs.invoke(outer, {}, {"callbacks": [ends], "configurable": {"thread_id": "1"}})
        heard[kind] = ends.names
    assert heard["far"] == heard["near"]
