"""Live runs in processes of their own, which are killed while signals come, and what became of the signals."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver

from agentmatrix import CyclicGraph, get_activation
from agentmatrix import signal as signal_source
from agentmatrix.live import LiveRun
from tests.attacks.hosted import State
from tests.attacks.kit import note, read_log
from tests.forked import Forked

__all__ = ["CONFIG", "Life", "is_finished", "listener", "run_live", "saver_at", "signals_kept", "wait_for"]

CONFIG: Any = {"configurable": {"thread_id": "1"}}


def saver_at(path: str) -> SqliteSaver:
    return SqliteSaver(sqlite3.connect(path, check_same_thread=False, timeout=60))


def _hear(state: State) -> State:
    heard = get_activation().items["audio"]
    time.sleep(0.004)
    return {"done": [heard]}


def listener(checkpointer: Any = None) -> Any:
    """A graph that keeps what it hears."""
    graph = CyclicGraph(State, name="listener").add_node("hear", _hear)
    return graph.add_trigger("hear", signal_source("audio")).compile(checkpointer=checkpointer)


def run_live(graph: Any, address: str, base: str, durability: Any, numbers: range) -> None:
    """One life of a live run: sends these signals and notes the acknowledged ones, then keeps the result on disk."""
    given = None if graph.checkpointer.get_tuple(CONFIG) else {"log": f"{base}.log", "done": []}
    with LiveRun(graph, given, CONFIG, durability=durability) as run:
        for number in numbers:
            run.signal(address, number)
            note(f"{base}.ack", "ack", number)
    save_result(base, run.result()["done"])


def save_result(base: str, done: list[int]) -> None:
    """Whole or not at all, as a kill may come at any moment."""
    Path(f"{base}.part").write_text(json.dumps(done))
    os.replace(f"{base}.part", f"{base}.out")


def is_finished(base: str) -> bool:
    return os.path.exists(f"{base}.out")


def signals_kept(base: str) -> Counter[str]:
    """How many signals were acknowledged, and of these lost, taken twice or out of order."""
    done: list[int] = json.loads(Path(f"{base}.out").read_text())
    acknowledged = [number for _, _, number in read_log(f"{base}.ack")]
    known = set(acknowledged)
    return Counter(
        {
            "acknowledged": len(acknowledged),
            "lost": len(known - set(done)),
            "twice": sum(times > 1 for times in Counter(done).values()),
            "out of order": int([number for number in done if number in known] != acknowledged),
        }
    )


class Life(Forked):
    """A process that is killed, or waited for."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        super().__init__(function, *arguments)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait(60)


def wait_for(life: Life, seconds: float = 90) -> bool:
    """Wait for its end. Returns whether it came; else it is killed."""
    try:
        life.wait(seconds)
    except subprocess.TimeoutExpired:
        life.kill()
        return False
    return True
