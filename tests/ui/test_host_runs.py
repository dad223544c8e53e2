"""Runs on a host that somebody else has started, on the page of `agentmatrix ui host:port`, with the host's token."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agentmatrix import RemoteAgent
from agentmatrix.cli.host_options import HostOptions
from agentmatrix.cli.page_targets import page_graphs, shared_runs
from tests.forked import Forked, command
from tests.ui.page_client import page

DESK = """
from agentmatrix import Dag
inner = Dag(name="inner").add_node("say", lambda messages: "hello")
graph = Dag(name="desk").add_node("inner", inner).compile()
"""


def test_the_runs_of_other_callers_are_seen_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk.py").write_text(DESK)
    (tmp_path / "token").write_text("a token of some length")
    arguments = ("serve", "desk:graph", "--port", "0", "--share-runs", "--token-file", "token")
    with Forked(command, *arguments) as process:
        address = process.stdout.readline().rpartition(" ")[2].strip()
        options = HostOptions(token_file=tmp_path / "token")
        agent = RemoteAgent(f"{address}/graph", token=tmp_path / "token")
        # Before the page looks, and while it does.
        agent.invoke({"messages": "before"})
        graphs = page_graphs([address], options)
        assert [graph.name for graph in graphs] == ["graph"]
        (host,) = shared_runs([address], options)
        with page(*graphs) as client:
            host.start(client.server.remote_runs)
            agent.invoke({"messages": "meanwhile"})
            for _ in client.messages(""):
                runs = list(client.server.runs)
                if len(runs) == 2 and all(run.state == "done" for run in runs):
                    break
            for run, text in zip(runs, ("before", "meanwhile"), strict=True):
                assert run.source == f"at {address}"
                assert [line.text for line in run.watched.transcript] == [text, "hello"]
                assert run.drawing is not None and "inner|say" in [node.id for node in run.drawing.walk()]
                refused = client.act(run, "say", text="x")
                assert refused.status_code == 409 and "read only" in refused.json()["error"]
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0, "a page that looks holds up no drain"
