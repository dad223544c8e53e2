"""END as a choice: LangGraph leaves no trace of a router or a command that leads there, and a graph with triggers
stops to take signals and timers when it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import END
from langgraph.types import Command

from agentmatrix.compose.builder import Builder
from agentmatrix.engine.channels import REACHED_END, RUN
from agentmatrix.pregel.compiled_graph import Graph, add_answer_mapper
from agentmatrix.pregel.runnables import wrap_runnable
from agentmatrix.pregel.state_graph import routers_of, set_router_path
from agentmatrix.pregel.task_config import send_writes

__all__ = ["record_commands_to_end", "record_routes_to_end"]


def record_routes_to_end(builder: Builder) -> None:
    """Let each router of a builder write to the hidden channel when it leads to END. Called before compiling a copy."""
    for node, routers in list(routers_of(builder).items()):
        for name, router in list(routers.items()):
            if node in builder.nodes and (router.ends is None or END in router.ends.values()):
                set_router_path(builder, node, name, _recording(router.path, router.ends or {}))


def _recording(path: Runnable[Any, Any], labels: Any) -> Runnable[Any, Any]:
    def record(choices: Any, config: RunnableConfig) -> Any:
        several = choices if isinstance(choices, list | tuple) else [choices]
        if any(isinstance(choice, str) and labels.get(choice, choice) == END for choice in several):
            send_writes(config, [(RUN, REACHED_END)])
        return choices

    def call(state: Any, config: RunnableConfig) -> Any:
        return record(path.invoke(state, config), config)

    async def acall(state: Any, config: RunnableConfig) -> Any:
        return record(await path.ainvoke(state, config), config)

    return wrap_runnable(path, call, acall)


def record_commands_to_end(graph: Graph, nodes: Sequence[str]) -> None:
    """Let each of these nodes write to the hidden channel when it returns a `Command` that leads to END."""
    for node in nodes:
        add_answer_mapper(graph, node, _commands_to_end)


def _commands_to_end(answer: Any) -> Sequence[tuple[str, Any]]:
    for part in answer if isinstance(answer, list | tuple) else (answer,):
        if isinstance(part, Command) and part.graph != Command.PARENT:
            if END in (part.goto if isinstance(part.goto, list | tuple) else (part.goto,)):
                return ((RUN, REACHED_END),)
    return ()
