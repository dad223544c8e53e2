"""The state of a host that all of its runs share.

Runs are taken on the I/O thread and end on worker threads and event loops. `runs` is a set that each side changes by
one atomic operation; nothing here has a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentmatrix.card import pack_drawing
from agentmatrix.errors import AgentNotFound, HostBusy, VersionMismatch
from agentmatrix.pregel.config_values import event_loop_of
from agentmatrix.session.authorization import Authorization
from agentmatrix.session.checkpointer import plain_config
from agentmatrix.session.run_queue import RunQueue
from agentmatrix.session.run_record import RunObservers
from agentmatrix.session.started_runs import StartedRuns
from agentmatrix.session.thread_scope import scoped_graph
from agentmatrix.session.user_loop import LoopMonitor
from agentmatrix.transport.identity import Identity
from agentmatrix.transport.loop_handover import LoopHandover
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["STOPPING_WORDS", "ExportedGraph", "HostState", "brief", "encodable_result"]

STOPPING_WORDS: Final = "the host is stopping and takes no more runs; call another, or try again later"
_LONGEST_NAME = 100
_MOST_WARNINGS = 20

_logger = logging.getLogger("agentmatrix.host")


AnyGraph = Pregel[Any, Any, Any, Any]
Opened = AbstractContextManager[AnyGraph]
AsyncOpened = AbstractAsyncContextManager[AnyGraph]


class GraphMaker(Protocol):
    """Makes a graph for each run, from the run's config and context; `is_run` says whether its nodes are to run."""

    def open(self, config: RunnableConfig, loop: asyncio.AbstractEventLoop, context: Any, *, is_run: bool) -> Opened:
        """On a thread; what is async runs on the loop."""

    def aopen(self, config: RunnableConfig, context: Any, *, is_run: bool) -> AsyncOpened:
        """On a loop."""


