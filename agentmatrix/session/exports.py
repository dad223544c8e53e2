"""What a host offers, and what its runs share."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentmatrix.card import pack_drawing
from agentmatrix.errors import AgentNotFound, HostBusy, VersionMismatch
from agentmatrix.pregel.config_values import event_loop_of
from agentmatrix.session.checkpointer import plain_config
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["Exported", "Serving", "crossing"]


@dataclass(frozen=True)
class Exported:
    """A graph that a host offers: with the codec of its types."""

    graph: Pregel[Any, Any, Any, Any]
    codec: Codec

    def loop(self, usual: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """The event loop for the graph's async verbs.

        An async checkpointer or store works only on the loop that it was made on: where that one runs, it is taken.
        """
        for resource in (self.graph.checkpointer, self.graph.store):
            bound = event_loop_of(resource)
            if bound is not None and bound.is_running():
                return bound
        return usual


class UnderWay(Protocol):
    """A run that can be stopped."""

    def stop(self, reason: str) -> None:
        """Stops it, and tells its caller why."""


@dataclass
class Serving:
    """What the runs of one host share.

    Attributes:
        exported: the graphs by name.
        version: what this host speaks.
        workers: runs the sync verbs.
        loop: runs the async verbs.
        max_runs: how many runs may be under way; more are refused.
        allow_version_skew: take callers whose langgraph has another minor version.
    """

    exported: dict[str, Exported]
    version: pb.Version
    workers: Executor
    loop: asyncio.AbstractEventLoop
    max_runs: int = 1000
    allow_version_skew: bool = False
    stopping: bool = False
    runs: set[UnderWay] = field(default_factory=set)

    def find(self, start: pb.Start) -> Exported:
        """The graph that a run asks for.

        Raises:
            VersionMismatch, HostBusy, AgentNotFound: the run is not taken.
        """
        mine, theirs = self.version, start.version
        if mine.wire != theirs.wire:
            raise VersionMismatch(
                f"the host speaks version {mine.wire} of the wire (agentmatrix {mine.agentmatrix}), the caller "
                f"{theirs.wire} (agentmatrix {theirs.agentmatrix}); install the same version on both"
            )
        if _minor(mine.langgraph) != _minor(theirs.langgraph) and not self.allow_version_skew:
            raise VersionMismatch(
                f"the host runs langgraph {mine.langgraph}, the caller {theirs.langgraph}; install the same minor "
                "version on both, or start the host with --allow-version-skew"
            )
        if self.stopping:
            raise HostBusy("the host is stopping and takes no more runs; call another, or try again later")
        if len(self.runs) >= self.max_runs:
            raise HostBusy(f"the host runs {self.max_runs} runs already, as many as it may; see --max-runs")
        return self.named(start.agent)

    def named(self, agent: str) -> Exported:
        """The exported graph of that name; raises AgentNotFound, which lists what there is."""
        if agent not in self.exported:
            names = ", ".join(sorted(self.exported)) or "none"
            raise AgentNotFound(f"the host has no agent {agent!r}; it has: {names}")
        return self.exported[agent]


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def crossing(result: Any) -> Any:
    """A verb's result as the codec takes it."""
    if type(result).__name__ == "Graph" and hasattr(result, "draw_mermaid"):
        return pack_drawing(result)
    if isinstance(result, StateSnapshot):
        return _plain_snapshot(result)
    return result.to_dict() if type(result).__name__ == "Explanation" else result


def _plain_snapshot(snapshot: StateSnapshot) -> StateSnapshot:
    """LangGraph gives a graph without a checkpoint the config that it was asked with, the run's machinery included."""
    tasks = (
        task._replace(state=_plain_snapshot(task.state)) if isinstance(task.state, StateSnapshot) else task
        for task in snapshot.tasks
    )
    return snapshot._replace(config=plain_config(snapshot.config), tasks=tuple(tasks))
