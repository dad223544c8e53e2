"""A caller with a token that floods: streams, signals, credits, headers, small frames, mutated frames."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from tests.attacks.hosted import State
from tests.attacks.internals import CONVERSE, HEALTH_WATCH, pb, recorded_messages, start
from tests.attacks.kit import Attacks, Figures, eventually, workplace
from tests.attacks.peers import RawCaller, channel
from tests.attacks.probing import honest_calls, probe
from tests.attacks.processes import HostProcess

attacks = Attacks(__doc__)
TOKEN = "t0ps3cret-token"
AUTHORIZATION = (("authorization", f"Bearer {TOKEN}"),)
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@contextlib.contextmanager
def _channels(host: HostProcess, count: int = 8) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(channel(host.address)) for _ in range(count)]


@attacks.add("1,000 health watches without a token", short={})
def health_watches(watches: int = 1000) -> Figures:
    with HostProcess(token=TOKEN) as host, _channels(host) as channels:
        calls = [channels[number % 8].unary_stream(HEALTH_WATCH)(b"") for number in range(watches)]
        for call in calls[-8:]:
            with contextlib.suppress(grpc.RpcError):
                next(call)
        figures = probe(host)
        for call in calls:
            call.cancel()
    return {"holds": figures["honest"] == "ok", **figures}


@attacks.add("1,000 streams that never start a run", short={"patience": 0.0})
def silent_streams(streams: int = 1000, patience: float = 20.0) -> Figures:
    ended = threading.Event()

    def nothing() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    with HostProcess(token=TOKEN) as host, _channels(host) as channels:
        opened = [
            channels[number % 8].stream_stream(CONVERSE)(nothing(), metadata=AUTHORIZATION) for number in range(streams)
        ]
        for call in opened[-8:]:
            with contextlib.suppress(grpc.RpcError):
                call.initial_metadata()
        at_once = probe(host)
        time.sleep(patience)
        later = probe(host)
        ended.set()
        for call in opened:
            call.cancel()
    return {"holds": at_once["honest"] == later["honest"] == "ok", "while_open": at_once, "later": later}


@attacks.add("streams on one channel without a token", short={"streams": 500})
def unauthenticated_streams(streams: int = 10_000) -> Figures:
    codes = Counter[str]()
    with HostProcess(token=TOKEN) as host, channel(host.address) as connection:
        calls = [connection.stream_stream(CONVERSE)(iter(())) for _ in range(streams)]
        for call in calls[:200]:
            try:
                list(call)
            except grpc.RpcError as error:
                codes[error.code().name] += 1
        figures = probe(host)
        for call in calls:
            call.cancel()
    return {"holds": figures["honest"] == "ok" and set(codes) == {"UNAUTHENTICATED"}, "codes": codes, **figures}


@attacks.add("TCP connections that say nothing", short={"connections": 200, "patience": 0.0})
def silent_connections(connections: int = 2000, patience: float = 25.0) -> Figures:
    with HostProcess(token=TOKEN) as host, contextlib.ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(socket.create_connection(("127.0.0.1", host.port), 20))
        at_once = probe(host)
        time.sleep(patience)
        later = probe(host)
        left = len(os.listdir(f"/proc/{host.pid}/fd"))
    served = at_once["honest"] == later["honest"] == "ok"
    closed = not patience or left < connections // 2
    return {"holds": served and closed, "while_open": at_once, "later": later, "fds_later": left}


@attacks.add("the HTTP/2 preface byte by byte", short={"connections": 50, "pause": 0.02})
def slow_preface(connections: int = 500, pause: float = 0.5) -> Figures:
    with HostProcess(token=TOKEN) as host, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", host.port)
        sockets = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(connections)]
        for byte in HTTP2_PREFACE[:8]:
            for connection in sockets:
                with contextlib.suppress(OSError):
                    connection.send(bytes([byte]))
            time.sleep(pause)
        figures = probe(host)
    return {"holds": figures["honest"] == "ok", **figures}


def _under(attack: Callable[[RawCaller], object], *, slowest: float = 60.0, **options: Any) -> Figures:
    """A stream with a run under way does something, and another caller goes on."""
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN, **options) as caller:
        caller.send(start(1, "asleep", "ainvoke", (({"naps": 60.0},), {})))
        before = host.rss()
        with honest_calls(host) as calls:
            seen = attack(caller)
            caller.written()
            time.sleep(0.5)
        alive, grown = host.is_alive(), host.rss() - before
    holds = alive and calls.error is None and calls.slowest <= slowest
    figures = {"slowest_honest_s": round(calls.slowest, 2), "honest_error": calls.error, "grown_mb": grown}
    return {"holds": holds, "seen": seen, **figures}


@attacks.add("signals to a run that takes none", short={"thousands": 2})
def signals(thousands: int = 50) -> Figures:
    def attack(caller: RawCaller) -> None:
        for thousand in range(thousands):
            numbers = range(1000 * thousand, 1000 * (thousand + 1))
            sent = [pb.Signal(id=str(n), address="a" * 1000, value=b"\xc0", number=n) for n in numbers]
            caller.send(*(pb.Frame(run=1, signal=signal) for signal in sent))

    return _under(attack)


@attacks.add("credits", short={"thousands": 20})
def credits(thousands: int = 1000) -> Figures:
    def attack(caller: RawCaller) -> None:
        for _ in range(thousands):
            caller.send(*[pb.Frame(run=1, credit=pb.Credit(parts=1))] * 1000)

    return _under(attack)


@attacks.add("a drain notice of 12 MB of empty maps", limit=200)
def drain_notice(maps: int = 12_000_000) -> Figures:
    arguments = b"\xdd" + maps.to_bytes(4, "big") + b"\x80" * maps
    notice = pb.Notice(kind="drain", arguments=arguments)
    return _under(lambda caller: caller.send(pb.Frame(run=1, notice=notice)), slowest=0.25)


@attacks.add("four messages of 7.9 million empty frames, 15 kB each on the wire", limit=300)
def empty_frames(frames: int = 7_900_000, messages: int = 4) -> Figures:
    def attack(caller: RawCaller) -> None:
        for _ in range(messages):
            caller.send_bytes(b"\x0a\x00" * frames)

    return _under(attack, slowest=0.25, compresses=True)


@attacks.add("100,000 trace headers", short={"headers": 5_000})
def trace_headers(headers: int = 100_000) -> Figures:
    frame = start(1, "quick")
    frame.start.trace.update({f"k{number}" * 10: "v" * 50 for number in range(headers)})
    frame.start.trace.update({"traceparent": "00-zz"})
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        caller.send(frame)
        told, figures = caller.end_of(1), probe(host)
    return {"holds": figures["honest"] == "ok" and told != "nothing came", "told": told, **figures}


@attacks.add("a malformed LangSmith header", short={})
def malformed_trace() -> Figures:
    frame = start(1, "quick")
    frame.start.trace["langsmith-trace"] = "\n\n"
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        caller.send(frame)
        told, figures = caller.end_of(1), probe(host)
    return {"holds": figures["honest"] == "ok" and told.startswith("result"), "told": told, **figures}


@attacks.add("threads for runs with a timeout", short={"runs": 40})
def timeouts(runs: int = 500) -> Figures:
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        before = host.stats()["threads"]
        for run in range(1, runs + 1):
            caller.send(start(run, "asleep", "ainvoke", (({"naps": 60.0},), {}), timeout=100.0))
        eventually(lambda: host.stats()["runs"] > runs)
        more = host.stats()["threads"] - before
    return {"holds": more < runs // 4, "threads_more": more}


@attacks.add("mutated frames", limit=400, short={"count": 300})
def fuzz(count: int = 5000) -> Figures:
    rng = random.Random(5)
    with HostProcess(token=TOKEN) as host:
        frames = _recorded(host)
        before = host.rss()
        with RawCaller(host.address, TOKEN) as victim:
            victim.send(start(1, "asleep", "ainvoke", (({"naps": 2.0},), {})))
            _send_mutated(host, frames, rng, count)
            told = victim.end_of(1)
        figures = probe(host)
        ended = eventually(lambda: host.stats()["runs"] == 1)
        grown = host.rss() - before
    holds = figures["honest"] == "ok" and told.startswith("result") and ended and grown <= 64
    return {"holds": holds, "sent": count, "recorded": len(frames), "other_run": told, "grown_mb": grown, **figures}


def _recorded(host: HostProcess) -> list[bytes]:
    """Messages of honest runs."""
    builder = StateGraph(State).add_node("far", host.remote("chain")).add_edge(START, "far")
    graph = builder.compile(checkpointer=InMemorySaver())
    with recorded_messages() as messages:
        for thread in "ab":
            given: Any = {"log": str(workplace() / "fuzz.log"), "naps": 0.0, "done": []}
            config: Any = {"configurable": {"thread_id": thread}}
            list(graph.stream(given, config, stream_mode=["values", "messages", "custom"], subgraphs=True))
    return [message for message in messages if len(message) < 100_000]


def _send_mutated(host: HostProcess, frames: list[bytes], rng: random.Random, count: int) -> None:
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(host.address, TOKEN)) for _ in range(4)]
        for number in range(count):
            at = rng.randrange(4)
            if callers[at].ended is not None:
                callers[at] = stack.enter_context(RawCaller(host.address, TOKEN))
            callers[at].send_bytes(_mutated(rng.choice(frames), rng))
            if number % 50 == 0:
                time.sleep(0.05)
        for caller in callers:
            caller.written()


def _mutated(data: bytes, rng: random.Random) -> bytes:
    """A message with some bytes replaced, removed, inserted or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(changed)) if changed else 0
        match rng.randrange(4):
            case 0 if changed:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randrange(1, 9)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                del changed[at:]
    return bytes(changed)


if __name__ == "__main__":
    attacks.main()
