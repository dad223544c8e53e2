"""What `Dag` and `CyclicGraph` have in common: LangGraph's verbs, with agents of any kind as nodes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.graph import Graph as DrawnGraph
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, TimeoutPolicy, TracePolicy

from agentmatrix.agent import AgentSpec, as_agent
from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.display.notebook import BuilderRepr, NotebookRepr
from agentmatrix.errors import BuildError
from agentmatrix.live.live_run import LiveMixin
from agentmatrix.pregel.compiled_graph import (
    RESERVED_CHARACTERS,
    AnyGraph,
    Graph,
    PregelProtocol,
    as_class,
    mark_hidden,
    set_subgraphs,
)
from agentmatrix.pregel.runnables import node_runnable, wrap_runnable
from agentmatrix.pregel.state_graph import (
    add_join,
    copy_builder,
    default_error_handler,
    edges_of,
    routers_of,
    schemas_of,
)
from agentmatrix.scheduling.topology import Topology
from agentmatrix.triggers import Group, Source, group_of, label_of
from agentmatrix.watch.watch_mixin import WatchMixin

__all__ = ["Builder", "ComposedGraph", "check_name", "did_you_mean", "name_of"]

Map = Callable[[Any], Any]
Composed = TypeVar("Composed", bound="ComposedGraph")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'plan'?)"`, or the names that there are."""
    names = [n for n in known if n not in (START, END)]
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (there are: {', '.join(names) or 'no nodes yet'})"


class ComposedGraph(LiveMixin, WatchMixin, NotebookRepr, CompiledStateGraph[Any, Any, Any, Any]):
    """What a builder compiles to: a LangGraph graph, drawn as the same graph in a `StateGraph` would be."""

    _drawing: Graph | None = None
    _labels: Mapping[tuple[str, str], str] = {}

    def copy(self, update: dict[str, Any] | None = None) -> Self:
        """A copy with other attributes, as `with_config` makes one."""
        other = as_class(self, type(self))
        other.__dict__.update(update or {})
        return other

    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> DrawnGraph:
        """The graph to draw."""
        native = self._drawing
        drawn = native.get_graph(config, xray=xray) if native else super().get_graph(config, xray=xray)
        return _labelled(mark_hidden(drawn, self.nodes), self._labels)

    async def aget_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> DrawnGraph:
        """The graph to draw."""
        native = self._drawing
        drawn = await (native.aget_graph(config, xray=xray) if native else super().aget_graph(config, xray=xray))
        return _labelled(mark_hidden(drawn, self.nodes), self._labels)


