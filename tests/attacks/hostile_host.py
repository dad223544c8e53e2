"""A host that does with its caller what it likes: are saver, store and process of the caller touched?"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.graph import START, StateGraph
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Interrupt, Send

from agentmatrix import Host, RemoteAgent
from tests.attacks.hosted import State, one
from tests.attacks.internals import encoded, event, failure, named_failure, pb, result
from tests.attacks.kit import Attacks, Figures, Outcome, brief, in_background, rss, within
from tests.attacks.peers import FakeHost, Granted

attacks = Attacks(__doc__)
MINE: Any = {"configurable": {"thread_id": "mine"}}
VICTIM: Any = {"configurable": {"thread_id": "victim"}}


@dataclass
class Parent:
    """A graph whose node is on the fake host; its saver and store hold what belongs to others."""

    graph: Any
    saver: InMemorySaver
    store: InMemoryStore

    def run(self, seconds: float = 60) -> Outcome:
        return within(seconds, lambda: self.graph.invoke({"text": "hi"}, MINE))


@contextlib.contextmanager
def _attacked(behave: Callable[[Granted], None], **options: Any) -> Iterator[Parent]:
    saver, store, host = InMemorySaver(), InMemoryStore(), FakeHost()
    host.behave = behave
    one(lambda state: {"text": "secret of the victim"}, checkpointer=saver).invoke({"text": ""}, VICTIM)
    store.put(("users", "bob"), "key", {"password": "hunter2"})
    remote = RemoteAgent(f"127.0.0.1:{host.port}/x", **options)
    builder = StateGraph(State).add_node("far", remote).add_node("other", lambda state: {"text": "other ran"})
    try:
        yield Parent(builder.add_edge(START, "far").compile(checkpointer=saver, store=store), saver, store)
    finally:
        host.stop()


def _asked(ask: Callable[[Granted], Iterator[tuple[str, tuple[bool, Any]]]], **options: Any) -> Figures:
    """What of these requests is granted. The run itself has to end well."""
    granted: dict[str, str] = {}
    refused: dict[str, str] = {}

    def behave(run: Granted) -> None:
        run.say(accepted=pb.Accepted())
        for name, (is_granted, value) in ask(run):
            (granted if is_granted else refused)[name] = brief(value, 90)
        run.say(**result({"text": "done"}))

    with _attacked(behave, **options) as parent:
        outcome = parent.run()
        untouched = (
            parent.saver.get_tuple(VICTIM) is not None
            and len(list(parent.saver.list(VICTIM))) == 3
            and parent.store.get(("users", "bob"), "key").value == {"password": "hunter2"}  # type: ignore[union-attr]
        )
    figures = {"granted": granted, "refused": refused, "run": str(outcome), "others_untouched": untouched}
    return {"holds": not granted and untouched and outcome.is_value, **figures}


def _config(thread: str, **more: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **more}}


@attacks.add("the saver, outside of the run's thread", short={})
def saver() -> Figures:
    def ask(run: Granted) -> Iterator[tuple[str, tuple[bool, Any]]]:
        checkpoint, metadata = empty_checkpoint(), {"source": "loop", "step": 9}
        inside = _config("victim", checkpoint_id=checkpoint["id"])
        yield "read another thread", run.ask("saver", "get_tuple", _config("victim"))
        yield "list all threads", run.ask("saver", "list", None)
        yield "list by an injected filter", run.ask("saver", "list", None, filter={"a') OR 1=1 --": 1})
        yield "put", run.ask("saver", "put", _config("victim"), checkpoint, metadata, {})
        yield "put_writes", run.ask("saver", "put_writes", inside, [("text", "evil")], "t")
        yield "delete_thread", run.ask("saver", "delete_thread", "victim")
        yield "copy_thread", run.ask("saver", "copy_thread", "victim", "mine")

    return _asked(ask)


@attacks.add("the saver, above the node", short={})
def saver_above() -> Figures:
    def ask(run: Granted) -> Iterator[tuple[str, tuple[bool, Any]]]:
        planted, metadata = {**empty_checkpoint(), "id": "f" * 8 + "-ffff-6fff-bfff-" + "f" * 12}, {"step": 9}
        yield "plant the newest checkpoint", run.ask("saver", "put", _config("mine"), planted, metadata, {})

    return _asked(ask)


@attacks.add("methods and targets that are not lent", short={})
def not_lent() -> Figures:
    def ask(run: Granted) -> Iterator[tuple[str, tuple[bool, Any]]]:
        yield "a method not on the list", run.ask("saver", "__init__")
        yield "a target never lent", run.ask("loop", "stop")

    return _asked(ask)


def _store_requests(run: Granted) -> Iterator[tuple[str, tuple[bool, Any]]]:
    team, users = MatchCondition("prefix", ("team",)), MatchCondition("prefix", ("users",))
    suffix, wildcard = MatchCondition("suffix", ("bob",)), MatchCondition("prefix", ("*",))
    operations = {
        "get": GetOp(("users", "bob"), "key"),
        "put": PutOp(("users", "bob"), "key", {"password": "evil"}),
        "search all": SearchOp(()),
        "list all": ListNamespacesOp(),
        "list by suffix": ListNamespacesOp(match_conditions=(suffix,)),
        "list by two prefixes": ListNamespacesOp(match_conditions=(team, users)),
        "list by a wildcard": ListNamespacesOp(match_conditions=(wildcard,)),
    }
    for name, operation in operations.items():
        yield name, run.ask("store", "batch", [operation])


@attacks.add("the store, outside of its prefix", short={})
def store_with_prefix() -> Figures:
    figures = _asked(_store_requests, store_prefix=("team",))
    # Two prefixes at once are granted: nothing is under both.
    leaked = {name: value for name, value in figures["granted"].items() if "bob" in value or "users" in value}
    return {**figures, "holds": figures["others_untouched"] and not leaked}


@attacks.add("the store, without a prefix", short={})
def store_without_prefix() -> Figures:
    return _asked(_store_requests)


def _ends(*bodies: dict[str, Any]) -> Outcome:
    """A run that the host accepts and then answers with these frames."""

    def behave(run: Granted) -> None:
        run.say(accepted=pb.Accepted())
        for body in bodies:
            run.say(**body)

    with _attacked(behave) as parent:
        return parent.run(20)


def _parent_command(**fields: Any) -> dict[str, Any]:
    return failure(ParentCommand(Command(**{"graph": Command.PARENT, **fields})))


def _broken_ends() -> dict[str, dict[str, Any]]:
    """Outcomes with which an honest run cannot end."""
    interrupts = [Interrupt(value="q", id=str(number)) for number in range(10_000)]
    return {
        "unknown node of the parent": _parent_command(goto="nowhere"),
        "graph of another name": _parent_command(graph="elsewhere:1|x", goto="other"),
        "an int": result(7),
        "no bytes": {"end": pb.End(result=b"")},
        "broken bytes": {"end": pb.End(result=b"\xc1\xff")},
        "no outcome": {"end": pb.End()},
        "a failure that is none": {"end": pb.End(failure=encoded({"a": 1}))},
        "10,000 interrupts": failure(GraphInterrupt(interrupts)),
        "2,000 sends to the parent": _parent_command(goto=[Send("other", {"text": "s"})] * 2000),
        "reset": {"reset": pb.Reset(kind="busy", reason="\x1b[31mred\x1b[0m")},
        "a frame of callers": {"start": pb.Start()},
    }


@attacks.add("outcomes that cannot be meant", limit=300, short={})
def broken_ends() -> Figures:
    outcomes = {name: _ends(body) for name, body in _broken_ends().items()}
    hung = [name for name, outcome in outcomes.items() if outcome.kind == "hung"]
    return {"holds": not hung, "hung": hung, "ends": {name: str(outcome)[:90] for name, outcome in outcomes.items()}}


@attacks.add("errors of any class", short={})
def named_errors() -> Figures:
    bodies = {
        "os:system": named_failure("os:system", "touch never-made"),
        "subprocess:Popen": named_failure("subprocess:Popen", ["true"]),
        "antigravity:X": named_failure("antigravity:X"),
        "StopIteration": named_failure("builtins:StopIteration", 1),
    }
    outcomes = {name: _ends(body) for name, body in bodies.items()}
    holds = all(outcome.kind == "error" and isinstance(outcome.value, Exception) for outcome in outcomes.values())
    return {"holds": holds, "ends": {name: str(outcome) for name, outcome in outcomes.items()}}


@attacks.add("errors that end a process", short={})
def ending_errors() -> Figures:
    names = ("SystemExit", "KeyboardInterrupt", "GeneratorExit")
    outcomes = {name: _ends(named_failure(f"builtins:{name}")) for name in names}
    holds = all(isinstance(outcome.value, Exception) for outcome in outcomes.values())
    return {"holds": holds, "ends": {name: type(outcome.value).__name__ for name, outcome in outcomes.items()}}


@attacks.add("events that are garbage", short={})
def broken_events() -> Figures:
    end = result({"text": "after the event"})
    events = {
        "stream": event("stream", 7),
        "callback of an unknown group": event("callback", 99, "on_chain_start", (), {}),
        "visited": event("visited", "x"),
        "heartbeat": event("heartbeat"),
        "drain": event("drain", "hostile"),
    }
    outcomes = {name: _ends(body, end) for name, body in events.items()}
    hung = [name for name, outcome in outcomes.items() if outcome.kind == "hung"]
    return {"holds": not hung, "ends": {name: str(outcome) for name, outcome in outcomes.items()}}


def _flooding(run: Granted, frames: Callable[[int], dict[str, Any]], count: int) -> None:
    """Says more than the caller has given it credit for, and ends."""
    run.say(accepted=pb.Accepted())
    for number in range(count):
        run.say(**frames(number))
    run.say(**result({"text": "done"}))


@contextlib.contextmanager
def _flooded(frames: Callable[[int], dict[str, Any]], count: int) -> Iterator[RemoteAgent]:
    host = FakeHost()
    host.behave = lambda run: _flooding(run, frames, count)
    try:
        yield RemoteAgent(f"127.0.0.1:{host.port}/x")
    finally:
        host.stop()


@attacks.add("endless parts", limit=200, short={"parts": 300})
def endless_parts(parts: int = 6000) -> Figures:
    """Of 100 kB each, to a reader that takes one and then stops."""
    value = encoded(("x" * 100_000,))
    ended = threading.Event()

    def read() -> str:
        stream = remote.stream({}, stream_mode="custom")
        try:
            next(stream)
            ended.wait(60)
            return str(sum(1 for _ in stream))
        except Exception as error:
            return brief(error)

    before = rss()
    with _flooded(lambda number: {"part": pb.Part(value=value, more=True)}, parts) as remote:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read)
            honest = _honest_calls(50)
            grown = rss() - before
            ended.set()
            outcome = reading.result(60)
    return {"holds": grown <= 64 and honest["errors"] == 0, "grown_mb": grown, "outcome_of_call": outcome, **honest}


@attacks.add("3,000 requests at once to an async caller", short={"requests": 1000})
def many_requests(requests: int = 3000) -> Figures:
    most = [threading.active_count()]
    before = threading.active_count()
    arguments = encoded((([GetOp(("team",), "key")],), {}))

    def ask(number: int) -> dict[str, Any]:
        return {"request": pb.Request(id=number + 1, target="store", method="batch", arguments=arguments)}

    with _flooded(ask, requests) as remote, in_background(lambda: most.append(threading.active_count()), 0.005):
        graph = StateGraph(State).add_node("far", remote).add_edge(START, "far").compile(store=InMemoryStore())
        outcome = within(60, lambda: asyncio.run(graph.ainvoke({"text": "hi"})))
    more = max(most) - before
    return {"holds": outcome.kind != "hung" and more < 40, "threads_more": more, "run": str(outcome)}


def _honest_calls(count: int) -> dict[str, Any]:
    """Calls at an honest host of this process, meanwhile."""
    slowest, errors = 0.0, 0
    with Host({"quick": one(lambda state: {"text": "ok"})}) as host:
        remote = RemoteAgent(f"{host.address}/quick")
        for _ in range(count):
            outcome = within(60, lambda: remote.invoke({}))
            slowest, errors = max(slowest, outcome.seconds), errors + (not outcome.is_value)
    return {"slowest_honest_s": round(slowest, 2), "errors": errors}


@attacks.add("7.9 million empty frames from a host", limit=200, short={"frames": 790_000})
def empty_frames(frames: int = 7_900_000) -> Figures:
    """They stop no run at another host."""
    host = FakeHost()
    host.behave = lambda run: run.say_bytes(b"\x0a\x00" * frames)
    try:
        with ThreadPoolExecutor(1) as pool:
            hostile = pool.submit(within, 60, lambda: RemoteAgent(f"127.0.0.1:{host.port}/x").invoke({}))
            honest = _honest_calls(100)
            outcome = hostile.result()
    finally:
        host.stop()
    return {"holds": honest["errors"] == 0 and outcome.kind == "error", "outcome_of_call": str(outcome), **honest}


if __name__ == "__main__":
    attacks.main()
