"""Adapters: functions, Runnables and chat models, also with instructions, as nodes of a graph."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, get_args, get_origin

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase

from agentmatrix.agent.tool_agent import Tool, innermost, is_language_model, tool_agent
from agentmatrix.errors import BuildError, NotAnAgentError
from agentmatrix.pregel.compiled_graph import PregelProtocol
from agentmatrix.pregel.runnables import wrap_runnable

__all__ = ["as_agent", "as_update", "messages_in", "only_calls_models", "prompted", "takes_messages"]

_ONLY_CALLS_MODELS: Final = "_agentmatrix_only_calls_models"


def as_agent(
    agent: Any,
    *,
    name: str | None = None,
    key: str | None = "messages",
    system_prompt: str | SystemMessage | None = None,
    tools: Sequence[Tool] | None = None,
    response_format: Any = None,
) -> Any:
    """Make a node of anything that can act as an agent. LangGraph's `add_node` takes the result too.

    - A LangGraph graph, local or remote, stays itself; a builder that is not compiled yet is compiled.
    - A function, sync or async, is called with the state, or with the messages of the state if its first parameter is
      annotated as a list of messages, or is called `messages` and has no annotation. It keeps the other parameters that
      LangGraph injects (config, runtime, store).
    - A chat model, also one with tools or fallbacks, is called with the messages.
    - A chat model with `tools` or a `response_format` becomes LangChain's agent (`create_agent`; extra `models`): a
      graph that runs the tools that the model calls, until it has an answer.
    - Any other Runnable is called with the state.

    The return value becomes an update of the state: a text, a message or a list of messages goes to `key`; a dict, a
    `Command` and None stay as they are.

    Args:
        agent: the object.
        name: the author of AI messages that have no name yet.
        key: the key of the state that holds the messages; with None, arguments and return values stay as they are.
        system_prompt: instructions for a chat model: a system message in front of the messages of each call.
        tools: tools for a chat model, as of `create_agent`.
        response_format: the schema of a chat model's answers, as of `create_agent`. The answer is the state's
            `structured_response`, and as JSON the agent's last message.

    Returns:
        A graph, a function or a Runnable.

    Raises:
        NotAnAgentError: `agent` is none of these.
        BuildError: instructions, tools or a schema for something that is no chat model.
        MissingExtra: tools or a schema, and langchain is not installed.
    """
    if not (system_prompt is None and tools is None and response_format is None):
        return _instructed(agent, name, key, system_prompt, tools, response_format)
    if isinstance(agent, PregelProtocol):
        return agent
    if not isinstance(agent, type) and callable(getattr(agent, "compile", None)) and hasattr(agent, "add_node"):
        return agent.compile()
    if isinstance(agent, Runnable):
        return agent if key is None else _from_runnable(agent, name, key)
    if callable(agent) and not isinstance(agent, type):
        return agent if key is None else _from_function(agent, name, key)
    if not isinstance(agent, type) and callable(getattr(agent, "compile", None)):
        raise NotAnAgentError(f"{agent!r} is not compiled yet: let a builder do it, or call its compile(...) first")
    raise NotAnAgentError(
        f"{agent!r} is no agent: pass a compiled graph, a function of the state, a Runnable or a chat model"
        + (f", not the class {agent.__name__} itself" if isinstance(agent, type) else "")
    )


def prompted(model: Any, prompt: Callable[[], str]) -> Runnable[Any, Any]:
    """A chat model as an agent whose instructions a function gives at each call."""

    def call(state: Any, config: RunnableConfig) -> Any:
        return as_update(model.invoke([SystemMessage(prompt()), *messages_in(state)], config))

    async def acall(state: Any, config: RunnableConfig) -> Any:
        return as_update(await model.ainvoke([SystemMessage(prompt()), *messages_in(state)], config))

    made = wrap_runnable(model, call, acall)
    if only_calls_models(model):
        setattr(made, _ONLY_CALLS_MODELS, True)
    return made


def as_update(answer: Any, *, name: str | None = None, key: str = "messages") -> Any:
    """The update of the state for an agent's return value.

    Args:
        answer: the return value.
        name: the author of AI messages that have no name yet.
        key: the key of the state that holds the messages.
    """
    if isinstance(answer, str):
        return {key: [AIMessage(content=answer, name=name)]}
    if isinstance(answer, BaseMessage):
        return {key: [_with_author(answer, name)]}
    if isinstance(answer, (list, tuple)) and all(isinstance(message, BaseMessage) for message in answer):
        return {key: [_with_author(message, name) for message in answer]}
    return answer


def messages_in(state: Any, key: str = "messages") -> list[Any]:
    """The messages of a state: of a dict, of an object with the attribute, or of the list itself."""
    found = state.get(key) if isinstance(state, Mapping) else getattr(state, key, state)
    if found is None:
        return []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _with_author(message: BaseMessage, name: str | None) -> BaseMessage:
    if name and not message.name and isinstance(message, AIMessage):
        return message.model_copy(update={"name": name})
    return message


def _instructed(
    model: Any,
    name: str | None,
    key: str | None,
    system_prompt: str | SystemMessage | None,
    tools: Sequence[Tool] | None,
    response_format: Any,
) -> Any:
    """A chat model with instructions as an agent."""
    if key is None:
        raise BuildError("instructions, tools and a schema are for agents that answer messages: leave out key=None")
    if not is_language_model(innermost(model)):
        raise BuildError(
            f"system_prompt=, tools= and response_format= are for a chat model, not for {type(model).__name__}: "
            "a graph or a function has instructions of its own"
        )
    if tools or response_format is not None:
        return tool_agent(
            model, tools=tools or (), system_prompt=system_prompt, response_format=response_format, name=name
        )
    prompt = SystemMessage(system_prompt) if isinstance(system_prompt, str) else system_prompt
    return _from_runnable(model, name, key, [prompt] if prompt is not None and prompt.content else [])


def _from_runnable(
    runnable: Runnable[Any, Any], name: str | None, key: str, in_front: Sequence[BaseMessage] = ()
) -> Runnable[Any, Any]:
    is_model = is_language_model(innermost(runnable))

    def node_input(state: Any) -> Any:
        return [*in_front, *messages_in(state, key)] if is_model else state

    def call(state: Any, config: RunnableConfig) -> Any:
        return as_update(runnable.invoke(node_input(state), config), name=name, key=key)

    async def acall(state: Any, config: RunnableConfig) -> Any:
        return as_update(await runnable.ainvoke(node_input(state), config), name=name, key=key)

    made = wrap_runnable(runnable, call, acall, name=name)
    if only_calls_models(runnable):
        setattr(made, _ONLY_CALLS_MODELS, True)
    return made


def only_calls_models(agent: Any) -> bool:
    """Whether an agent does nothing but call chat models, with or without instructions: no function, which may call a
    `@task` or ask a person."""
    if isinstance(agent, RunnableWithFallbacks):
        return all(map(only_calls_models, agent.runnables))
    if isinstance(agent, RunnableBindingBase):
        return only_calls_models(agent.bound)
    return is_language_model(agent) or bool(getattr(agent, _ONLY_CALLS_MODELS, False))


def _from_function(function: Callable[..., Any], name: str | None, key: str) -> Callable[..., Any]:
    called = type(function).__name__
    if not (inspect.isroutine(function) or isinstance(function, functools.partial)):
        function = function.__call__  # type: ignore[operator]
    is_given_messages = takes_messages(function)

    def node_input(state: Any) -> Any:
        return messages_in(state, key) if is_given_messages else state

    def call(state: Any, *args: Any, **kwargs: Any) -> Any:
        return as_update(function(node_input(state), *args, **kwargs), name=name, key=key)

    async def acall(state: Any, *args: Any, **kwargs: Any) -> Any:
        return as_update(await function(node_input(state), *args, **kwargs), name=name, key=key)

    wrapper = functools.wraps(function)(acall if _is_async(function) else call)
    if not inspect.isfunction(function):
        wrapper.__name__ = name or (function.__name__ if inspect.isbuiltin(function) else called)
    return wrapper


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function)


def takes_messages(function: Callable[..., Any]) -> bool:
    """Whether the first parameter is annotated as a list of messages, in any spelling.

    One that is called `messages` and has no annotation counts, too.
    """
    try:
        first = next(iter(inspect.signature(function).parameters.values()))
        if first.name == "messages" and first.annotation is first.empty:
            return True
        target = function.func if isinstance(function, functools.partial) else function
        annotation = typing.get_type_hints(target).get(first.name)
    except (StopIteration, TypeError, ValueError, NameError):
        return False
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Sequence) and _are_messages(get_args(annotation))


def _are_messages(arguments: tuple[Any, ...]) -> bool:
    kinds = [kind for kind in arguments if kind is not Ellipsis]
    if not kinds:
        return False
    return all(
        issubclass(kind, BaseMessage) if isinstance(kind, type) else _are_messages(get_args(kind)) for kind in kinds
    )
