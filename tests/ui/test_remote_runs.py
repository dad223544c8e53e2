"""Runs of other processes, and of a host for its callers, on the page: read only, and never in the way of the run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentmatrix import RemoteAgent, watching
from agentmatrix.errors import AddressError
from agentmatrix.ui.page_run import PageRun
from agentmatrix.watch.page_connection import token_path
from tests.forked import Forked, command
from tests.ui.page_client import PageClient, entry, page, wait_for
from tests.watch.watched_graphs import INPUT, THREAD, asks, deep, fails, model, one, panel, plain

ROOT = Path(__file__).parents[2]
SCRIPT = """
from langgraph.checkpoint.memory import InMemorySaver
from agentmatrix import Dag
from langgraph.types import interrupt

inner = Dag(name="inner").add_node("ask", lambda messages: f"heard {interrupt('why?')}")
graph = Dag(name="outer").add_node("inner", inner).compile(checkpointer=InMemorySaver())
graph.invoke({"messages": "hi"}, {"configurable": {"thread_id": "t1"}})
print("paused", flush=True)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[PageClient]:
    with page(entry("plain", one("say", model("yes")))) as client:
        yield client


def run_of(client: PageClient, title: str) -> PageRun:
    """The run of a graph of this name, once it is there."""
    for _ in client.messages(""):
        for run in client.server.runs:
            if run.title == title:
                return run
    raise AssertionError("the page has ended")


def script(folder: Path, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def test_a_script_is_seen_by_a_variable_alone(client: PageClient, tmp_path: Path) -> None:
    done = script(tmp_path, SCRIPT, AGENTMATRIX_UI=client.server.base_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "paused\n", "")
    run = run_of(client, "outer")
    assert run.source.startswith("script.py, process ")
    assert run.thread == "t1"
    wait_for(client, run, lambda: run.state == "asking")
    assert {path: node.state for path, node in run.watched.nodes.items()} == {"inner": "asking", "inner/ask": "asking"}
    assert run.drawing is not None and [node.id for node in run.drawing.walk() if "ask" in node.id] == ["inner|ask"]
    (question,) = run.watched.questions
    for action, given in [
        ("answer", {"question": question.id, "value": "x"}),
        ("say", {"text": "x"}),
        ("go-on", {}),
        ("fork", {"checkpoint": "x"}),
        ("stop", {}),
    ]:
        answer = client.act(run, action, **given)
        assert answer.status_code == 409, action
        assert "read only" in answer.json()["error"] or action == "stop"


def test_a_script_whose_page_is_not_there_runs_all_the_same(tmp_path: Path) -> None:
    done = script(tmp_path, SCRIPT, AGENTMATRIX_UI="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, "paused\n")
    assert done.stderr.count("the page at http://127.0.0.1:1 does not take the runs of this process") == 1
    done = script(tmp_path, SCRIPT, AGENTMATRIX_UI="http://gpu-box:8321")
    assert (done.returncode, done.stdout) == (0, "paused\n")
    assert "its page needs https" in done.stderr


def test_a_killed_process_is_cut_off(client: PageClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"kind": "begin", "run": "1", "path": "", "namespace": "", "at": 1.0, "data": {"name": "killed"}},
        {"kind": "begin", "run": "1", "path": "a", "namespace": "a:1", "at": 1.0, "data": {}},
    ]
    client.server.remote_runs.take("p", "elsewhere", lines)
    run = run_of(client, "killed")
    assert run.state == "running"
    client.server.remote_runs.expire()
    assert run.state == "running"
    monkeypatch.setattr("agentmatrix.ui.remote_runs.SILENT_SECONDS", -1.0)
    client.server.remote_runs.expire()
    assert run.state == "cut off"
    assert '"rest"' in run.items[-1]


@pytest.mark.parametrize("shape", [deep, asks, fails, plain, panel])
def test_a_watched_block_shows_the_same_there(client: PageClient, shape: Any) -> None:
    graph = shape(lambda inner: inner)
    with watching(ui=client.server.url, tokens=True, values=True) as here:
        try:
            graph.invoke(INPUT, THREAD)
        except ValueError:
            pass
    (there,) = [run for run in client.server.runs if run.title == graph.get_name()]
    wait_for(client, there, lambda: not there.is_at_work)
    assert there.state == here.state
    assert {path: node.state for path, node in there.watched.nodes.items()} == {
        path: node.state for path, node in here.nodes.items() if node.state not in ("waiting", "skipped")
    }
    assert [(line.path, line.text) for line in there.watched.transcript] == [
        (line.path, line.text) for line in here.transcript
    ]


def test_reports_need_the_token_and_are_checked(client: PageClient) -> None:
    url = f"{client.server.base_url}/api/reports"
    report = {"process": "p", "source": "s", "lines": []}
    assert httpx.post(url, json=report, trust_env=False).status_code == 403
    headers = {"authorization": f"Bearer {client.server.token}"}
    for lines in (None, "x", [{"kind": "explode"}], [1], [{"drawing": 1, "graph": "x"}]):
        answer = httpx.post(url, json={**report, "lines": lines}, headers=headers, trust_env=False)
        assert answer.status_code == 422, lines


def test_the_token_is_for_the_same_user_only(client: PageClient) -> None:
    path = token_path(client.server.port)
    assert path.read_text() == client.server.token
    assert path.stat().st_mode & 0o077 == 0


def test_an_address_that_is_no_page_is_refused() -> None:
    for url in ("8321", "ftp://127.0.0.1", "http://gpu-box:8321"):
        with pytest.raises(AddressError), watching(ui=url):
            pass


def test_a_served_graph_is_seen_whoever_calls_it_and_run_from_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTMATRIX_UI", "")
    (tmp_path / "desk.py").write_text(
        "from agentmatrix import Dag\n"
        "inner = Dag(name='inner').add_node('say', lambda messages: 'hello')\n"
        "graph = Dag(name='desk').add_node('inner', inner).compile()\n"
    )
    with Forked(command, "serve", "desk:graph", "--port", "0", "--ui", "127.0.0.1:0") as process:
        address = process.stdout.readline().rpartition(" ")[2].strip()
        url = process.stdout.readline().removeprefix("the page is at ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+", url)
        result = RemoteAgent(f"{address}/graph").invoke({"messages": "hi"})
        assert result["messages"][-1].text == "hello"
        with httpx.Client(base_url=url.partition("/?")[0], trust_env=False, timeout=100) as http:
            http.get(url).raise_for_status()
            (told,) = _runs(http, lambda runs: any(run["state"] == "done" for run in runs))
            assert (told["title"], told["source"]) == ("desk", "for callers of this host")
            picture = http.get(f"/api/runs/{told['id']}/picture").json()
            assert "inner/say" in [node["path"] for node in picture["nodes"].values()]
            origin = {"origin": url.partition("/?")[0]}
            answer = http.post("/api/runs", json={"graph": "graph", "text": "hi"}, headers=origin)
            assert answer.status_code == 201, answer.text
            runs = _runs(http, lambda runs: len(runs) > 1 and all(run["state"] == "done" for run in runs))
            assert len(runs) == 2, "a run of the page is not told of twice"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def _runs(http: httpx.Client, condition: Any) -> list[dict[str, Any]]:
    import json

    with http.stream("GET", "/api/events?run=") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and "runs" in (told := json.loads(line[6:])) and condition(told["runs"]):
                return list(told["runs"])
    raise AssertionError("the page has ended")
