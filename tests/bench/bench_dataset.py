"""What `refine` costs and saves, beside what one writes by hand.

    python tests/bench/bench_dataset.py [rows] [what ...]

`throughput`: a run in virtual time, where waiting takes none: batches with a barrier, `refine`, and `abatch`.
`cpu`: a row by `refine`, with output and progress file, beside a bare loop over `ainvoke`; and the driver's share where
the agent is on a host. `memory`: the peak at ten times as many rows. `start`: a million rows that are done.
Rows take several turns of two agents; how long they take is lognormal.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START

from agentmatrix import CyclicGraph, Host, RemoteAgent, arefine, refine
from agentmatrix.dataset.progress_file import ProgressFile
from agentmatrix.dataset.row import DatasetRow, InputPosition
from agentmatrix.dataset.row_reader import digest_of
from agentmatrix.dataset.settled_row import SettledRow

SLOTS = 50
ALL = ("throughput", "cpu", "memory", "start")


class State(TypedDict, total=False):
    id: int
    seconds: float
    turns: int
    done: int
    text: str


def rows(count: int, sigma: float, mean: float = 0.5) -> list[dict[str, Any]]:
    chance = random.Random(1)
    return [
        {"id": n, "seconds": mean * chance.lognormvariate(-sigma * sigma / 2, sigma), "turns": chance.randint(2, 6)}
        for n in range(count)
    ]


def build() -> Any:
    """A worker and a critic take turns on a row."""

    async def turn(state: State) -> State:
        await asyncio.sleep(state["seconds"] / state["turns"])
        return {"done": state.get("done", 0) + 1, "text": state.get("text", "") + "x"}

    def to(other: str) -> Any:
        async def route(state: State) -> str:
            return END if state["done"] >= state["turns"] else other

        return route

    graph = CyclicGraph(State)
    for name, other in (("worker", "critic"), ("critic", "worker")):
        graph.add_node(name, turn)
        graph.add_conditional_edges(name, to(other), [END, other])
    graph.add_edge(START, "worker")
    return graph.compile()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock goes on to the next timer when there is nothing else to do; threads take no time."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()

    def run_in_executor(self, executor: Executor | None, function: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        future.set_result(function(*args))
        return future


def makespan(work: Any) -> float:
    loop = VirtualLoop()
    loop.run_until_complete(work)
    loop.close()
    return loop.now


def throughput(count: int) -> None:
    graph = build()

    async def barrier(data: list[dict[str, Any]]) -> None:
        for start in range(0, len(data), SLOTS):
            await asyncio.gather(*(graph.ainvoke(row) for row in data[start : start + SLOTS]))

    async def by_rows(data: list[dict[str, Any]], order: Any = "done") -> None:
        report = await arefine(graph, data, max_concurrency=SLOTS, timeout=None, order=order)
        assert report.done == len(data)

    async def abatch(data: list[dict[str, Any]]) -> None:
        await graph.abatch(data, {"max_concurrency": SLOTS})

    for sigma in (0.3, 0.6, 1.0, 1.5):
        data = rows(count, sigma)
        refined, batches, at_once = makespan(by_rows(data)), makespan(barrier(data)), makespan(abatch(data))
        ordered = makespan(by_rows(data, "input"))
        ideal = sum(row["seconds"] for row in data) / SLOTS
        print(
            f"sigma {sigma}: refine {refined:.1f} s, batches {batches / refined:.2f} of it, "
            f"refine of abatch {refined / at_once:.3f}, in the input's order {ordered / refined:.3f}, "
            f"of the ideal {refined / ideal:.2f}"
        )


async def bare(graph: Any, data: list[dict[str, Any]]) -> None:
    """What one writes by hand: at most so many at once, nothing kept."""
    remaining, alive = iter(data), set()
    while True:
        while len(alive) < SLOTS and (row := next(remaining, None)) is not None:
            alive.add(asyncio.ensure_future(graph.ainvoke(row)))
        if not alive:
            return
        _, alive = await asyncio.wait(alive, return_when=asyncio.FIRST_COMPLETED)


def cpu_seconds(work: Callable[[], Any]) -> float:
    before = time.process_time()
    asyncio.run(work())
    return time.process_time() - before


def cpu(count: int) -> None:
    graph, data = build(), rows(count, 1.0, 0)

    async def refined(agent: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "in.jsonl")
            path.write_text("".join(json.dumps(row) + "\n" for row in data))
            await arefine(agent, path, Path(folder, "out.jsonl"), max_concurrency=SLOTS)

    def best(*works: Callable[[], Any], tries: int = 7) -> list[float]:
        """In turns, so that a busy machine is busy for all."""
        times = [[cpu_seconds(work) / count * 1e3 for work in works] for _ in range(tries)]
        return [min(column) for column in zip(*times, strict=True)]

    by_hand, by_refine = best(lambda: bare(graph, data), lambda: refined(graph))
    print(f"cpu of a row: by hand {by_hand:.2f} ms, refine {by_refine:.2f} ms, {by_refine / by_hand:.2f} of it")
    process = subprocess.Popen([sys.executable, __file__, "host"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    agent = RemoteAgent(f"{process.stdout.readline().strip()}/graph")
    asyncio.run(refined(agent))
    (remote,) = best(lambda: refined(agent))
    process.kill()
    process.wait()
    print(f"cpu of a row in the driver, the agent on a host: {remote:.2f} ms, {remote / by_refine:.2f} of local")


def serve() -> None:
    with Host({"graph": build()}) as host:
        print(host.address, flush=True)
        host.wait()


def memory(count: int) -> None:
    """Rows of 1 KB out of a generator, to a file; each size in a process of its own."""
    peaks = []
    for size in (count, 10 * count):
        ended = subprocess.run(
            [sys.executable, __file__, "peak", str(size)], capture_output=True, text=True, check=True
        )
        peaks.append(int(ended.stdout))
    print(f"peak of memory: {peaks[1] / peaks[0]:.2f} at {10 * count} rows of what it is at {count}")


def peak(count: int) -> None:
    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"length": len(columns["text"])}

    def made() -> Iterator[dict[str, Any]]:
        yield from ({"id": n, "text": "x" * 1000} for n in range(count))

    with tempfile.TemporaryDirectory() as folder:
        refine(answer, made(), Path(folder, "out.jsonl"), max_concurrency=64)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def start(count: int) -> None:
    """Begin again where all rows are done: out of a file, and out of generators."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.jsonl")
        lines = [f'{{"id": {n}}}\n' for n in range(count)]
        source.write_text(lines[0])
        place = InputPosition(number=count, offset=sum(map(len, lines)), line=count)
        settle(source, Path(folder, "out.jsonl"), place)
        settle([{"id": 0}], Path(folder, "generated.jsonl"), place)
        source.write_text("".join(lines))
        ended = subprocess.run(
            [sys.executable, __file__, "again", str(count), folder], capture_output=True, text=True, check=True
        )
        print(ended.stdout, end="")


