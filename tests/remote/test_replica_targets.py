"""What a user may write for the targets of a remote agent, and what is said where it is wrong."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from agentmatrix import RemoteAgent
from agentmatrix.errors import AddressError, HostUnreachable
from agentmatrix.remote.replica_targets import parse_targets
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import Target


def two() -> Iterable[str]:
    return ["a:50051/x", "grpcs://b:50051/x"]


async def atwo() -> Iterable[str]:
    return ["a:50051/x", "b:50051/x"]


def test_several_targets_of_one_agent() -> None:
    targets = parse_targets(["a:50051/x", "grpcs://b:50051/x", "a:50051/x"])
    assert targets.known == (Target("grpc", "a:50051", "x"), Target("grpcs", "b:50051", "x"))
    assert targets.url == "grpc://a:50051,grpcs://b:50051" and targets.agent == "x" and targets.are_fixed
    remote = RemoteAgent(("a:50051/x", "b:50051/x"))
    assert remote.name == remote.agent == "x" and remote.url == "grpc://a:50051,grpc://b:50051"
    assert [(replica.target, replica.state, replica.runs) for replica in remote.replicas] == [
        ("grpc://a:50051/x", "ready", 0),
        ("grpc://b:50051/x", "ready", 0),
    ]


@pytest.mark.parametrize(
    ("wrong", "url", "sentence"),
    [
        ([], None, "the list of targets is empty"),
        (["a:50051/x", "b:50051/y"], None, "grpc://a:50051/x and grpc://b:50051/y are two agents"),
        (["a:50051/x", "b:50051"], None, "'b:50051' names no agent"),
        (["a:50051/x", 7], None, "the list has 7, which is no target"),
        (["a:50051/x", "dns:///b:50051/x"], None, "a name of the DNS alone"),
        (["x"], "grpc://a:50051", "url= goes with the name of one agent"),
        (7, None, "RemoteAgent takes targets, as in .*, not 7"),
        ("dns:///pool:50051", None, "names no agent"),
        ("dns:///pool/x", None, "has no port"),
    ],
)
def test_wrong_targets_are_a_sentence(wrong: Any, url: str | None, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence):
        RemoteAgent(wrong, url=url)


def test_making_one_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    for given in ("dns:///pool:50051/x", ["a:50051/x", "b:50051/x"], two, atwo):
        remote = RemoteAgent(given, name="x")
        assert "not reached" in str(remote.get_graph().nodes["x"].name)
        repr(remote.with_config(tags=["t"]))


async def test_all_addresses_of_a_name_are_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def found(self: Any, host: str, port: int, **kwargs: Any) -> Any:
        assert (host, port) == ("pool", 50051)
        return [(0, 0, 0, "", (address, port)) for address in ("10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.1")]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", found)
    targets = parse_targets("dns:///pool:50051/x")
    assert [str(target) for target in await targets.resolve()] == [
        "grpc://10.0.0.1:50051/x",
        "grpc://10.0.0.2:50051/x",
        "grpc://[fd00::1]:50051/x",
    ]
    assert parse_targets("x", "dns:///pool:50051") == targets
    # The certificate and the token are those of the name.
    monkeypatch.setenv("AGENTMATRIX_TOKEN", "secret")
    monkeypatch.setenv("AGENTMATRIX_TOKEN_HOSTS", "pool")
    options = targets.options_for(Target("grpc", "10.0.0.1:50051", "x"), ClientOptions(root_certificates=b"pem"))
    assert options.server_name == "pool" and options.token == "secret"


async def test_a_resolver_is_asked_sync_and_async() -> None:
    for resolver in (two, atwo):
        targets = parse_targets(resolver)
        assert [target.address for target in await targets.resolve()] == ["a:50051", "b:50051"]

    def broken() -> Iterable[str]:
        raise OSError("no route")

    with pytest.raises(HostUnreachable, match="the resolver .*broken failed: OSError: no route"):
        await parse_targets(broken).resolve()
    for wrong, error, sentence in (
        ("a:50051/x", AddressError, "takes targets"),
        ([], HostUnreachable, "has named none"),
        (["a:1/x", "a:1/y"], AddressError, "are two agents"),
    ):
        with pytest.raises(error, match=sentence):
            await parse_targets(lambda wrong=wrong: wrong).resolve()  # type: ignore[misc]


def test_a_pickle_has_the_targets_and_no_secret() -> None:
    for given in (["a:50051/x", "b:50051/x"], "dns:///pool:50051/x", two):
        data = pickle.dumps(RemoteAgent(given, token="secret"))
        assert b"secret" not in data
        again = pickle.loads(data)
        assert again.url == RemoteAgent(given).url
