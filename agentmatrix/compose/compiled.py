"""Compiled graphs whose state is a ledger: their channels are views of it, and their nodes report to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START
from langgraph.types import StateSnapshot, StateUpdate

from agentmatrix.compose.activation import error_of
from agentmatrix.compose.builder import Builder, ComposedGraph
from agentmatrix.compose.explained import explained
from agentmatrix.compose.steps import Recorded, Reporter, reader
from agentmatrix.compose.views import LEDGER, InputView, LedgerChannel, PendingView, Report, StateView, TriggerView
from agentmatrix.explanation import Explanation
from agentmatrix.ledger_engine.graph import OpenSteps, Reached
from agentmatrix.ledger_engine.snapshot import Finished, afinished_tasks, finished_tasks
from agentmatrix.ledger_engine.tasks import reached_agendas
from agentmatrix.pregel.compiled_graph import (
    ERROR_HANDLER,
    TASKS,
    answer_mappers,
    coercions_of,
    set_node_runnable,
    trigger_of,
)
from agentmatrix.pregel.runnables import wrap_runnable
from agentmatrix.pregel.state_graph import keys_of_schema, managed_values
from agentmatrix.pregel.task_config import read_channel
from agentmatrix.scheduling.topology import Topology

__all__ = ["LedgeredGraph", "attach"]


class LedgeredGraph(Reached, ComposedGraph):
    """A compiled graph whose state is a ledger.

    Attributes:
        signals: the names of the signals that it declares.
    """

    signals: frozenset[str] = frozenset()

    _nodes: tuple[str, ...] = ()

    def explain(self, config: RunnableConfig) -> Explanation:
        """Why each node has run, was skipped, or waits, and for which source of which trigger group.

        Args:
            config: names the thread, as for `get_state`.

        Returns:
            A mapping of nodes to their status; as text, a line a node.
        """
        with reached_agendas() as agendas:
            snapshot = self.get_state(config)
        return self._explained(agendas, snapshot)

    async def aexplain(self, config: RunnableConfig) -> Explanation:
        """The same as `explain`, async."""
        with reached_agendas() as agendas:
            snapshot = await self.aget_state(config)
        return self._explained(agendas, snapshot)

    def _explained(self, agendas: Sequence[Any], snapshot: StateSnapshot) -> Explanation:
        return explained(agendas[-1].ledger if agendas else None, self._nodes, snapshot)

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished at a pause stays finished."""
        if not self._settles(supersteps):
            return super().bulk_update_state(config, supersteps)
        with reached_agendas() as agendas:
            finished = finished_tasks(self, config)
        return super().bulk_update_state(config, _settled(finished, self._named(supersteps, agendas)))

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished at a pause stays finished."""
        if not self._settles(supersteps):
            return await super().abulk_update_state(config, supersteps)
        with reached_agendas() as agendas:
            finished = await afinished_tasks(self, config)
        return await super().abulk_update_state(config, _settled(finished, self._named(supersteps, agendas)))

    def _settles(self, supersteps: Sequence[Sequence[StateUpdate]]) -> bool:
        """Whether what has finished at a pause is to be recorded first: not for what LangGraph will refuse."""
        known = {*self.nodes, None, END, "__input__", "__copy__"}
        names = [update[1] for superstep in supersteps for update in superstep]
        return bool(names) and bool(supersteps[0]) and known.issuperset(names)

    def _named(
        self, supersteps: Sequence[Sequence[StateUpdate]], agendas: Sequence[Any]
    ) -> Sequence[Sequence[StateUpdate]]:
        """The updates, the first of them by the node that ran last where it names none; at a pause it is nobody's."""
        values, node, *rest = supersteps[0][0]
        if (
            len(supersteps[0]) > 1
            or node is not None
            or values is None
            or not agendas
            or not isinstance(self, OpenSteps)
        ):
            return supersteps
        ledger = agendas[-1].ledger
        last = START if ledger.unfinished() else ledger.last()
        return [[StateUpdate(values, last, *rest)], *supersteps[1:]] if last else supersteps


