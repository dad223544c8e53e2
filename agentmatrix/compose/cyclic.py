"""Graphs with loops: LangGraph's supersteps, or none where triggers start the nodes; and a bound for each loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Checkpointer, RetryPolicy, TimeoutPolicy

from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.compose.actor_node import ActorNode
from agentmatrix.compose.actor_snapshots import aactors, actors
from agentmatrix.compose.builder import Builder, check_name
from agentmatrix.compose.declared_actors import DeclaredActors
from agentmatrix.compose.ends import record_commands_to_end, record_routes_to_end
from agentmatrix.compose.scheduled_graph import ScheduledGraph, schedule
from agentmatrix.errors import BuildError
from agentmatrix.explanation import ActorSnapshot
from agentmatrix.middleware import Middleware
from agentmatrix.pregel.compiled_graph import AnyGraph
from agentmatrix.pregel.state_graph import edges_of, joins_of, routers_of
from agentmatrix.scheduling.actor_rules import ActorRules
from agentmatrix.scheduling.actors import Actors
from agentmatrix.scheduling.graph_scheduler import RulesFactory
from agentmatrix.scheduling.loop_rules import LoopRules
from agentmatrix.scheduling.superstep_rules import SuperstepRules
from agentmatrix.scheduling.topology import Topology, drawn

__all__ = ["DEFAULT_ROUNDS", "CompiledCyclicGraph", "CyclicGraph"]

DEFAULT_ROUNDS = 25


class CompiledCyclicGraph(ScheduledGraph):
    """A compiled `CyclicGraph`."""

    _actor_nodes: Mapping[str, ActorNode] = {}

    def actors(self, config: RunnableConfig) -> dict[str, ActorSnapshot]:
        """The actors of a thread, by path: their states, what they have not read, and who is at work.

        Args:
            config: names the thread, as for `get_state`.
        """
        return actors(self, self._actor_nodes, config)

    def get_subgraphs(self, *, namespace: str | None = None, recurse: bool = False) -> Iterator[tuple[str, AnyGraph]]:
        """The graphs inside, as in LangGraph; that of an actor is found by its namespace, `"staff/ann"`."""
        actors = self._actor_nodes.get(namespace.partition("/")[0]) if namespace and "|" not in namespace else None
        if namespace and actors is not None and actors.graph is not None and "/" in namespace:
            yield namespace, actors.graph
        else:
            yield from super().get_subgraphs(namespace=namespace, recurse=recurse)

    async def aactors(self, config: RunnableConfig) -> dict[str, ActorSnapshot]:
        """The same as `actors`, async."""
        return await aactors(self, self._actor_nodes, config)


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
        self._actors: dict[str, DeclaredActors] = {}

    def add_actors(
        self,
        name: str,
        agent: Any = None,
        *,
        make: Callable[[str, Any], Any] | None = None,
        state: Any = MessagesState,
        max_actors: int = 1_000,
        max_depth: int = 10,
        on_error: Literal["error", "skip", "dismiss"] = "error",
        middleware: Sequence[Middleware] = (),
        destinations: tuple[str, ...] = (),
        metadata: dict[str, Any] | None = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
    ) -> Self:
        """Add one node that stands for many agents, each with a key, that come into being while the graph runs.

        A message for `"staff/ann"` starts the actor ann, whoever sends it: `Command(goto=Send("staff/ann", x))`, a
        router's `Send`, `get_activation().send("staff/ann", x)` of a node, of a tool, of an actor, or of what runs
        inside them. It starts when the sender has ended. An actor reads one message at a time, in the order of
        arrival; different actors run at once.

        What an actor returns goes to its own state, which lasts as long as the thread; a `Command` leads on in the
        graph, and `Command(graph=Command.PARENT, update=...)` updates the state of the graph.

        Args:
            name: the node.
            agent: whatever `as_agent` takes, or an `AgentSpec`; compiled once. It is given the state of the actor, with
                the message in it: a text or messages in `messages`, or a dict of any keys. May be left out where `make`
                returns an `AgentSpec` for every key.
            make: `make(key, message)` is asked once about a key that is new: it returns a dict of the actor's first
                state, an `AgentSpec`, or None to refuse. By default everybody is hired, with an empty state.
            state: the schema of an actor's state.
            max_actors: how many there may be at a time. Whoever would hire one more hears a `BoundError`.
            max_depth: how many actors may have hired each other in a chain.
            on_error: what follows when an actor raises: the run ends (`"error"`), the message is given up (`"skip"`),
                or the actor is dismissed (`"dismiss"`).
            middleware: functions `(message, sender, hearers, mailbox)`, not async, that each message from inside passes
                before it is kept, as those of a `ChatGroup`; the `Mailbox` has what the actor has not read. What is
                blocked is not sent. A message that is a dict passes with what it has under `messages`.
            destinations: the nodes that the actors may send to, if nothing else leads there.
            metadata: as for `add_node`.
            retry_policy: as for `add_node`.
            timeout: as for `add_node`.

        Returns:
            This builder.

        Raises:
            BuildError: a name that is taken or reserved, or a bound that lets nobody in.
            NotAnAgentError: `agent` is no agent.
        """
        declared = DeclaredActors(
            name, agent, make, state, max_actors, max_depth, on_error, tuple(middleware), CyclicGraph
        )
        declared.check(self.nodes)
        check_name(name, self.nodes)
        self._actors[name] = declared
        StateGraph.add_node(
            self,
            name,
            declared.stand_in,
            metadata=metadata,
            retry_policy=retry_policy,
            timeout=timeout,
            destinations=destinations,
        )
        return self

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
            return whole.compile(
                checkpointer,
                name=name,
                max_rounds=max_rounds,
                barriers=barriers,
                models=models,
                tools=tools,
                **options,
            )
        self._check()
        self._check_actors()
        self._check_breakpoints(options.get("interrupt_before"), options.get("interrupt_after"))
        triggered = bool(self._groups or self._actors)
        if barriers is not None and barriers is triggered:
            raise BuildError(
                "a CyclicGraph with triggers or actors has no supersteps: leave out barriers=True"
                if barriers
                else "a CyclicGraph without triggers runs in supersteps: leave out barriers=False, or add_trigger(...)"
            )
        topology = self._with_activations(max_rounds or self.max_rounds)
        if not topology.followers(START) and not triggered:
            raise BuildError("nothing starts this graph: add_edge(START, ...) to the node that comes first")
        self._check_reachable(topology)
        if loop := topology.endless():
            raise BuildError(
                f"the loop {drawn(loop)} can never end, all its edges are always taken: "
                f"replace one by add_conditional_edges with a way out of it"
            )
        whole = self._copy()
        whole._drawn_only = self._drawn_triggers() - edges_of(self)
        known: dict[str, Actors] = {}
        actor_nodes: dict[str, ActorNode] = {}
        for node, declared in self._actors.items():
            actor_nodes[node], known[node] = declared.node(models, tools)
            whole.nodes[node] = replace(whole.nodes[node], runnable=actor_nodes[node].as_runnable())
        if triggered:
            record_routes_to_end(whole)
        graph = whole._compiled(CompiledCyclicGraph, name, checkpointer=checkpointer, **options)
        if triggered:
            record_commands_to_end(graph, [node for node in graph.nodes if node != START])
        rules: RulesFactory = LoopRules if triggered else SuperstepRules
        graph._actor_nodes = actor_nodes
        if known:
            topology, rules = replace(topology, actors=known), ActorRules
        return schedule(graph, whole, topology, rules, barriers=not triggered)

    def _drawn_triggers(self) -> set[tuple[str, str]]:
        drawn = super()._drawn_triggers()
        starts = {source for source, _ in (*edges_of(self), *drawn)} | {*routers_of(self)}
        return drawn | ({(START, min(self._actors))} if self._actors and START not in starts else set())

    def _check_actors(self) -> None:
        for name in self._actors:
            mend = f"send to {name + '/<key>'!r}, as by Command(goto=Send(...))"
            for source, target, where in self._named():
                if target == name and where.startswith(("the edge", "the router")):
                    raise BuildError(f"{where} leads to the actors {name!r}, which are many: {mend} from {source!r}")
            if name in self._groups:
                raise BuildError(f"a trigger starts the actors {name!r}, which are many: let a node {mend}")
            if taken := next((node for node in self.nodes if node.startswith(f"{name}/")), None):
                raise BuildError(f"the node {taken!r} has the name of an actor of {name!r}: give it another name")

    def _with_activations(self, max_rounds: int) -> Topology:
        """The shape of the graph, with what its rules need besides."""
        nodes = tuple(
            name for name, spec in self.nodes.items() if not spec.is_error_handler and name not in self._actors
        )
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
            actors={name: Actors(name) for name in self._actors},
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
