"""What a node does where no handler wants a run of it: LangGraph's steps, without a run of their own for callbacks.

LangGraph configures a callback manager for each node and tells it of the node's begin and end. Where the run has no
handler, nobody hears of that; a `NodeHandler` is told here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph._internal._constants import CONF, CONFIG_KEY_SEND
from langgraph.pregel import NodeBuilder
from langgraph.pregel._write import ChannelWrite, ChannelWriteTupleEntry

from agentmatrix.pregel.node_handler import NodeHandler, node_handlers, told_of_node, wants_node_runs

__all__ = ["UntracedSequence", "is_watched", "untraced_node"]

_NO_WORK = NodeBuilder().build().bound
_OUTPUT = ChannelWriteTupleEntry(list).value
"""Stands in an entry of a `ChannelWrite` for what the node has returned."""
Mapper = Callable[[Any], Sequence[tuple[str, Any]] | None]


class UntracedSequence(Runnable[Any, Any]):
    """Runs a node and, with what it returns, its writers.

    Args:
        bound: the node's own work. It runs in a context of its own, as in LangGraph.
        writers: what writes its output to channels.
    """

    def __init__(self, bound: Runnable[Any, Any], writers: Sequence[Runnable[Any, Any]]) -> None:
        self._bound, self._writers = bound, tuple(map(_mapped, writers))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        own = _without_run(config)
        if handlers := _handlers_of(own):
            with told_of_node(handlers, own, input) as tell_end:
                output = self._invoke(input, own)
                tell_end(output)
                return output
        return self._invoke(input, own)

    def _invoke(self, input: Any, own: RunnableConfig) -> Any:
        context = copy_context()
        context.run(var_child_runnable_config.set, own)
        output = context.run(self._bound.invoke, input, own)
        for writer in self._writers:
            writer.invoke(output, own)
        return output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        own = _without_run(config)
        if handlers := _handlers_of(own):
            with told_of_node(handlers, own, input) as tell_end:
                output = await self._ainvoke(input, own)
                tell_end(output)
                return output
        return await self._ainvoke(input, own)

    async def _ainvoke(self, input: Any, own: RunnableConfig) -> Any:
        context = copy_context()
        context.run(var_child_runnable_config.set, own)
        output = await asyncio.create_task(self._bound.ainvoke(input, own), context=context)
        for writer in self._writers:
            await writer.ainvoke(output, own)
        return output


class MappedWrite:
    """What a `ChannelWrite` writes of an output, without the entries that it makes anew for each.

    Args:
        mappers: give pairs of channel and value.
    """

    def __init__(self, mappers: Sequence[Mapper]) -> None:
        self._mappers = mappers

    def invoke(self, output: Any, config: RunnableConfig) -> None:
        """Write what the mappers make of an output."""
        config[CONF][CONFIG_KEY_SEND]([write for mapper in self._mappers for write in mapper(output) or ()])

    async def ainvoke(self, output: Any, config: RunnableConfig) -> None:
        """The same as `invoke`, async."""
        self.invoke(output, config)


def _mapped(writer: Any) -> Any:
    """The writer as a `MappedWrite`, if it only maps what it is given."""
    if type(writer) is not ChannelWrite:
        return writer
    mappers = [_mapper_of(entry) for entry in writer.writes]
    return writer if None in mappers else MappedWrite([mapper for mapper in mappers if mapper is not None])


def _mapper_of(entry: Any) -> Mapper | None:
    if isinstance(entry, ChannelWriteTupleEntry):
        return entry.mapper if entry.value is _OUTPUT else None
    # An edge writes None to the channel of its target.
    if getattr(entry, "skip_none", True) or entry.mapper is not None or entry.value is _OUTPUT:
        return None
    written = ((entry.channel, entry.value),)
    return lambda _: written


def _handlers_of(config: RunnableConfig) -> list[NodeHandler]:
    """The handlers that are told of the node; mostly none."""
    callbacks = config.get("callbacks")
    return node_handlers(callbacks) if getattr(callbacks, "handlers", None) else []


def _without_run(config: RunnableConfig | None) -> RunnableConfig:
    """The name and the id are those of the node's run, not of those inside."""
    own: RunnableConfig = {**(config or {})}
    own.pop("run_name", None)
    own.pop("run_id", None)
    return own


def is_watched(manager: Any) -> bool:
    """Whether a run has a handler of callbacks, of its own or for its nodes, that wants a run for each node."""
    return manager is None or wants_node_runs(manager)


def untraced_node(node: Any) -> Any:
    """A copy of a node of a compiled graph that runs without callbacks.

    Args:
        node: the node. One that is nothing but a writer, or has no writers, is returned as it is.
    """
    # What LangGraph works out of a node it keeps in it, which takes memory: a single writer needs no working out.
    writers = node.writers if len(node.writers) < 2 else node.flat_writers
    if not writers or (node.bound is _NO_WORK and len(writers) == 1):
        return node
    # A node of its own: LangGraph's stays what it is.
    plain = node.copy({})
    plain.node = UntracedSequence(node.bound, writers)
    return plain
