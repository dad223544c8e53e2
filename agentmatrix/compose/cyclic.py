"""Graphs with loops: LangGraph's supersteps, or none where triggers start the nodes; and a bound for each loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langgraph.graph import END, START
from langgraph.types import Checkpointer

from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.compose.builder import Builder
from agentmatrix.compose.ends import record_commands_to_end, record_routes_to_end
from agentmatrix.compose.scheduled_graph import ScheduledGraph, schedule
from agentmatrix.errors import BuildError
from agentmatrix.pregel.state_graph import edges_of, joins_of, routers_of
from agentmatrix.scheduling.graph_scheduler import RulesFactory
from agentmatrix.scheduling.loop_rules import LoopRules
from agentmatrix.scheduling.superstep_rules import SuperstepRules
from agentmatrix.scheduling.topology import Topology, drawn

__all__ = ["DEFAULT_ROUNDS", "CompiledCyclicGraph", "CyclicGraph"]

DEFAULT_ROUNDS = 25


class CompiledCyclicGraph(ScheduledGraph):
    """A compiled `CyclicGraph`."""


class CyclicGraph(Builder):
    """A graph that may have loops.

    With edges only it runs in LangGraph's supersteps. With triggers (`add_trigger`) it has none:

    - Each completion of a trigger group is an activation of its node, and so is each edge or choice that leads to it.
      A node has one activation at a time, unless `add_trigger(..., concurrent=True)`.
    - An activation sees the run's input and what its causal ancestors wrote, the earlier activations of its own node
      among them unless it is concurrent.
    - The final state is the fold of all updates: by causal depth, then by name of the node, then by activation.

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
        models: Models | None = None,
        tools: Tools | None = None,
        **options: Any,
    ) -> CompiledCyclicGraph:
        """Compile to a LangGraph graph.

        Args:
            checkpointer: as in LangGraph.
            name: the name of the graph.
            max_rounds: rounds a loop may take in one run; by default what the builder was given.
            barriers: whether there are supersteps. Without triggers there always are, with triggers there are none.
            models: the chat models that an `AgentSpec` among the nodes may name.
            tools: the tools that it may name: a mapping, or a sequence of tools that have names.
            options: cache, store, interrupt_before, interrupt_after, debug, transformers, as in LangGraph.

        Raises:
            BuildError: what cannot work; the message names the node and the mend.
        """
        if (whole := self._with_agents(models, tools)) is not self:
            return whole.compile(checkpointer, name=name, max_rounds=max_rounds, barriers=barriers, **options)
        self._check()
        self._check_breakpoints(options.get("interrupt_before"), options.get("interrupt_after"))
        if barriers is not None and barriers is bool(self._groups):
            raise BuildError(
                "a CyclicGraph with triggers has no supersteps: leave out barriers=True"
                if barriers
                else "a CyclicGraph without triggers runs in supersteps: leave out barriers=False, or add_trigger(...)"
            )
        topology = self._with_activations(max_rounds or self.max_rounds)
        if not topology.followers(START) and not self._groups:
            raise BuildError("nothing starts this graph: add_edge(START, ...) to the node that comes first")
        self._check_reachable(topology)
        if loop := topology.endless():
            raise BuildError(
                f"the loop {drawn(loop)} can never end, all its edges are always taken: "
                f"replace one by add_conditional_edges with a way out of it"
            )
        whole = self._copy()
        whole._drawn_only = self._drawn_triggers() - edges_of(self)
        if self._groups:
            record_routes_to_end(whole)
        graph = whole._compiled(CompiledCyclicGraph, name, checkpointer=checkpointer, **options)
        if self._groups:
            record_commands_to_end(graph, [node for node in graph.nodes if node != START])
        rules: RulesFactory = LoopRules if self._groups else SuperstepRules
        return schedule(graph, whole, topology, rules, barriers=not self._groups)

    def _with_activations(self, max_rounds: int) -> Topology:
        """The shape of the graph, with what its rules need besides."""
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
            deferred=frozenset(name for name in nodes if self.nodes[name].defer),
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
