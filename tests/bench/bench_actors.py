"""What a message to an actor costs, beside the two saver calls that it makes, and what it costs as the staff grows.

    python tests/bench/bench_actors.py [sizes of the staff ...]

Each key is hired and reads one message over a sqlite saver: in memory, in a file, and in a file whose commits do not
wait for the disk (`PRAGMA synchronous=NORMAL`). Then a second run on the thread sends one more message to each of a
hundred keys: what that saves, in bytes and commits, depends on the messages and not on the staff. At last two actors
write to each other: the thousandth message costs what the first does. Trust the ratios: one message is one checkpoint
of its actor and one write of the graph, which is what "2 saver calls" times alone.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypedDict

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command, Send

sys.path.insert(0, str(Path(__file__).parents[2]))
from agentmatrix import CyclicGraph, get_activation

THREAD: Any = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}, "max_concurrency": 8}
LATER = 100


class State(TypedDict, total=False):
    keys: int


class Employee(TypedDict, total=False):
    word: str
    left: int


def reads(state: Employee) -> Any:
    if not state.get("left"):
        return None
    other = "bob" if get_activation().key == "ann" else "ann"
    return Command(goto=Send(f"staff/{other}", {"word": "and you?", "left": state["left"] - 1}))


def firm(keys: int, saver: Any) -> Any:
    """Sends one message to each of so many keys, or lets two talk."""
    graph = CyclicGraph(State, max_rounds=1_000_000)
    graph.add_actors("staff", reads, state=Employee, max_actors=keys)
    graph.add_node(
        "begin",
        lambda state: Command(goto=[Send(f"staff/{n}", {"word": "start"}) for n in range(state.get("keys", 0))]),
    )
    graph.add_edge("__start__", "begin")
    return graph.compile(checkpointer=saver)


class Measured(SqliteSaver):
    """Counts what it keeps, in bytes, and its commits."""

    kept = commits = 0

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        connection.set_trace_callback(self._trace)

    def _trace(self, statement: str) -> None:
        self.commits += statement == "COMMIT"

    def put(self, config: Any, checkpoint: Any, *rest: Any) -> Any:
        self.kept += len(self.serde.dumps_typed(checkpoint)[1])
        return super().put(config, checkpoint, *rest)

    def put_writes(self, config: Any, writes: Any, *rest: Any) -> None:
        self.kept += sum(len(self.serde.dumps_typed(value)[1]) for _, value in writes)
        super().put_writes(config, writes, *rest)


def saver_calls(saver: SqliteSaver, count: int) -> float:
    """Milliseconds for one checkpoint and one write, each small."""
    began = perf_counter()
    for number in range(count):
        config = {"configurable": {"thread_id": "other", "checkpoint_ns": f"staff/{number}"}}
        at = saver.put(config, {**empty_checkpoint(), "channel_values": {"word": "start"}}, {"step": 1}, {})
        saver.put_writes(at, [("word", "start")], str(number))
    return (perf_counter() - began) / count * 1e3


def measure(sizes: list[int], place: str) -> None:
    times: list[float] = []
    for keys in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = ":memory:" if place == "memory" else str(Path(folder, "db"))
            with SqliteSaver.from_conn_string(path) as saver:
                if place == "normal":
                    saver.conn.execute("PRAGMA synchronous=NORMAL")
                graph = firm(keys, saver)
                began, worked = perf_counter(), process_time()
                graph.invoke({"keys": keys}, THREAD)
                wall, cpu = (
                    (now - then) / keys * 1e3 for now, then in ((perf_counter(), began), (process_time(), worked))
                )
                raw = saver_calls(saver, min(keys, 1_000))
                counting = Measured(saver.conn)
                firm(keys, counting).invoke({"keys": min(LATER, keys)}, THREAD)
        times.append(cpu * keys)
        print(
            f"{place:6} {keys:7,} keys  {wall:6.2f} ms a message  {cpu:5.2f} ms of CPU  {raw:5.2f} ms for 2 saver calls"
            f" (x {wall / raw:4.1f})  later {counting.kept / min(LATER, keys):6,.0f} bytes and"
            f" {counting.commits / min(LATER, keys):4.2f} commits a message",
            flush=True,
        )
    if len(sizes) > 1:
        print(f"{'':6} exponent {math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0]):.2f}")


def talk(messages: int) -> None:
    """Two actors, one message after the other: what a message costs by then."""
    stamps: list[float] = []

    class Timed(SqliteSaver):
        def put_writes(self, *args: Any) -> None:
            super().put_writes(*args)
            stamps.append(perf_counter())

    with SqliteSaver.from_conn_string(":memory:") as saver:
        graph = firm(2, Timed(saver.conn))
        first = Send("staff/ann", {"word": "hello", "left": messages})
        graph.invoke(Command(goto=first), THREAD)
    tenth = max(1, messages // 10)
    begin, end = ((b - a) / tenth * 1e3 for a, b in ((stamps[0], stamps[tenth]), (stamps[-tenth - 1], stamps[-1])))
    print(f"talk   {messages:7,} messages, one after the other: {begin:.2f} ms at first, {end:.2f} ms at last")


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or [100, 1_000, 10_000]
    for place in ("memory", "file", "normal"):
        measure(sizes, place)
    talk(min(max(20, sizes[-1] // 5), 2_000))


if __name__ == "__main__":
    main()
