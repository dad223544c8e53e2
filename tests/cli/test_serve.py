"""`agentmatrix serve` in a process of its own, and what reaches it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import Project
from tests.forked import Forked, command

Start = Callable[..., Forked]

SLOW = """
import asyncio
from langgraph.graph import START, MessagesState, StateGraph

async def wait(state: MessagesState):
    open("started", "w").close()
    try:
        await asyncio.sleep(60)
    finally:
        open("cancelled", "w").close()

graph = StateGraph(MessagesState).add_node("wait", wait).add_edge(START, "wait").compile()
"""


def address_of(process: Forked) -> str:
    """The address in the one line that `serve` prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("serving "):
        raise AssertionError(process.communicate(timeout=100)[1])
    return line.rpartition(" at ")[2].strip()


def end(process: Forked, by: signal.Signals) -> tuple[int, str]:
    process.send_signal(by)
    _, err = process.communicate(timeout=100)
    return process.returncode, err


def wait_for(path: Path, process: Forked) -> None:
    """Until a node of another process has left its mark."""
    while not path.exists():
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)


def test_a_served_graph_is_listed_described_drawn_run_and_ended(project: Project, started: Start) -> None:
    host = started("serve", "greeter:graph", "again=greeter.py:builder", "asker:graph.builder", "--port", "0")
    address = address_of(host)
    assert project.cli("describe", address).out.split() == ["graph", "again", "builder"]
    assert f"runs          at grpc://{address}" in project.cli("describe", f"{address}/again").out
    assert address in project.cli("draw", f"{address}/graph").out
    local = project.cli("run", "greeter:graph", "-i", "Ada")
    assert project.cli("run", f"{address}/graph", "-i", "Ada") == local
    assert project.cli("run", "--remote", f"{address}/graph", "-i", "Ada") == local
    lines = project.cli("run", f"{address}/again", "-i", "Ada", "--json").out.splitlines()
    assert json.loads(lines[-1])["data"]["messages"][-1]["content"] == "Hello, Ada!"
    code, log = end(host, signal.SIGTERM)
    assert code == 0 and "received SIGTERM" in log


COUNTING = """
import gc
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph

class Count(TypedDict, total=False):
    frozen: int

def count(state: Count):
    return {"frozen": gc.get_freeze_count()}

graph = StateGraph(Count).add_node("count", count).add_edge(START, "count").compile()
"""


def test_what_is_there_when_it_serves_is_not_collected(project: Project, started: Start) -> None:
    (project.folder / "counting.py").write_text(COUNTING)
    address = address_of(started("serve", "counting:graph", "--port", "0"))
    frozen = 0
    while not frozen:  # the line that it serves comes before
        frozen = json.loads(project.cli("run", f"{address}/graph", "-i", "{}", "--json").out.splitlines()[-1])["data"][
            "frozen"
        ]
    assert frozen > 100_000


def test_what_a_remote_graph_asks_is_answered_in_place(project: Project, started: Start) -> None:
    address = address_of(started("serve", "pay=asker:graph", "--port", "0"))
    paused = project.cli("run", f"{address}/pay", "-i", '{"size": 3}')
    assert paused.code == 3 and "pay 3 euros?" in paused.err
    answered = project.cli("run", f"{address}/pay", "-i", '{"size": 3}', "--resume", "yes")
    assert (answered.code, answered.err) == (0, "")
    assert '"paid": "yes"' in answered.out


def test_a_langgraph_json_is_served(project: Project, started: Start) -> None:
    project.write("src/support/desk.py", "from greeter import builder\nfrom .words import name\ngraph = builder\n")
    project.write("src/support/words.py", "name = 'support'\n")
    project.write("src/support/__init__.py", "")
    table = {
        "dependencies": ["."],
        "graphs": {"desk": "./src/support/desk.py:graph", "pay": {"path": "./asker.py:graph"}},
    }
    project.write("langgraph.json", json.dumps(table))
    address = address_of(started("serve", "--port", "0"))
    assert project.cli("describe", address).out.split() == ["desk", "pay"]
    assert project.cli("run", f"{address}/desk", "-i", "Ada").out == "greeter: Hello, Ada!\n"


