"""What a round trip of a frame costs, beside gRPC's own unary call on the same machine in the same minutes.

    python tests/bench/bench_transport.py [seconds per figure]

Two processes, 1.5 KB each way. Trust the ratios, not the figures.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from queue import SimpleQueue

import grpc
import grpc.aio

from agentmatrix.errors import AgentMatrixError
from agentmatrix.transport import ReceivedFrame, ServerOptions, Transport, connect, listen, parse_target
from agentmatrix.wire.v1.run_pb2 import Frame

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.transport.echo import EchoHost
from tests.transport.raw_server import serve_raw

PAYLOAD = b"x" * 1500
CALLERS = 32
EACH = 8
ROUNDS = 40


class SyncCaller:
    """Waits for each echo in a thread."""

    def __init__(self, transport: Transport) -> None:
        self.inbox: SimpleQueue[Frame | AgentMatrixError] = SimpleQueue()
        self.frames = transport.open(self)
        self.frames.send(Frame(start={"agent": "echo"}))
        self.inbox.get()

    def receive(self, received: ReceivedFrame) -> None:
        self.inbox.put(received.frame)
        received.release()

    def lost(self, error: AgentMatrixError) -> None:
        self.inbox.put(error)

    def echo(self, value: bytes = PAYLOAD) -> bytes:
        self.frames.send(Frame(signal={"value": value}))
        got = self.inbox.get()
        if isinstance(got, AgentMatrixError):
            raise got
        return got.signal.value


class AsyncCaller:
    """Waits for each echo in an event loop of its own."""

    def __init__(self, transport: Transport) -> None:
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Frame] = self.loop.create_future()
        self.frames = transport.open(self)

    async def begin(self) -> AsyncCaller:
        self.frames.send(Frame(start={"agent": "echo"}))
        await self.answer
        return self

    def receive(self, received: ReceivedFrame) -> None:
        self.loop.call_soon_threadsafe(self.answer.set_result, received.frame)
        received.release()

    def lost(self, error: AgentMatrixError) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.answer.set_exception, error)

    async def echo(self) -> bytes:
        self.answer = self.loop.create_future()
        self.frames.send(Frame(signal={"value": PAYLOAD}))
        return (await self.answer).signal.value


def median_ms(call: Callable[[], object], seconds: float) -> float:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


async def median_ms_async(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        await call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


async def throughput(calls: list[Callable[[], Awaitable[object]]]) -> float:
    """Calls a second, each caller with one call at a time."""

    async def repeat(call: Callable[[], Awaitable[object]]) -> None:
        for _ in range(EACH):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*map(repeat, calls))
    return EACH * len(calls) / (time.perf_counter() - began)


def host() -> None:
    """The other process: both servers, each on a loop of its own kind."""
    loop = new_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    raw = asyncio.run_coroutine_threadsafe(serve_raw(), loop).result()
    server = listen("127.0.0.1:0", EchoHost(), ServerOptions())
    print(server.start(), raw, flush=True)
    sys.stdin.readline()


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def measure_async(transport: Transport, raw: str, seconds: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    caller = await AsyncCaller(transport).begin()
    callers = [await AsyncCaller(transport).begin() for _ in range(CALLERS)]
    async with grpc.aio.insecure_channel(raw) as channel:
        echo = channel.unary_unary("/raw/Unary")

        async def unary() -> bytes:
            return await echo(PAYLOAD)

        await unary()
        for _ in range(2):  # the first round warms up
            figures["raw"] = await median_ms_async(unary, seconds)
            figures["ours"] = await median_ms_async(caller.echo, seconds)
        rates: list[list[float]] = [[], []]
        for _ in range(ROUNDS if seconds >= 1 else 2):
            for calls, found in zip(([unary] * CALLERS, [c.echo for c in callers]), rates, strict=True):
                found.append(await throughput(calls))  # type: ignore[arg-type]
        figures["raw/s"], figures["ours/s"] = map(statistics.median, rates)
    return figures


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    process = subprocess.Popen(
        [sys.executable, __file__, "host"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    address, raw = process.stdout.readline().split()
    transport = connect(parse_target(f"{address}/echo"))
    with asyncio.Runner(loop_factory=new_loop) as runner:
        figures = runner.run(measure_async(transport, raw, seconds))
    caller = SyncCaller(transport)
    sync = median_ms(caller.echo, seconds)
    large = bytes(64 << 20)
    crossing = median_ms(lambda: caller.echo(large), 2 * seconds)
    unary = figures["raw"]
    print(f"raw grpc.aio unary          {unary:6.3f} ms")
    print(f"ours, asyncio caller        {figures['ours']:6.3f} ms   {figures['ours'] / unary:5.2f} of raw")
    print(f"ours, sync caller           {sync:6.3f} ms   {sync / unary:5.2f} of raw")
    ratio = round(figures["ours/s"] / figures["raw/s"], 2)
    rates = {"raw_per_s": round(figures["raw/s"]), "ours_per_s": round(figures["ours/s"])}
    print(
        json.dumps({"row": "4", "what": f"{CALLERS} callers of an echo of frames / raw unary", "ratio": ratio, **rates})
    )
    print(f"64 MB there and back        {crossing:6.0f} ms   {2 * 64 * 1.048576 / crossing * 1e3:.0f} MB/s")
    transport.close()
    process.terminate()
    process.wait()


if __name__ == "__main__":
    host() if sys.argv[1:] == ["host"] else main()
