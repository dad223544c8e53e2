"""The handler of callbacks that makes events of what a run does.

It is called on any thread, in the middle of the run: it does little, keeps what it must know of open runs and nodes,
and hands each event to a sink. On a host stands a recorder of the host's own, so that the seconds of a node are
measured where it runs; its events cross as plain values, and `Relay` makes the caller's of them.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

from langchain_core.messages import BaseMessage
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import GraphBubbleUp, GraphInterrupt

from agentmatrix.pregel.node_handler import NodeHandler, calling_graph
from agentmatrix.watch.node_output import messages_of_output, said, tokens_of, turn_of
from agentmatrix.watch.run_event import RunEvent, node_above, node_path, plain

__all__ = ["EventRecorder", "Transfer", "WatchedGraph", "is_cancellation", "question"]

logger = logging.getLogger("agentmatrix")
Method = TypeVar("Method", bound=Callable[..., None])


def _guarded(method: Method) -> Method:
    """A watcher never changes a run: what it raises is logged, once."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            if not self.has_failed:
                self.has_failed = True
                logger.exception("a watcher has failed; the run goes on, and not all of it is shown")

    return cast(Method, call)


@dataclass(slots=True)
class WatchedGraph:
    """The graph of a run that was started in the block.

    Attributes:
        run: the id of the run.
        graph: the compiled graph or remote agent; None where something else was started.
        config: names its thread, to go on from there.
        prefix: what the namespaces of its nodes begin with, where it runs inside of a node.
        seen: the ids of the messages that have been said.
    """

    run: str
    graph: Any = None
    config: Any = None
    prefix: str = ""
    seen: set[str] = field(default_factory=set)

    def path(self, namespace: str) -> str:
        """The path of a node in this graph."""
        own = namespace.removeprefix(self.prefix) if self.prefix else namespace
        return node_path(own.lstrip("|"))


class Transfer(NamedTuple):
    """A large value on its way to or from a host.

    Attributes:
        path: of the node there.
        kind: `received` or `to send`.
        done: bytes that have come, or that wait to be sent.
        size: bytes that were announced; 0 where that is not known.
    """

    path: str
    kind: str
    done: int
    size: int

    def __str__(self) -> str:
        of = f" of {self.size / 1e6:.0f}" if self.size else ""
        return f"{self.done / 1e6:.0f}{of} MB {self.kind}"


_NO_GRAPH = WatchedGraph("")


