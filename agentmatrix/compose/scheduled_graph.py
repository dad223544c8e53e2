"""What `Dag` and `CyclicGraph` compile to: a LangGraph graph on our engine, that explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateUpdate

from agentmatrix.compose.builder import ComposedGraph
from agentmatrix.engine.channels import RUN, RunChannel, Schedule
from agentmatrix.engine.graph import ScheduledPregel
from agentmatrix.engine.state_update import abulk_update_state, bulk_update_state, pause_of
from agentmatrix.pregel.execution import branch_channel, thread_of
from agentmatrix.scheduling.graph_scheduler import RulesFactory
from agentmatrix.scheduling.state import StateKeys
from agentmatrix.scheduling.topology import Topology

__all__ = ["ScheduledGraph", "schedule"]

Scheduled = TypeVar("Scheduled", bound="ScheduledGraph")


class ScheduledGraph(ScheduledPregel, ComposedGraph):
    """A compiled graph whose nodes start the moment that they may.

    Attributes:
        signals: the names of the signals that it declares.
    """

    signals: frozenset[str] = frozenset()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with nodes and channels of its own. LangGraph's writers are shared: they do not survive a deep copy."""
        return self.copy()

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
    graph: Scheduled, channels: Mapping[str, Any], topology: Topology, rules: RulesFactory, *, barriers: bool
) -> Scheduled:
    """Give a compiled graph its hidden channel.

    Args:
        graph: the graph.
        channels: the channels of its state.
        topology: its shape.
        rules: makes the rules that start its nodes.
        barriers: whether it runs in supersteps.
    """
    joins = {
        name: node for node in topology.nodes for name in graph.nodes[node].triggers if name != branch_channel(node)
    }
    channel = RunChannel(Schedule(topology, StateKeys(channels), rules, joins, barriers))
    graph.channels = {**graph.channels, RUN: channel}
    return graph