@dataclass(frozen=True)
class ExportedGraph:
    """A graph that a host offers, with the codec of its types."""

    graph: AnyGraph
    codec: Codec
    is_async_only: bool = False
    """Whether it runs on an event loop alone: then its sync verbs do so too."""
    factory: GraphMaker | None = None
    """Makes a graph for each run, where `graph` is one of the same kind; None where `graph` runs itself."""

    def open(self, config: RunnableConfig, loop: asyncio.AbstractEventLoop, context: Any, *, is_run: bool) -> Opened:
        """The graph for one run on a thread, as a context manager."""
        if self.factory is None:
            return contextlib.nullcontext(self.graph)
        return self.factory.open(config, loop, context, is_run=is_run)

    def aopen(self, config: RunnableConfig, context: Any, *, is_run: bool) -> AsyncOpened:
        """The graph for one run on a loop, as a context manager."""
        if self.factory is None:
            return contextlib.nullcontext(self.graph)
        return self.factory.aopen(config, context, is_run=is_run)

    def loop(self, default: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """The event loop for the graph's async verbs.

        An async checkpointer or store works only on the loop that it was made on: where that one is running, its graph
        runs there too.
        """
        for resource in (self.graph.checkpointer, self.graph.store):
            bound = None if resource is None else event_loop_of(resource)
            if bound is not None and bound.is_running():
                return bound
        return default


class ActiveRun(Protocol):
    """A run of this host."""

    def drain(self, reason: str) -> None:
        """Stops the run at its next checkpoint; one that has no checkpointer goes on. Thread-safe."""

    def stop(self, reason: str) -> None:
        """Stops the run and tells its caller why. Thread-safe."""


@dataclass
class HostState:
    """What all runs of one host share.

    Attributes:
        exported: the graphs by name.
        version: what this host speaks.
        workers: runs the sync verbs.
        services: decodes signals and drains, which must not wait for a run to end.
        loop: runs the async verbs.
        watch: logs what blocks the loop.
        queue: gives the runs their turns.
        queue_timeout: seconds that a run may wait for its turn; None for no limit.
        answer_timeout: seconds in which a caller has to answer a request; None for no limit.
        linger: seconds that it may take longer in all since the line was cut.
        started: the ids of the runs that were started here.
        allow_version_skew: take callers whose langgraph has another minor version.
        authorization: decides who may call what.
        share_threads: whether callers share the threads of the checkpointers that graphs were compiled with.
        tracebacks: whether callers get the tracebacks of errors.
        observers: are told of the runs.
        checkpointer: of the graphs that were compiled without one.
        starting: whether new runs are refused since the host does not serve yet.
        stopping: whether new runs are refused since the host stops.
        runs: the runs at work.
        warned: what the log has been told once.
        handovers: what hands runs over to the loops.
    """

    exported: dict[str, ExportedGraph]
    version: pb.Version
    workers: Executor
    services: Executor
    loop: asyncio.AbstractEventLoop
    watch: LoopMonitor
    queue: RunQueue
    answer_timeout: float | None = None
    linger: float = 0.0
    started: StartedRuns = field(default_factory=StartedRuns)
    queue_timeout: float | None = None
    allow_version_skew: bool = False
    authorization: Authorization = field(default_factory=Authorization)
    share_threads: bool = False
    tracebacks: bool = False
    observers: RunObservers = field(default_factory=RunObservers)
    checkpointer: BaseCheckpointSaver[Any] | None = None
    starting: bool = False
    stopping: bool = False
    runs: set[ActiveRun] = field(default_factory=set)
    warned: set[str] = field(default_factory=set)
    handovers: dict[asyncio.AbstractEventLoop, LoopHandover] = field(default_factory=dict)

    def handover(self, loop: asyncio.AbstractEventLoop) -> LoopHandover:
        """What hands runs over to a loop. On the I/O thread."""
        if (found := self.handovers.get(loop)) is None:
            found = self.handovers[loop] = LoopHandover(loop, watches=False)
        return found

    def admit(self, start: pb.Start, user: Identity | None = None) -> ExportedGraph:
        """The graph for a new run of a caller.

        Raises:
            VersionMismatch, HostBusy, AgentNotFound: the host does not take the run.
        """
        mine, theirs = self.version, start.version
        if mine.wire != theirs.wire:
            raise VersionMismatch(
                f"the host speaks version {mine.wire} of the wire (agentmatrix {mine.agentmatrix}), the caller "
                f"{theirs.wire} (agentmatrix {theirs.agentmatrix[:_LONGEST_NAME]}); install the same version on both"
            )
        if mine.langgraph != theirs.langgraph and _minor(mine.langgraph) != _minor(theirs.langgraph):
            skew = f"the host runs langgraph {mine.langgraph}, the caller {brief(theirs.langgraph)}"
            if not self.allow_version_skew:
                raise VersionMismatch(
                    f"{skew}; install the same minor version on both, or start the host with --allow-version-skew"
                )
            self._warn_once(skew)
        self.check_serving()
        return self.graph(start.agent, user)

    def _warn_once(self, warning: str) -> None:
        if warning not in self.warned and len(self.warned) < _MOST_WARNINGS:
            self.warned.add(warning)
            _logger.warning("%s", warning)

    def check_serving(self) -> None:
        """Raises HostBusy while the host starts or stops."""
        if self.stopping:
            raise HostBusy(STOPPING_WORDS, serving=False)
        if self.starting:
            raise HostBusy("the host is starting and takes no runs yet; try again later", serving=False)

    def graph(self, agent: str, user: Identity | None = None) -> ExportedGraph:
        """The exported graph of that name; raises AgentNotFound, which lists what the caller may know of."""
        if agent not in self.exported:
            if self.starting:
                self.check_serving()
            if self.authorization.blocks:
                raise AgentNotFound(f"the host has no agent {brief(agent)}")
            names = ", ".join(sorted(self.names_for(user))) or "none"
            raise AgentNotFound(f"the host has no agent {brief(agent)}; it has: {names}")
        return self.exported[agent]

    def names_for(self, user: Identity | None) -> list[str]:
        """The names of the agents that a caller may call. Not on the I/O thread where `authorization.blocks`."""
        return [name for name in self.exported if self.authorization.allows(user, name, "describe")]

    def graph_for(
        self, graph: AnyGraph, user: Identity | None, configurable: Mapping[str, Any], *, asks_saver: bool = False
    ) -> AnyGraph:
        """A graph as it runs for a caller: with threads of the caller's own, where it keeps any.

        A run without a thread leaves nothing in the checkpointer that the host lends its graphs. With `asks_saver` it
        is no run, but a question to that checkpointer itself.
        """
        lent = graph.checkpointer is not None and graph.checkpointer is self.checkpointer
        if lent and not asks_saver and not configurable.get("thread_id"):
            return graph.copy({"checkpointer": None})
        return graph if self.share_threads else scoped_graph(graph, user)


def brief(name: str) -> str:
    """A name that a peer has sent, for an error that goes back to it."""
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}...")


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def encodable_result(result: Any) -> Any:
    """The result of a verb in a form that the codec can encode."""
    if type(result) is dict:
        if result and all(type(one).__name__ == "ActorSnapshot" for one in result.values()):
            return {path: one.to_dict() for path, one in result.items()}
        return result
    if type(result).__name__ == "Graph" and hasattr(result, "draw_mermaid"):
        return pack_drawing(result)
    if isinstance(result, StateSnapshot):
        return _plain_snapshot(result)
    return result.to_dict() if type(result).__name__ == "Explanation" else result


def _plain_snapshot(snapshot: StateSnapshot) -> StateSnapshot:
    """A snapshot without the run's machinery, which LangGraph leaves in the config where there is no checkpoint."""
    tasks = (
        task._replace(state=_plain_snapshot(task.state)) if isinstance(task.state, StateSnapshot) else task
        for task in snapshot.tasks
    )
    return snapshot._replace(config=plain_config(snapshot.config), tasks=tuple(tasks))
