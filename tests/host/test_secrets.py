"""Tokens, certificates and tracebacks: where they show, and that changed files are read again."""

from __future__ import annotations

import os
import pickle
import traceback
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

import pytest
import trustme
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import AddressError, AgentMatrixError, HostUnreachable, Unauthenticated
from agentmatrix.transport import connect
from agentmatrix.transport.grpc_channel import GrpcChannel
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import parse_target
from agentmatrix.transport.watched_file import WatchedFile
from tests.attacks.internals import recorded_messages
from tests.attacks.kit import eventually


class State(TypedDict, total=False):
    text: str


def one(node: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("n", node).add_edge(START, "n").compile(**options)


def tell(state: State, runtime: Runtime[Any]) -> State:
    info = runtime.server_info
    return {"text": str(info.user.identity) if info and info.user else "nobody"}


def fail(state: State) -> State:
    raise ValueError("it fails by intention")


def rewrite(path: Path, text: str | bytes) -> None:
    """Replaces a file as tools that rotate secrets do, so that it has another stamp."""
    new = path.with_suffix(".new")
    new.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.replace(new, path)


# Files that change.


def test_a_token_in_a_file_is_read_again(tmp_path: Path) -> None:
    of_host, of_caller = tmp_path / "host", tmp_path / "caller"
    rewrite(of_host, "first\n")
    rewrite(of_caller, "first\n")
    with Host({"tell": one(tell)}, token=of_host) as host:
        remote = RemoteAgent(f"{host.address}/tell", token=of_caller)
        assert remote.ping() > 0
        rewrite(of_host, "second\n")
        with pytest.raises(Unauthenticated):
            remote.ping()
        rewrite(of_caller, "second\n")
        assert remote.ping() > 0 and remote.invoke({}) == {"text": "nobody"}
        # A file that has become wrong, or is gone, leaves the token as it was.
        rewrite(of_host, "")
        assert remote.ping() > 0
        of_host.unlink()
        assert remote.ping() > 0
        of_caller.unlink()
        with pytest.raises(AddressError, match="token file .* cannot be read"):
            remote.ping()


def test_a_file_of_tokens_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    rewrite(path, "alice:token-of-alice\n")
    with Host({"tell": one(tell)}, tokens=path) as host:

        def call(token: str) -> Any:
            with RemoteAgent(f"{host.address}/tell", token=token) as remote:
                return remote.invoke({})["text"]

        assert call("token-of-alice") == "alice"
        rewrite(path, "alice:another\nbob:token-of-bob\n")
        assert (call("another"), call("token-of-bob")) == ("alice", "bob")
        with pytest.raises(Unauthenticated):
            call("token-of-alice")
        rewrite(path, "no tokens at all")
        assert call("another") == "alice"


def test_a_file_that_cannot_be_read_at_first(tmp_path: Path) -> None:
    for options in ({"token": tmp_path / "none"}, {"tokens": tmp_path / "none"}, {"tokens": str(tmp_path / "none")}):
        with pytest.raises(AddressError, match="cannot be read"):
            Host({"tell": one(tell)}, **options).start()  # type: ignore[arg-type]
    (tmp_path / "empty").touch()
    with pytest.raises(AddressError, match="is empty, which would admit everyone"):
        Host({"tell": one(tell)}, token=tmp_path / "empty").start()


def test_a_watched_file_is_read_once_as_long_as_it_does_not_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    rewrite(path, "one")
    file = WatchedFile("file", path)
    assert file.read() is file.read()
    rewrite(path, "two")
    assert file.read() == b"two"


class Certificates:
    """The files of a host and what callers trust."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        self.authority = trustme.CA()

    def issue(self, authority: trustme.CA | None = None, name: str = "127.0.0.1", **options: Any) -> None:
        authority = authority or self.authority
        leaf = authority.issue_cert(name, **options)
        rewrite(self.certificate, b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        rewrite(self.key, leaf.private_key_pem.bytes())
        rewrite(self.ca, authority.cert_pem.bytes())

    @property
    def of_host(self) -> dict[str, Path]:
        return {"ssl_certfile": self.certificate, "ssl_keyfile": self.key}


def test_certificates_are_read_again_on_both_sides(tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    files.issue()
    trusted = files.authority.cert_pem.bytes()
    with Host({"tell": one(tell)}, **files.of_host) as host:  # type: ignore[arg-type]
        url = f"grpcs://{host.address}/tell"
        held = RemoteAgent(url, ssl_ca=files.ca)
        assert held.invoke({}) == {"text": "nobody"}
        files.issue(trustme.CA())
        assert held.invoke({}) == {"text": "nobody"}  # a connection that was made goes on
        with pytest.raises(HostUnreachable, match=r"not from an authority .* ssl_ca= \(--ssl-ca\)"):
            RemoteAgent(url, ssl_ca=trusted, connect_timeout=20).invoke({})
        with RemoteAgent(url, ssl_ca=files.ca) as new:
            assert new.invoke({}) == {"text": "nobody"}
        held.close()
        assert held.invoke({}) == {"text": "nobody"}


def test_a_run_that_is_opened_while_a_card_fails_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The I/O thread may come to the card's call before the stream's: both are told the same."""
    files = Certificates(tmp_path)
    files.issue()
    lost: Future[Exception] = Future()

    class Receiver:
        def receive(self, received: object) -> None:
            raise AssertionError

        def lost(self, error: AgentMatrixError) -> None:
            lost.set_result(error)

    monkeypatch.setattr(GrpcChannel, "_start", lambda self: None)
    with Host({"tell": one(tell)}, **files.of_host) as host:  # type: ignore[arg-type]
        stranger = trustme.CA().cert_pem.bytes()
        options = ClientOptions(root_certificates=stranger, connect_timeout=20)
        transport = connect(parse_target(f"grpcs://{host.address}/tell"), options)
        transport.open(Receiver())
        with pytest.raises(HostUnreachable, match="not from an authority"):
            transport.describe("tell", 20).result(60)
        assert "not from an authority" in str(lost.result(60))


# What errors say.

WORDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "expired": ({"not_after": datetime.now(UTC) - timedelta(days=1)}, {}, "has expired"),
    "not yet": ({"not_before": datetime.now(UTC) + timedelta(days=1)}, {}, "is not valid yet; is the clock right"),
    "name": ({"name": "gpu-box.example.org"}, {}, r"is for another name.* server_name= \(--server-name\)"),
    "authority": ({"authority": trustme.CA()}, {"ssl_ca": trustme.CA().cert_pem.bytes()}, "not from an authority"),
}


