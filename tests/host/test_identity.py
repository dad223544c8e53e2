"""Who calls: named tokens, certificates, a function of the user's; what nodes see of it, and who may call what."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import pytest
import trustme
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime, ServerInfo

from agentmatrix import Host, Identity, RemoteAgent
from agentmatrix.errors import AddressError, AgentNotFound, PermissionDenied, Unauthenticated
from agentmatrix.transport.authentication import parse_tokens
from agentmatrix.transport.base import Peer

TOKENS = {"alice": "token-of-alice", "bob": "token-of-bob"}


class State(TypedDict, total=False):
    text: str


def one(node: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("n", node).add_edge(START, "n").compile(**options)


def tell(state: State, runtime: Runtime[Any]) -> State:
    info = runtime.server_info
    return {"text": str(info.user.identity) if info and info.user else "nobody"}


async def atell(state: State, runtime: Runtime[Any]) -> State:
    return tell(state, runtime)


def around(nested: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("nested", nested).add_edge(START, "nested").compile(**options)


class Hosted:
    """A host, and its agent "tell" for a caller with a token."""

    def __init__(self, host: Host, is_async: bool) -> None:
        self.host, self.is_async = host, is_async

    def remote(self, token: str | None = None, **options: Any) -> RemoteAgent:
        url = self.host.address if "://" in self.host.address else f"grpc://{self.host.address}"
        return RemoteAgent("tell", url=url, api_key=token, **options)


@pytest.fixture(params=["grpc", "inproc"])
def hosted(request: pytest.FixtureRequest, verbs: Any) -> Any:
    hosts: list[Host] = []

    def start(graph: Any = None, **options: Any) -> Hosted:
        address = "127.0.0.1:0" if request.param == "grpc" else f"inproc://identity-{id(hosts)}"
        graphs = {"tell": graph or one(atell if verbs.is_async else tell), "other": one(tell)}
        hosts.append(Host(graphs, address=address, **options).start())
        return Hosted(hosts[-1], verbs.is_async)

    yield start
    for host in hosts:
        host.stop()


async def test_named_tokens_tell_callers_apart(hosted: Any, verbs: Any) -> None:
    host = hosted(tokens=TOKENS)
    for name, token in TOKENS.items():
        remote = host.remote(token)
        assert await verbs.invoke(remote, {}) == {"text": name}
        assert await verbs.invoke(around(remote), {}) == {"text": name}
        assert (await verbs.listed(remote, "stream", {}))[-1] == {"n": {"text": name}}
    for token in ("token-of-carol", "alice", "", None):
        with pytest.raises(Unauthenticated, match="refuses this caller"):
            await verbs.invoke(host.remote(token), {})


async def test_one_token_for_all_is_no_identity(hosted: Any, verbs: Any) -> None:
    assert await verbs.invoke(hosted(token="secret").remote("secret"), {}) == {"text": "nobody"}


async def test_a_function_says_who_calls(hosted: Any, verbs: Any) -> None:
    def authenticate(metadata: Mapping[str, str], peer: Peer) -> Identity | str | None:
        assert peer.address and threading.current_thread().name != "agentmatrix-io"
        name = metadata.get("authorization", "").removeprefix("Bearer ")
        if name == "broken":
            raise RuntimeError("a secret of the host")
        return Identity(name, permissions=("read",), details={"team": "blue"}) if name.startswith("a") else None

    async def aauthenticate(metadata: Mapping[str, str], peer: Peer) -> Identity | str | None:
        return authenticate(metadata, peer)

    def detail(state: State, runtime: Runtime[Any]) -> State:
        user: Any = runtime.server_info and runtime.server_info.user
        return {"text": f"{user.identity} {user['team']} {user.permissions} {'team' in user} {user.is_authenticated}"}

    async def adetail(state: State, runtime: Runtime[Any]) -> State:
        return detail(state, runtime)

    graph = one(adetail if verbs.is_async else detail)
    host = hosted(graph, authenticate=aauthenticate if verbs.is_async else authenticate)
    assert await verbs.invoke(host.remote("alice"), {}) == {"text": "alice blue ('read',) True True"}
    with pytest.raises(Unauthenticated, match="does not know"):
        await verbs.invoke(host.remote("bob"), {})
    with pytest.raises(Unauthenticated) as caught:
        await verbs.invoke(host.remote("broken"), {})
    assert "secret of the host" not in str(caught.value)
    with pytest.raises(Unauthenticated):
        host.remote("bob").card  # noqa: B018


async def test_a_certificate_says_who_calls(verbs: Any) -> None:
    authority = trustme.CA()
    of_host = authority.issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in of_host.cert_chain_pems)
    options: Any = {"ssl_certfile": chain, "ssl_keyfile": of_host.private_key_pem.bytes()}
    with Host({"tell": one(atell if verbs.is_async else tell)}, ssl_ca=authority.cert_pem.bytes(), **options) as host:
        for name in ("alice@example.org", "bob@example.org"):
            own = authority.issue_cert(name)
            remote = RemoteAgent(
                f"grpcs://{host.address}/tell",
                ssl_ca=authority.cert_pem.bytes(),
                ssl_certfile=b"".join(blob.bytes() for blob in own.cert_chain_pems),
                ssl_keyfile=own.private_key_pem.bytes(),
            )
            assert await verbs.invoke(remote, {}) == {"text": name}


class User:
    """What a server of LangGraph's puts into its configs, or an enemy."""

    identity = display_name = "root"
    is_authenticated, permissions = True, ("*",)


