"""`langgraph.json` as its users know it: what a host honours, and that it names aloud what it does not."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from agentmatrix import RemoteAgent
from agentmatrix.errors import Unauthenticated
from tests.cli.conftest import Project
from tests.cli.test_serve import address_of, end
from tests.forked import Forked, command

Start = Callable[..., Forked]

MAKERS = """
import os
from contextlib import asynccontextmanager
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph_sdk import Auth

loaded = os.environ.get("AT_IMPORT")

def builder(words):
    def speak(state: MessagesState):
        return {"messages": [AIMessage(words())]}
    return StateGraph(MessagesState).add_node("speak", speak).add_edge(START, "speak")

env = builder(lambda: f"{loaded} {os.environ.get('KEY')} {os.environ.get('KEPT')}")

@asynccontextmanager
async def per_run(cfg: RunnableConfig):
    user = cfg["configurable"].get("langgraph_auth_user")
    yield builder(lambda: f"{cfg['configurable'].get('model')} for {user and user.identity}")

def remember(state: MessagesState, *, store):
    store.put(("notes",), str(len(store.search(("notes",)))), {"x": 1})
    return {"messages": [AIMessage(str(len(store.search(("notes",)))))]}

keeper = StateGraph(MessagesState).add_node("remember", remember).add_edge(START, "remember")

@asynccontextmanager
async def make_saver():
    yield InMemorySaver()

def make_store():
    return InMemoryStore()

auth = Auth()

@auth.authenticate
async def authenticate(authorization: str | None, headers: dict):
    assert all(isinstance(name, bytes) for name in headers)
    if authorization != "Bearer open sesame":
        raise Auth.exceptions.HTTPException(status_code=401, detail="no")
    return {"identity": "alice", "permissions": ["read"], "display_name": "Alice"}

ruled = Auth()

@ruled.authenticate
async def who(authorization: str | None):
    return "alice"

@ruled.on.threads.create
async def only_own(ctx, value):
    return {"owner": ctx.user.identity}

web = Auth()

@web.authenticate
async def by_request(request, path):
    return "alice"
"""


def serve(project: Project, started: Start, table: dict[str, Any], *options: str) -> Any:
    project.write("makers.py", MAKERS)
    project.write("langgraph.json", json.dumps(table))
    return started("serve", "--port", "0", *options)


def answer(remote: RemoteAgent, config: Any = None) -> str:
    text: str = remote.invoke({"messages": "hi"}, config)["messages"][-1].text
    return text


@pytest.mark.parametrize("as_file", [True, False])
def test_env_is_there_before_the_graphs_are_imported(
    project: Project, started: Start, monkeypatch: pytest.MonkeyPatch, as_file: bool
) -> None:
    monkeypatch.setenv("KEPT", "mine")
    project.write("some.env", "KEY=from-it\nAT_IMPORT=early\nKEPT=overwritten\n")
    table = {"KEY": "from-it", "AT_IMPORT": "early", "KEPT": "overwritten"}
    graphs = {"env": "./makers.py:env"}
    host = serve(project, started, {"graphs": graphs, "env": "some.env" if as_file else table})
    assert answer(RemoteAgent("env", url=address_of(host))) == "early from-it mine"


def test_a_graph_is_made_for_each_run_and_described(project: Project, started: Start) -> None:
    entry = {"path": "./makers.py:per_run", "description": "Answers as each model would."}
    address = address_of(serve(project, started, {"graphs": {"agent": entry}}))
    remote = RemoteAgent("agent", url=address)
    for model in ("small", "large"):
        assert answer(remote, {"configurable": {"model": model}}) == f"{model} for None"
    assert "Answers as each model would." in project.cli("describe", address).out
    assert "Answers as each model would." in project.cli("describe", f"{address}/agent").out


def test_checkpointer_store_and_auth_are_taken(project: Project, started: Start) -> None:
    table = {
        "graphs": {"keeper": "./makers.py:keeper", "agent": "./makers.py:per_run"},
        "checkpointer": {"path": "./makers.py:make_saver"},
        "store": {"path": "./makers.py:make_store"},
        "auth": {"path": "./makers.py:auth"},
    }
    address = address_of(serve(project, started, table))
    thread: Any = {"configurable": {"thread_id": "1"}}
    keeper = RemoteAgent("keeper", url=address, token="open sesame")
    assert [answer(keeper, thread) for _ in range(3)] == ["1", "2", "3"]
    assert len(keeper.get_state(thread).values["messages"]) == 6
    assert answer(RemoteAgent("agent", url=address, token="open sesame")) == "None for alice"
    with pytest.raises(Unauthenticated):
        RemoteAgent("keeper", url=address, token="guess").invoke({"messages": "hi"})


def test_each_key_that_does_nothing_is_named(project: Project, started: Start) -> None:
    table = {
        "$schema": "https://langgra.ph/schema.json",
        "dependencies": [".", "langgraph", "no-such-package>=1"],
        "graphs": {"agent": {"path": "./makers.py:env", "color": "red"}},
        "python_version": "3.12",
        "http": {"app": "./web.py:app"},
        "store": {"index": {"dims": 1536}},
        "checkpointer": {"ttl": {"default_ttl": 1}},
    }
    host = serve(project, started, table)
    address_of(host)
    _, log = end(host, signal.SIGTERM)
    (line,) = [line for line in log.splitlines() if "not honoured" in line]
    for words in ("python_version", "http", "store.index", "checkpointer.ttl", "graphs.agent.color", "no-such-package"):
        assert words in line
    for words in ("$schema", "env", "dependencies: langgraph "):
        assert words not in line


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('{"graphs": {"a": "./makers.py:env"}, "auth": {"path": "./makers.py:ruled"}}', "threads.create"),
        ('{"graphs": {"a": "./makers.py:env"}, "auth": {"path": "./makers.py:web"}}', "wants request, path"),
        ('{"graphs": {"a": "./makers.py:env"}, "auth": {"path": "./makers.py:env"}}', "not a langgraph_sdk.Auth"),
        ('{"graphs": {"a": "./makers.py:env"}, "store": {"path": "./makers.py:env"}}', "store= takes a BaseStore"),
        ('{"graphs": {"a": "./makers.py:env"}, "env": ["KEY"]}', "in env"),
        ('{"graphs": {"a": "./makers.py:env"}, "env": "gone.env"}', "gone.env cannot be read"),
        ('{"graphs": {"a": "./makers.py:env"}, "dependencies": "."}', "in dependencies"),
        ('{"graphs": {"a": "./makers.py:env"}, "store": "redis"}', "in store"),
        ('{"graphs": {"a": "./agent.ts:graph"}}', "JavaScript in graphs.a"),
        ('{"graphs": {"a": {"description": "x"}}}', "no target in graphs.a"),
        ('{"graphs": {"a": "./makers.py:gone"}}', "langgraph.json, graphs.a: makers.py has no 'gone'"),
        ('{"graphs": {"a": "./gone.py:graph"}}', "langgraph.json, graphs.a: there is no file gone.py"),
        ('{"graphs": {"a": "x:y"', "is not JSON"),
        ('["a"]', "no `graphs` table"),
    ],
)
def test_what_is_wrong_in_it_is_one_sentence(project: Project, table: str, words: str) -> None:
    project.write("makers.py", MAKERS)
    project.write("langgraph.json", table)
    with Forked(command, "serve", "--port", "0") as process:
        out, err = process.communicate(60)
        assert process.wait(100) in (1, 2)
    assert out == "" and words in err
    assert err.startswith("error: ") and err.count("\n") == 1
