"""Runs of a graph on one thread, as `run` and `chat` need them: streamed to an output, paused and resumed."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from agentmatrix.cli.error_report import FAILED, CommandError
from agentmatrix.cli.graph_input import parse_answer
from agentmatrix.cli.output import STREAM_MODES, Output
from agentmatrix.cli.terminal_text import terminal_text

__all__ = ["ThreadRunner", "resume_command", "with_memory"]


class ThreadRunner:
    """Runs a graph on one thread, and shows what it streams. All runs must be on one event loop.

    Args:
        graph: a compiled graph or a remote agent.
        output: where the parts of its stream, its interrupts and its result are shown.
        thread: the id of the thread; None makes a new one.
    """

    def __init__(self, graph: Any, output: Output, thread: str | None) -> None:
        self.graph = graph
        self.thread = thread or f"cli-{uuid.uuid4().hex[:8]}"
        self._output = output
        self._config = {"configurable": {"thread_id": self.thread}, "callbacks": [_QueueNotice()]}

    async def run(self, value: Any) -> list[Any]:
        """Run the graph until it ends or pauses.

        Args:
            value: an input or a `Command`.

        Returns:
            The interrupts at which it paused; empty when it ended.

        Raises:
            CommandError: the run was cancelled by a node or by its host.
        """
        values: Any = None
        try:
            async for namespace, mode, data in self._stream(value):
                self._output.show_part(namespace, mode, data)
                if mode == "values" and not namespace:
                    values = data
        except asyncio.CancelledError:
            # Ctrl-C cancels this task from outside; a cancelled node or remote run only raises the error here.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise CommandError("the run was cancelled before it ended", FAILED) from None
        interrupts = list(values.get("__interrupt__", ())) if isinstance(values, dict) else []
        if interrupts:
            self._output.show_interrupts(interrupts)
        else:
            self._output.show_result(values)
        return interrupts

    async def _stream(self, value: Any) -> AsyncIterator[Any]:
        options: dict[str, Any] = {"stream_mode": STREAM_MODES, "subgraphs": True}
        if await self._is_sync_only():
            parts: Iterator[Any] = self.graph.stream(value, self._config, **options)
            for part in parts:
                yield part
        else:
            async for part in self.graph.astream(value, self._config, **options):
                yield part

    async def _is_sync_only(self) -> bool:
        """Whether the graph's saver, such as SqliteSaver, has sync methods only."""
        try:
            if hasattr(self.graph.checkpointer, "aget_tuple"):
                await self.graph.checkpointer.aget_tuple(self._config)
        except NotImplementedError:
            return True
        return False


class _QueueNotice(BaseCallbackHandler):
    """Tells the person at the terminal that a host is busy with other runs."""

    ignore_chain = ignore_llm = ignore_chat_model = ignore_agent = ignore_retriever = True
    run_inline = True

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        if name == "queue" and isinstance(data, dict) and "place" in data:
            text = f"waiting for {data.get('agent')}: place {data['place']} in its queue"
            print(terminal_text(text), file=sys.stderr, flush=True)


def resume_command(interrupts: list[Any], answers: list[str]) -> Command[Any]:
    """The command that resumes a graph.

    Args:
        interrupts: those at which it paused; empty where that was another process's run, which paused at one.
        answers: the typed answers to the interrupts, in their order.
    """
    values = [parse_answer(answer) for answer in answers]
    if len(interrupts) <= 1:
        return Command(resume=values[0])
    return Command(resume={interrupt.id: value for interrupt, value in zip(interrupts, values, strict=True)})


def with_memory(graph: Any, state: type[Any] = dict) -> Any:
    """The graph with a checkpointer in memory where it has none, so that it can pause and be resumed.

    A remote graph uses its parent's checkpointer, so it is made the only node of a graph with this state.
    """
    if graph.checkpointer:
        return graph
    if not getattr(graph, "is_remote", False):
        return graph.copy({"checkpointer": InMemorySaver()})
    name = graph.get_name()
    return StateGraph(state).add_node(name, graph).add_edge(START, name).compile(checkpointer=InMemorySaver())
