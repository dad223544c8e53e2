"""A race of several nodes, of which the first ones start another and the rest is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

from langgraph.graph import START

from agentmatrix import (
    Dag,
    any_of,
    at_least,
)
from tests.scheduling.stage import Stage, State


class Race:
    """Runners that the test lets go, and that tell when they are cancelled."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.started: dict[str, int] = {}
        self.cancelled: dict[str, asyncio.Event] = {}
        self.finished: list[str] = []

    def runner(self, name: str) -> Any:
        self.cancelled[name] = asyncio.Event()

        async def run(state: State) -> State:
            self.started[name] = self.started.get(name, 0) + 1
            try:
                await self.stage.hold(name)
            except asyncio.CancelledError:
                self.cancelled[name].set()
                raise
            self.finished.append(name)
            return {"log": [name]}

        return run

    async def cancellation_of(self, *names: str) -> None:
        for name in names:
            await asyncio.wait_for(self.cancelled[name].wait(), 100)


def race(runners: str = "abc", *, k: int = 1, kind: Any = Dag, **options: Any) -> tuple[Race, Any]:
    """Runners that start at once, and `t`, which the first `k` of them trigger."""
    race, graph = Race(), kind(State)
    for name in runners:
        graph.add_node(name, race.runner(name))
        graph.add_edge(START, name)
    graph.add_node("t", race.stage.target("t"))
    group = any_of if k == 1 else lambda *sources, **given: at_least(k, *sources, **given)
    graph.add_trigger("t", group(*runners, cancel_rest=True, name="first", **options))
    return race, graph
