"""The handler of callbacks that makes events of what a run does.

It is called on any thread, in the middle of the run: it does little, keeps what it must know of open runs and nodes,
and hands each event to a sink. On a host stands a recorder of the host's own, so that the seconds of a node are
measured where it runs; its events cross as plain values, and `Relay` makes the caller's of them.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast
from uuid import UUID

from langchain_core.messages import BaseMessage
from langgraph.constants import TAG_HIDDEN
from langgraph.errors import GraphBubbleUp

from agentmatrix.pregel.node_handler import NodeHandler, calling_graph
from agentmatrix.watch.node_output import messages_of_output, said, tokens_of, turn_of
from agentmatrix.watch.outcome import ending, sentence
from agentmatrix.watch.run_event import RunEvent, node_above
from agentmatrix.watch.value_text import value_text
from agentmatrix.watch.watched_graph import Transfer, WatchedGraph

__all__ = ["EventRecorder", "guarded"]

logger = logging.getLogger("agentmatrix")
Method = TypeVar("Method", bound=Callable[..., None])


def guarded(method: Method) -> Method:
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


_VALUES = ("input", "output")
_NO_GRAPH = WatchedGraph("")


class EventRecorder(NodeHandler):
    """Makes events of callbacks.

    Args:
        sink: takes each event.
        on_graph: takes the graph of each run that begins.
        outer: on a host, the caller's run that the runs here belong to; None where there is none.
        namespace: on a host, that of the node which it works for.
        is_remote: whether it stands on a host.
        has_values: whether it tells the input and output of each node.
    """

    def __init__(
        self,
        sink: Callable[[RunEvent], None],
        on_graph: Callable[[WatchedGraph], None] = lambda graph: None,
        *,
        outer: UUID | None = None,
        namespace: str = "",
        is_remote: bool = False,
        has_values: bool = False,
    ) -> None:
        self.sink, self._on_graph, self._is_remote = sink, on_graph, is_remote
        self.page = ""
        """The address of the page that is told; a host that has the same page does not tell it too."""
        self.has_values = has_values
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
        self._hidden: set[str] = set()
        # By namespace of a node, the error that a node right inside of it has raised last.
        self._raised: dict[str, tuple[int, str]] = {}
        self._calls: dict[UUID, str] = {}
        self._outer = outer
        if outer is not None:
            self._open[outer] = (WatchedGraph(str(outer)), namespace)

    # Of the engine.

    @guarded
    def on_node_start(self, namespace: str, parent: UUID | None, given: Any, *, is_hidden: bool = False) -> None:
        self.begin_node(namespace, self._graph_of(parent), given, is_hidden=is_hidden)

    @guarded
    def on_node_end(self, namespace: str, output: Any) -> None:
        self._end_node(namespace, output)

    @guarded
    def on_node_cached(self, namespace: str, parent: UUID | None, writes: Mapping[str, Any]) -> None:
        if (graph := self.graph_of(parent)) is None or namespace in self._began:
            return
        self.tell("begin", graph, namespace, {"cached": True})
        self._say(graph, namespace, writes)
        data = {"output": value_text(writes)} if self.has_values else {}
        self.tell("end", graph, namespace, {**data, "cached": True, "seconds": 0.0})

    @guarded
    def on_node_error(self, namespace: str, error: BaseException) -> None:
        self._end_node(namespace, error)

    @guarded
    def on_node_cancel(self, namespace: str) -> None:
        if namespace in self._began:
            self._close_node(namespace, "cancel", {})

    @guarded
    def on_model_call(
        self, namespace: str, parent: UUID | None, outcome: BaseMessage | BaseException, seconds: float
    ) -> None:
        data = {"seconds": seconds, "tokens": tokens_of(outcome)}
        if isinstance(outcome, BaseException):
            data["error"] = sentence(outcome)
        self.tell("call", self._graph_of(parent), namespace, data)

    # Of LangChain.

    @guarded
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
                self.begin_node(inside, graph, inputs, is_hidden=TAG_HIDDEN in tags)
        self._open[run_id] = (graph, inside)

    @guarded
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end_chain(run_id, outputs)

    @guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end_chain(run_id, error)

    @guarded
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
        self.begin_call(run_id, parent_run_id, metadata, tags=kwargs.get("tags"))

    def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.on_chat_model_start(*args, **kwargs)

    @guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        tokens: dict[str, int] = {}
        for generation in (one for several in response.generations for one in several):
            for kind, count in tokens_of(getattr(generation, "message", None)).items():
                tokens[kind] = tokens.get(kind, 0) + count
        self.end_call("call", run_id, {"tokens": tokens})

    @guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.end_call("call", run_id, {"tokens": {}, "error": sentence(error)})

    @guarded
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
        self.begin_call(run_id, parent_run_id, metadata, tool=str(name))

    @guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.end_call("tool", run_id, {})

    @guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        # A tool that asks a person, or hands over, has not failed.
        failed = not isinstance(error, GraphBubbleUp)
        self.end_call("tool", run_id, {"error": sentence(error)} if failed else {})

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
        data = {"name": str(name or "")}
        if self.has_values:
            data["input"] = value_text(inputs)
        self.tell("begin", found, found.prefix, data)
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
            kind, data = ending(outcome)
            data["seconds"] = time.perf_counter() - began
            if self.has_values and kind == "end":
                data["output"] = value_text(outcome)
            self.tell(kind, found[0], found[0].prefix, data)

    def begin_node(self, namespace: str, graph: WatchedGraph, given: Any, *, is_hidden: bool = False) -> None:
        """A node begins.

        Args:
            namespace: of its task.
            graph: that it is a node of, at any depth.
            given: its input.
            is_hidden: whether streams do not show it, such as the node of a chat group that chooses who speaks.
        """
        self._with_nodes.add(node_above(namespace))
        if is_hidden:
            self._hidden.add(namespace)
        self._graphs[namespace], self._paths[namespace] = graph, graph.path(namespace)
        self._began[namespace] = time.perf_counter()
        data: dict[str, Any] = {"hidden": True} if is_hidden else {}
        if self.has_values and not is_hidden:
            # At once: the node may change what it is given.
            data["input"] = value_text(given)
        self.tell("begin", graph, namespace, data)

    @guarded
    def take(self, event: RunEvent, graph: WatchedGraph) -> None:
        """An event of a host that works for a run of ours."""
        if event.kind == "answer" or (event.kind == "token" and not self.streams_tokens):
            return  # A host tells what it was asked for.
        if not self.has_values and not event.data.keys().isdisjoint(_VALUES):
            event = event._replace(data={key: said for key, said in event.data.items() if key not in _VALUES})
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
        kind, data = ending(outcome)
        if kind == "fail":
            self._count_once(namespace, outcome, data)
        elif kind == "end":
            if (turn := turn_of(outcome)) is not None:
                data["silent"] = not turn.get("message_ids")
            if namespace not in self._with_nodes:
                self._say(self._graphs[namespace], namespace, outcome)
            if self.has_values and namespace not in self._hidden:
                data["output"] = value_text(outcome)
        self._close_node(namespace, kind, data)

    def _count_once(self, namespace: str, error: BaseException, data: dict[str, Any]) -> None:
        """A member of a chat group may speak in the task of the hidden node that chooses it: what it raises passes
        through that, and is the member's."""
        above, raised = node_above(namespace), (id(error), data["error"])
        if namespace not in self._hidden:
            self._raised[above] = raised
        elif self._raised.pop(above, None) == raised:
            del data["error"]

    def _close_node(self, namespace: str, kind: str, data: dict[str, Any]) -> None:
        data["seconds"] = time.perf_counter() - self._began.pop(namespace)
        self._with_nodes.discard(namespace)
        self._hidden.discard(namespace)
        self._raised.pop(namespace, None)
        self.tell(kind, self._graphs.pop(namespace), namespace, data)
        self._paths.pop(namespace, None)

    def _say(self, graph: WatchedGraph, namespace: str, output: Any) -> None:
        path = graph.path(namespace)
        for message in messages_of_output(output):
            if message.id is not None and message.id in graph.seen:
                continue
            if message.id is not None:
                graph.seen.add(message.id)
            if (line := said(message, path)) is not None:
                self.tell("say", graph, namespace, {**line, "id": message.id})

    def begin_call(
        self,
        run_id: UUID,
        parent: UUID | None,
        metadata: dict[str, Any] | None,
        *,
        tool: str = "",
        tags: list[str] | None = None,
    ) -> None:
        """A model or a tool is called.

        Args:
            run_id: of the call.
            parent: the run around it.
            metadata, tags: of the call.
            tool: the name of the tool; `""` for a model.
        """
        graph, inside = self._open.get(parent, (_NO_GRAPH, "")) if parent is not None else (_NO_GRAPH, "")
        self._open[run_id] = graph, str((metadata or {}).get("langgraph_checkpoint_ns") or inside)
        self._calls[run_id], self._began[run_id] = tool, time.perf_counter()

    def end_call(self, kind: str, run_id: UUID, data: dict[str, Any]) -> None:
        """A model (`call`) or a tool (`tool`) has answered, or raised."""
        if (found := self._open.pop(run_id, None)) is None:
            return
        data["seconds"] = time.perf_counter() - self._began.pop(run_id)
        if name := self._calls.pop(run_id, ""):
            data["name"] = name
        self.tell(kind, *found, data)

    def open_call(self, run_id: UUID) -> tuple[WatchedGraph, str] | None:
        """The graph and the namespace of the node that has called a model; None where that is not known."""
        return self._open.get(run_id)

    def tell(self, kind: str, graph: WatchedGraph, namespace: str, data: dict[str, Any]) -> None:
        """Tell an event of a node, which happens now."""
        path = self._paths.get(namespace) or graph.path(namespace)
        self.sink(RunEvent(kind, graph.run, path, namespace, time.time(), data))
