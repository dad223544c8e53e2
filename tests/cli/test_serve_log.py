"""What `agentmatrix serve` shows: its log, its settings from the environment, its metrics."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from agentmatrix import RemoteAgent
from tests.cli.conftest import Project
from tests.cli.test_serve import address_of, end, wait_for
from tests.forked import Forked, command

Start = Callable[..., Forked]

TALKER = """
import logging
from agentmatrix.testing import ScriptedChatModel

def talk(messages):
    logging.getLogger("talker").info("heard %d messages", len(messages))
    logging.getLogger("httpx").info("HTTP Request: POST https://api.example/?key=secret")
    return "yes"

def fail(messages):
    raise ValueError("CUDA out of memory")

model = ScriptedChatModel("one two three", cycle=True, usage=True)
"""

SLOW_START = """
import asyncio
from contextlib import asynccontextmanager
from langgraph.graph import START, MessagesState, StateGraph

@asynccontextmanager
async def lifespan(host):
    open("entered", "w").close()
    try:
        await asyncio.sleep(600)
    finally:
        open("left", "w").close()
    yield

def talk(messages):
    return "yes"
"""


def test_json_has_an_object_for_each_line(project: Project, started: Start) -> None:
    project.write("talker.py", TALKER)
    host = started("serve", "talker:talk", "talker:fail", "--port", "0", "--log-format", "json")
    address = address_of(host)
    RemoteAgent("talk", url=address).invoke({"messages": "a private question"}, {"configurable": {"thread_id": "7"}})
    with pytest.raises(ValueError, match="CUDA"):
        RemoteAgent("fail", url=address).invoke({"messages": "a private question"})
    code, log = end(host, signal.SIGTERM)
    lines = [json.loads(line) for line in log.splitlines()]
    assert code == 0 and "private" not in log and "secret" not in log
    run = next(line for line in lines if line["logger"] == "agentmatrix.runs")
    assert (run["level"], run["agent"], run["outcome"], run["thread_id"]) == ("info", "talk", "ok", "7")
    assert run["seconds"] > 0 and run["bytes_in"] > 0
    assert any(line["logger"] == "talker" and line["message"] == "heard 1 messages" for line in lines)
    (failed,) = [line for line in lines if line["level"] == "error"]
    assert "CUDA out of memory" in failed["exception"] and "Traceback" in failed["exception"]
    said = [line["message"] for line in lines]
    for words in ("serving talk, fail at", "has connected from", "received SIGTERM", "draining", "stopped serving"):
        assert any(words in message for message in said), words


def test_the_level_is_chosen(project: Project, started: Start) -> None:
    project.write("talker.py", TALKER)
    host = started("serve", "talker:talk", "--port", "0", "--log-level", "warning")
    RemoteAgent("talk", url=address_of(host)).invoke({"messages": "hi"})
    assert end(host, signal.SIGTERM) == (0, "")


def test_options_come_from_the_environment(project: Project, started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("talker.py", TALKER)
    monkeypatch.setenv("AGENTMATRIX_PORT", "0")
    monkeypatch.setenv("AGENTMATRIX_LOG_FORMAT", "json")
    monkeypatch.setenv("AGENTMATRIX_MAX_RUN", "3")
    monkeypatch.setenv("AGENTMATRIX_CHECKPOINTER", "sqlite:///runs.db")
    host = started("serve", "talker:talk")
    assert not address_of(host).endswith(":50051")
    _, log = end(host, signal.SIGTERM)
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert "the variable AGENTMATRIX_MAX_RUN belongs to no option; did you mean AGENTMATRIX_MAX_RUNS?" in messages
    assert (project.folder / "runs.db").exists()


def test_a_wrong_setting_names_its_variable(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMATRIX_PORT", "tcp://10.0.0.1:50051")
    outcome = project.cli("serve", "greeter:graph")
    assert outcome.code == 2 and "AGENTMATRIX_PORT" in outcome.err


def test_prometheus_reads_what_the_runs_cost(project: Project, started: Start) -> None:
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="the extra metrics is not installed")
    project.write("talker.py", TALKER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    host = started("serve", "talker:model", "talker:fail", "--port", "0", "--metrics", where)
    address = address_of(host)
    RemoteAgent("model", url=address).invoke({"messages": "hi"})
    with pytest.raises(ValueError, match="CUDA"):
        RemoteAgent("fail", url=address).invoke({"messages": "hi"})
    with pytest.raises(LookupError):
        RemoteAgent("made-up", url=address).invoke({"messages": "hi"})
    end(started("run", f"{address}/model", "-i", "hi"), signal.SIGCONT)  # another process, so that all of this is seen
    with urllib.request.urlopen(f"http://{where}/metrics") as answer:
        samples = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    text = "\n".join(samples)
    assert 'agentmatrix_runs_ended_total{agent="fail"' in text and 'outcome="failed"' in text
    assert 'agentmatrix_run_duration_seconds_count{agent="model"' in text
    assert 'agentmatrix_run_size_bytes_total{agent="model",direction="out"' in text
    assert 'agentmatrix_run_tokens_total{agent="model"' in text and 'type="output"' in text
    assert 'error_type="AgentNotFound"' in text and "made-up" not in text
    assert all(float(line.rpartition(" ")[2]) == 0 for line in samples if line.startswith("agentmatrix_runs_active"))


HOLDER = """
import os
import time

