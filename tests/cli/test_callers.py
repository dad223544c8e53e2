"""Who may call a host that `agentmatrix serve` has started, and what they learn from it."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
import trustme

from agentmatrix import RemoteAgent
from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.host_options import HostOptions
from tests.cli.conftest import Project
from tests.cli.test_serve import Start, address_of

WHO = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime

def who(state: MessagesState, runtime: Runtime):
    if state["messages"][-1].text == "fail":
        raise ValueError("it fails by intention")
    user = runtime.server_info.user.identity if runtime.server_info else "nobody"
    return {"messages": [AIMessage(f"you are {user}", name="who")]}

graph = StateGraph(MessagesState).add_node("who", who).add_edge(START, "who").compile()
"""


@pytest.fixture
def told(project: Project, started: Start) -> Any:
    """Serves a graph that says who calls; returns what a caller of a name is told."""
    project.write("who.py", WHO)
    project.write("tokens", "alice: token-of-alice\nbob: token-of-bob\n")
    for name in ("alice", "bob", "carol"):
        project.write(f"{name}.token", f"token-of-{name}\n")

    def serve(*options: str) -> Any:
        host = started("serve", "who:graph", "other=who:graph", "--port", "0", "--tokens-file", "tokens", *options)
        address = address_of(host)

        def call(name: str, agent: str = "graph", said: str = "hi", verb: str = "run") -> Any:
            given = ["-i", said] if verb == "run" else []
            target = f"{address}/{agent}" if agent else address
            return project.cli(verb, target, *given, "--token-file", str(project.folder / f"{name}.token"))

        return call

    return serve


def test_each_caller_has_a_name(told: Any) -> None:
    call = told()
    assert "you are alice" in call("alice").out and "you are bob" in call("bob").out
    refused = call("carol")
    assert refused.code == 1 and "the token is not the right one" in refused.err


def test_a_table_says_who_may_call_what(project: Project, told: Any) -> None:
    project.write("table.json", json.dumps({"alice": ["graph"], "*": ["other"]}))
    call = told("--authorize", "table.json")
    assert "you are alice" in call("alice").out
    denied = call("bob")
    assert denied.code == 1 and "'bob' may not" in denied.err and "'graph'" in denied.err
    assert call("bob", "", verb="describe").out.split() == ["other"]


@pytest.mark.parametrize("table", ["{", "[]", '{"alice": "graph"}', '{"alice": [1]}', None])
def test_a_table_that_cannot_be_meant(project: Project, table: str | None) -> None:
    project.write("who.py", WHO)
    if table is not None:
        project.write("table.json", table)
    outcome = project.cli("serve", "who:graph", "--port", "0", "--authorize", "table.json")
    assert outcome.code == 2 and "the table table.json" in outcome.err


def test_ways_that_exclude_each_other(project: Project) -> None:
    for name in ("who.py", "tokens", "token"):
        project.write(name, WHO if name == "who.py" else "a:b")
    outcome = project.cli("serve", "who:graph", "--port", "0", "--tokens-file", "tokens", "--token-file", "token")
    assert outcome.code == 1 and "exclude each other" in outcome.err


@pytest.mark.parametrize("options", [(), ("--tracebacks",)], ids=str)
def test_tracebacks_by_choice(project: Project, started: Start, options: tuple[str, ...]) -> None:
    project.write("who.py", WHO)
    address = address_of(started("serve", "who:graph", "--port", "0", *options))
    assert "ValueError: it fails by intention" in project.cli("run", f"{address}/graph", "-i", "fail").err
    with pytest.raises(ValueError, match="it fails by intention") as caught:
        RemoteAgent(f"{address}/graph").invoke({"messages": "fail"})
    assert ("who.py" in "".join(traceback.format_exception(caught.value))) is bool(options)


def test_a_server_name_for_a_tunnel(project: Project, started: Start) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("gpu-box.example.org")
    leaf.private_key_and_cert_chain_pem.write_to_path(project.folder / "host.pem")
    authority.cert_pem.write_to_path(project.folder / "ca.pem")
    pair = ("--ssl-certfile", "host.pem", "--ssl-keyfile", "host.pem")
    address = address_of(started("serve", "greeter:graph", "--port", "0", *pair))
    trusting = ("describe", f"grpcs://{address}/graph", "--ssl-ca", "ca.pem")
    refused = project.cli(*trusting)
    assert refused.code == 1 and "server_name= (--server-name)" in refused.err
    assert "greeter" in project.cli(*trusting, "--server-name", "gpu-box.example.org").out


@pytest.mark.parametrize(
    ("command", "given"),
    [("run", ["-i", "hi"]), ("chat", []), ("describe", []), ("draw", []), ("refine", ["rows.jsonl", "--limit", "1"])],
)
def test_the_commands_share_the_options_for_hosts(
    project: Project, monkeypatch: pytest.MonkeyPatch, command: str, given: list[str]
) -> None:
    found: list[HostOptions] = []

    def agent(options: HostOptions, target: str) -> Any:
        found.append(options)
        raise CommandError(f"{target} was asked")

    monkeypatch.setattr(HostOptions, "agent", agent)
    asked = project.cli(command, "gpu-box:1/expert", *given, "--reconnect-timeout", "60", "--ssl-ca", "ca.pem")
    assert "gpu-box:1/expert was asked" in asked.err
    assert found == [HostOptions(ssl_ca=Path("ca.pem"), reconnect_timeout=60.0)]
