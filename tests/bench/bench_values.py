"""Large values there and back, beside a raw gRPC stream of 1 MB messages: one JSON line a row.

    python tests/bench/bench_values.py [rounds] [megabytes ...]

The other process has a host and the raw server. Peak memory is what each process grows to above what it has before, in
values.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypedDict

import grpc.aio
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.transport.iothread import io_thread, new_loop

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.transport.raw_server import serve_raw

ROUNDS = 10
MB = 1_000_000


class State(TypedDict, total=False):
    value: Any


async def echo(state: State) -> State:
    return {"value": state["value"]}


def serve() -> None:
    graph = StateGraph(State).add_node("echo", echo).add_edge(START, "echo").compile()
    with Host({"echo": graph}) as host:
        print(host.address, io_thread().run(serve_raw()).result(), flush=True)
        host.wait()


def peak(process: int | str, *, reset: bool = False) -> float:
    """Megabytes that a process has taken at most since the last reset."""
    if reset:
        Path(f"/proc/{process}/clear_refs").write_text("5")
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no such line")


async def measure(rounds: int, size: int, process: int, remote: Any, channel: grpc.aio.Channel) -> None:
    value = bytes(range(256)) * (size * MB // 256)
    stream = channel.stream_stream("/raw/Pieces")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(value), MB):
            yield value[start : start + MB]

    async def raw() -> None:
        got = [piece async for piece in stream(pieces())]
        assert sum(map(len, got)) == len(value)

    async def ours() -> None:
        assert len((await remote.ainvoke({"value": value}))["value"]) == len(value)

    taken: dict[Any, list[float]] = {raw: [], ours: []}
    grown: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        for call, times in taken.items():
            before = peak("self", reset=True), peak(process, reset=True)
            began = time.perf_counter()
            await call()
            times.append(time.perf_counter() - began)
            if call is ours:
                grown.append((peak("self") - before[0], peak(process) - before[1]))
    raw_s, ours_s = (statistics.median(times[1:]) for times in taken.values())
    rate = {"raw_mb_per_s": 2 * size / raw_s, "ours_mb_per_s": 2 * size / ours_s}
    say("6", f"{size} MB there and back: MB a second / raw", raw_s / ours_s, **rate)
    caller, host = (statistics.median(of_side) for of_side in zip(*grown[1:], strict=True))
    say(
        "7",
        f"{size} MB: peak extra memory in values, the larger side",
        max(caller, host) / size,
        caller_mb=caller,
        host_mb=host,
    )


def say(row: str, what: str, ratio: float, **figures: float) -> None:
    rounded = {name: float(f"{value:.3g}") for name, value in figures.items()}
    print(json.dumps({"row": row, "what": what, "ratio": round(ratio, 2), **rounded}), flush=True)


async def main(rounds: int, sizes: list[int]) -> None:
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address, raw = process.stdout.readline().split()
        async with grpc.aio.insecure_channel(raw) as channel:
            for size in sizes:
                await measure(rounds, size, process.pid, RemoteAgent(f"{address}/echo"), channel)
        process.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            given = [int(argument) for argument in sys.argv[1:]]
            runner.run(main(given[0] if given else ROUNDS, given[1:] or [16, 100]))
