"""Hosts that Ray places on another machine: they want TLS or to be told, and the run's token always."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from agentmatrix import Dag, RemoteAgent
from agentmatrix.dataset.ray_hosts import _HostActor
from agentmatrix.errors import Unauthenticated
from tests.dataset.hosted_rows import State


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an actor on another machine than the driver's, which is called `here`."""
    ray = SimpleNamespace(
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "there"),
        util=SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)


async def answer(state: State) -> State:
    return {"answer": state["id"] * 2}


def graph() -> Any:
    return Dag(State).add_node("answer", answer).compile()


@pytest.mark.usefixtures("_elsewhere")
def test_without_tls_it_wants_to_be_told() -> None:
    with pytest.raises(PermissionError, match="give it TLS by Ray"):
        _HostActor(graph(), "here", {"insecure": False, "token": "secret"})


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("is_encrypted", [True, False])
async def test_it_takes_the_token_of_the_run_only(is_encrypted: bool) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    host_options: dict[str, Any] = {"insecure": True}
    agent_options: dict[str, Any] = {"insecure": True}
    if is_encrypted:
        host_options = {
            "insecure": False,
            "ssl_certfile": own.cert_chain_pems[0].bytes(),
            "ssl_keyfile": own.private_key_pem.bytes(),
        }
        agent_options = {"ssl_ca": authority.cert_pem.bytes()}
    actor = _HostActor(graph(), "here", {**host_options, "token": "secret"})
    try:
        target = f"{actor.address()}/agent"
        assert (await RemoteAgent(target, token="secret", **agent_options).ainvoke({"id": 2}))["answer"] == 4
        with pytest.raises(Unauthenticated):
            await RemoteAgent(target, token="guessed", **agent_options).ainvoke({"id": 2})
    finally:
        actor._host.stop()
