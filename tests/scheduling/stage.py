"""Graphs whose nodes end when the test says so, and that tell what each activation saw."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from langgraph.graph import END

from agentmatrix import Dag, get_activation
from tests.scheduling.rules import Group


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    x: str
    y: str


def thread(number: int = 1) -> Any:
    return {"configurable": {"thread_id": str(number)}}


@dataclass(frozen=True)
class Seen:
    """What one activation of a node was told, and the log that it saw."""

    node: str
    number: int
    group: str | None
    items: dict[str, Any]
    log: tuple[str, ...]


def seen_by(state: Any) -> Seen:
    """To be called inside of a node."""
    activation = get_activation()
    return Seen(
        activation.node, activation.number, activation.group, dict(activation.items), tuple(state.get("log", ()))
    )


@dataclass
class Stage:
    """Holds nodes until they are let go.

    Attributes:
        fate: by participant, whether it comes (True) or is skipped by its router.
        seen: the activations in the order in which they started.
        running: the nodes that are held now, in the order in which they started.
    """

    fate: dict[str, bool] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    running: dict[str, asyncio.Event] = field(default_factory=dict)
    let_go: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    beats: int = 0

    def reset(self, fate: dict[str, bool]) -> None:
        self.__init__(fate)  # type: ignore[misc]

    async def hold(self, key: str) -> None:
        """Wait for `release(key)`, which may have come before."""
        self.beats += 1
        if key not in self.let_go:
            self.running[key] = asyncio.Event()
            try:
                await self.running[key].wait()
            finally:
                del self.running[key]
        self.beats += 1

    def release(self, *keys: str) -> None:
        for key in keys:
            self.let_go.add(key)
            if key in self.running:
                self.running[key].set()

    def held(self, name: str) -> Callable[[Any], Any]:
        """A node that waits, then says its name."""

        async def node(state: State) -> State:
            await self.hold(name)
            self.ended.append(name)
            return {"log": [name]}

        return node

    def target(self, name: str, *, hold: bool = False) -> Callable[[Any], Any]:
        """A node that notes its activation, then says its name."""

        async def node(state: State) -> State:
            self.seen.append(seen_by(state))
            self.beats += 1
            if hold:
                await self.hold(name)
            self.ended.append(name)
            return {"log": [name]}

        return node

    def add_participant(self, dag: Dag, name: str) -> None:
        """A node that comes when the test releases `pick_<name>`, or that its router then skips."""

        async def participant(state: State) -> State:
            self.beats += 1
            return {"log": [name]}

        async def route(state: State) -> str:
            return name if self.fate[name] else END

        dag.add_node(f"pick_{name}", self.held(f"pick_{name}"))
        dag.add_node(name, participant)
        dag.add_conditional_edges(f"pick_{name}", route, [name, END])

    async def quiet(self, run: asyncio.Future[Any] | None = None) -> None:
        """Let the loop turn until nothing moves any more."""
        still, last = 0, -1
        while still < 60 and not (run and run.done()):
            still, last = (still + 1, last) if self.beats == last else (0, self.beats)
            await asyncio.sleep(0)

    async def until(self, *names: str) -> None:
        """Until these nodes are held, however long it takes (an async saver has threads of its own)."""
        async with asyncio.timeout(100):
            while not set(names) <= set(self.running):
                await asyncio.sleep(0)


@dataclass(frozen=True)
class Played:
    """One run: what was seen after each event, and how it ended."""

    result: Any
    error: BaseException | None
    steps: list[list[Seen]]
    ended_after: int | None


async def play(graph: Any, stage: Stage, events: Sequence[tuple[str, bool]]) -> Played:
    """Run the graph and let its participants come, or be skipped, one after the other in this order."""
    stage.reset(dict(events))
    run = asyncio.ensure_future(graph.ainvoke({"log": []}))
    await stage.quiet(run)
    steps: list[list[Seen]] = []
    ended_after: int | None = None
    for step, (label, _) in enumerate(events):
        before = len(stage.seen)
        stage.release(f"pick_{label}")
        await stage.quiet(run)
        steps.append(stage.seen[before:])
        if run.done():
            ended_after = step
            break
    async with asyncio.timeout(100):
        await asyncio.wait([run])
    error = run.exception()
    return Played(None if error else run.result(), error, steps, ended_after)


def table(stage: Stage, participants: Iterable[str], targets: dict[str, Sequence[Group]], **options: Any) -> Any:
    """A Dag of participants and of nodes that these groups trigger."""
    dag = Dag(State)
    for name in participants:
        stage.add_participant(dag, name)
    for name, groups in targets.items():
        dag.add_node(name, stage.target(name))
        dag.add_trigger(name, *(group.built() for group in groups))
    return dag.compile(**options)


@asynccontextmanager
async def performance(stage: Stage, graph: Any, config: Any = None) -> AsyncIterator[Performance]:
    """Runs of the graph that end with the test, also where a test ends early."""
    runs = Performance(stage, graph, config)
    runs.go({"log": []})
    try:
        yield runs
    finally:
        runs.run.cancel()
        await asyncio.wait([runs.run])


class Performance:
    """A graph at work.

    Attributes:
        run: its run; the last one, after a crash.
    """

    run: asyncio.Task[Any]

    def __init__(self, stage: Stage, graph: Any, config: Any) -> None:
        self.stage, self.graph, self.config = stage, graph, config

    def go(self, given: Any = None) -> None:
        """Start, or go on."""
        self.run = asyncio.ensure_future(self.graph.ainvoke(given, self.config))

    async def quiet(self) -> None:
        await self.stage.quiet(self.run)


class Latch:
    """The twin of `Stage.hold` for sync nodes."""

    def __init__(self) -> None:
        self._set: set[str] = set()
        self._changed = threading.Condition()

    def wait(self, *keys: str) -> None:
        """Until all of these have been set."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(keys) <= self._set, 100), f"{keys} never came"

    def wait_any(self, *keys: str) -> None:
        """Until one of these has been set."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(keys) & self._set, 100), f"none of {keys} ever came"

    def set(self, *keys: str) -> None:
        with self._changed:
            self._set.update(keys)
            self._changed.notify_all()
