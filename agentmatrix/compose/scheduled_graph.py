"""What `Dag` and `CyclicGraph` compile to: a LangGraph graph on our engine, that explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateUpdate

from agentmatrix.compose.builder import ComposedGraph
from agentmatrix.engine.channels import RUN, RunChannel, Schedule
from agentmatrix.engine.graph import ScheduledPregel
from agentmatrix.pregel.execution import branch_channel
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

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished in an open step stays finished."""
        return super().bulk_update_state(self.settle(config), supersteps)

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished in an open step stays finished."""
        return await super().abulk_update_state(await self.asettle(config), supersteps)


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