@pytest.mark.parametrize("name", WORDS)
def test_errors_tell_what_is_wrong_with_a_certificate(tmp_path: Path, name: str) -> None:
    issued, of_caller, sentence = WORDS[name]
    files = Certificates(tmp_path)
    if "not_after" in issued:
        issued = {**issued, "not_before": datetime.now(UTC) - timedelta(days=9)}
    if set(issued) == {"not_before"}:
        issued = {**issued, "not_after": datetime.now(UTC) + timedelta(days=9)}
    files.issue(**issued)
    with Host({"tell": one(tell)}, **files.of_host) as host:  # type: ignore[arg-type]
        options: dict[str, Any] = {"ssl_ca": files.ca, "connect_timeout": 20, **of_caller}
        for call in (RemoteAgent.ping, lambda remote: remote.invoke({})):
            with pytest.raises(HostUnreachable, match=sentence):
                call(RemoteAgent(f"grpcs://{host.address}/tell", **options))


def test_a_server_name_for_tunnels(tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    files.issue(name="gpu-box.example.org")
    with Host({"tell": one(tell)}, **files.of_host) as host:  # type: ignore[arg-type]
        remote = RemoteAgent(f"grpcs://{host.address}/tell", ssl_ca=files.ca, server_name="gpu-box.example.org")
        assert remote.invoke({}) == {"text": "nobody"}


def test_one_vocabulary(tmp_path: Path) -> None:
    """The names of the command line are those of both classes; what they were called before means the same."""
    files = Certificates(tmp_path)
    files.issue()
    pairs = {"certificate": files.certificate, "private_key": files.key}
    for options in (files.of_host, pairs):
        with Host({"tell": one(tell)}, token="secret", **options) as host:  # type: ignore[arg-type]
            for token in ({"token": "secret"}, {"api_key": "secret"}):
                remote = RemoteAgent(f"grpcs://{host.address}/tell", ssl_ca=files.ca, **token)  # type: ignore[arg-type]
                assert remote.invoke({}) == {"text": "nobody"}
    with pytest.raises(AddressError, match="ssl_certfile= and certificate= are the same option"):
        Host({"tell": one(tell)}, ssl_certfile=files.certificate, certificate=files.certificate)


# Pickles.


def test_a_pickle_keeps_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    key = authority.issue_cert("x").private_key_pem.bytes()
    headers = {"x-api-key": "s3cret", "Authorization": "Bearer s3cret", "x-tenant": "blue"}
    remote = RemoteAgent("127.0.0.1:5/tell", token="s3cret", headers=headers, ssl_certfile=b"PEM", ssl_keyfile=key)
    data = pickle.dumps(remote)
    assert b"s3cret" not in data and b"PRIVATE KEY" not in data and b"blue" in data
    monkeypatch.setenv("AGENTMATRIX_TOKEN", "of the environment")
    assert pickle.loads(data)._connection.options.token == "of the environment"
    (tmp_path / "token").write_text("s3cret")
    kept = pickle.loads(pickle.dumps(RemoteAgent("127.0.0.1:5/tell", token=tmp_path / "token")))
    assert kept._connection.options.token == tmp_path / "token"


@pytest.mark.parametrize("header", ["authorization", "X-Api-Key", "cookie", "x-session-token"])
def test_a_secret_header_does_not_cross_a_network_in_the_clear(header: str) -> None:
    remote = RemoteAgent("192.0.2.1:5/x", headers={header: "s3cret"}, connect_timeout=0.1)
    with pytest.raises(AddressError, match="the secret header would go to 192.0.2.1:5 in the clear") as caught:
        remote.ping()
    assert "s3cret" not in str(caught.value)


# Tracebacks.


class Failures(BaseCallbackHandler):
    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


@pytest.mark.parametrize("tracebacks", [False, True])
async def test_tracebacks_of_a_host_go_to_callers_by_choice(verbs: Any, tracebacks: bool) -> None:
    with Host({"fail": one(fail)}, tracebacks=tracebacks) as host:
        remote, heard = RemoteAgent(f"{host.address}/fail"), Failures()
        for graph in (remote, one(remote)):
            with pytest.raises(ValueError, match="^it fails by intention") as caught:
                await verbs.invoke(graph, {}, {"callbacks": [heard]})
            told = "".join(traceback.format_exception(caught.value))
            assert (f'{__file__}", line' in told.partition("RemoteTraceback")[2]) is tracebacks
            assert ("in fail" in told) is tracebacks
        for error in heard.errors:
            assert tracebacks or "in fail" not in "".join(traceback.format_exception(error))


async def test_a_hosts_own_log_has_the_traceback(verbs: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "agentmatrix"), Host({"fail": one(fail)}) as host:
        with pytest.raises(ValueError, match="intention"):
            await verbs.invoke(RemoteAgent(f"{host.address}/fail"), {})
        assert eventually(lambda: "in fail" in caplog.text)


class Broken(InMemorySaver):
    def put(self, *args: Any) -> Any:
        raise RuntimeError("the disk is full")

    async def aput(self, *args: Any) -> Any:
        raise RuntimeError("the disk is full")


async def test_what_fails_at_the_caller_keeps_its_traceback_there_and_shows_none_to_the_host(verbs: Any) -> None:
    with Host({"tell": one(tell)}) as host, recorded_messages() as messages:
        remote = RemoteAgent(f"{host.address}/tell")
        broken = {"__pregel_checkpointer": Broken(), "thread_id": "1", "__pregel_durability": "sync"}
        config: Any = {"configurable": broken}
        with pytest.raises(RuntimeError, match="the disk is full") as caught:
            await verbs.invoke(remote, {}, config)
    assert ("in aput" if verbs.is_async else "in put") in "".join(traceback.format_exception(caught.value))
    assert any(b"the disk is full" in message for message in messages)
    assert not any(b"Traceback (most recent call last)" in message for message in messages)
