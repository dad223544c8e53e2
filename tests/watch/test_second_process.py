"""Runs on a host in a process of its own: watched from here, and the host killed in the middle."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix import Dag, Host, RemoteAgent, watching
from agentmatrix.errors import HostLost
from agentmatrix.watch import load
from tests.forked import Forked
from tests.watch.watched_graphs import INPUT, THREAD, model, told


def expert(folder: str) -> Any:
    """Looks, and then waits until a file is there."""
    dag = Dag(name="expert")

    def write(messages: Any) -> str:
        while not Path(folder, "go").exists():
            threading.Event().wait(0.01)
        return "written"

    dag.add_sequence([("look", model("looked")), ("write", write)])
    return dag.compile()


def serve(folder: str) -> None:
    with Host({"expert": expert(folder)}) as host:
        print(host.address, flush=True)
        host.wait()


def report(inner: Any) -> Any:
    dag = Dag(name="report")
    dag.add_sequence([("plan", lambda messages: "a plan"), ("expert", inner)])
    return dag.compile(checkpointer=InMemorySaver())


def test_a_second_process_tells_what_this_one_does(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    with watching() as local:
        report(expert(str(tmp_path))).invoke(INPUT, THREAD)
    with Forked(serve, str(tmp_path)) as process:
        agent = RemoteAgent(f"{process.stdout.readline().strip()}/expert")
        with watching() as hosted:
            report(agent).invoke(INPUT, THREAD)
    assert told(hosted.events()) == told(local.events())
    assert list(hosted.nodes) == ["plan", "expert", "expert/look", "expert/write"]
    assert hosted.summary().tokens == local.summary().tokens > 0


def test_a_host_that_dies_fails_its_node_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    dag = Dag(name="report")
    with Forked(serve, str(tmp_path)) as process:
        dag.add_sequence([("plan", lambda messages: "a plan"), ("expert", RemoteAgent(_address(process)))])
        saver = InMemorySaver()
        with watching() as run:
            errors: list[BaseException] = []

            def start() -> None:
                with pytest.raises(HostLost) as raised:
                    dag.compile(checkpointer=saver).invoke(INPUT, THREAD)
                errors.append(raised.value)

            thread = threading.Thread(target=start)
            thread.start()
            while not ("expert/write" in run.nodes and run.nodes["expert/write"].state == "running"):
                assert thread.is_alive()
                threading.Event().wait(0.01)
            process.send_signal(signal.SIGKILL)
            thread.join(100)
            assert errors
            assert {path: node.state for path, node in run.nodes.items()} == {
                "plan": "done",
                "expert": "failed",
                "expert/look": "done",
                "expert/write": "cut off",
            }
            assert run.state == "failed"
            assert "HostLost" in run.nodes["expert"].errors[0]
            (tmp_path / "go").touch()
            with Forked(serve, str(tmp_path)) as other:
                again = Dag(name="report")
                again.add_sequence([("plan", lambda messages: "a plan"), ("expert", RemoteAgent(_address(other)))])
                again.compile(checkpointer=saver).invoke(None, THREAD)
    assert run.records[-1].nodes["expert"].state == "done"
    assert run.records[-1].nodes["expert/write"].state == "done"
    assert "plan" not in run.records[-1].nodes, "what had finished does not run again"


def _address(process: Forked) -> str:
    return f"{process.stdout.readline().strip()}/expert"


def test_what_is_saved_is_there_again(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    with watching() as run:
        report(expert(str(tmp_path))).invoke(INPUT, THREAD)
    run.save(tmp_path / "run.jsonl")
    again = load(tmp_path / "run.jsonl")
    assert list(again.events()) == list(run.events())
    assert again.summary().as_json() == run.summary().as_json()
    assert again.nodes == run.nodes
    assert again._repr_html_() == run._repr_html_()


def test_a_file_that_is_no_run_says_which_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"kind": "begin", "run": "1", "path": "", "namespace": "", "at": 1.0, "data": {}}\nhello\n')
    with pytest.raises(ValueError, match="line 2 of .*run.jsonl is not of a saved run"):
        load(path)
    path.write_text('{"kind": "explode", "run": "1", "path": "", "namespace": "", "at": 1.0, "data": {}}\n')
    with pytest.raises(ValueError, match="line 1"):
        load(path)
