"""`agentmatrix certs`: what it makes serves a host and its callers, and nobody else."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

import pytest

from agentmatrix import RemoteAgent
from agentmatrix.errors import HostUnreachable
from tests.cli.conftest import Project
from tests.cli.test_serve import address_of
from tests.forked import Forked

pytest.importorskip("cryptography", reason="the extra certs is not installed")

Start = Callable[..., Forked]

WHO = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime

def who(state: MessagesState, runtime: Runtime):
    return {"messages": [("ai", str(runtime.server_info and runtime.server_info.user.identity))]}

graph = StateGraph(MessagesState).add_node("who", who).add_edge(START, "who").compile()
"""


def said(remote: RemoteAgent) -> str:
    text: str = remote.invoke({"messages": "hi"})["messages"][-1].text
    return text


def test_a_host_with_them_is_reached_by_its_names_and_no_other(project: Project, started: Start) -> None:
    outcome = project.cli("certs", "gpu-box", "10.1.2.3")
    assert outcome.code == 0 and "--ssl-certfile certs/gpu-box.pem" in outcome.out
    keys = ("--ssl-certfile", "certs/gpu-box.pem", "--ssl-keyfile", "certs/gpu-box-key.pem")
    options = ("--host", "0.0.0.0", "--port", "0", *keys, "--token-file", "certs/token")
    host = started("serve", "greeter:graph", *options)
    url = f"grpcs://127.0.0.1:{address_of(host).rpartition(':')[2]}"
    token = project.folder / "certs" / "token"
    tls: dict[str, Any] = {"url": url, "ssl_ca": "certs/ca.pem", "token": token}
    assert said(RemoteAgent("graph", **tls)) == "Hello, hi!"
    assert said(RemoteAgent("graph", **tls, server_name="gpu-box")) == "Hello, hi!"
    with pytest.raises(HostUnreachable, match="another name"):
        said(RemoteAgent("graph", **tls, server_name="other-box"))
    assert project.cli("certs", "gpu-box", "--folder", "elsewhere").code == 0
    with pytest.raises(HostUnreachable, match="authority"):
        said(RemoteAgent("graph", **{**tls, "ssl_ca": "elsewhere/ca.pem"}))


def test_callers_are_known_by_theirs(project: Project, started: Start) -> None:
    project.write("who.py", WHO)
    assert project.cli("certs", "gpu-box").code == 0
    assert project.cli("certs", "--client", "alice", "bob@lab").code == 0
    keys = ("--ssl-certfile", "certs/gpu-box.pem", "--ssl-keyfile", "certs/gpu-box-key.pem")
    host = started("serve", "who:graph", "--port", "0", *keys, "--ssl-ca", "certs/ca.pem")
    url = f"grpcs://127.0.0.1:{address_of(host).rpartition(':')[2]}"
    for name in ("alice", "bob@lab"):
        own: dict[str, Any] = {"ssl_certfile": f"certs/{name}.pem", "ssl_keyfile": f"certs/{name}-key.pem"}
        assert said(RemoteAgent("graph", url=url, ssl_ca="certs/ca.pem", **own)) == name
    with pytest.raises(HostUnreachable):
        said(RemoteAgent("graph", url=url, ssl_ca="certs/ca.pem"))


def test_keys_and_token_are_for_their_owner_alone(project: Project) -> None:
    project.cli("certs", "gpu-box")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (project.folder / "certs").iterdir()}
    secret = {"ca-key.pem", "gpu-box-key.pem", "token"}
    assert modes.keys() == secret | {"ca.pem", "gpu-box.pem"}
    assert all(modes[name] == 0o600 for name in secret)


def test_the_authority_and_the_token_stay_and_a_certificate_is_renewed_on_demand(project: Project) -> None:
    folder = project.folder / "certs"
    project.cli("certs", "gpu-box")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    again = project.cli("certs", "gpu-box")
    assert again.code == 2 and "--renew" in again.err and again.err.count("\n") == 1
    assert project.cli("certs", "other-box").code == 0
    assert project.cli("certs", "gpu-box", "--renew").code == 0
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"gpu-box.pem", "gpu-box-key.pem"}


def test_what_cannot_be_made_is_one_sentence(project: Project) -> None:
    project.cli("certs", "gpu-box")
    (project.folder / "certs" / "ca-key.pem").write_text("nonsense")
    project.cli("certs", "gpu-box", "--folder", "other")
    project.folder.joinpath("mixed").mkdir()
    for file, folder in (("ca.pem", "other"), ("ca-key.pem", "third")):
        project.cli("certs", "gpu-box", "--folder", folder)
        project.folder.joinpath("mixed", file).write_bytes(project.folder.joinpath(folder, file).read_bytes())
    for args, words in (
        (["box"], "the authority in certs cannot be read"),
        (["box", "--folder", "mixed"], "is not the key of"),
        (["../box"], "no name for a certificate"),
    ):
        outcome = project.cli("certs", *args)
        assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") == 1