def _settled(finished: Finished | None, supersteps: Sequence[Sequence[StateUpdate]]) -> list[Sequence[StateUpdate]]:
    """The updates, after those that record what a command has brought and what has finished: LangGraph forgets them."""
    steps = list(supersteps)
    if finished is None:
        return steps
    if steps[0][0][:2] == (None, END):
        steps[0] = [StateUpdate(Recorded([(LEDGER, Report(close=True))]), START, None)]  # type: ignore[arg-type]
    names = {**_called(finished), **finished.names}
    before: list[StateUpdate] = []
    after: list[StateUpdate] = []
    for task, writes in finished.writes.items():
        if task in names:
            # What has finished in an open step without knowing of the command comes before it.
            knew = not finished.commanded or any(key == LEDGER and report.get("knew", 1) for key, report in writes)
            (after if knew else before).append(_recorded(writes, names[task], task))
    commanded = [_recorded(finished.commanded, START, None)] if finished.commanded else []
    return [*(step for step in (before, commanded, after) if step), *steps]


def _recorded(writes: Sequence[tuple[str, Any]], node: str, task: str | None) -> StateUpdate:
    anew = [(key, {**value, "knew": 0} if key == LEDGER and "knew" in value else value) for key, value in writes]
    return StateUpdate(Recorded(anew), node, task)  # type: ignore[arg-type]


def _called(finished: Finished) -> dict[str, str]:
    """By task, the nodes that have reported: a snapshot shows no task that a command at a pause called for."""
    written = ((task, key, value) for task, writes in finished.writes.items() for key, value in writes)
    return {task: report.get("node", START) for task, key, report in written if key == LEDGER}


def attach(graph: LedgeredGraph, builder: Builder, topology: Topology) -> None:
    """Turn the channels of the graph into views of a ledger, and its writers into reporters."""
    coerce = coercions_of(graph)
    channels: dict[str, Any] = {LEDGER: LedgerChannel(topology, builder.channels)}
    channels |= {key: StateView(key, spec) for key, spec in builder.channels.items()}
    channels |= (managed := managed_values(builder))
    channels |= {trigger_of(node): TriggerView(trigger_of(node), node) for node in topology.nodes}
    channels |= {START: InputView(START, graph.channels[START]), TASKS: PendingView(TASKS)}  # type: ignore[arg-type]
    channels |= {channel: kept for channel, kept in graph.channels.items() if ERROR_HANDLER in channel}
    for name, node in graph.nodes.items():
        reporter = Reporter(name, builder, topology, answer_mappers(graph, name), coerce)
        changes: dict[str, Any] = {"writers": [reporter.runnable()]}
        if name in topology.nodes:
            keys = keys_of_schema(builder, builder.nodes[name].input_schema)
            kept = [key for key in keys if key not in managed]
            changes |= {
                "triggers": [trigger_of(name)],
                "channels": [LEDGER, *(key for key in keys if key in managed)],
                "mapper": reader(name, kept, node.mapper),
            }
        graph.nodes[name] = node.copy(changes)
    for name in topology.nodes if topology.max_rounds else topology.groups:
        _guard(graph, name)
    graph._nodes = topology.nodes
    graph.signals = frozenset() if topology.deaf else topology.signals
    graph.channels = channels
    graph.validate()


def _guard(graph: LedgeredGraph, node: str) -> None:
    """A node that waits in vain, or whose loop has no end, fails where its own errors are raised: the state is kept."""
    proc = graph.nodes[node]
    agent = proc.bound

    def call(state: Any, config: RunnableConfig) -> Any:
        _raise_error(node, config)
        return agent.invoke(state, config)

    async def acall(state: Any, config: RunnableConfig) -> Any:
        _raise_error(node, config)
        return await agent.ainvoke(state, config)

    set_node_runnable(graph, node, wrap_runnable(agent, call, acall))


def _raise_error(node: str, config: RunnableConfig) -> None:
    if (error := error_of(read_channel(config, LEDGER), node)) is not None:
        raise error
