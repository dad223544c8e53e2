"""Graphs without cycles: each node runs once, after all branches that lead to it, and sees what led to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START
from langgraph.types import Checkpointer, StateUpdate

from agentmatrix.compose.builder import Builder, ComposedGraph
from agentmatrix.compose.steps import Recorded, Reporter, reader
from agentmatrix.compose.topology import Topology, drawn
from agentmatrix.compose.views import LEDGER, InputView, LedgerChannel, PendingView, Report, StateView, TriggerView
from agentmatrix.errors import CycleError
from agentmatrix.pregel_channels import (
    ERROR_HANDLER,
    TASKS,
    Finished,
    afinished_tasks,
    answer_mappers,
    finished_tasks,
    trigger_of,
)
from agentmatrix.pregel_loop import OpenSteps

__all__ = ["CompiledDag", "Dag"]


class CompiledDag(ComposedGraph):
    """A compiled `Dag`."""

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished at a pause stays finished."""
        settled = _settled(finished_tasks(self, config) if _settles(supersteps) else None, supersteps)
        return super().bulk_update_state(config, settled)

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Update the state, as in LangGraph; what has finished at a pause stays finished."""
        settled = _settled(await afinished_tasks(self, config) if _settles(supersteps) else None, supersteps)
        return await super().abulk_update_state(config, settled)


class BarrierFreeDag(OpenSteps, CompiledDag):
    """A compiled `Dag` whose nodes start the moment that all which leads to them has settled."""


def _settles(supersteps: Sequence[Sequence[StateUpdate]]) -> bool:
    return bool(supersteps and supersteps[0]) and supersteps[0][0][1] not in ("__copy__", "__input__")


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
    return {task: report["node"] for task, key, report in written if key == LEDGER}


class Dag(Builder):
    """A graph without cycles.

    The arguments are those of `StateGraph`, with the messages of a conversation as the state by default, and `name=`.

    - A node runs at most once a run, and once for each `Send`. Several edges into it, in a list or one by one, are one
      join of the branches that were taken: it runs when each of them has delivered, and is skipped when all are.
    - It sees the run's input and what its causal ancestors wrote, and nothing of nodes that merely finished earlier. A
      router sees that and what its own node wrote.
    - The final state is the fold of all updates in one order: topological, ties by the order of add_node. Two nodes
      that write a key without a reducer, neither of them after the other, end the run with `InvalidUpdateError`.
    - A node without sources starts at START, one without successors leads to END.
    - A router that does not declare its targets, by path_map or a `Literal` annotation, may lead to every node that
      does not lead to it, and those wait for its choice. Other targets are declared too: `destinations=` or
      `Command[Literal[...]]`.
    """

    def compile(
        self,
        checkpointer: Checkpointer = None,
        *,
        name: str | None = None,
        barriers: bool = False,
        **options: Any,
    ) -> CompiledDag:
        """Compile to a LangGraph graph.

        Args:
            checkpointer: as in LangGraph.
            name: the name of the graph.
            barriers: LangGraph's supersteps, with a checkpoint, values and time travel at each. Otherwise a node starts
                the moment that all which leads to it has settled, values are shown after each node, and there is a
                checkpoint where a run begins, pauses or ends; what has finished in between lies beside it.
            options: cache, store, interrupt_before, interrupt_after, debug, transformers, as in LangGraph.

        Raises:
            BuildError: what cannot work; the message names the node and the mend. `CycleError` draws a cycle.
        """
        self._check()
        self._check_breakpoints(options.get("interrupt_before"), options.get("interrupt_after"))
        topology = self._topology()
        if cycle := topology.cycle():
            raise CycleError(
                f"a Dag has no cycles, and this one has {drawn(cycle)}: take one of these edges out, or use CyclicGraph"
            )
        self._check_reachable(topology)
        whole = self._completed(topology)
        kind = CompiledDag if barriers else BarrierFreeDag
        graph = whole._compiled(kind, name, checkpointer=checkpointer, **options)
        _attach(graph, whole, topology)
        graph.stream_eager = graph.stream_eager or not barriers
        return graph

    def _topology(self) -> Topology:
        nodes = tuple(name for name, spec in self.nodes.items() if not spec.is_error_handler)
        deferred = frozenset(name for name in nodes if self.nodes[name].defer)
        edges = {s: tuple(sorted({t for a, t in self._all_edges if a == s and t != END})) for s in (START, *nodes)}
        declared = {source: self._declared(source) for source in (START, *nodes)}
        known = Topology(START, nodes, edges, declared, deferred)
        if known.cycle():
            return known
        for source in (START, *known.order):
            if any(branch.ends is None for branch in self.branches.get(source, {}).values()):
                before = {source} if source == START else {source, *known.ancestors(source)}
                anywhere = tuple(node for node in nodes if node not in before)
                known = Topology(START, nodes, edges, {**known.choices, source: anywhere}, deferred)
        starts = tuple(node for node in nodes if not known.sources[node])
        return Topology(START, nodes, {**edges, START: (*edges[START], *starts)}, known.choices, deferred)

    def _declared(self, source: str) -> tuple[str, ...]:
        """The nodes that routers, commands and error handlers of `source` say they may lead to."""
        targets: list[str] = []
        for branch in self.branches.get(source, {}).values():
            targets.extend((branch.ends or {}).values())
        if source in self.nodes:
            targets.extend([*(self.nodes[source].ends or ()), *self._handled(source)])
        return tuple(dict.fromkeys(target for target in targets if target != END))

    def _completed(self, topology: Topology) -> Dag:
        """This graph with what is left unsaid: nodes without sources start at START, nodes without successors end."""
        whole = self._copy()
        whole.edges |= {(START, node) for node in topology.edges[START]}
        whole.edges |= {
            (node, END) for node in topology.nodes if not topology.followers(node) and node not in whole._leading()
        }
        return whole

    def _leading(self) -> set[str]:
        """The nodes that somebody gave a way out, be it to END."""
        sources = {source for source, _ in self._all_edges}
        return sources | set(self.branches) | {name for name, spec in self.nodes.items() if spec.ends}


def _attach(graph: CompiledDag, builder: Dag, topology: Topology) -> None:
    """Turn the channels of the graph into views of a ledger, and its writers into reporters."""
    coerce = graph.schema_to_mapper
    channels: dict[str, Any] = {LEDGER: LedgerChannel(topology, builder.channels)}
    channels |= {key: StateView(key, spec) for key, spec in builder.channels.items()}
    channels |= builder.managed
    channels |= {trigger_of(node): TriggerView(trigger_of(node), node) for node in topology.nodes}
    channels |= {START: InputView(START, graph.channels[START]), TASKS: PendingView(TASKS)}  # type: ignore[arg-type]
    channels |= {channel: kept for channel, kept in graph.channels.items() if ERROR_HANDLER in channel}
    for name, node in graph.nodes.items():
        reporter = Reporter(name, builder, topology, answer_mappers(graph, name), coerce)
        changes: dict[str, Any] = {"writers": [reporter.runnable()]}
        if name in topology.nodes:
            keys = list(builder.schemas[builder.nodes[name].input_schema])
            managed = [key for key in keys if key in builder.managed]
            kept = [key for key in keys if key not in builder.managed]
            changes |= {
                "triggers": [trigger_of(name)],
                "channels": [LEDGER, *managed],
                "mapper": reader(name, kept, node.mapper),
            }
        graph.nodes[name] = node.copy(changes)
    graph.channels = channels
    graph.validate()
