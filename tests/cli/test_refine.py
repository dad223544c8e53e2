"""`agentmatrix refine` as a person uses it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentmatrix import Host, RemoteAgent
from tests.cli.conftest import Project
from tests.forked import Forked

ANSWERS = """
import asyncio, os
from pathlib import Path
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState
from langgraph.types import interrupt
from agentmatrix import Dag
from agentmatrix.testing import ScriptedChatModel

ANSWER = 42

def shout(messages):
    return messages[-1].text.upper()

def say(messages):
    Path("asked").open("a").write("x")
    if messages[-1].text == "bad" and not Path("mended").exists():
        raise ValueError("no answer to bad")
    return "so " + messages[-1].text

graph = Dag(MessagesState).add_node("say", ScriptedChatModel(say, cycle=True, usage=True)).compile()
careful = Dag(MessagesState).add_node("ask", lambda state: {"messages": interrupt("sure?")}).compile()

async def wait(row):
    with open("begun", "a") as file:
        file.write(f"{row['id']}\\n")
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return {}

def text_of(row, state):
    return {"id": row["id"], "text": state["messages"][-1].text}

def is_odd(row):
    return row["id"] % 2 == 1
"""


@pytest.fixture
def rows(project: Project) -> Project:
    project.write("answers.py", ANSWERS)
    lines = [{"id": n, "question": "bad" if n == 3 else f"question {n}"} for n in range(6)]
    project.write("in.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return project


LINE = ("refine", "answers.py:graph", "in.jsonl", "-o", "out.jsonl", "-i", "messages=question")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_line_goes_on(rows: Project) -> None:
    first = rows.cli(*LINE)
    assert (first.code, first.out) == (1, "")
    assert first.err.splitlines()[-1] == (
        "6 rows: 5 done, 1 failed; 25 tokens; the first that failed is line 4 (id '3'): ValueError: no answer to bad; "
        "--failures prints the rows that are not done, --retry-failed runs them again; out.jsonl"
    )
    assert len(read(rows.folder / "out.jsonl")) == 5
    again = rows.cli(*LINE)
    assert again.code == 1 and "nothing was to be run" in again.err
    assert len((rows.folder / "asked").read_text()) == 6
    (failed,) = map(json.loads, rows.cli(*LINE, "--failures").out.splitlines())
    assert (failed["id"], failed["name"], failed["error_type"], failed["error"], failed["attempts"]) == (
        *("3", "line 4", "ValueError"),
        *("no answer to bad", 1),
    )
    (rows.folder / "mended").touch()
    last = rows.cli(*LINE, "--retry-failed")
    assert (last.code, len(read(rows.folder / "out.jsonl"))) == (0, 6)
    assert len((rows.folder / "asked").read_text()) == 7
    assert rows.cli(*LINE, "--restart").code == 0
    assert len((rows.folder / "asked").read_text()) == 13


def test_a_preview_is_printed_and_writes_nothing(rows: Project) -> None:
    shown = rows.cli(*LINE, "--limit", "2", "--result", "answers.py:text_of")
    assert (shown.code, sorted(map(json.loads, shown.out.splitlines()), key=str)) == (
        0,
        [{"id": 0, "text": "so question 0"}, {"id": 1, "text": "so question 1"}],
    )
    preview = "a preview, no file was written: the same line without --limit writes out.jsonl"
    assert shown.err.splitlines()[-1].endswith(preview)
    assert not list(rows.folder.glob("out*"))
    shown = rows.cli(*LINE[:3], *LINE[5:], "--limit", "1")
    assert shown.err.splitlines()[-1].endswith("no file was written: give --output instead of --limit")


def test_functions_numbers_and_the_report_as_json(rows: Project) -> None:
    done = rows.cli(
        *(*LINE, "--json", "--result", "answers:text_of", "--where", "answers:is_odd", "--order", "input"),
        *("--price", "scripted=1,2", "--max-attempts", "1", "--max-concurrency", "2"),
    )
    report = json.loads(done.out.splitlines()[-1])
    assert (report["type"], report["done"], report["failed"], report["filtered"], report["total"]) == (
        *("report", 2, 1),
        *(3, 3),
    )
    assert report["cost"] == pytest.approx(sum(report["usage"]["scripted"][i] * (1, 2)[i] for i in (0, 1)) / 1_000_000)
    assert read(rows.folder / "out.jsonl") == [{"id": 1, "text": "so question 1"}, {"id": 5, "text": "so question 5"}]


def test_rows_come_from_stdin(rows: Project) -> None:
    line = ["refine", "answers.py:shout", "-", "-o", "out.csv", "-i", "messages=text", "--result", "answers.py:text_of"]
    assert rows.cli(*line, stdin='{"id": 1, "text": "hello"}\n').code == 0
    assert (rows.folder / "out.csv").read_text().splitlines() == ["id,text", "1,HELLO"]


def test_wrong_usage_is_a_sentence(rows: Project) -> None:
    for args, sentence in (
        (LINE[:3], "say where the rows go: --output"),
        ((*LINE, "-i", "messages"), "--input is KEY=COLUMN, not 'messages'"),
        ((*LINE, "--price", "a=b"), "--price is MODEL=INPUT,OUTPUT, two numbers, not a=b"),
        ((*LINE, "--max-concurrency", "0"), "--max-concurrency is a whole number from 1, not 0"),
        ((*LINE, "--result", "answers.py:text"), "did you mean 'text_of'?"),
        (
            (*LINE, "--result", "answers.py:nope"),
            "answers.py has no 'nope'; it has shout, say, wait, text_of, is_odd\n",
        ),
        ((*LINE, "--accept", "answers.py"), "'answers.py' names no function: write module:attribute or path.py:"),
        ((*LINE, "--where", "answers.py:ANSWER"), "answers.py:ANSWER is of type int, not a function"),
        ((*LINE, "--context", "{"), "--context is not JSON"),
        (("refine", "answers.py:graph", "no.jsonl", "-o", "out.jsonl"), "there is no file no.jsonl"),
        (("refine", "answers.py:graph", "in.jsonl", "-o", "in.jsonl"), "in.jsonl is input and output"),
        (
            ("refine", "answers.py:graph", "in.jsonl", "-o", "out.jsonl"),
            "say which is which: --input messages=COLUMN",
        ),
        ((*LINE[:4], "none.jsonl", "--failures"), "there is no progress file none.jsonl.progress"),
    ):
        outcome = rows.cli(*args)
        assert outcome.code == 2, outcome
        assert outcome.err.startswith("error: ") and sentence in outcome.err, outcome
    assert rows.cli(*LINE, "--max-concurrency", "many").code == 2
    assert not (rows.folder / "asked").exists()
    rows.cli(*LINE)
    refused = rows.cli(*LINE, "--repetitions", "2")
    assert "repetitions was 1 and is 2 since the first 6 rows of out.jsonl: --restart, or give another" in refused.err


def test_questions_are_a_code_of_their_own(rows: Project) -> None:
    rows.write(
        "asking.py",
        """
        from langgraph.checkpoint.memory import InMemorySaver
        from answers import careful
        saver = InMemorySaver()
        graph = careful.copy({"checkpointer": saver})
        """,
    )
    line = ("refine", "asking:graph", "in.jsonl", "-o", "out.jsonl", "-i", "messages=question")
    asked = rows.cli(*line)
    assert asked.code == 3 and "6 paused" in asked.err
    questions = [json.loads(text) for text in rows.cli(*line, "--failures").out.splitlines()]
    assert {json.loads(question["error"])[0]["value"] for question in questions} == {"sure?"}
    rows.write("said.jsonl", "".join(json.dumps({"id": q["id"], "answer": "yes"}) + "\n" for q in questions))
    assert rows.cli(*line, "--answers", "said.jsonl").code == 0
    assert {record["messages"][-1]["content"] for record in read(rows.folder / "out.jsonl")} == {"yes"}


def test_a_remote_graph_and_several_hosts(rows: Project) -> None:
    def shout(messages):
        return messages[-1].text.upper()

    with Host({"shout": shout}) as one, Host({"shout": shout}) as two:
        targets = f"{one.address}/shout,{two.address}/shout"
        line = ("refine", targets, "in.jsonl", "-o", "out.jsonl", "-i", "messages=question")
        assert rows.cli(*line).code == 0
        assert RemoteAgent(f"{one.address}/shout").invoke({"messages": "x"})["messages"][-1].text == "X"
    assert {record["messages"][-1]["content"] for record in read(rows.folder / "out.jsonl")} >= {"QUESTION 1", "BAD"}


def begun(project: Project, process: Forked, count: int) -> None:
    """Until so many rows are under way."""
    path = project.folder / "begun"
    patience = time.monotonic() + 100
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_a_terminal_shows_a_line_that_is_kept_up_to_date(rows: Project) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agentmatrix", "refine", "answers.py:wait", "in.jsonl", "-o", "out.jsonl"],
        cwd=rows.folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm", "COLUMNS": "120"},
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    # A terminal that is closed at the other end says so by an error.
    with contextlib.suppress(OSError):
        while block := os.read(ours, 4096):
            shown += block
            if b"0 of 6 rows" in shown:
                (rows.folder / "go").touch()
    os.close(ours)
    assert process.wait(100) == 0
    assert "0 of 6 rows, 0 rows/s" in shown.decode() and "6 rows: 6 done; out.jsonl" in shown.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_rows_end(rows: Project, number: int) -> None:
    process = rows.start("refine", "answers.py:wait", "in.jsonl", "-o", "out.jsonl", "--max-concurrency", "2")
    begun(rows, process, 2)
    process.send_signal(number)
    (rows.folder / "go").touch()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "6 rows: 2 done, 4 left" in err and "interrupted; the same line goes on" in err
    assert [record["id"] for record in read(rows.folder / "out.jsonl")] == [0, 1]


def test_the_second_signal_ends_them(rows: Project) -> None:
    process = rows.start("refine", "answers.py:wait", "in.jsonl", "-o", "out.jsonl", "--max-concurrency", "2")
    begun(rows, process, 2)
    # Two of one kind might arrive as one.
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130 and "6 rows: 6 left" in err
    (rows.folder / "go").touch()
    assert rows.cli("refine", "answers.py:wait", "in.jsonl", "-o", "out.jsonl").code == 0


def test_the_grace_is_bounded(rows: Project) -> None:
    process = rows.start("refine", "answers.py:wait", "in.jsonl", "-o", "out.jsonl", "--grace", "0.2")
    begun(rows, process, 6)
    process.send_signal(signal.SIGTERM)
    assert "6 rows: 6 left" in process.communicate(timeout=100)[1]
    assert process.returncode == 130