class EventRecorder(NodeHandler):
    """Makes events of callbacks.

    Args:
        sink: takes each event.
        on_graph: takes the graph of each run that begins.
        outer: on a host, the caller's run that the runs here belong to; None where there is none.
        namespace: on a host, that of the node which it works for.
        is_remote: whether it stands on a host.
    """

    def __init__(
        self,
        sink: Callable[[RunEvent], None],
        on_graph: Callable[[WatchedGraph], None] = lambda graph: None,
        *,
        outer: UUID | None = None,
        namespace: str = "",
        is_remote: bool = False,
    ) -> None:
        self.sink, self._on_graph, self._is_remote = sink, on_graph, is_remote
        self.has_failed = False
        # By remote run, what is crossing now.
        self.transfers: dict[int, Callable[[], Transfer | None]] = {}
        # By run of callbacks that is open, its graph, and the namespace of the node that it belongs to.
        self._open: dict[UUID, tuple[WatchedGraph, str]] = {}
        # By namespace of a node, or run of a model, tool or graph: when it has begun.
        self._began: dict[Any, float] = {}
        self._nodes: dict[UUID, str] = {}
        self._graphs: dict[str, WatchedGraph] = {}
        self._paths: dict[str, str] = {}
        self._with_nodes: set[str] = set()
        self._calls: dict[UUID, str] = {}
        self._outer = outer
        if outer is not None:
            self._open[outer] = (WatchedGraph(str(outer)), namespace)

    # Of the engine.

    @_guarded
    def on_node_start(self, namespace: str, parent: UUID | None, *, is_hidden: bool = False) -> None:
        self.begin_node(namespace, self._graph_of(parent), is_hidden=is_hidden)

    @_guarded
    def on_node_end(self, namespace: str, output: Any) -> None:
        self._end_node(namespace, output)

    @_guarded
    def on_node_error(self, namespace: str, error: BaseException) -> None:
        self._end_node(namespace, error)

    @_guarded
    def on_node_cancel(self, namespace: str) -> None:
        if namespace in self._began:
            self._close_node(namespace, "cancel", {})

    @_guarded
    def on_model_call(
        self, namespace: str, parent: UUID | None, outcome: BaseMessage | BaseException, seconds: float
    ) -> None:
        data = {"seconds": seconds, "tokens": tokens_of(outcome)}
        if isinstance(outcome, BaseException):
            data["error"] = _sentence(outcome)
        self._tell("call", self._graph_of(parent), namespace, data)

    # Of LangChain.

    @_guarded
    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        outer = self._open.get(parent_run_id) if parent_run_id is not None else None
        if outer is None:
            self._begin_graph(run_id, inputs, metadata or {}, kwargs.get("name"))
            return
        graph, inside = outer
        if tags and any(tag.startswith("graph:step:") for tag in tags):
            inside = str((metadata or {}).get("langgraph_checkpoint_ns", ""))
            # A graph that the engine runs in a node has the tag of that, and is in its namespace.
            if inside not in self._began and parent_run_id != self._outer:
                self._nodes[run_id] = inside
                self.begin_node(inside, graph, is_hidden=TAG_HIDDEN in tags)
        self._open[run_id] = (graph, inside)

    @_guarded
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end_chain(run_id, outputs)

    @_guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end_chain(run_id, error)

    @_guarded
    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin_call(run_id, parent_run_id, metadata, "")

    @_guarded
    def on_llm_start(
        self,
        serialized: Any,
        prompts: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin_call(run_id, parent_run_id, metadata, "")

    @_guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        tokens: dict[str, int] = {}
        for generation in (one for several in response.generations for one in several):
            for kind, count in tokens_of(getattr(generation, "message", None)).items():
                tokens[kind] = tokens.get(kind, 0) + count
        self._end_call("call", run_id, {"tokens": tokens})

    @_guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end_call("call", run_id, {"tokens": {}, "error": _sentence(error)})

    @_guarded
    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        name = kwargs.get("name") or (serialized or {}).get("name") or "tool"
        self._begin_call(run_id, parent_run_id, metadata, str(name))

    @_guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end_call("tool", run_id, {})

    @_guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        # A tool that asks a person, or hands over, has not failed.
        failed = not isinstance(error, GraphBubbleUp)
        self._end_call("tool", run_id, {"error": _sentence(error)} if failed else {})

    # What they share.

    def graph_of(self, parent: UUID | None) -> WatchedGraph | None:
        """The watched graph that a run of callbacks belongs to; None for one that was started outside."""
        found = self._open.get(parent) if parent is not None else None
        return found[0] if found else None

    def _graph_of(self, parent: UUID | None) -> WatchedGraph:
        return self.graph_of(parent) or _NO_GRAPH

    def _begin_graph(self, run_id: UUID, inputs: Any, metadata: dict[str, Any], name: Any) -> None:
        graph, config = (None, {}) if self._is_remote else calling_graph()
        self.open_graph(run_id, graph, config, str(metadata.get("langgraph_checkpoint_ns") or ""))
        found = self._open[run_id][0]
        self._began[run_id] = time.perf_counter()
        self._tell("begin", found, found.prefix, {"name": str(name or "")})
        self._say(found, found.prefix, inputs)

    def open_graph(self, run_id: UUID, graph: Any, config: Any, prefix: str) -> None:
        """A graph begins: one that was started in the block, here or, where it is a remote agent, on its host."""
        found = WatchedGraph(str(run_id), graph, config, prefix)
        self._open[run_id] = (found, prefix)
        self._on_graph(found)

    def _end_chain(self, run_id: UUID, outcome: Any) -> None:
        found = self._open.pop(run_id, None)
        namespace = self._nodes.pop(run_id, None)
        if namespace is not None:
            self._end_node(namespace, outcome)
        elif found is not None and (began := self._began.pop(run_id, None)) is not None:
            kind, data = _ending(outcome)
            data["seconds"] = time.perf_counter() - began
            self._tell(kind, found[0], found[0].prefix, data)

    def begin_node(self, namespace: str, graph: WatchedGraph, *, is_hidden: bool = False) -> None:
        """A node begins.

        Args:
            namespace: of its task.
            graph: that it is a node of, at any depth.
            is_hidden: whether streams do not show it, such as the node of a chat group that chooses who speaks.
        """
        self._with_nodes.add(node_above(namespace))
        self._graphs[namespace], self._paths[namespace] = graph, graph.path(namespace)
        self._began[namespace] = time.perf_counter()
        self._tell("begin", graph, namespace, {"hidden": True} if is_hidden else {})

    @_guarded
    def take(self, event: RunEvent, graph: WatchedGraph) -> None:
        """An event of a host that works for a run of ours."""
        if event.kind == "begin":
            self._with_nodes.add(node_above(event.namespace))
        elif event.kind == "say" and (id := event.data.get("id")) is not None:
            if id in graph.seen:
                return
            graph.seen.add(id)
        self.sink(event)

    def _end_node(self, namespace: str, outcome: Any) -> None:
        if namespace not in self._began:
            return  # It was given up before it returned.
        kind, data = _ending(outcome)
        if kind == "end":
            if (turn := turn_of(outcome)) is not None:
                data["silent"] = not turn.get("message_ids")
            if namespace not in self._with_nodes:
                self._say(self._graphs[namespace], namespace, outcome)
        self._close_node(namespace, kind, data)

    def _close_node(self, namespace: str, kind: str, data: dict[str, Any]) -> None:
        data["seconds"] = time.perf_counter() - self._began.pop(namespace)
        self._with_nodes.discard(namespace)
        self._tell(kind, self._graphs.pop(namespace), namespace, data)
        self._paths.pop(namespace, None)

    def _say(self, graph: WatchedGraph, namespace: str, output: Any) -> None:
        path = graph.path(namespace)
        for message in messages_of_output(output):
            if message.id is not None and message.id in graph.seen:
                continue
            if message.id is not None:
                graph.seen.add(message.id)
            if (line := said(message, path)) is not None:
                self._tell("say", graph, namespace, {**line, "id": message.id})

    def _begin_call(self, run_id: UUID, parent: UUID | None, metadata: dict[str, Any] | None, name: str) -> None:
        graph, inside = self._open.get(parent, (_NO_GRAPH, "")) if parent is not None else (_NO_GRAPH, "")
        self._open[run_id] = graph, str((metadata or {}).get("langgraph_checkpoint_ns") or inside)
        self._calls[run_id], self._began[run_id] = name, time.perf_counter()

    def _end_call(self, kind: str, run_id: UUID, data: dict[str, Any]) -> None:
        if (found := self._open.pop(run_id, None)) is None:
            return
        data["seconds"] = time.perf_counter() - self._began.pop(run_id)
        if name := self._calls.pop(run_id, ""):
            data["name"] = name
        self._tell(kind, *found, data)

    def _tell(self, kind: str, graph: WatchedGraph, namespace: str, data: dict[str, Any]) -> None:
        path = self._paths.get(namespace) or graph.path(namespace)
        self.sink(RunEvent(kind, graph.run, path, namespace, time.time(), data))


def _ending(outcome: Any) -> tuple[str, dict[str, Any]]:
    """The kind of event with which something ends that has returned or raised this."""
    if isinstance(outcome, GraphInterrupt):
        asked = outcome.args[0] if outcome.args else ()
        return "ask", {"questions": [question(interrupt) for interrupt in asked]}
    if not isinstance(outcome, BaseException) or isinstance(outcome, GraphBubbleUp):
        # A command for a graph further out ends a node as it is meant to.
        return "end", {}
    return ("cancel", {}) if is_cancellation(outcome) else ("fail", {"error": _sentence(outcome)})


def question(interrupt: Any) -> dict[str, Any]:
    """An interrupt as plain values."""
    asked = {"id": str(getattr(interrupt, "id", "")), "value": plain(getattr(interrupt, "value", None))}
    schema = getattr(interrupt, "response_schema", None)
    return {**asked, "schema": plain(schema)} if isinstance(schema, dict) else asked


def is_cancellation(error: BaseException) -> bool:
    """Whether what was raised says that something was cut off: a cancellation, or a stream that nobody reads on."""
    return type(error).__name__ in ("CancelledError", "GeneratorExit", "KeyboardInterrupt")


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