@pytest.mark.parametrize("options", [{}, {"tokens": TOKENS}], ids=["open", "tokens"])
async def test_nobody_else_says_who_calls(hosted: Any, verbs: Any, options: Any) -> None:
    """Whatever the caller's own runtime and config say, as a parent on a LangGraph server would."""
    remote = hosted(**options).remote(TOKENS["alice"] if options else None)
    expected = {"text": "alice" if options else "nobody"}
    spoofed: RunnableConfig = {
        "configurable": {"langgraph_auth_user": User(), "assistant_id": "a", "graph_id": "g"},
        "metadata": {"langgraph_auth_user_id": "root"},
    }
    assert await verbs.invoke(remote, {}, spoofed) == expected
    assert await verbs.invoke(around(remote), {}, spoofed) == expected

    def call(state: State, runtime: Runtime[Any]) -> State:
        info = ServerInfo("a", "g", User())  # type: ignore[arg-type]
        return remote.invoke({}, {"configurable": {"__pregel_runtime": runtime.override(server_info=info)}})  # type: ignore[return-value]

    async def acall(state: State, runtime: Runtime[Any]) -> State:
        info = ServerInfo("a", "g", User())  # type: ignore[arg-type]
        return await remote.ainvoke({}, {"configurable": {"__pregel_runtime": runtime.override(server_info=info)}})  # type: ignore[return-value]

    assert await verbs.invoke(one(acall if verbs.is_async else call), {}) == expected


async def test_the_assistant_and_graph_of_a_parent_go_along(hosted: Any, verbs: Any) -> None:
    def told(state: State, runtime: Runtime[Any]) -> State:
        info = runtime.server_info
        return {"text": f"{info.assistant_id} {info.graph_id} {info.user}" if info else "none"}

    async def atold(state: State, runtime: Runtime[Any]) -> State:
        return told(state, runtime)

    remote = hosted(one(atold if verbs.is_async else told)).remote()
    assert await verbs.invoke(remote, {}) == {"text": "none"}
    config: RunnableConfig = {"configurable": {"assistant_id": "a", "graph_id": "g"}}
    assert await verbs.invoke(around(remote), {}, config) == {"text": "a g None"}


@pytest.mark.parametrize("mode", ["debug", "checkpoints", "tasks", "values", "updates"])
async def test_who_calls_shows_in_no_part(hosted: Any, verbs: Any, mode: str) -> None:
    """Some modes show the config of the run; a host with identities streams them as one without does."""

    def plain(parts: list[Any]) -> list[Any]:
        return [sorted(part) if isinstance(part, dict) else part for part in parts]

    config: RunnableConfig = {"configurable": {"thread_id": "1", "mine": 1}}
    remote = hosted(one(tell, checkpointer=InMemorySaver()), tokens=TOKENS).remote(TOKENS["alice"])
    local = one(tell, checkpointer=InMemorySaver())
    for graph, twin in ((remote, local), (around(remote), around(local))):
        there = await verbs.listed(graph, "stream", {}, config, stream_mode=[mode], subgraphs=True)
        here = await verbs.listed(twin, "stream", {}, config, stream_mode=[mode], subgraphs=True)
        assert "langgraph_auth" not in str(there)
        assert [plain([*part[2:]]) for part in there] == [plain([*part[2:]]) for part in here]


async def test_a_host_between_has_an_identity_of_its_own(verbs: Any) -> None:
    """C knows B, which calls it, and not A, for whom B works."""
    node = atell if verbs.is_async else tell
    with Host({"tell": one(node)}, tokens={"b": "token-of-b"}) as last:
        middle = around(RemoteAgent(f"{last.address}/tell", api_key="token-of-b"))
        with Host({"tell": middle}, tokens=TOKENS) as first:
            remote = RemoteAgent(f"{first.address}/tell", api_key=TOKENS["alice"])
            assert await verbs.invoke(around(remote), {}) == {"text": "b"}


# Who may call what.

TABLE = {"alice": ["tell"], "bob": "other", "*": ()}


def rule(user: Identity | None, agent: str, verb: str) -> bool:
    assert verb in ("describe", "invoke", "stream", "get_state", "update_state", "checkpointer")
    return user is not None and agent in {"alice": ["tell"], "bob": ["other"]}[user.name]