async def empty(columns: dict[str, Any]) -> dict[str, Any]:
    return {}


def settle(first: Any, output: Path, end: InputPosition) -> None:
    """Run the first row, and write into the progress file that the others are done."""
    refine(empty, first, output)
    progress = ProgressFile(output.with_name(f"{output.name}.progress"))
    done = (
        SettledRow(DatasetRow(str(n), n, 0, {}, f"line {n + 1}", digest_of({"id": n}), end), "done")
        for n in range(1, end.number)
    )
    progress.commit(done, [], None, place=end.as_dict())
    progress.close()


def again(count: int, folder: Path) -> None:
    """In a process of its own, whose memory is measured."""

    def generated() -> Iterator[dict[str, Any]]:
        for n in range(count):
            yield {"id": n}

    async def async_generated() -> AsyncIterator[dict[str, Any]]:
        for n in range(count):
            yield {"id": n}

    refine(empty, [])
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    timed("a file that is read whole", source, output)
    timed("the same file", source, output)
    with source.open("a") as file:
        file.write(f'{{"id": {count}}}\n')
    timed("a file that has grown by a row", source, output)
    timed("a generator", generated(), folder / "generated.jsonl")
    timed("an async generator", async_generated(), folder / "generated.jsonl")


def timed(what: str, given: Any, output: Path) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    report = refine(empty, given, output)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds = time.process_time() - began
    print(f"start, {what}: {seconds:.2f} s of cpu, {megabytes:.0f} MB more; {report.asked} rows were run")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["host"]:
        return serve()
    if arguments[:1] == ["peak"]:
        return peak(int(arguments[1]))
    if arguments[:1] == ["again"]:
        return again(int(arguments[1]), Path(arguments[2]))
    count = int(arguments[0]) if arguments else 5000
    for what in arguments[1:] or ALL:
        size = {"throughput": count, "cpu": min(count, 1000), "memory": 2 * count, "start": 200 * count}[what]
        globals()[what](size)
    return None


if __name__ == "__main__":
    main()