def test_ctrl_c_ends_a_run_on_both_sides(project: Project, started: Start) -> None:
    project.write("slow.py", SLOW)
    host = started("serve", "slow:graph", "--port", "0")
    caller = started("run", f"{address_of(host)}/graph", "-i", "wait")
    wait_for(project.folder / "started", caller)
    assert end(caller, signal.SIGINT) == (130, "")
    wait_for(project.folder / "cancelled", host)
    code, log = end(host, signal.SIGINT)
    assert code == 0 and "received SIGINT" in log and "graph.stream c" in log  # cancelled, or its caller lost


def test_sigterm_lets_runs_end_and_a_second_signal_does_not_wait(project: Project, started: Start) -> None:
    project.write("slow.py", SLOW)
    host = started("serve", "slow:graph", "--port", "0", "--grace", "60")
    caller = started("run", f"{address_of(host)}/graph", "-i", "wait")
    wait_for(project.folder / "started", caller)
    host.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        host.wait(0.5)
    assert end(host, signal.SIGTERM)[0] == 0
    _, err = caller.communicate(timeout=100)
    assert caller.returncode == 1
    assert err.startswith("error: ") and err.count("\n") == 1


def test_tls_and_a_token(project: Project, started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path("ca.pem")
    issued.cert_chain_pems[0].write_to_path("cert.pem")
    issued.private_key_pem.write_to_path("key.pem")
    project.write("token", "secret\n")
    project.write("wrong", "guess\n")
    certificates = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    host = started("serve", "greeter:graph", "--host", "0.0.0.0", "--port", "0", *certificates, "--token-file", "token")
    address = f"127.0.0.1:{address_of(host).rpartition(':')[2]}"
    run = ("run", f"grpcs://{address}/graph", "-i", "Ada", "--ssl-ca", "ca.pem")
    assert project.cli(*run, "--token-file", "token").out == "greeter: Hello, Ada!\n"
    for refused in (project.cli(*run), project.cli(*run, "--token-file", "wrong")):
        assert refused.code == 1 and "token" in refused.err and refused.err.count("\n") == 1
    assert project.cli("describe", f"grpcs://{address}", "--ssl-ca", "ca.pem").code == 1
    monkeypatch.setenv("AGENTMATRIX_TOKEN", "secret")
    assert project.cli(*run).out == "greeter: Hello, Ada!\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["greeter:graph", "--host", "0.0.0.0"], "insecure"),
        (["greeter:graph", "greeter:graph"], "two graphs are named 'graph'"),
        (["greeter:nothing"], "has no 'nothing'"),
        (["a/b=greeter:graph"], "'a/b' is not the name of an agent"),
        (["broken:graph"], "line 1 of"),
        ([], "langgraph.json"),
        (["table.json"], "no `graphs` table"),
        (["greeter:graph", "--token-file", "gone"], "token file gone"),
        (["greeter:graph", "--ssl-certfile", "gone.pem", "--ssl-keyfile", "gone.pem"], "gone.pem"),
        (["greeter:graph", "--host", "no.such.machine.invalid"], "no.such.machine.invalid"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(project: Project, args: list[str], words: str) -> None:
    project.write("broken.py", "1 / 0\n")
    project.write("table.json", "{}")
    with Forked(command, "serve", *args, "--port", "0") as process:
        out, err = process.communicate(60)
        assert process.wait(100) in (1, 2)
    assert out == ""
    assert words in err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_a_port_in_use_is_said(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Forked(command, "serve", "greeter:graph", "--port", str(port)) as process:
            _, err = process.communicate(60)
            assert process.wait(100) == 1
    assert str(port) in err and "in use" in err and err.count("\n") == 1


def test_a_wrong_address_is_one_sentence(project: Project, started: Start) -> None:
    address = address_of(started("serve", "greeter:graph", "--port", "0"))
    with socket.create_server(("127.0.0.1", 0)) as unused:
        down = f"127.0.0.1:{unused.getsockname()[1]}"
    for target, words in {
        f"{address}/graf": "no agent 'graf'",
        f"{down}/graph": "no host answers",
        address: "names a host and no agent",
        "no.such.machine.invalid:50051/graph": "no.such.machine.invalid",
        f"http://{address}/graph": "http://",
        "127.0.0.1:99999/graph": "not a port",
    }.items():
        outcome = project.cli("run", target, "-i", "Ada")
        assert outcome.code in (1, 2) and outcome.out == ""
        assert words in outcome.err and outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
