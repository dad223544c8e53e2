"""What a remote call costs, beside gRPC alone and beside the same graph here: one JSON line a row.

    python tests/bench/bench_wire.py [rounds] [rows ...]

The other process has a host and raw grpc.aio servers. References take turns with what is measured, call by call;
medians. Trust the ratios, not the figures.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict

import grpc.aio
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.session.stage_clock import stage_table
from agentmatrix.transport.iothread import io_thread, new_loop

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.transport.raw_server import serve_raw

ROUNDS = 400
TOKENS, FEW_TOKENS = 2000, 20


class State(TypedDict, total=False):
    text: str


async def echo(state: State) -> State:
    return {"text": state["text"]}


async def tokens(state: State) -> State:
    write = get_stream_writer()
    for _ in range(int(state["text"])):
        write("token ")
        await asyncio.sleep(0)
    return {}


async def stages(state: State) -> State:
    return {"text": json.dumps(stage_table())}


def child(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile()


def parent(nested: Any) -> Any:
    return StateGraph(State).add_node("nested", nested).add_edge(START, "nested").compile(checkpointer=InMemorySaver())


def cpu_of(process: int) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# The other process.


def serve() -> None:
    """Both servers on one loop: gRPC wakes all the loops of a process, whichever its news is for."""
    with Host({"echo": child(echo), "tokens": child(tokens), "stages": child(stages)}) as host:
        print(host.address, io_thread().run(serve_raw()).result(), flush=True)
        host.wait()


# This process.


class Bench:
    """The connections to the other process."""

    def __init__(self, rounds: int, process: int, address: str, raw: str) -> None:
        self.rounds, self.process, self.address = rounds, process, address
        channel = grpc.aio.insecure_channel(raw)
        self.unary, self.stream = channel.unary_unary("/raw/Unary"), channel.unary_stream("/raw/Tokens")
        self.local, self.remote = child(echo), RemoteAgent(f"{address}/echo")
        self.state: Any = {"text": "x" * 1000}
        self.payload = b"x" * 1000

    async def raw(self) -> Any:
        return await self.unary(self.payload)

    async def medians(self, *calls: Callable[[], Awaitable[Any]]) -> list[float]:
        """Milliseconds of each call in the median; they take turns."""
        taken: list[list[float]] = [[] for _ in calls]
        for call in calls:
            for _ in range(max(2, self.rounds // 10)):
                await call()
        gc.collect()
        for _ in range(self.rounds):
            for call, times in zip(calls, taken, strict=True):
                began = time.perf_counter()
                await call()
                times.append((time.perf_counter() - began) * 1e3)
        return [statistics.median(times) for times in taken]

    async def stages(self) -> None:
        """The budget of a call: in processes of their own, which measure."""
        command = [sys.executable, __file__, str(self.rounds), "budget"]
        taken = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "AGENTMATRIX_STAGES": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        out, _ = await taken.communicate()
        table = json.loads(out)
        say("0", "the budget of a call, microseconds", sum(us for at, us in table.items() if "caller" in at), **table)

    async def budget(self) -> None:
        for _ in range(5 * self.rounds):
            await self.remote.ainvoke(self.state)
        there = await RemoteAgent(f"{self.address}/stages").ainvoke({})
        sys.stdout.write(json.dumps({**stage_table(), **json.loads(there["text"])}))

    async def call(self) -> None:
        raw, local, remote = await self.medians(
            self.raw, lambda: self.local.ainvoke(self.state), lambda: self.remote.ainvoke(self.state)
        )
        say("1", "ainvoke: (remote - local) / raw unary", (remote - local) / raw, raw=raw, local=local, remote=remote)

    async def saved(self) -> None:
        threads = iter(range(10**9))
        near, far = parent(self.local), parent(self.remote)

        def call(graph: Any, durability: str) -> Callable[[], Awaitable[Any]]:
            return lambda: graph.ainvoke(
                self.state, {"configurable": {"thread_id": str(next(threads))}}, durability=durability
            )

        for durability in ("exit", "async", "sync"):
            local, remote = await self.medians(call(near, durability), call(far, durability))
            say(
                "2",
                f"node under a memory saver, {durability}: remote / local",
                remote / local,
                local=local,
                remote=remote,
            )

    async def callers(self) -> None:
        for many in (32, 256):
            rates: list[list[float]] = [[], []]
            for _ in range(max(1, self.rounds // 50)):
                for graph, found in zip((self.local, self.remote), rates, strict=True):
                    began = time.perf_counter()
                    await asyncio.gather(*(self._several(graph, 4) for _ in range(many)))
                    found.append(4 * many / (time.perf_counter() - began))
            local, remote = map(statistics.median, rates)
            say("3", f"{many} callers: remote / local", remote / local, local_per_s=local, remote_per_s=remote)

    async def _several(self, graph: Any, calls: int) -> None:
        for _ in range(calls):
            await graph.ainvoke(self.state)

    async def tokens(self) -> None:
        local, remote = child(tokens), RemoteAgent(f"{self.address}/tokens")

        async def measured(many: int, rounds: int) -> list[tuple[float, float]]:
            """Milliseconds until the first token, and tokens a second: raw, local, remote, which take turns."""
            state: Any = {"text": str(many)}
            found: list[list[tuple[float, float]]] = [[], [], []]
            for _ in range(rounds):
                streams = (
                    self.stream(str(many).encode()),
                    local.astream(state, stream_mode="custom"),
                    remote.astream(state, stream_mode="custom"),
                )
                for stream, of_stream in zip(streams, found, strict=True):
                    began, times = time.perf_counter(), []
                    async for _ in stream:
                        times.append(time.perf_counter() - began)
                    of_stream.append((times[0] * 1e3, many / times[-1]))
            return [
                (statistics.median(firsts), statistics.median(rates))
                for firsts, rates in (zip(*each, strict=True) for each in found)
            ]

        (_, raw), (_, here), (_, ours) = await measured(min(TOKENS, 10 * self.rounds), max(2, self.rounds // 40))
        say("5", "tokens a second / raw unary stream", ours / raw, raw_per_s=raw, local_per_s=here, ours_per_s=ours)
        # Short streams: processes that have computed for long wait for those that others run on the machine.
        (raw, _), (here, _), (ours, _) = await measured(FEW_TOKENS, self.rounds)
        say("5", "first token / raw", ours / raw, raw_ms=raw, ours_ms=ours)
        say("5", "first token / (raw and the local graph's)", ours / (raw + here), local_ms=here, ours_ms=ours)

    async def cpu(self) -> None:
        calls = 10 * self.rounds
        for _ in range(20):
            await self.remote.ainvoke(self.state)
        thread, own, other = time.thread_time(), time.process_time(), cpu_of(self.process)
        for _ in range(calls):
            await self.remote.ainvoke(self.state)
        thread, own, other = time.thread_time() - thread, time.process_time() - own, cpu_of(self.process) - other
        began = time.thread_time()
        for _ in range(calls):
            await self.local.ainvoke(self.state)
        local = time.thread_time() - began
        names = {"caller_thread": thread, "caller": own, "host": other, "local": local}
        us = {f"{name}_us": seconds / calls * 1e6 for name, seconds in names.items()}
        say("11", "CPU of a call, both sides, without the graph's / the graph's", (own + other - local) / local, **us)


def say(row: str, what: str, ratio: float, **figures: float) -> None:
    rounded = {name: float(f"{value:.3g}") for name, value in figures.items()}
    print(json.dumps({"row": row, "what": what, "ratio": round(ratio, 2), **rounded}), flush=True)


async def main(rounds: int, rows: list[str]) -> None:
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        bench = Bench(rounds, process.pid, *process.stdout.readline().split())
        if rows == ["budget"]:
            await bench.budget()
            process.kill()
            return
        table = {
            "0": bench.stages,
            "1": bench.call,
            "2": bench.saved,
            "3": bench.callers,
            "5": bench.tokens,
            "11": bench.cpu,
        }
        for row in rows or table:
            await table[row]()
        process.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS, sys.argv[2:]))