def hold(messages):
    open("holding", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.02)
    return "done"
"""


def test_one_run_at_a_time_and_who_waits_is_told(project: Project, started: Start) -> None:
    project.write("holder.py", HOLDER)
    address = address_of(started("serve", "holder:hold", "--port", "0", "--concurrency", "hold=1"))
    first = started("run", f"{address}/hold", "-i", "hi")
    wait_for(project.folder / "holding", first)
    second = started("run", f"{address}/hold", "-i", "hi")
    assert second.stderr is not None
    assert second.stderr.readline() == f"waiting for {address}/hold: place 1 in its queue\n"
    project.write("go", "")
    assert [process.communicate(timeout=100)[0] for process in (first, second)] == ["hold: done\n"] * 2


@pytest.mark.parametrize("given", [["many"], ["hold=0"], ["1", "hold=2"], ["hold="]])
def test_a_concurrency_that_is_none_is_one_sentence(project: Project, given: list[str]) -> None:
    options = [word for text in given for word in ("--concurrency", text)]
    outcome = project.cli("serve", "greeter:graph", "--port", "0", *options)
    assert outcome.code == 2 and "write expert=1" in outcome.err and outcome.err.count("\n") == 1


@pytest.mark.parametrize(("address", "words"), [("9464", "no address"), ("127.0.0.1:99999", "no address"), ("", "")])
def test_metrics_that_cannot_be_offered_are_one_sentence(project: Project, address: str, words: str) -> None:
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="the extra metrics is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = address or f"127.0.0.1:{taken.getsockname()[1]}"
        with Forked(command, "serve", "greeter:graph", "--port", "0", "--metrics", address) as process:
            _, err = process.communicate(60)
            assert process.wait(100) in (1, 2)
    assert address in err and words in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_host_that_is_still_loading(project: Project, started: Start, by: signal.Signals) -> None:
    project.write("slow_start.py", SLOW_START)
    host = started("serve", "slow_start:talk", "--port", "0", "--lifespan", "slow_start:lifespan")
    wait_for(project.folder / "entered", host)
    code, log = end(host, by)
    assert code == 0 and (project.folder / "left").exists()
    assert "Traceback" not in log


def test_an_error_of_the_lifespan_is_one_sentence(project: Project) -> None:
    project.write(
        "broken.py",
        """
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def lifespan(host):
            raise OSError("the weights are not there")
            yield
        """,
    )
    with Forked(command, "serve", "greeter:graph", "--port", "0", "--lifespan", "broken.py:lifespan") as process:
        out, err = process.communicate(60)
        assert process.wait(100) == 1
    where = f"(line 6 of {Path('broken.py').resolve()})"
    assert (out, err.splitlines()[-1]) == (
        "",
        f"error: at the start of the host, in its lifespan 'lifespan' {where}: OSError: the weights are not there",
    )
