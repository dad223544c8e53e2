"""AGENTMATRIX_TOKEN, and the hosts that get it."""

from __future__ import annotations

import pytest

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import Unauthenticated
from agentmatrix.transport.environment import token_for
from agentmatrix.transport.target import parse_target


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMATRIX_TOKEN", "of the environment")
    monkeypatch.delenv("AGENTMATRIX_TOKEN_HOSTS", raising=False)


@pytest.mark.parametrize(
    ("target", "hosts", "goes"),
    [
        ("127.0.0.1:5/x", "", True),
        ("localhost:5/x", "", True),
        ("[::1]:5/x", "", True),
        ("unix:/run/x.sock/x", "", True),
        ("gpu-box:5/x", "", False),
        ("grpcs://gpu-box:5/x", "gpu-box", True),
        ("grpcs://GPU-box:5/x", "other, Gpu-Box", True),
        ("gpu-box:5/x", "gpu-box:5", True),
        ("gpu-box:6/x", "gpu-box:5", False),
        ("evil-gpu-box:5/x", "gpu-box", False),
        ("gpu-box.evil.org:5/x", "gpu-box", False),
        ("[2001:db8::1]:5/x", "2001:db8::1", True),
        ("[2001:db8::1]:5/x", "[2001:db8::1]:5", True),
        ("10.0.0.5:5/x", ",", False),
    ],
)
def test_to_whom_it_goes(monkeypatch: pytest.MonkeyPatch, target: str, hosts: str, goes: bool) -> None:
    monkeypatch.setenv("AGENTMATRIX_TOKEN_HOSTS", hosts)
    assert token_for(parse_target(target)) == ("of the environment" if goes else None)
    remote = RemoteAgent(target)
    assert remote._connection.options.token == ("of the environment" if goes else None)


def test_a_token_of_its_own_goes_first() -> None:
    assert RemoteAgent("127.0.0.1:5/x", token="own")._connection.options.token == "own"


def test_it_opens_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMATRIX_TOKEN", "secret")
    with Host({"echo": lambda messages: "yes"}, token="secret") as host:
        assert RemoteAgent(f"{host.address}/echo").ping() > 0
        monkeypatch.delenv("AGENTMATRIX_TOKEN")
        with pytest.raises(Unauthenticated, match="AGENTMATRIX_TOKEN_HOSTS"):
            RemoteAgent(f"{host.address}/echo").ping()
