"""What of a config and a state cannot cross, or is none of the remote graph's business."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import EncodeError, HostError
from agentmatrix.testing import ScriptedChatModel


class Log(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


@dataclass
class Prefs:
    theme: str = "dark"


class Settings(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    user: str = "ann"
    lock: Any = None
    typed: list[threading.Event] = Field(default_factory=list)

    def greeting(self) -> str:
        return f"hello {self.user}"


@dataclass(frozen=True)
class Frozen:
    lock: object
    user: str = "ann"
    more: dict[str, Any] = field(default_factory=dict)

    def greeting(self) -> str:
        return f"hello {self.user}"


class Ordinary:
    def __init__(self) -> None:
        self.user = "ann"


def child_of(node: Any, **options: Any) -> Any:
    return StateGraph(Log, **options).add_node("node", node).add_edge(START, "node").compile()


@pytest.fixture
def hosted() -> Iterator[Any]:
    """Hosts a graph as a stranger does: no class is listed that its schemas do not name."""
    hosts: list[Host] = []

    def host(graph: Any, **options: Any) -> RemoteAgent:
        hosts.append(Host({"a": graph}, **options).start())
        return RemoteAgent(f"{hosts[-1].address}/a")

    yield host
    for one in hosts:
        one.stop()


def parent_of(remote: Any, saved: bool = False, **options: Any) -> Any:
    builder = StateGraph(Log, **options).add_node("child", remote).add_edge(START, "child")
    return builder.compile(checkpointer=InMemorySaver() if saved else None)


@pytest.mark.parametrize("saved", [False, True], ids=["no saver", "saver"])
@pytest.mark.parametrize("where", ["configurable", "metadata"])
@pytest.mark.parametrize(
    ("value", "use", "names"),
    [
        (threading.Lock(), lambda v: v.acquire(), "lock"),
        ({"db": threading.Lock(), "name": "x"}, lambda v: v["db"].acquire(), r'\["db"\] is a _thread\.lock'),
        ([1, threading.Lock()], lambda v: bool(v[1]), r"\[1\] is a _thread\.lock"),
        (Prefs(), lambda v: v.theme, r"the type .*Prefs is not listed.*host"),
        ([Prefs()], lambda v: v[0], r"the type .*Prefs is not listed.*host"),
        (Ordinary(), lambda v: v.user, "Ordinary"),
        (lambda: 1, lambda v: v(), "function"),
    ],
    ids=["object", "in a dict", "in a list", "unlisted", "unlisted in a list", "ordinary", "function"],
)
def test_an_item_is_an_error_only_when_a_node_uses_it(
    hosted: Any, where: str, saved: bool, value: Any, use: Any, names: str
) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "1", "n": (1, 2)}, "metadata": {}}
    config[where]["thing"] = value  # type: ignore[literal-required]
    ignoring = parent_of(hosted(child_of(lambda state, config: {"log": [config[where].get("n", "-")]})), saved)
    assert ignoring.invoke({"log": []}, config)["log"] == [(1, 2) if where == "configurable" else "-"]
    using = parent_of(hosted(child_of(lambda state, config: {"log": [use(config[where]["thing"])]})), saved)
    with pytest.raises(EncodeError, match=names) as caught:
        using.invoke({"log": []}, config)
    assert f'config["{where}"]["thing"]' in str(caught.value)


def test_the_rest_of_an_item_is_there(hosted: Any) -> None:
    remote = hosted(child_of(lambda state, config: {"log": [config["configurable"]["services"]["name"]]}))
    config: RunnableConfig = {"configurable": {"services": {"db": threading.Lock(), "name": "x"}}}
    assert parent_of(remote).invoke({"log": []}, config)["log"] == ["x"]


CONTEXTS: dict[str, tuple[Any, Any]] = {
    "dataclass": (Frozen, lambda: Frozen(threading.Lock())),
    "model": (Settings, lambda: Settings(lock=threading.Lock())),
    "typed model": (Settings, lambda: Settings(lock=threading.Lock(), typed=[threading.Event()])),
    "dict": (dict, lambda: {"user": "ann", "lock": threading.Lock()}),
}


def user_of(context: Any) -> Any:
    return context["user"] if isinstance(context, dict) else context.user


def lock_of(context: Any) -> Any:
    return context["lock"] if isinstance(context, dict) else context.lock


@pytest.mark.parametrize("listed", [False, True], ids=["unlisted", "listed"])
@pytest.mark.parametrize("kind", CONTEXTS)
def test_a_context_crosses_key_by_key(hosted: Any, kind: str, listed: bool) -> None:
    schema, make = CONTEXTS[kind]
    allow = [schema] if listed and schema is not dict else []

    def read(state: Log, runtime: Runtime[Any]) -> Log:
        return {"log": [user_of(runtime.context)]}

    def use(state: Log, runtime: Runtime[Any]) -> Log:
        return {"log": [lock_of(runtime.context).acquire()]}

    schemas = {} if schema is dict else {"context_schema": schema}
    parent = parent_of(hosted(child_of(read), allow=allow), **schemas)
    assert parent.invoke({"log": []}, context=make())["log"] == ["ann"]
    with pytest.raises(EncodeError, match=r"context.*lock.* is a _thread\.lock, which cannot cross"):
        parent_of(hosted(child_of(use), allow=allow), **schemas).invoke({"log": []}, context=make())


@pytest.mark.parametrize("declared", [False, True], ids=["no schema", "schema"])
@pytest.mark.parametrize("kind", CONTEXTS)
async def test_a_context_that_the_agent_itself_is_called_with(hosted: Any, kind: str, declared: bool) -> None:
    schema, make = CONTEXTS[kind]

    def read(state: Log, runtime: Runtime[Any]) -> Log:
        return {"log": [user_of(runtime.context)]}

    def use(state: Log, runtime: Runtime[Any]) -> Log:
        return {"log": [lock_of(runtime.context).acquire()]}

    schemas = {"context_schema": schema} if declared and schema is not dict else {}
    remote = hosted(child_of(read, **schemas))
    assert remote.invoke({"log": []}, context=make())["log"] == ["ann"]
    assert (await remote.ainvoke({"log": []}, context=make()))["log"] == ["ann"]
    assert [part async for part in remote.astream({"log": []}, context=make())] == [{"node": {"log": ["ann"]}}]
    with pytest.raises(EncodeError, match=r"context.*lock.* is a _thread\.lock, which cannot cross"):
        hosted(child_of(use, **schemas)).invoke({"log": []}, context=make())


def test_a_context_given_as_a_dict_is_made_into_the_schema(hosted: Any) -> None:
    remote = hosted(child_of(lambda state, runtime: {"log": [runtime.context.greeting()]}, context_schema=Frozen))
    assert remote.invoke({"log": []}, context={"user": "bob", "lock": threading.Lock()})["log"] == ["hello bob"]


@pytest.mark.parametrize("make", [lambda: Frozen(threading.Lock()), lambda: Settings(lock=threading.Lock())])
def test_a_listed_context_keeps_its_class(hosted: Any, make: Any) -> None:
    cls = type(make())
    remote = hosted(
        child_of(
            lambda state, runtime: {"log": [isinstance(runtime.context, cls), runtime.context.greeting()]},
            context_schema=cls,
        )
    )
    assert parent_of(remote, context_schema=cls).invoke({"log": []}, context=make())["log"] == [True, "hello ann"]


def test_a_context_with_an_unlisted_part(hosted: Any) -> None:
    context = Frozen(Prefs(), more={"prefs": Prefs()})

    def read(state: Log, runtime: Runtime[Any]) -> Log:
        return {"log": [runtime.context.user]}

    for use, key in ((lambda c: c.lock.theme, "lock"), (lambda c: c.more["prefs"], "more")):

        def used(state: Log, runtime: Runtime[Any], use: Any = use) -> Log:
            return {"log": [use(runtime.context)]}

        for allow in ([], [Frozen]):
            remote = hosted(child_of(read), allow=allow)
            assert parent_of(remote, context_schema=Frozen).invoke({"log": []}, context=context)["log"] == ["ann"]
            with pytest.raises(EncodeError, match=rf"context\.{key}.*Prefs is not listed"):
                parent_of(hosted(child_of(used), allow=allow), context_schema=Frozen).invoke({}, context=context)


def test_a_field_that_a_context_does_not_have(hosted: Any) -> None:
    remote = hosted(child_of(lambda state, runtime: {"log": [runtime.context.age]}))
    with pytest.raises(AttributeError, match="'age'"):
        parent_of(remote, context_schema=Frozen).invoke({"log": []}, context=Frozen(1))


def test_what_had_to_stay_is_itself_where_it_comes_back(hosted: Any) -> None:
    """A handler sees the metadata that the caller gave, and a node that returns such an object returns that object."""
    lock, seen = threading.Lock(), []

    class Handler(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            seen.append(kwargs["metadata"]["lock"])

    model = ScriptedChatModel("hello", cycle=True)

    def node(state: Log, config: RunnableConfig) -> Log:
        model.invoke("hi", config)
        return {"log": [config["configurable"]["lock"]]}

    config: RunnableConfig = {"configurable": {"lock": lock}, "metadata": {"lock": lock}, "callbacks": [Handler()]}
    remote = hosted(child_of(node))
    assert remote.invoke({"log": []}, config)["log"] == [lock]
    assert seen == [lock]
    parts = [metadata for _, metadata in remote.stream({"log": []}, config, stream_mode="messages")]
    assert parts and all(metadata["lock"] is lock for metadata in parts)


class Plan(BaseModel):
    steps: int = 1


class Office(BaseModel):
    messages: list[Any] = Field(default_factory=list)
    plan: Plan = Field(default_factory=Plan)
    note: str | None = None


@dataclass
class Desk:
    messages: list[Any]
    plan: Any = None


class Table(TypedDict, total=False):
    messages: list[Any]
    plan: Any


def talk(state: Any) -> Any:
    keys = sorted(state if isinstance(state, dict) else type(state).model_fields)
    return {"messages": [AIMessage(f"sees {keys}")]}


class Chat(BaseModel):
    messages: list[Any] = Field(default_factory=list)


@pytest.mark.parametrize("child", [MessagesState, Chat])
@pytest.mark.parametrize("schema", [Office, Desk, Table])
async def test_keys_of_the_parent_that_are_not_declared_stay(hosted: Any, schema: Any, child: Any) -> None:
    """Whatever the parent's state is made of, at the first call and later, sync and async."""
    inner = StateGraph(child).add_node("node", talk).add_edge(START, "node").compile()
    for plan in (Plan(), threading.Lock()) if schema is not Office else (Plan(),):
        graph = StateGraph(schema).add_node("child", hosted(inner)).add_edge(START, "child").compile()
        given = {"messages": [("user", "hi")], "plan": plan}
        for _ in range(2):
            assert graph.invoke(given)["messages"][-1].text == "sees ['messages']"
        assert (await graph.ainvoke(given))["messages"][-1].text == "sees ['messages']"
        assert [part async for part in graph.astream(given)][-1]["child"]["messages"][-1].text == "sees ['messages']"


def test_a_functional_graph_is_given_all(hosted: Any) -> None:
    from langgraph.func import entrypoint

    @entrypoint()
    def work(given: Any) -> Any:
        return given

    assert hosted(work).invoke({"a": 1, "b": [2]}) == {"a": 1, "b": [2]}


async def test_a_host_that_shows_no_card_runs_the_agent_all_the_same(
    hosted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = hosted(child_of(lambda state: {"log": ["ran"]}))

    def refuse(*args: Any) -> Any:
        raise HostError("cards are not for everybody")

    monkeypatch.setattr("agentmatrix.host.servicer.describe", refuse)
    for _ in range(2):
        assert remote.invoke({"log": []})["log"] == ["ran"]
        assert (await remote.ainvoke({"log": []}))["log"] == ["ran"]
    with pytest.raises(HostError, match="not for everybody"):
        _ = remote.card