class Builder(BuilderRepr, StateGraph[Any, Any, Any, Any]):
    """A `StateGraph` that takes any agent as a node, with adapters, and says at build time what cannot work."""

    def __init__(
        self,
        state_schema: Any = MessagesState,
        context_schema: Any = None,
        *,
        name: str | None = None,
        input_schema: Any = None,
        output_schema: Any = None,
    ) -> None:
        super().__init__(state_schema, context_schema, input_schema=input_schema, output_schema=output_schema)
        self.name = name
        self._graphs: dict[str, AnyGraph] = {}
        # By node, the agent as data and the maps around it: `compile` makes the agent.
        self._agent_specs: dict[str, tuple[AgentSpec, Map | None, Map | None]] = {}
        self._groups: dict[str, tuple[Group, ...]] = {}
        self._concurrent: set[str] = set()
        self._labels: Mapping[tuple[str, str], str] = {}
        self._drawn_only: set[tuple[str, str]] = set()

    def add_node(
        self,
        node: Any,
        action: Any = None,
        *,
        input_map: Map | None = None,
        output_map: Map | None = None,
        defer: bool = False,
        metadata: dict[str, Any] | None = None,
        input_schema: Any = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        cache_policy: CachePolicy[Any] | None = None,
        error_handler: Callable[..., Any] | Runnable[Any, Any] | None = None,
        destinations: dict[str, str] | tuple[str, ...] | None = None,
        timeout: float | timedelta | TimeoutPolicy | None = None,
        trace_policy: TracePolicy | None = None,
        input: Any = None,
        retry: RetryPolicy | Sequence[RetryPolicy] | None = None,
    ) -> Self:
        """Add an agent as a node.

        Args:
            node: the name, or the agent itself if it has a name of its own.
            action: the agent: whatever `as_agent` takes, or an `AgentSpec`.
            input_map: makes the agent's input from the node's input, where their schemas differ.
            output_map: makes the node's update from what the agent returned.
            defer: start only when all else has ended.
            metadata: for callbacks and traces.
            input_schema: the schema that the node reads; by default the state's, or the annotation of a function.
            retry_policy: when a failed node is run again; of several policies the first that matches counts.
            cache_policy: when a kept result stands in for a run.
            error_handler: called with the state and a `NodeError` when the node has failed for good.
            destinations: the nodes that a `Command` of this node may go to.
            timeout: for each attempt, in seconds; for async nodes only.
            trace_policy: what a trace records of the node's input and output.
            input: LangGraph's old name for `input_schema`.
            retry: LangGraph's old name for `retry_policy`.

        Returns:
            This builder.

        Raises:
            BuildError: a duplicate or reserved name.
            NotAnAgentError: `action` is no agent.
        """
        name, agent = (node, action) if isinstance(node, str) else (name_of(node), node)
        check_name(name, self.nodes)
        key = "messages" if "messages" in self.channels and "__root__" not in self.channels else None
        if isinstance(agent, AgentSpec):
            self._agent_specs[name] = (agent, input_map, output_map)
            agent = _unresolved
        else:
            agent = self._node_agent(name, as_agent(agent, name=name, key=key), input_map, output_map)
        super().add_node(
            name,
            agent,
            defer=defer,
            metadata=metadata,
            input_schema=input_schema or input,
            retry_policy=retry_policy or retry,
            cache_policy=cache_policy,
            error_handler=error_handler,
            destinations=destinations,
            timeout=timeout,
            trace_policy=trace_policy,
        )
        return self

    def _node_agent(self, name: str, agent: Any, input_map: Map | None, output_map: Map | None) -> Any:
        """The agent with its maps; a graph is kept by the name of the node."""
        if isinstance(agent, PregelProtocol):
            self._graphs[name] = agent
        return _adapted(agent, name, input_map, output_map) if input_map or output_map else agent

    def _with_agents(self, models: Models | None, tools: Tools | None) -> Self:
        """A copy with an agent in place of each `AgentSpec`; this builder itself if it has none.

        Raises:
            BuildError: a spec names a model or a tool that is not there.
        """
        if not self._agent_specs:
            return self
        whole = copy_builder(self)
        whole._graphs, whole._agent_specs = dict(self._graphs), {}
        for name, (spec, input_map, output_map) in self._agent_specs.items():
            agent = whole._node_agent(name, spec.compile(models, tools), input_map, output_map)
            whole.nodes[name] = replace(whole.nodes[name], runnable=node_runnable(agent, name))
        return whole

    def _handled(self, node: str) -> tuple[str, ...]:
        """The nodes that the error handler of `node` says it may go to."""
        spec = self.nodes[node]
        handler = default_error_handler(self)
        if spec.error_handler_node:
            runnable: Any = self.nodes[spec.error_handler_node].runnable
            handler = getattr(runnable, "func", None) or getattr(runnable, "afunc", None) or runnable
        return _command_targets(handler) if handler is not None and not spec.is_error_handler else ()

    def add_edge(self, start_key: str | Sequence[str], end_key: str) -> Self:
        """Add an edge, or one edge from several nodes that waits for all of them. Nodes may be added later."""
        if isinstance(start_key, str):
            if start_key == END or end_key == START:
                raise BuildError(f"an edge cannot go {'out of END' if start_key == END else 'into START'}")
            self.edges.add((start_key, end_key))
            return self
        starts = tuple(start_key)
        if not starts or END in starts or end_key == START:
            raise BuildError(f"an edge from {list(starts)} to {end_key!r} has no start or the wrong end")
        add_join(self, starts, end_key)
        return self

    def add_trigger(self, node: str, *groups: Group | Source, concurrent: bool = False) -> Self:
        """Let groups of sources start a node: the first group that is complete does. Nodes may be added later.

        Args:
            node: the node.
            groups: `all_of(...)`, `any_of(...)`, `at_least(k, ...)`, or one source alone: the name of a node,
                `signal(name)`, `every(seconds)`, `after(seconds)`, `idle()`. Edges to the node are one more group,
                before these.
            concurrent: in a graph with loops: the node may start again while it is at work.

        Returns:
            This builder.

        Raises:
            BuildError: something that is no group and no source.
        """
        if not isinstance(node, str):
            raise BuildError(
                f"add_trigger takes the name of a node first, then its groups, not a {type(node).__name__}"
            )
        if not groups:
            raise BuildError(f"add_trigger({node!r}) has no group: add all_of(...), any_of(...) or at_least(k, ...)")
        self._groups[node] = (*self._groups.get(node, ()), *(group_of(node, group) for group in groups))
        if concurrent:
            self._concurrent.add(node)
        return self

    def add_sequence(self, nodes: Sequence[Any]) -> Self:
        """Add nodes that follow each other: agents, or pairs of name and agent."""
        if not nodes:
            raise BuildError("add_sequence needs at least one node")
        named = [n if isinstance(n, tuple) else (name_of(n), n) for n in nodes]
        for name, agent in named:
            self.add_node(name, agent)
        for (before, _), (after, _) in zip(named, named[1:], strict=False):
            self.add_edge(before, after)
        return self

    def add_conditional_edges(self, source: str, path: Any, path_map: Any = None) -> Self:
        """Add a router: `path(state)` names the nodes (or `Send`s) that follow `source`."""
        try:
            super().add_conditional_edges(source, path, path_map)
        except ValueError as error:
            raise BuildError(f"{error}: give the second router a name of its own") from None
        return self

    def _copy(self) -> Self:
        """A copy that can be completed and compiled while this builder stays as it is."""
        whole = copy_builder(self)
        whole._labels = self._trigger_labels()
        whole.edges |= self._drawn_triggers()
        return whole

    @property
    def graphs(self) -> Mapping[str, AnyGraph]:
        """By node, the graph that stands in it."""
        return self._graphs

    @property
    def drawn_only(self) -> set[tuple[str, str]]:
        """The edges that only draw a trigger."""
        return self._drawn_only

    def _drawn_triggers(self) -> set[tuple[str, str]]:
        """Triggers as edges: a drawing shows them so. What starts a node from outside is drawn from START."""
        return {(source if isinstance(source, str) else START, node) for node, source, _ in self._triggers()}

    def _trigger_labels(self) -> dict[tuple[str, str], str]:
        """What a drawing says at edges that stand for signals and timers, and for sources that are not regular."""
        plain: set[Any] = {*edges_of(self), *((source, node) for node, source, kind in self._triggers() if not kind)}
        labels: dict[tuple[str, str], dict[str, None]] = {}
        for node, source, kind in self._triggers():
            edge = (source, node) if isinstance(source, str) else (START, node)
            words = (kind,) if isinstance(source, str) else (kind, label_of(source))
            if edge not in plain:
                labels.setdefault(edge, {})[" ".join(filter(None, words))] = None
        return {edge: ", ".join(words) for edge, words in labels.items()}

    def _triggers(self) -> Iterator[tuple[str, Source, str]]:
        """Each node with a source of a group of its own, and the kind of the source, "" for a regular one."""
        for node, groups in self._groups.items():
            for group in groups:
                kinds = {"": group.regular, "gate": group.gates, "latest": group.latest, "optional": group.optional}
                yield from ((node, source, kind) for kind, sources in kinds.items() for source in sources)

    def _check_triggers(self) -> None:
        for node, groups in self._groups.items():
            if node not in self.nodes:
                raise BuildError(f"add_trigger names the unknown node {node!r}{did_you_mean(node, self.nodes)}")
            for group in groups:
                for source in group.sources:
                    self._check_source(f"the group {group.name} of the node {node!r}", source)

    def _check_source(self, where: str, source: Source) -> None:
        label = label_of(source)
        if source == END:
            raise BuildError(f"{where} waits for END, after which nothing starts: name the node that leads there")
        if isinstance(source, str) and source != START and source not in self.nodes:
            raise BuildError(f"{where} names the unknown node {source!r}{did_you_mean(source, self.nodes)}")
        if not isinstance(source, str) and label in self.nodes:
            raise BuildError(f"{where} has a signal or timer named {label!r}, like a node: give it another name")

    def _check(self) -> None:
        """Raise a BuildError for names that nobody added, and for a graph without nodes."""
        if not self.nodes:
            raise BuildError("this graph has no nodes: add one with add_node(name, agent)")
        for source, target, where in self._named():
            for name in (source, target):
                if name not in self.nodes and name not in (START, END):
                    raise BuildError(f"{where} names the unknown node {name!r}{did_you_mean(name, self.nodes)}")
        self._check_triggers()

    def _named(self) -> Iterator[tuple[str, str, str]]:
        """Every pair of names that somebody wrote down, and where."""
        for source, target in sorted(edges_of(self)):
            yield source, target, f"the edge {source!r} -> {target!r}"
        for source, branches in routers_of(self).items():
            for router, branch in branches.items():
                for target in (branch.ends or {source: source}).values():
                    yield source, target, f"the router {router!r} of {source!r}"
        for name, spec in self.nodes.items():
            for target in (*(spec.ends or ()), *self._handled(name)):
                yield name, target, f"destinations= of the node {name!r}"

    def _check_reachable(self, topology: Topology) -> None:
        reachable = topology.reachable()
        lost = [name for name in topology.nodes if name not in reachable]
        if lost:
            # Not one that would follow another of them.
            first = min(lost, key=lambda name: len({name, *topology.ancestors(name)}))
            raise BuildError(
                f"nothing leads to the node {first!r}: add an edge or a trigger, or name it in the destinations= "
                "(or the Command[Literal[...]] annotation) of the node whose Command goes to it"
            )

    def _check_breakpoints(self, *breakpoints: Any) -> None:
        for names in breakpoints:
            for name in names if names and names != "*" else ():
                if name not in self.nodes:
                    raise BuildError(f"the breakpoint names the unknown node {name!r}{did_you_mean(name, self.nodes)}")

    def _compiled(self, kind: type[Composed], name: str | None, **options: Any) -> Composed:
        """What LangGraph makes of this graph, as an object of our class that remembers how to draw itself."""
        native = StateGraph.compile(self, name=name or self.name, **options)
        self._restore_subgraphs(native)
        for inner in self._graphs.values():
            remote: Any = inner
            if getattr(type(inner), "is_remote", False):
                remote.list_types_of(schemas_of(native))  # also for states that are read before the first run
        graph = as_class(native, kind)
        graph._drawing = native
        graph._labels = self._labels
        return graph

    def _restore_subgraphs(self, graph: Graph) -> None:
        """An adapter around a graph hides it from LangGraph, which must know the graphs inside of nodes."""
        for name, inner in self._graphs.items():
            if not graph.nodes[name].subgraphs and getattr(inner, "checkpointer", None) is not False:
                set_subgraphs(graph, name, [inner])


