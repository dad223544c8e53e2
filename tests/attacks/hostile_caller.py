"""A caller with a token that breaks the rules: malformed and enormous frames, bombs, spoofed identities."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import ormsgpack

from tests.attacks import hosted
from tests.attacks.internals import chunks, message, pb, spoofed_config, start
from tests.attacks.kit import Attacks, Figures, read_log, workplace
from tests.attacks.peers import RawCaller
from tests.attacks.probing import GROWN_MB, SLOWEST_S, honest_calls, probe
from tests.attacks.processes import HostProcess

attacks = Attacks(__doc__)
TOKEN = "t0ps3cret-token"
NESTED = b"\x91"
ROOT = {"langgraph_auth_user": {"identity": "root"}}


def _calls_of_os_system() -> dict[str, pb.Frame]:
    """Values that name `os.system` where a class or an extension may stand."""
    path = str(workplace() / "pwned")
    inner = ormsgpack.packb(("os", "system", f"touch {path}"))

    def echo(value: object) -> pb.Frame:
        return start(1, "echo", arguments=ormsgpack.packb([[{"text": value}], {}]))

    frames = {f"extension {code}": echo(ormsgpack.Ext(code, b"os:system")) for code in range(0, 128, 9)}
    frames |= {f"packed extension {code}": echo(ormsgpack.Ext(code, inner)) for code in range(8)}
    return {**frames, "class": echo([ormsgpack.Ext(2, b"os:system"), f"touch {path}"])}


def _refused_starts() -> dict[str, pb.Frame]:
    """Starts of runs that have to be refused, each with a sentence."""
    return {
        "unknown agent": start(1, "../../etc/passwd"),
        "unknown path": start(1, path=["..", "..", "etc"]),
        "unknown verb": start(1, verb="__reduce__"),
        "huge agent name": start(1, "A" * 1_000_000),
        "negative timeout": start(1, timeout=-1.0),
        "wire version 99": start(1, version=pb.Version(wire=99, langgraph="1.2.0", agentmatrix="x")),
        "depth 5,000": start(1, arguments=NESTED * 5000 + b"\xc0"),
        "depth 100,000": start(1, arguments=NESTED * 100_000 + b"\xc0"),
        "length bomb of an array": start(1, arguments=b"\xdd\xff\xff\xff\xff"),
        "length bomb of bytes": start(1, arguments=b"\xc6\xff\xff\xff\xff"),
    }


@attacks.add("no token, a wrong one, an empty one", short={})
def tokens() -> Figures:
    told = {}
    with HostProcess(token=TOKEN) as host:
        for token in (None, "wrong", ""):
            with RawCaller(host.address, token) as caller:
                caller.send(start())
                told[repr(token)] = caller.end_of(1)
        figures = probe(host)
    holds = all(said.startswith("UNAUTHENTICATED") for said in told.values())
    return {"holds": holds and figures["honest"] == "ok", "told": told, **figures}


def _each(frames: dict[str, pb.Frame], is_right: Callable[[str], bool]) -> Figures:
    """Each frame on a stream of its own; the host goes on."""
    told = {}
    with HostProcess(token=TOKEN) as host:
        for name, frame in frames.items():
            with RawCaller(host.address, TOKEN) as caller:
                caller.send(frame)
                told[name] = caller.end_of(1)
        figures = probe(host)
    wrong = {name: said for name, said in told.items() if not is_right(said)}
    return {"holds": not wrong and figures["honest"] == "ok", "tried": len(told), "wrong": wrong, **figures}


@attacks.add("starts that cannot be meant", short={})
def refused_starts() -> Figures:
    return _each(_refused_starts(), lambda said: said.startswith(("reset", "failure")))


@attacks.add("values that name os.system", short={})
def named_functions() -> Figures:
    figures = _each(_calls_of_os_system(), lambda said: said != "nothing came")
    return {**figures, "holds": figures["holds"] and not (workplace() / "pwned").exists()}


@attacks.add("messages that are no frames", short={})
def malformed() -> Figures:
    empty = [pb.Frame(run=0), pb.Frame(run=2**64 - 1)]
    unknown_field = b"\xfa\x07\x05hello"
    messages = {
        "malformed": b"\xff" * 100,
        "empty": b"",
        "unknown fields": message(start()) + unknown_field,
        "no body": message(*empty),
    }
    ends = {}
    with HostProcess(token=TOKEN) as host:
        for name, data in messages.items():
            with RawCaller(host.address, TOKEN) as caller:
                caller.send_bytes(data)
                caller.send(start(7))
                ends[name] = caller.end_of(7)
        figures = probe(host)
    goes_on = all(said.startswith("result") for name, said in ends.items() if name != "malformed")
    return {"holds": goes_on and ends["malformed"] != "nothing came" and figures["honest"] == "ok", "ends": ends}


@attacks.add("a malformed message ends its stream with a status", short={})
def status_of_malformed() -> Figures:
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        caller.send_bytes(b"\xff" * 100)
        ended = caller.end_of(1)
    return {"holds": ended.startswith(("INVALID_ARGUMENT", "INTERNAL")), "ended": ended}


@attacks.add("a reply that nobody asked for, a run number twice", short={})
def wrong_frames() -> Figures:
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        caller.send(start(1, "asleep", "ainvoke", (({"naps": 0.5},), {})))
        caller.send(pb.Frame(run=1, reply=pb.Reply(id=77, value=b"x")), start(1, "quick"))
        told, figures = caller.end_of(1), probe(host)
    return {"holds": told != "nothing came" and figures["honest"] == "ok", "told": told, **figures}


@attacks.add("one run id on two streams", short={})
def same_id() -> Figures:
    log = str(workplace() / f"same-id-{time.monotonic_ns()}.log")
    frame = start(1, "chain", args=(({"log": log, "naps": 0.01, "done": []},), {}), id="the-same-id")
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as first:
        first.send(frame)
        told = [first.end_of(1)]
        with RawCaller(host.address, TOKEN) as second:
            second.send(frame)
            told.append(second.end_of(1))
    nodes = sum(event == "start" for _, event, _ in read_log(log))
    return {"holds": nodes == 5, "nodes": nodes, "told": told}


@attacks.add("a value of 100 MB", limit=200, short={"size": 10_000_000})
def large_value(size: int = 100_000_000) -> Figures:
    arguments = b"\x92\x91\x81\xa4text\xc6" + size.to_bytes(4, "big") + b"z" * size + b"\x80"
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        for chunk in chunks(start(1, "echo", arguments=arguments)):
            caller.send(chunk)
        told, figures = caller.end_of(1, 120), probe(host)
    return {"holds": told != "nothing came" and figures["honest"] == "ok", "told": told[:60], **figures}


@attacks.add("empty maps that become large", limit=200, short={"maps": 500_000})
def empty_maps(maps: int = 15_000_000) -> Figures:
    arguments = b"\xdd" + maps.to_bytes(4, "big") + b"\x80" * maps
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        caller.send(start(1, arguments=arguments))
        told, figures = caller.end_of(1, 120), probe(host)
    return {"holds": told.startswith(("failure", "reset")) and figures["honest"] == "ok", "told": told, **figures}


def _grown(send: Callable[[RawCaller], None], **options: Any) -> Figures:
    """What a stream costs others: memory, and seconds of their calls."""
    with HostProcess(token=TOKEN) as host, RawCaller(host.address, TOKEN, **options) as caller:
        with honest_calls(host) as calls:
            before = host.rss()
            send(caller)
            caller.written(30)
            time.sleep(0.5)
            grown = host.rss() - before
    figures = {"slowest_honest_s": round(calls.slowest, 2), "honest_error": calls.error, "grown_mb": grown}
    return {"holds": calls.error is None and grown <= GROWN_MB, **figures}


def _send_all(caller: RawCaller, frames: Iterable[pb.Frame]) -> None:
    for frame in frames:
        caller.send(frame)


@attacks.add("chunks of runs that never begin", limit=200, short={"runs": 10, "megabytes": 10})
def chunks_without_start(runs: int = 40, megabytes: int = 50) -> Figures:
    def pieces() -> Iterable[pb.Frame]:
        for run in range(1, runs + 1):
            for _ in range(megabytes):
                yield pb.Frame(run=run, chunk=pb.Chunk(data=b"z" * (1 << 20)))

    return _grown(lambda caller: _send_all(caller, pieces()))


@attacks.add("a caller that never reads", limit=200, short={"starts": 300})
def never_reads(starts: int = 8000) -> Figures:
    name = "A" * 100_000
    frames = (start(run, name) for run in range(1, starts + 1))
    return _grown(lambda caller: _send_all(caller, frames), reads=False)


@attacks.add("7.9 million empty frames in one message", limit=200)
def empty_frames(frames: int = 7_900_000) -> Figures:
    figures = _grown(lambda caller: caller.send_bytes(b"\x0a\x00" * frames), compresses=True)
    return {**figures, "holds": figures["holds"] and figures["slowest_honest_s"] <= SLOWEST_S}


@attacks.add("400 MB of compressed zeros", limit=200, short={"size": 40_000_000})
def zeros(size: int = 400_000_000) -> Figures:
    return _grown(lambda caller: caller.send_bytes(b"\0" * size), compresses=True)


@attacks.add("a spoofed user in the arguments", short={})
def spoofed_arguments() -> Figures:
    by_name = {"configurable": {**ROOT, "__pregel_task_id": "evil", "thread_id": "x"}}
    in_order = {"configurable": {**ROOT, "__pregel_store": 1}}
    return _spoofed({"config=": (({},), {"config": by_name}), "second argument": (({}, in_order), {})})


@attacks.add("a spoofed user in the lent runtime", short={})
def spoofed_runtime() -> Figures:
    return _spoofed({"runtime": (({},), {})}, config=spoofed_config())


def _spoofed(arguments: dict[str, Any], **fields: Any) -> Figures:
    told = {}
    with HostProcess(hosted.telling, token=TOKEN) as host, RawCaller(host.address, TOKEN) as caller:
        for run, (name, args) in enumerate(arguments.items(), 1):
            caller.send(start(run, "tell", args=args, **fields))
            told[name] = caller.end_of(run)
    return {"holds": not any("root" in said or "planted" in said for said in told.values()), "told": told}


@attacks.add("the token in what the host writes", short={})
def token_in_errors() -> Figures:
    with HostProcess(token=TOKEN) as host:
        for frame in (start(1, "fail"), start(1, timeout=float("inf")), start(1, "unknown")):
            with RawCaller(host.address, TOKEN) as caller:
                caller.send(frame)
                caller.end_of(1)
        errors = host.errors()
    return {"holds": TOKEN not in errors, "lines": errors.count("\n")}


if __name__ == "__main__":
    attacks.main()
