"""Anything that can act as an agent, as a Runnable over the columns of a row or over a state."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import MessagesState
from langgraph.pregel import Pregel

from agentmatrix.agent import as_agent
from agentmatrix.agent.adapter import takes_messages
from agentmatrix.agent.tool_agent import innermost
from agentmatrix.card import class_kind
from agentmatrix.compose import Dag
from agentmatrix.errors import DatasetError

__all__ = ["RowAgent", "row_agent"]


@dataclass(frozen=True)
class RowAgent:
    """An agent for rows.

    Attributes:
        runnable: what is run.
        input_keys: the keys of its state, or the names of its variables; None where it takes the columns as they are.
        required_keys: those of them without which it cannot be run.
        json_schemas: JSON schemas of input and output where they can be made, for the settings of the progress file.
    """

    runnable: Runnable[Any, Any]
    input_keys: Collection[str] | None
    required_keys: Collection[str]
    json_schemas: dict[str, Any]

    @property
    def checkpointer(self) -> Any:
        """The checkpointer of a graph; None or False where it has none."""
        found = getattr(self.runnable, "checkpointer", None)
        return None if found is True else found


async def row_agent(agent: Any, context: Any = None) -> RowAgent:
    """The agent for rows. A host is asked for its card.

    Args:
        agent: a graph, a builder, a chat model, another Runnable or a function: of the messages, of a state, or of the
            columns of a row.
        context: what the graph's runs are given as context.

    Raises:
        NotAnAgentError: it is none of these.
        DatasetError: the graph needs a context, or its checkpointer is for sync runs only.
        HostError: the host cannot be reached, or does not know the agent.
    """
    runnable = as_row_runnable(agent)
    if hasattr(runnable, "acard"):
        await runnable.acard()
    if isinstance(runnable, RunnableLambda):
        return RowAgent(runnable, None, (), {})
    schemas = _schemas(runnable)
    properties = schemas["input"].get("properties") if isinstance(schemas.get("input"), dict) else None
    if isinstance(runnable, Pregel):
        _check_context(runnable, context)
        await _check_checkpointer(runnable)
        if properties is None:
            properties = _input_keys(runnable)
    if properties is None:
        return RowAgent(runnable, None, (), schemas)
    required = schemas.get("input", {}).get("required", ())
    return RowAgent(runnable, tuple(properties), tuple(required), schemas)


def as_row_runnable(agent: Any) -> Runnable[Any, Any]:
    """The agent as something that has `ainvoke`."""
    if isinstance(agent, Runnable):
        if isinstance(agent, Pregel) or not isinstance(innermost(agent), BaseLanguageModel):
            return agent
        return _one_node(agent, MessagesState)
    made = as_agent(agent, key=None)
    if isinstance(made, Runnable):
        return made
    if takes_messages(made):
        return _one_node(made, MessagesState)
    annotation = _state_of(made)
    return _one_node(made, annotation) if annotation is not None else RunnableLambda(_of_columns(made))


def _one_node(agent: Any, schema: Any) -> Runnable[Any, Any]:
    graph: Runnable[Any, Any] = Dag(schema).add_node("agent", agent).compile()
    return graph


def _of_columns(function: Any) -> Any:
    """A function, also of a partial and of a callable object: LangChain takes functions only."""
    if inspect.isfunction(function) or inspect.ismethod(function):
        return function
    call = function.func if isinstance(function, functools.partial) else function.__call__

    if inspect.iscoroutinefunction(call):

        async def acalled(columns: dict[str, Any]) -> Any:
            return await function(columns)

        return acalled

    def called(columns: dict[str, Any]) -> Any:
        return function(columns)

    return called


def _state_of(function: Any) -> Any:
    """The class of the state that the first parameter is annotated with, if it is one."""
    try:
        first = next(iter(inspect.signature(function).parameters))
        annotation = typing.get_type_hints(function).get(first)
    except (StopIteration, TypeError, ValueError, NameError):
        return None
    return annotation if isinstance(annotation, type) and class_kind(annotation) else None


def _schemas(runnable: Any) -> dict[str, Any]:
    made = {}
    for kind in ("input", "output"):
        # Pydantic has no JSON schema for some types; such a graph runs all the same.
        try:
            made[kind] = getattr(runnable, f"get_{kind}_jsonschema")()
        except Exception:
            continue
    return made


def _input_keys(graph: Any) -> Sequence[str] | None:
    keys = getattr(graph, "input_keys", None) or getattr(graph, "channels", None)
    return sorted(key for key in keys if not key.startswith("__")) if keys else None


def _check_context(graph: Any, context: Any) -> None:
    schema: Any = getattr(graph, "context_schema", None)
    if context is not None or not class_kind(schema):
        return
    if class_kind(schema) == "typed_dict":
        needed = sorted(schema.__required_keys__)
    elif class_kind(schema) == "model":
        needed = [name for name, field in schema.model_fields.items() if field.is_required()]
    else:
        missing = dataclasses.MISSING
        fields = dataclasses.fields(schema)
        needed = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    if needed:
        raise DatasetError(f"the graph needs a context with {', '.join(needed)}: refine(context={{...}})")


async def _check_checkpointer(graph: Any) -> None:
    saver = graph.checkpointer
    if saver is None or isinstance(saver, bool) or getattr(graph, "is_remote", False):
        return
    try:
        await saver.aget_tuple({"configurable": {"thread_id": "-", "checkpoint_ns": ""}})
    except NotImplementedError:
        raise DatasetError(
            f"rows are run asynchronously, and {type(saver).__name__} has sync methods only: take its async twin"
        ) from None