def _labelled(drawn: DrawnGraph, labels: Mapping[tuple[str, str], str]) -> DrawnGraph:
    """The drawing with labels at its edges; an edge to or from a nested graph that is shown has its node's label."""
    for number, edge in enumerate(drawn.edges if labels else ()):
        source, target = edge.source.partition(":")[0], edge.target.partition(":")[0]
        if source != target or edge.source == source:
            if label := labels.get((source, target)):
                drawn.edges[number] = edge._replace(data=label, conditional=True)
    return drawn


def check_name(name: str, taken: Container[str]) -> None:
    """Raise a BuildError for a name that no node can have, or that another one has."""
    if name in taken:
        raise BuildError(f"there is already a node {name!r}: give one of the two another name")
    if name in (START, END) or name.startswith("__") or not name:
        raise BuildError(f"{name!r} cannot name a node, LangGraph reserves it: choose another name")
    if any(character in name for character in RESERVED_CHARACTERS):
        reserved = " and ".join(repr(character) for character in RESERVED_CHARACTERS)
        raise BuildError(f"the name {name!r} has a character that LangGraph reserves ({reserved}): leave it out")


def name_of(agent: Any) -> str:
    """The agent's own name."""
    if isinstance(agent, Runnable):
        name: str | None = agent.get_name()
    else:
        name = getattr(agent, "name", None) or getattr(agent, "__name__", type(agent).__name__)
    if name in ("LangGraph", "<lambda>", None):
        raise BuildError(f"{agent!r} has no name of its own: add it as add_node('some name', ...)")
    return str(name)


def _command_targets(function: Any) -> tuple[str, ...]:
    """The nodes that a return annotation names: `Command[Literal["a", "b"]]`, also as one of several types."""
    try:
        returned = get_type_hints(function).get("return")
    except (NameError, TypeError):
        return ()
    for kind in (returned, *get_args(returned)):
        if get_origin(kind) is Command and get_origin(get_args(kind)[0]) is Literal:
            return tuple(get_args(get_args(kind)[0]))
    return ()


def _adapted(agent: Any, name: str, input_map: Map | None, output_map: Map | None) -> Runnable[Any, Any]:
    runnable = node_runnable(agent, name)
    into, out_of = input_map or _same, output_map or _same

    def call(state: Any, config: RunnableConfig) -> Any:
        return out_of(runnable.invoke(into(state), config))

    async def acall(state: Any, config: RunnableConfig) -> Any:
        return out_of(await runnable.ainvoke(into(state), config))

    return wrap_runnable(runnable, call, acall, name=name)


def _same(value: Any) -> Any:
    return value


def _unresolved(state: Any) -> Any:
    """Stands for an `AgentSpec` until `compile`."""
    raise BuildError("an AgentSpec runs once compile(models=..., tools=...) has made an agent of it")
