"""Graphs with loops: LangGraph's supersteps, or none where triggers start the nodes; and a bound for each loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.channels.base import BaseChannel
from langgraph.errors import EmptyChannelError
from langgraph.graph import END, START
from langgraph.types import Checkpointer

from agentmatrix.compose.builder import Builder, ComposedGraph
from agentmatrix.compose.compiled import LedgeredGraph, attach
from agentmatrix.errors import BoundError, BuildError
from agentmatrix.ledger_engine.graph import OpenSteps
from agentmatrix.pregel.compiled_graph import MISSING, add_channel, set_node_runnable, set_stream_eager, write_channel
from agentmatrix.pregel.runnables import wrap_runnable
from agentmatrix.pregel.state_graph import edges_of, joins_of, routers_of
from agentmatrix.pregel.task_config import read_channel
from agentmatrix.scheduling.topology import Topology, drawn

__all__ = ["DEFAULT_ROUNDS", "CompiledCyclicGraph", "CyclicGraph"]

DEFAULT_ROUNDS = 25
_ROUNDS = "rounds:of_this_run"
_NEW_RUN = ""

_Counts = TypeVar("_Counts", bound=dict[str, int])


class CompiledCyclicGraph(ComposedGraph):
    """A compiled `CyclicGraph`."""


class TriggeredCyclicGraph(OpenSteps, LedgeredGraph, CompiledCyclicGraph):
    """A compiled `CyclicGraph` with triggers: a node starts each time that one of its groups is complete."""


class CyclicGraph(Builder):
    """A graph that may have loops.

    With edges only it runs in LangGraph's supersteps. With triggers (`add_trigger`) it has none:

    - Each completion of a trigger group is an activation of its node, and so is each edge or choice that leads to it.
      A node has one activation at a time, unless `add_trigger(..., concurrent=True)`.
    - An activation sees the run's input and what its causal ancestors wrote, the earlier activations of its own node
      among them unless it is concurrent.
    - The final state is the fold of all updates: by causal depth, then the order of add_node, then the activation.

    The arguments are those of `StateGraph`, with the messages of a conversation as the state by default, and

    Args:
        name: the name of the compiled graph.
        max_rounds: how often a node may run in one run, or with triggers in one chain of activations that follow from
            each other, before its loop ends with a `BoundError`.
    """

    def __init__(self, *args: Any, max_rounds: int = DEFAULT_ROUNDS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_rounds = max_rounds

    def compile(
        self,
        checkpointer: Checkpointer = None,
        *,
        name: str | None = None,
        max_rounds: int | None = None,
        barriers: bool | None = None,
        **options: Any,
    ) -> CompiledCyclicGraph:
        """Compile to a LangGraph graph.

        Args:
            checkpointer: as in LangGraph.
            name: the name of the graph.
            max_rounds: rounds a loop may take in one run; by default what the builder was given.
            barriers: whether there are supersteps. Without triggers there always are, with triggers there are none.
            options: cache, store, interrupt_before, interrupt_after, debug, transformers, as in LangGraph.

        Raises:
            BuildError: what cannot work; the message names the node and the mend.
        """
        self._check()
        self._check_breakpoints(options.get("interrupt_before"), options.get("interrupt_after"))
        if barriers is not None and barriers is bool(self._groups):
            raise BuildError(
                "a CyclicGraph with triggers has no supersteps: leave out barriers=True"
                if barriers
                else "a CyclicGraph without triggers runs in supersteps: leave out barriers=False, or add_trigger(...)"
            )
        topology = self._triggered(max_rounds or self.max_rounds) if self._groups else self._topology()
        if not topology.followers(START) and not self._groups:
            raise BuildError("nothing starts this graph: add_edge(START, ...) to the node that comes first")
        self._check_reachable(topology)
        if loop := topology.endless():
            raise BuildError(
                f"the loop {drawn(loop)} can never end, all its edges are always taken: "
                f"replace one by add_conditional_edges with a way out of it"
            )
        if self._groups:
            whole = self._copy()
            triggered = whole._compiled(TriggeredCyclicGraph, name, checkpointer=checkpointer, **options)
            attach(triggered, whole, topology)
            set_stream_eager(triggered)
            return triggered
        graph = self._copy()._compiled(CompiledCyclicGraph, name, checkpointer=checkpointer, **options)
        _bound(graph, topology, max_rounds or self.max_rounds)
        return graph

    def _triggered(self, max_rounds: int) -> Topology:
        """The shape of a graph with triggers."""
        nodes = tuple(name for name, spec in self.nodes.items() if not spec.is_error_handler)
        known = self._topology()
        joins: dict[str, tuple[tuple[str, ...], ...]] = {}
        for sources, target in sorted(joins_of(self)):
            joins[target] = (*joins.get(target, ()), sources)
        return replace(
            known,
            nodes=nodes,
            edges={s: tuple(t for t in targets if t != END) for s, targets in known.edges.items()},
            groups=dict(self._groups),
            concurrent=frozenset(self._concurrent),
            joins=joins,
            ends=frozenset(source for source, target in edges_of(self) if target == END),
            max_rounds=max_rounds,
        )

    def _topology(self) -> Topology:
        nodes = tuple(self.nodes)
        edges: dict[str, tuple[str, ...]] = {}
        choices: dict[str, set[str]] = {}
        for source, target in sorted(self.edges):
            edges[source] = (*edges.get(source, ()), target)
        for sources, target in joins_of(self):
            for source in sources:
                choices.setdefault(source, set()).add(target)
        for source, branches in routers_of(self).items():
            for branch in branches.values():
                choices.setdefault(source, set()).update(branch.ends.values() if branch.ends else nodes)
        for name, spec in self.nodes.items():
            choices.setdefault(name, set()).update((*(spec.ends or ()), *self._handled(name)))
            if spec.error_handler_node:
                choices[name].add(spec.error_handler_node)
        return Topology(START, nodes, edges, {source: tuple(targets) for source, targets in choices.items()})


class _Rounds(Generic[_Counts], BaseChannel[_Counts, str, _Counts]):
    """How often each node has run in this run. Several activations in one step, by Send, count as one."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        super().__init__(dict)
        self.counts: dict[str, int] = {}

    @property
    def ValueType(self) -> Any:
        return dict

    @property
    def UpdateType(self) -> Any:
        return str

    def from_checkpoint(self, checkpoint: Any) -> Self:
        rounds = type(self)()
        rounds.key = self.key
        rounds.counts = {} if checkpoint is MISSING else dict(checkpoint)
        return rounds

    def checkpoint(self) -> Any:
        return dict(self.counts) if self.counts else MISSING

    def get(self) -> Any:
        if not self.counts:
            raise EmptyChannelError
        return self.counts

    def is_available(self) -> bool:
        return bool(self.counts)

    def update(self, values: Sequence[str]) -> bool:
        if _NEW_RUN in values:
            self.counts = {_NEW_RUN: 0}
        for node in {*values} - {_NEW_RUN}:
            self.counts = {**self.counts, node: self.counts.get(node, 0) + 1}
        return bool(values)


