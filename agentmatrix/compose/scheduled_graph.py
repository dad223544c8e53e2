"""What `Dag`, `CyclicGraph` and `ChatGroup` compile to: a LangGraph graph on our engine, that explains itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.constants import TAG_HIDDEN
from langgraph.types import StateSnapshot, StateUpdate

from agentmatrix.compose.builder import Builder, ComposedGraph
from agentmatrix.compose.cache_identity import identity_of
from agentmatrix.compose.nested_graph import write_only_what_is_written
from agentmatrix.engine.channels import RUN, InputRouter, RunChannel, Schedule
from agentmatrix.engine.checkpoint import schedule_of
from agentmatrix.engine.graph import ScheduledPregel
from agentmatrix.engine.state_update import abulk_update_state, bulk_update_state, pause_of, reopened
from agentmatrix.explanation import Explanation
from agentmatrix.pregel.compiled_graph import branch_channel, input_writer, remove_edges
from agentmatrix.pregel.execution import saver_and_config, set_cache_identity, thread_of
from agentmatrix.pregel.state_graph import plain_keys_of
from agentmatrix.pregel.untraced import untraced_node
from agentmatrix.scheduling.explain import explain
from agentmatrix.scheduling.graph_scheduler import RulesFactory
from agentmatrix.scheduling.state import StateKeys
from agentmatrix.scheduling.topology import Topology

__all__ = ["ScheduledGraph", "put_on_engine", "schedule"]

Scheduled = TypeVar("Scheduled", bound="ScheduledGraph")


class ScheduledGraph(ScheduledPregel, ComposedGraph):
    """A compiled graph whose nodes start the moment that they may.

    Attributes:
        signals: the names of the signals that it declares.
    """

    signals: frozenset[str] = frozenset()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with nodes and channels of its own. LangGraph's writers are shared: they survive no deep copy."""
        return self.copy()

    def explain(self, config: RunnableConfig) -> Explanation:
        """Why each node has run, was skipped, or waits, and for which sources.

        Args:
            config: names the thread, as for `get_state`.

        Returns:
            A mapping of nodes to their status; as text, a line a node.
        """
        saver, own = saver_and_config(self, config)
        return self._explained(saver.get_tuple(own), saver, self.get_state(config))

    async def aexplain(self, config: RunnableConfig) -> Explanation:
        """The same as `explain`, async."""
        saver, own = saver_and_config(self, config)
        return self._explained(await saver.aget_tuple(own), saver, await self.aget_state(config))

    def _explained(self, saved: CheckpointTuple | None, saver: Any, snapshot: StateSnapshot) -> Explanation:
        found = reopened(self, saved, saver) if saved is not None else None
        nodes = schedule_of(self.channels).topology.nodes
        shown = [node for node in nodes if TAG_HIDDEN not in (self.nodes[node].tags or ())]
        return explain(found[0].scheduler if found else None, shown, snapshot.tasks)

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished in an open step stays finished."""
        saver, own = thread_of(self, config)
        if own is not None and (pause := pause_of(self, saver.get_tuple(own), saver)) is not None:
            at = saver.put(pause.config, pause.checkpoint, pause.metadata, pause.versions)
            for task_id, writes in pause.writes.items():
                saver.put_writes(at, writes, task_id)
        return cast(RunnableConfig, bulk_update_state(self, config, supersteps))

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished in an open step stays finished."""
        saver, own = thread_of(self, config)
        if own is not None and (pause := pause_of(self, await saver.aget_tuple(own), saver)) is not None:
            at = await saver.aput(pause.config, pause.checkpoint, pause.metadata, pause.versions)
            for task_id, writes in pause.writes.items():
                await saver.aput_writes(at, writes, task_id)
        return cast(RunnableConfig, await abulk_update_state(self, config, supersteps))


def schedule(
    graph: Scheduled, builder: Builder, topology: Topology, rules: RulesFactory, *, barriers: bool
) -> Scheduled:
    """Give a compiled graph its hidden channel, and take the triggers out of its edges.

    Args:
        graph: the graph.
        builder: what it was made from; its triggers are among its edges, for the drawing.
        topology: its shape.
        rules: makes the rules that start its nodes.
        barriers: whether it runs in supersteps.
    """
    for name, node in graph.nodes.items():
        if (node.cache_policy or graph.cache_policy) is not None and (identity := identity_of(node.bound)) is not None:
            set_cache_identity(graph, name, identity)
    plain_keys = plain_keys_of(builder)
    for name, inner in builder.graphs.items():
        write_only_what_is_written(graph, name, inner, plain_keys, topology)
    remove_edges(graph, builder.drawn_only)
    joins = {
        name: node for node in topology.nodes for name in graph.nodes[node].triggers if name != branch_channel(node)
    }
    put_on_engine(graph, builder.channels, topology, rules, joins=joins, barriers=barriers)
    graph.signals = frozenset() if topology.deaf else topology.signals
    return graph


def put_on_engine(
    graph: ScheduledGraph,
    channels: Mapping[str, Any],
    topology: Topology,
    rules: RulesFactory,
    *,
    joins: Mapping[str, str] | None = None,
    barriers: bool,
    trusted: Iterable[str] = (),
    route_input: InputRouter | None = None,
) -> None:
    """Give a compiled graph its hidden channel. Called when all of its nodes are what they will be.

    Args:
        graph: the graph.
        channels: those of its state, by key.
        topology: its shape.
        rules: makes the rules that start its nodes.
        joins: by channel of a join, the node that it leads to.
        barriers: whether it runs in supersteps.
        trusted: see `StateKeys`.
        route_input: see `Schedule.route_input`.
    """
    untraced = {name: untraced_node(node) for name, node in graph.nodes.items()}
    schedule = Schedule(
        topology, StateKeys(channels, trusted), rules, joins or {}, barriers, untraced, input_writer(graph), route_input
    )
    graph.channels = {**graph.channels, RUN: RunChannel(schedule)}
