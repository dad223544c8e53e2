"""Graphs without cycles: each node runs once, after all branches that lead to it, and sees what led to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langgraph.graph import END, START
from langgraph.types import Checkpointer

from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.compose.builder import Builder
from agentmatrix.compose.scheduled_graph import ScheduledGraph, schedule
from agentmatrix.errors import BuildError, CycleError
from agentmatrix.pregel.state_graph import edges_of, routers_of
from agentmatrix.scheduling.dag_rules import DagRules
from agentmatrix.scheduling.graph_scheduler import RulesFactory
from agentmatrix.scheduling.topology import Topology, drawn
from agentmatrix.scheduling.trigger_rules import TriggeredDagRules

__all__ = ["CompiledDag", "Dag"]


class CompiledDag(ScheduledGraph):
    """A compiled `Dag`."""


class Dag(Builder):
    """A graph without cycles.

    The arguments are those of `StateGraph`, with the messages of a conversation as the state by default, and `name=`.

    - A node runs at most once a run, and once for each `Send`. Several edges into it, in a list or one by one, are one
      join of the branches that were taken: it runs when each of them has delivered, and is skipped when all are.
    - It sees the run's input and what its causal ancestors wrote, and nothing of nodes that merely finished earlier. A
      router sees that and what its own node wrote.
    - The final state is the fold of all updates in one order: by causal depth, then by name of the node. Two nodes
      that write a key without a reducer, neither of them after the other, end the run with `InvalidUpdateError`.
    - A node with trigger groups (`add_trigger`) starts when the first of them is complete, or its edges are.
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
        models: Models | None = None,
        tools: Tools | None = None,
        **options: Any,
    ) -> CompiledDag:
        """Compile to a LangGraph graph.

        Args:
            checkpointer: as in LangGraph.
            name: the name of the graph.
            barriers: LangGraph's supersteps, with a checkpoint, values and time travel at each. Otherwise a node starts
                the moment that all which leads to it has settled, values are shown after each node, and there is a
                checkpoint where a run begins, pauses or ends; what has finished in between lies beside it.
            models: the chat models that an `AgentSpec` among the nodes may name.
            tools: the tools that it may name: a mapping, or a sequence of tools that have names.
            options: cache, store, interrupt_before, interrupt_after, debug, transformers, as in LangGraph.

        Raises:
            BuildError: what cannot work; the message names the node and the mend. `CycleError` draws a cycle.
        """
        if (whole := self._with_agents(models, tools)) is not self:
            return whole.compile(checkpointer, name=name, barriers=barriers, **options)
        self._check()
        self._check_breakpoints(options.get("interrupt_before"), options.get("interrupt_after"))
        topology = self._topology()
        if cycle := topology.cycle():
            raise CycleError(
                f"a Dag has no cycles, and this one has {drawn(cycle)}: take one of these edges out, or use CyclicGraph"
            )
        self._check_reachable(topology)
        if self._concurrent:
            raise BuildError(f"concurrent=True of {min(self._concurrent)!r} is for a CyclicGraph: here it runs once")
        if topology.idles:
            raise BuildError(
                f"{min(topology.idles)!r} is a source of a CyclicGraph: in a Dag add_node(..., defer=True)"
            )
        if barriers and topology.timers:
            raise BuildError(
                f"the timer {topology.timers[0].name!r} cannot fire in supersteps: leave out barriers=True"
            )
        topology = replace(topology, deaf=barriers)
        whole = self._completed(topology)
        graph = whole._compiled(CompiledDag, name, checkpointer=checkpointer, **options)
        rules: RulesFactory = DagRules
        if topology.groups:
            rules = TriggeredDagRules
        return schedule(graph, whole, topology, rules, barriers=barriers)

    def _topology(self) -> Topology:
        nodes = tuple(name for name, spec in self.nodes.items() if not spec.is_error_handler)
        deferred = frozenset(name for name in nodes if self.nodes[name].defer)
        edges = {s: tuple(sorted({t for a, t in edges_of(self) if a == s and t != END})) for s in (START, *nodes)}
        declared = {source: self._declared(source) for source in (START, *nodes)}
        groups = dict(self._groups)
        known = Topology(START, nodes, edges, declared, deferred, groups)
        if known.cycle():
            return known
        for source in (START, *known.order):
            if any(branch.ends is None for branch in routers_of(self).get(source, {}).values()):
                before = {source} if source == START else {source, *known.ancestors(source)}
                anywhere = tuple(node for node in nodes if node not in before)
                known = replace(known, choices={**known.choices, source: anywhere})
        starts = tuple(node for node in nodes if not known.sources[node] and node not in groups)
        return replace(known, edges={**edges, START: (*edges[START], *starts)})

    def _declared(self, source: str) -> tuple[str, ...]:
        """The nodes that routers, commands and error handlers of `source` say they may lead to."""
        targets: list[str] = []
        for branch in routers_of(self).get(source, {}).values():
            targets.extend((branch.ends or {}).values())
        if source in self.nodes:
            targets.extend([*(self.nodes[source].ends or ()), *self._handled(source)])
        return tuple(dict.fromkeys(target for target in targets if target != END))

    def _completed(self, topology: Topology) -> Dag:
        """This graph with what is left unsaid: nodes without sources start at START, nodes without successors end."""
        whole = self._copy()
        starts = {(START, node) for node in topology.edges[START]}
        whole._drawn_only = self._drawn_triggers() - edges_of(self) - starts
        whole.edges |= {(START, node) for node in topology.edges[START]}
        whole.edges |= {
            (node, END) for node in topology.nodes if not topology.followers(node) and node not in whole._leading()
        }
        return whole

    def _leading(self) -> set[str]:
        """The nodes that somebody gave a way out, be it to END."""
        sources = {source for source, _ in edges_of(self)}
        return sources | set(routers_of(self)) | {name for name, spec in self.nodes.items() if spec.ends}