def _bound(graph: CompiledCyclicGraph, topology: Topology, limit: int) -> None:
    add_channel(graph, _ROUNDS, _Rounds())
    write_channel(graph, START, _ROUNDS, _NEW_RUN)
    for node in topology.nodes:
        write_channel(graph, node, _ROUNDS, node)
        _guard(graph, topology, node, limit)


def _guard(graph: CompiledCyclicGraph, topology: Topology, node: str, limit: int) -> None:
    """The node starts a round only when the run has some left. Raised where the node's own errors are raised: the
    state before it is a checkpoint, and a graph compiled with a higher bound goes on from there."""
    proc = graph.nodes[node]
    agent = proc.bound

    def call(state: Any, config: RunnableConfig) -> Any:
        _check_rounds(topology, node, limit, config)
        return agent.invoke(state, config)

    async def acall(state: Any, config: RunnableConfig) -> Any:
        _check_rounds(topology, node, limit, config)
        return await agent.ainvoke(state, config)

    set_node_runnable(graph, node, wrap_runnable(agent, call, acall))


def _check_rounds(topology: Topology, node: str, limit: int, config: RunnableConfig) -> None:
    counts = read_channel(config, _ROUNDS) or {}
    if counts.get(node, 0) < limit:
        return
    busy = {other for other, count in counts.items() if count >= limit - 1}
    loop = topology.loop_through(node, busy) or topology.loop_through(node) or [node]
    raise BoundError(
        f"the loop {drawn(loop)} has gone round {limit} times in this run without an end: "
        f"give its router a way to {END!r} that it takes, or raise the bound with compile(max_rounds=...)"
    )