@pytest.mark.parametrize("authorize", [TABLE, rule], ids=["table", "function"])
async def test_who_may_call_what(hosted: Any, verbs: Any, authorize: Any) -> None:
    host = hosted(tokens=TOKENS, authorize=authorize)
    assert await verbs.invoke(host.remote(TOKENS["alice"]), {}) == {"text": "alice"}
    denied = host.remote(TOKENS["bob"])
    with pytest.raises(PermissionDenied, match="'bob' may not invoke the agent 'tell' on this host"):
        await verbs.invoke(denied, {})
    with pytest.raises(PermissionDenied, match="'bob' may not describe"):
        denied.card  # noqa: B018
    with pytest.raises(PermissionDenied, match="may not update_state"):
        await verbs.call(denied, "update_state", {"configurable": {"thread_id": "1"}}, {})
    names = denied._connection.transport.list_agents(10).result().agents
    assert [agent.name for agent in names] == ["other"]
    unknown = RemoteAgent("unknown", url=denied.url, api_key=TOKENS["bob"])
    with pytest.raises(AgentNotFound) as caught:
        await verbs.invoke(unknown, {})
    assert "tell" not in str(caught.value)


@pytest.mark.parametrize("authorize", [TABLE, rule], ids=["table", "function"])
def test_a_card_that_is_made_for_one_caller_is_not_given_to_another_who_may_not_have_it(
    hosted: Any, authorize: Any
) -> None:
    graph, begun, go_on = one(tell), threading.Event(), threading.Event()
    draw, drawings = graph.get_graph, []

    def drawn(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        drawings.append(kwargs)
        return draw(*args, **kwargs)

    graph.get_graph = drawn
    host = hosted(graph, tokens=TOKENS, authorize=authorize)
    alice = [host.remote(TOKENS["alice"])._connection.transport for _ in range(2)]
    answers = [transport.describe("tell", 60) for transport in alice]
    assert begun.wait(60)
    try:
        with pytest.raises(PermissionDenied, match="'bob' may not describe"):
            host.remote(TOKENS["bob"])._connection.transport.describe("tell", 60).result(60)
        assert not drawings
    finally:
        go_on.set()
    assert [answer.result(60).card.name for answer in answers]


async def test_a_verb_may_be_forbidden(hosted: Any, verbs: Any) -> None:
    remote = hosted(authorize=lambda user, agent, verb: verb in ("describe", "stream")).remote()
    assert await verbs.listed(remote, "stream", {})
    with pytest.raises(PermissionDenied, match="this caller may not invoke"):
        await verbs.invoke(remote, {})


async def test_what_is_not_true_is_no(hosted: Any, verbs: Any) -> None:
    async def arule(user: Identity | None, agent: str, verb: str) -> bool:
        return True

    def fails(user: Identity | None, agent: str, verb: str) -> bool:
        raise RuntimeError("no")

    remote = hosted(authorize=fails).remote()
    with pytest.raises(PermissionDenied):
        await verbs.invoke(remote, {})
    with pytest.raises(TypeError, match="authorize"):
        Host({"tell": one(tell)}, authorize=arule)


# Options.


def test_ways_that_exclude_each_other() -> None:
    for options in ({"token": "a", "tokens": TOKENS}, {"tokens": TOKENS, "authenticate": lambda m, p: "x"}):
        with pytest.raises(AddressError, match="exclude each other"):
            Host({"tell": one(tell)}, **options).start()  # type: ignore[arg-type]


@pytest.mark.parametrize("token", ["", "  ", " a", "a\n", "ä"])
def test_tokens_that_cannot_be_meant(token: str) -> None:
    for options in ({"token": token}, {"tokens": {"alice": token}}):
        with pytest.raises(AddressError, match="empty|cannot be sent") as caught:
            Host({"tell": one(tell)}, **options).start()  # type: ignore[arg-type]
        assert not token.strip() or f"{token!r}" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no tokens"),
        ("# a comment", "no tokens"),
        ("alice", "line 1 of tokens is no name:token"),
        ('{"alice": ["expert"]}', "tokens is JSON: write lines of name:token"),
        ("a:1\n\nb:", "line 3 of tokens is no name:token"),
        ("a:1\nb:1", "line 2 of tokens has the name or the token"),
        ("a:1\na:2", "line 2 of tokens has the name or the token"),
    ],
)
def test_files_of_tokens_that_cannot_be_meant(text: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence):
        parse_tokens(text, "tokens")


def test_a_file_of_tokens(tmp_path: Path) -> None:
    assert parse_tokens("# who\n alice : a:b \n\nbob:c\n", "tokens") == {"a:b": "alice", "c": "bob"}


@pytest.mark.parametrize("name", ["", " ", "a\nb", 7])
def test_names_that_cannot_be_meant(name: Any) -> None:
    with pytest.raises(ValueError, match="name of an identity"):
        Identity(name)
