"""Live runs in processes that are killed: what was acknowledged is consumed once and in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

from agentmatrix.live import LiveRun
from tests.forked import Forked
from tests.live.triggered_graphs import above, listener, run_live, serve


def process(*arguments: str) -> Forked:
    """A second process that runs a listener, or serves some, with its standard input and output."""
    return Forked(run_live, *arguments) if arguments else Forked(serve)


def say(caller: Forked, *words: str) -> list[str]:
    """Sends signals one after the other; returns those that were acknowledged before the process ended."""
    taken = []
    for word in words:
        try:
            caller.stdin.write(f"{word}\n")
            caller.stdin.flush()
        except BrokenPipeError:
            break
        if not (line := caller.stdout.readline()).startswith("taken "):
            break
        taken.append(line.removeprefix("taken ").strip())
    return taken


def result(address: str, folder: Path, way: str) -> list[str]:
    """What the run has heard in the end, by a new process that goes on with it."""
    with process(address, str(folder), way) as caller:
        out, errors = caller.communicate(60)
    assert out.startswith("result "), errors
    return out.removeprefix("result ").strip().split(",")


def heard(folder: Path) -> list[str]:
    return (folder / "heard").read_text().split()


@pytest.fixture(params=["local", "remote"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "local":
        yield "local"
    else:
        with process() as host:
            yield host.stdout.readline().strip()


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_killed_parent(tmp_path: Path, address: str, way: str) -> None:
    with process(address, str(tmp_path), way) as caller:
        taken = say(caller, "a", "b", "c", "d")
        caller.send_signal(signal.SIGKILL)
        caller.wait(100)
    assert taken == ["a", "b", "c", "d"]
    assert result(address, tmp_path, way) == taken


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_parent_that_dies_in_a_node(tmp_path: Path, way: str) -> None:
    with process("local", str(tmp_path), way) as caller:
        taken = say(caller, "a", "b", "die", "late")
        assert caller.wait(100) == -signal.SIGKILL
    assert taken[:2] == ["a", "b"]
    # What was saved in the last moment is consumed as well, also where nobody could be told any more.
    consumed = result("local", tmp_path, way)
    assert consumed in (["a", "b", "die"], ["a", "b", "die", "late"])
    assert consumed[: len(taken)] == taken
    assert heard(tmp_path)[:2] == ["a", "b"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_killed_host(tmp_path: Path, way: str) -> None:
    with process() as host:
        with process(host.stdout.readline().strip(), str(tmp_path), way) as caller:
            taken = say(caller, "a", "b", "c")
            host.send_signal(signal.SIGKILL)
            _, errors = caller.communicate(30)
    assert "HostLost" in errors and taken == ["a", "b", "c"]
    with process() as host:
        assert result(host.stdout.readline().strip(), tmp_path, way) == taken


def wait_for_signals() -> None:
    """A sync run that nobody sends anything."""
    with LiveRun(above(listener()), {"heard": []}) as run:
        run.signal("panel/audio", 1)
        print("waiting", flush=True)
        run.result()


def test_ctrl_c_ends_a_sync_run_that_waits() -> None:
    with Forked(wait_for_signals) as caller:
        assert caller.stdout.readline() == "waiting\n"
        caller.send_signal(signal.SIGINT)
        _, errors = caller.communicate(10)
        assert "KeyboardInterrupt" in errors and caller.wait(100) not in (0, None)
