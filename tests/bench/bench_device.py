"""Arrays and tensors to a remote node and back, beside a raw gRPC stream of 1 MB messages: one JSON line a row.

    python tests/bench/bench_device.py [rounds] [megabytes]

A process has the host, another one the raw server. On a machine with a GPU, a node moves the tensor to it, adds one and
returns what is there. The first line names the card. Without PyTorch there is the row of numpy alone.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict

import grpc.aio
import numpy
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.transport.iothread import new_loop

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.transport.raw_server import serve_raw

if importlib.util.find_spec("torch"):
    import torch
else:
    torch: Any = None  # type: ignore[no-redef]

ROUNDS, MEGABYTES = 10, 256
MB = 1_000_000
CARD = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None


class State(TypedDict, total=False):
    value: Any


async def echo(state: State) -> State:
    return {"value": state["value"]}


def on_device(state: State) -> State:
    return {"value": state["value"].to("cuda") + 1}


def to_cpu(state: State) -> State:
    return {"value": state["value"].cpu()}


def child(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile()


def parent(nested: Any) -> Any:
    return StateGraph(State).add_node("nested", nested).add_edge(START, "nested").compile()


def local_parent(node: Any) -> Any:
    """The node in this process. What it leaves on the device is fetched, as the wire does."""
    graph = StateGraph(State).add_node("nested", child(node)).add_edge(START, "nested")
    if node is on_device:
        graph.add_node("fetched", to_cpu).add_edge("nested", "fetched")
    return graph.compile()


def serve_host() -> None:
    with Host({"echo": child(echo), "device": child(on_device)}) as host:
        print(host.address, flush=True)
        host.wait()


async def serve_stream() -> None:
    print(await serve_raw(), flush=True)
    await asyncio.Event().wait()


async def measure(
    rounds: int, what: str, value: Any, expected: Any, local: Any, remote: Any, channel: grpc.aio.Channel
) -> None:
    """Print a row: the raw stream, the node here and the remote node take turns."""
    size = value.nbytes
    data = bytes(size)
    stream = channel.stream_stream("/raw/Pieces")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, MB):
            yield data[start : start + MB]

    async def raw() -> None:
        assert sum([len(piece) async for piece in stream(pieces())]) == size

    async def here() -> None:
        await local.ainvoke({"value": value})

    async def there() -> None:
        got = (await remote.ainvoke({"value": value}))["value"]
        assert got.dtype == value.dtype and got.shape == value.shape and got[-1] == expected

    calls: list[Callable[[], Awaitable[None]]] = [raw, here, there]
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, times in zip(calls, taken, strict=True):
            began = time.perf_counter()
            await call()
            times.append(time.perf_counter() - began)
    raw_s, here_s, there_s = (statistics.median(times[1:]) for times in taken)
    figures = {
        "raw_mb_per_s": 2 * size / MB / raw_s,
        "ours_mb_per_s": 2 * size / MB / there_s,
        "raw_ms": raw_s * 1e3,
        "local_ms": here_s * 1e3,
        "remote_ms": there_s * 1e3,
        "remote_over_raw_and_local": there_s / (raw_s + here_s),
    }
    rounded = {name: float(f"{figure:.3g}") for name, figure in figures.items()}
    print(json.dumps({"what": what, "mb": size / MB, "rate_of_raw": round(raw_s / there_s, 2), **rounded}), flush=True)


async def main(rounds: int, megabytes: int) -> None:
    print(json.dumps({
        "card": CARD or "none",
        "torch": torch.__version__ if torch else "not installed: the row of numpy alone",
        "numpy": numpy.__version__,
    }), flush=True)  # fmt: skip
    array = numpy.ones(megabytes * MB // 2, numpy.float16)
    command = [sys.executable, __file__]
    with (
        subprocess.Popen([*command, "host"], stdout=subprocess.PIPE, text=True) as host,
        subprocess.Popen([*command, "raw"], stdout=subprocess.PIPE, text=True) as raw,
    ):
        assert host.stdout is not None and raw.stdout is not None
        try:
            address, raw_address = host.stdout.readline().strip(), raw.stdout.readline().strip()
            assert address and raw_address, "a server has not started"
            async with grpc.aio.insecure_channel(raw_address) as channel:
                echoed = local_parent(echo), parent(RemoteAgent(f"{address}/echo")), channel
                await measure(rounds, "a numpy array of float16", array, 1, *echoed)
                if torch:
                    tensor = torch.from_numpy(array)
                    await measure(rounds, "a tensor on the CPU", tensor, 1, *echoed)
                if CARD:
                    moved = local_parent(on_device), parent(RemoteAgent(f"{address}/device")), channel
                    await measure(rounds, f"a tensor that the node moves to the {CARD}", tensor, 2, *moved)
        finally:
            host.kill()
            raw.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["host"]:
        serve_host()
    else:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            if sys.argv[1:] == ["raw"]:
                runner.run(serve_stream())
            else:
                given = [int(argument) for argument in sys.argv[1:]]
                runner.run(main(*(given or [ROUNDS, MEGABYTES])))
