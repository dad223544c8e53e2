"""Tokens and certificates that are revoked while a connection lives: new runs, and those under way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, TypedDict

import pytest
import trustme
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import Unauthenticated
from agentmatrix.transport import grpc_stream
from tests.host.test_secrets import rewrite


class State(TypedDict, total=False):
    text: str


def one(node: Any) -> Any:
    return StateGraph(State).add_node("n", node).add_edge(START, "n").compile()


def tell(state: State, runtime: Runtime[Any]) -> State:
    info = runtime.server_info
    return {"text": str(info.user.identity) if info and info.user else "nobody"}


class Held:
    """A graph whose node waits for ever, and notes how it ended."""

    def __init__(self) -> None:
        self.began, self.cancelled = threading.Event(), threading.Event()
        self.graph = one(self._wait)

    async def _wait(self, state: State) -> State:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {}

    def invoke(self, remote: RemoteAgent) -> list[BaseException]:
        """Begins a run in a thread; returns where its error will be, after `join`."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                remote.invoke({})
            except BaseException as error:
                errors.append(error)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        assert self.began.wait(100)
        return errors


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts look at their streams all the time."""
    monkeypatch.setattr(grpc_stream, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(grpc_stream, "REAUTHENTICATE_SECONDS", 0.0)


@pytest.mark.parametrize("way", ["token", "tokens"])
def test_a_new_run_on_an_old_connection_is_checked_against_the_tokens_of_now(tmp_path: Path, way: str) -> None:
    path = tmp_path / "secrets"
    line = "" if way == "token" else "alice:"
    rewrite(path, f"{line}first")
    with Host({"tell": one(tell)}, **{way: path}) as host:  # type: ignore[arg-type]
        remote = RemoteAgent(f"{host.address}/tell", token="first")
        assert remote.invoke({}) == {"text": "alice" if line else "nobody"}
        rewrite(path, f"{line}second")
        with pytest.raises(Unauthenticated, match="refuses this caller.*the token is not the right one"):
            remote.invoke({})
        rewrite(path, f"{line}first")
        assert remote.invoke({}) == {"text": "alice" if line else "nobody"}


def test_a_token_that_is_another_callers_now(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    rewrite(path, "alice:shared-by-mistake")
    with Host({"tell": one(tell)}, tokens=path) as host:
        remote = RemoteAgent(f"{host.address}/tell", token="shared-by-mistake")
        assert remote.invoke({}) == {"text": "alice"}
        rewrite(path, "bob:shared-by-mistake")
        with pytest.raises(Unauthenticated, match="another caller's now"):
            remote.invoke({})
        assert remote.invoke({}) == {"text": "bob"}


@pytest.mark.usefixtures("quick")
def test_a_run_under_way_ends_with_its_token_and_others_go_on(tmp_path: Path) -> None:
    path, held = tmp_path / "tokens", Held()
    rewrite(path, "alice:token-of-alice\nbob:token-of-bob\n")
    with Host({"held": held.graph, "tell": one(tell)}, tokens=path) as host:
        bob = RemoteAgent(f"{host.address}/tell", token="token-of-bob")
        assert bob.invoke({}) == {"text": "bob"}
        errors = held.invoke(RemoteAgent(f"{host.address}/held", token="token-of-alice"))
        rewrite(path, "carol:token-of-carol\nbob:token-of-bob\n")
        held.thread.join(100)
        assert held.cancelled.wait(100)
        assert [type(error) for error in errors] == [Unauthenticated]
        assert bob.invoke({}) == {"text": "bob"}


@pytest.mark.usefixtures("quick")
def test_a_function_that_authenticates_is_asked_again() -> None:
    held, known = Held(), {"Bearer alice"}

    def authenticate(metadata: Any, peer: Any) -> str | None:
        return "alice" if metadata.get("authorization") in known else None

    with Host({"held": held.graph}, authenticate=authenticate) as host:
        errors = held.invoke(RemoteAgent(f"{host.address}/held", token="alice"))
        known.clear()
        held.thread.join(100)
        assert held.cancelled.wait(100)
        assert [type(error) for error in errors] == [Unauthenticated]


def test_a_caller_whose_token_file_is_rotated_with_the_hosts_notices_nothing(tmp_path: Path) -> None:
    of_host, of_caller, held = tmp_path / "host", tmp_path / "caller", Held()
    rewrite(of_host, "alice:first\nalice-next:second\n")
    rewrite(of_caller, "first")
    with Host({"tell": one(tell), "held": held.graph}, tokens=of_host) as host:
        remote = RemoteAgent(f"{host.address}/tell", token=of_caller)
        assert remote.invoke({}) == {"text": "alice"}
        held.invoke(RemoteAgent(f"{host.address}/held", token=of_caller))
        rewrite(of_caller, "second")
        assert remote.invoke({}) == {"text": "alice-next"}
        assert held.thread.is_alive() and not held.cancelled.is_set()  # on the connection that it began on


def test_new_authorities_ask_for_a_new_handshake(tmp_path: Path) -> None:
    host_ca, old, new = trustme.CA(), trustme.CA(), trustme.CA()
    own, mine = host_ca.issue_cert("127.0.0.1"), old.issue_cert("desk.example.org")
    trusted, held = tmp_path / "callers.pem", Held()
    rewrite(trusted, old.cert_pem.bytes())
    tls: dict[str, Any] = {
        "ssl_certfile": own.cert_chain_pems[0].bytes(), "ssl_keyfile": own.private_key_pem.bytes(), "ssl_ca": trusted,
    }  # fmt: skip
    with Host({"tell": one(tell), "held": held.graph}, **tls) as host:
        options: dict[str, Any] = {
            "ssl_ca": host_ca.cert_pem.bytes(), "ssl_certfile": mine.cert_chain_pems[0].bytes(),
            "ssl_keyfile": mine.private_key_pem.bytes(), "connect_timeout": 20,
        }  # fmt: skip
        remote = RemoteAgent(f"grpcs://{host.address}/tell", **options)
        assert remote.invoke({}) == {"text": "desk.example.org"}
        held.invoke(RemoteAgent(f"grpcs://{host.address}/held", **options))
        rewrite(trusted, old.cert_pem.bytes() + new.cert_pem.bytes())
        with pytest.raises(Unauthenticated, match="authorities of callers' certificates have changed; connect again"):
            remote.invoke({})
        assert remote.invoke({}) == {"text": "desk.example.org"}  # over a new connection
        assert held.thread.is_alive() and not held.cancelled.is_set()
