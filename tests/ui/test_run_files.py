"""Runs that are kept in a folder: found again after a restart, and gone on with where the checkpointer is durable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import interrupt

from agentmatrix.errors import AgentMatrixError
from agentmatrix.ui.page_server import PageServer
from tests.ui.page_client import entry, page, wait_for
from tests.watch.watched_graphs import model, one


def asker(saver: Any) -> Any:
    return one("ask", lambda messages: f"heard {interrupt('why?')}", "asker", checkpointer=saver)


def test_a_run_is_found_again_and_answered_after_a_restart(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    with sqlite.SqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        with page(entry("asker", asker(saver)), folder=tmp_path / "runs") as client:
            run = client.start("asker", text="Shall we?")
            wait_for(client, run, lambda: run.state == "asking")
            before = [json.loads(item) for item in run.items]
        with page(entry("asker", asker(saver)), folder=tmp_path / "runs") as client:
            (told,) = client.server.runs.describe()
            assert (told["id"], told["state"], told["title"], told["input"]) == (run.id, "asking", "asker", "Shall we?")
            again = client.server.runs.get(run.id)
            assert again is not None
            assert [json.loads(item) for item in again.items] == before
            assert again.drawing == run.drawing
            (question,) = again.watched.questions
            assert client.act(again, "answer", question=question.id, value="because").status_code == 200
            wait_for(client, again, lambda: again.state == "done")
            assert again.watched.transcript[-1].text == "heard because"
        with page(folder=tmp_path / "runs") as client:
            # Without its graph too: what has happened is in the file.
            (told,) = client.server.runs.describe()
            assert told["state"] == "done"
            picture = client.get(f"/api/runs/{run.id}/picture").json()
            assert "ask" in [node["path"] for node in picture["nodes"].values()]
            index = max(index for index, item in enumerate(again.items) if '"end"' in item)
            assert "heard because" in client.get(f"/api/runs/{run.id}/items/{index}").json()["data"]["output"]


def test_a_question_that_was_kept_in_memory_says_so(tmp_path: Path) -> None:
    with page(entry("asker", asker(None)), folder=tmp_path) as client:
        run = client.start("asker", text="Shall we?")
        wait_for(client, run, lambda: run.state == "asking")
    with page(entry("asker", asker(None)), folder=tmp_path) as client:
        again = client.server.runs.get(run.id)
        assert again is not None
        answer = client.act(again, "answer", question=again.watched.questions[0].id, value="because")
        assert answer.status_code == 409 and "checkpointer does not keep this question" in answer.json()["error"]


def test_more_runs_than_memory_keeps_are_in_the_folder(tmp_path: Path) -> None:
    with page(entry("plain", one("say", model("yes"))), folder=tmp_path) as client:
        client.server.runs._most = 2
        runs = []
        for number in range(4):
            runs.append(run := client.start("plain", text=f"number {number}"))
            wait_for(client, run, lambda run=run: run.state == "done")
        assert len(client.server.runs.describe()) == 4
        for run in runs:
            again = client.server.runs.get(run.id)
            assert again is not None and again.watched.transcript[-1].text == "yes"
            assert len(list(client.server.runs)) <= 3


def test_a_run_of_a_process_that_was_killed_is_cut_off(tmp_path: Path) -> None:
    with page(entry("plain", one("say", model("yes"))), folder=tmp_path) as client:
        run = client.start("plain")
        wait_for(client, run, lambda: run.state == "done")
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if '"end"' in line)
    path.write_text("".join(lines[:end]) + lines[end][:20])
    (tmp_path / "other-notes.jsonl").write_text("hello\n")
    with page(entry("plain", one("say", model("yes"))), folder=tmp_path) as client:
        (told,) = client.server.runs.describe()
        assert told["state"] == "cut off"
        again = client.server.runs.get(run.id)
        assert again is not None and again.state == "cut off"
        assert client.get("/api/runs/notes/picture").status_code == 404
        assert client.get("/api/runs/..%2f..%2fnotes/picture").status_code == 404


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentMatrixError, match="runs cannot be kept in"):
        PageServer(address="127.0.0.1:0", folder=tmp_path / "file")
