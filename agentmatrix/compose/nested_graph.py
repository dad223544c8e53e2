"""A graph as a node: of the state that it returns, the node writes what the graph has written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

from agentmatrix.cancel_scope import is_cancelled_here
from agentmatrix.pregel.compiled_graph import set_node_runnable
from agentmatrix.pregel.runnables import wrap_runnable
from agentmatrix.pregel.task_config import read_channel, was_sent
from agentmatrix.pregel.written_keys import observed, only_written, with_written_keys
from agentmatrix.scheduling.topology import Topology

__all__ = ["write_only_what_is_written"]


def write_only_what_is_written(
    graph: Any, name: str, inner: Any, plain_keys: Sequence[str], topology: Topology
) -> None:
    """Has a node write what the graph in it has written: it returns its whole state, also what it has left alone.

    What a schema has changed on the way in, it has not written; in a chain that is written as well, as by LangGraph.
    Beside a node on a parallel branch it is not: a default that both are given would be a conflict.

    Args:
        graph: the graph around.
        name: of the node.
        inner: the graph in the node.
        plain_keys: the keys of the graph around that have no reducer.
        topology: the shape of the graph around.
    """
    node, reporting = graph.nodes[name], observed(inner)
    if reporting is None or node.bound is not inner:
        return
    coerced: list[str] = []
    if node.mapper is not None and not _has_parallel_nodes(topology, name):
        coerced = [key for key in plain_keys if key in node.channels]

    def call(state: Any, config: RunnableConfig) -> Any:
        said: list[frozenset[str]] = []
        result = reporting.invoke(state, with_written_keys(config, said, is_cancelled_here()))
        return only_written(result, said, _changed_on_the_way_in(state, coerced, config))

    async def acall(state: Any, config: RunnableConfig) -> Any:
        said: list[frozenset[str]] = []
        result = await reporting.ainvoke(state, with_written_keys(config, said))
        return only_written(result, said, _changed_on_the_way_in(state, coerced, config))

    set_node_runnable(graph, name, wrap_runnable(inner, call, acall, name=name))


def _has_parallel_nodes(topology: Topology, name: str) -> bool:
    ordered = {name, *topology.ancestors(name), *topology.descendants([name])}
    return not ordered.issuperset(topology.nodes)


def _changed_on_the_way_in(state: Any, keys: list[str], config: RunnableConfig) -> frozenset[str]:
    """The keys that a node's schema has given another value: a default of a model's, what a validator made of it.

    The graph inside holds them without having written them, and returns them; the state around has them not.
    """
    if not keys or was_sent(config):
        return frozenset()
    stored = read_channel(config, keys)
    return frozenset(key for key in keys if hasattr(state, key) and not _is_stored(getattr(state, key), stored, key))


def _is_stored(value: Any, stored: dict[str, Any], key: str) -> bool:
    if key not in stored:
        return False
    try:
        return value is stored[key] or bool(value == stored[key])
    except Exception:  # an array, or any type whose == is no yes or no, which no validator has touched
        return True
