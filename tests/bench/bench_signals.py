"""What a live signal costs, beside what one does without signals: `ainvoke` a graph of one node for each input.

    python tests/bench/bench_signals.py [signals per figure] [lengths of a run ...]

1.5 KB a signal, one node, one signal at a time: until it is acknowledged, and until the node has run; then all at once,
as signals a second. Each kind is compared with LangGraph's own graph of the same shape and with the same checkpointer;
the one on a host, in a second process, with a call of such a graph there and with a unary call of grpc.aio. The kinds
take turns. After that: what one more signal costs in a run that has had many, and what it takes to go on with a run
that was killed after as many. Trust the ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, TypedDict

import grpc.aio
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

sys.path.insert(0, str(Path(__file__).parents[2]))
from agentmatrix import CyclicGraph, Host, RemoteAgent, get_activation, signal
from tests.bench.bench_transport import PAYLOAD, new_loop, serve_raw

ROUNDS = 3
WARM_UP = 20
_threads = count(1)


class State(TypedDict, total=False):
    heard: bytes


async def echo(state: State) -> State:
    return {"heard": state["heard"]}


async def hear(state: State) -> State:
    return {"heard": get_activation().items["audio"]}


def by_hand(**options: Any) -> Any:
    return StateGraph(State).add_node("echo", echo).add_edge(START, "echo").compile(**options)


def listener(**options: Any) -> Any:
    return CyclicGraph(State).add_node("hear", hear).add_trigger("hear", signal("audio")).compile(**options)


def above(graph: Any, kind: Any) -> Any:
    return kind(State).add_node("panel", graph).add_edge(START, "panel").compile()


def thread() -> Any:
    return {"configurable": {"thread_id": str(next(_threads))}}


@dataclass
class Kind:
    """A graph that hears signals at an address, and what to compare it with."""

    graph: Any
    references: dict[str, Callable[[], Awaitable[object]]]
    address: str = "audio"
    durability: str | None = None
    taken: list[float] = field(default_factory=list)
    ran: list[float] = field(default_factory=list)
    at_once: list[float] = field(default_factory=list)
    calls: dict[str, list[float]] = field(default_factory=dict)

    async def measure(self, signals: int) -> None:
        """One round of all its figures, in seconds."""
        for name, call in self.references.items():
            for _ in range(WARM_UP):
                await call()
            self.calls.setdefault(name, []).extend([await _seconds(call) for _ in range(signals)])
        async with self.live() as run:
            for _ in range(WARM_UP):
                await self.once(run)
            for _ in range(signals):
                taken, ran = await self.once(run)
                self.taken.append(taken)
                self.ran.append(ran)
            began = perf_counter()
            await asyncio.gather(*(run.signal(self.address, PAYLOAD) for _ in range(signals)))
            for _ in range(signals):
                await anext(run)
            self.at_once.append((perf_counter() - began) / signals)

    def live(self, input: Any = None, config: Any = None) -> Any:
        """A live run; each run of its node is one part."""
        given = {"heard": b""} if input is None else input
        options = {"stream_mode": "updates", "subgraphs": True, "durability": self.durability}
        return self.graph.live(given, config or thread(), **options)

    async def once(self, run: Any) -> tuple[float, float]:
        """Seconds until a signal is acknowledged, and until the node has run."""
        began = perf_counter()
        await run.signal(self.address, PAYLOAD)
        taken = perf_counter() - began
        await anext(run)
        return taken, perf_counter() - began

    def show(self, name: str) -> None:
        """Print its medians, and their ratios to those of each reference."""
        taken, ran, at_once = (statistics.median(figures) * 1e3 for figures in (self.taken, self.ran, self.at_once))
        print(f"{name:16} {taken:6.2f} ms taken  {ran:6.2f} ms ran  {1e3 / at_once:6.0f} a second", end="")
        for reference, figures in self.calls.items():
            one = statistics.median(figures) * 1e3
            print(
                f"   {taken / one:5.2f}, {ran / one:5.2f} and {at_once / one:5.2f} of {reference} ({one:.2f} ms)",
                end="",
            )
        print(flush=True)


async def _seconds(call: Callable[[], Awaitable[object]]) -> float:
    began = perf_counter()
    await call()
    return perf_counter() - began


def invoke(graph: Any, durability: str | None = None) -> Callable[[], Awaitable[object]]:
    """Calls of the graph, one after the other on one thread."""
    config = thread()
    return lambda: graph.ainvoke({"heard": PAYLOAD}, config, durability=durability)


def kinds(host: str, unary: Callable[[], Awaitable[object]]) -> dict[str, Kind]:
    found = {"alone": Kind(listener(), {"ainvoke": invoke(by_hand())})}
    for durability in ("async", "sync"):
        reference = invoke(by_hand(checkpointer=InMemorySaver()), durability)
        graph = listener(checkpointer=InMemorySaver())
        found[f"saved, {durability}"] = Kind(graph, {"ainvoke": reference}, durability=durability)
    found["nested"] = Kind(
        above(listener(), CyclicGraph), {"ainvoke": invoke(above(by_hand(), StateGraph))}, "panel/audio"
    )
    remote = {"ainvoke": invoke(RemoteAgent(f"{host}/by_hand")), "unary": unary}
    found["on a host"] = Kind(RemoteAgent(f"{host}/listener"), remote)
    return found


async def grown(kind: Kind, lengths: list[int]) -> list[float]:
    """Seconds for one signal, until its node has run: the median of the last tenth before each of these lengths."""
    taken: list[float] = []
    async with kind.live() as run:
        while len(taken) < lengths[-1]:
            taken.append((await kind.once(run))[1])
    return [statistics.median(taken[length - max(length // 10, 1) : length]) for length in lengths]


class Killed(Exception):
    """Ends a run at once; what it has saved stays."""


async def resumed(length: int) -> float:
    """Seconds until a run that was killed after so many signals takes the next one."""
    kind, config = Kind(listener(checkpointer=InMemorySaver()), {}, durability="sync"), thread()
    with contextlib.suppress(Killed):
        async with kind.live(config=config) as run:
            for _ in range(length):
                await kind.once(run)
            raise Killed
    began = perf_counter()
    async with kind.graph.live(None, config, durability="sync", stream_mode=[]) as run:
        await run.signal("audio", PAYLOAD)
        return perf_counter() - began


async def measure(host: str, raw: str, signals: int, lengths: list[int]) -> None:
    async with grpc.aio.insecure_channel(raw) as channel:
        echo = channel.unary_unary("/raw/Unary")

        async def unary() -> object:
            return await echo(PAYLOAD)

        measured = kinds(host, unary)
        for _ in range(ROUNDS):
            for kind in measured.values():
                await kind.measure(signals)
    for name, kind in measured.items():
        kind.show(name)
    print(f"{'one more, after':16} " + "".join(f"{length:13,}" for length in lengths))
    for name, kind in measured.items():
        figures = await grown(kind, lengths)
        shown = "".join(f"{figure * 1e3:6.2f} ms x{figure / figures[0]:4.1f}" for figure in figures)
        print(f"{name:16} {shown}", flush=True)
    took = [await resumed(length) for length in lengths]
    print(f"{'resumed, sync':16} " + "".join(f"{seconds * 1e3:10,.0f} ms" for seconds in took))


def serve() -> None:
    """The other process."""
    loop = new_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    raw = asyncio.run_coroutine_threadsafe(serve_raw(), loop).result()
    with Host({"listener": listener(), "by_hand": by_hand()}) as host:
        print(host.address, raw, flush=True)
        sys.stdin.readline()


def main() -> None:
    signals, *lengths = [int(argument) for argument in sys.argv[1:]] or [200]
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, raw = process.stdout.readline().split()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(measure(host, raw, signals, lengths or [100, 1_000, 5_000]))
        process.kill()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
