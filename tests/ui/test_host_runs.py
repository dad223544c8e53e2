"""Runs on a host that somebody else has started, on the page of `agentmatrix ui host:port`, with the host's token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agentmatrix import RemoteAgent
from agentmatrix.cli.host_options import HostOptions
from agentmatrix.cli.page_targets import page_graphs, shared_runs
from tests.ui.page_client import page

ROOT = Path(__file__).parents[2]
DESK = """
from agentmatrix import Dag
inner = Dag(name="inner").add_node("say", lambda messages: "hello")
graph = Dag(name="desk").add_node("inner", inner).compile()
"""


def test_the_runs_of_other_callers_are_seen_read_only(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(DESK)
    (tmp_path / "token").write_text("a token of some length")
    command = ["serve", "desk:graph", "--port", "0", "--share-runs", "--token-file", "token"]
    process = subprocess.Popen(
        [sys.executable, "-m", "agentmatrix", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
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
            process.terminate()
            assert process.wait(60) == 0, "a page that looks holds up no drain"
    finally:
        process.kill()
        process.wait(60)
