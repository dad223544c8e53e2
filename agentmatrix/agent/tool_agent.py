"""Chat models with tools, or with a schema for their answers: LangChain's own agent (extra `models`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable

from agentmatrix.errors import BuildError, MissingExtra

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

__all__ = ["Tool", "innermost", "is_language_model", "names_of_bound_tools", "tool_agent", "with_ids_of_calls"]

Tool: TypeAlias = "BaseTool | Callable[..., Any] | dict[str, Any]"


def tool_agent(
    model: Any,
    *,
    tools: Sequence[Tool] = (),
    system_prompt: str | SystemMessage | Callable[[], str] | None = None,
    response_format: Any = None,
    name: str | None = None,
    max_model_calls: int | None = None,
    max_tool_calls: int | None = None,
) -> Any:
    """LangChain's `create_agent`: a graph that calls the model and its tools until it has an answer.

    A structured answer is in the state's `structured_response`; the agent's last message has it as JSON.

    Args:
        model: the chat model, without tools.
        tools: as of `create_agent`.
        system_prompt: as of `create_agent`, or a function that is asked for it at each call of the model.
        response_format: as of `create_agent`.
        name: the name of the graph, and of the author of its messages.
        max_model_calls: after so many calls of the model, a run ends with a message that says so.
        max_tool_calls: after so many calls of tools in a run, a further one is answered with an error.

    Raises:
        BuildError: the model is no chat model, or has tools already.
        MissingExtra: langchain is not installed.
    """
    from langchain_core.language_models import BaseChatModel

    if not isinstance(model, BaseChatModel):
        inner = "with tools bound to it" if names_of_bound_tools(model) else type(model).__name__
        raise BuildError(
            f"tools= and response_format= are for a chat model itself, not one {inner}: give the model, and its tools "
            "as tools=[...]; fallbacks and retries are middleware of LangChain's create_agent, whose graph is an agent"
        )
    try:
        from langchain.agents import create_agent
        from langchain.agents.middleware import ModelCallLimitMiddleware, ToolCallLimitMiddleware, dynamic_prompt
    except ImportError:
        raise MissingExtra(
            "tools= and response_format= run LangChain's agent, which is not installed: pip install 'langchain>=1.2,<2'"
        ) from None
    middleware: list[Any] = [_ids_of_calls(is_read=response_format is not None)]
    if max_model_calls is not None:
        middleware.append(ModelCallLimitMiddleware(run_limit=max_model_calls))
    if max_tool_calls is not None:
        middleware.append(ToolCallLimitMiddleware(run_limit=max_tool_calls))
    if callable(system_prompt):
        ask = system_prompt
        middleware.append(dynamic_prompt(lambda request: ask()))
    if response_format is not None:
        middleware.append(_words_of_structured_response(name))
    return create_agent(
        model,
        list(tools),
        system_prompt=None if callable(system_prompt) else system_prompt,
        response_format=response_format,
        middleware=middleware,
        name=name,
    )


def with_ids_of_calls(message: AIMessage) -> AIMessage:
    """The message with an id for each of its tool calls. Some models give none, and a tool's result needs one."""
    if all(call["id"] for call in message.tool_calls):
        return message
    calls = [call if call["id"] else {**call, "id": f"call_{uuid4().hex}"} for call in message.tool_calls]
    return message.model_copy(update={"tool_calls": calls})


class ToolCallIdHandler(BaseCallbackHandler):
    """Gives tool calls ids as a model answers, before anything reads them."""

    run_inline = True

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        for generation in (each for generations in response.generations for each in generations):
            message = getattr(generation, "message", None)
            if isinstance(message, AIMessage):
                message.tool_calls = with_ids_of_calls(message).tool_calls


def _ids_of_calls(*, is_read: bool) -> Any:
    """The middleware that gives the tool calls of a model ids.

    Args:
        is_read: whether LangChain's agent reads a structured answer out of them before middleware sees it.
    """
    from langchain.agents.middleware import AgentMiddleware

    from agentmatrix.pregel.callback_handlers import current_handler

    handler = ToolCallIdHandler()

    def giving() -> AbstractContextManager[None]:
        return current_handler(handler) if is_read else nullcontext()

    def with_ids(response: Any) -> Any:
        result = [with_ids_of_calls(each) if isinstance(each, AIMessage) else each for each in response.result]
        return replace(response, result=result)

    class IdsOfCalls(AgentMiddleware[Any, Any, Any]):
        """Gives tool calls ids."""

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            with giving():
                return with_ids(handler(request))

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            with giving():
                return with_ids(await handler(request))

    return IdsOfCalls()


def _words_of_structured_response(name: str | None) -> Any:
    """The middleware that says a structured answer in words: where the model gave it by calling a tool, nobody else
    would hear it."""
    from langchain.agents.middleware import after_agent
    from pydantic import TypeAdapter

    def words(state: Any, runtime: Any) -> dict[str, Any] | None:
        answer = state.get("structured_response")
        last = state["messages"][-1]
        if answer is None or (isinstance(last, AIMessage) and last.text.strip()):
            return None
        return {"messages": [AIMessage(TypeAdapter(type(answer)).dump_json(answer).decode(), name=name)]}

    return after_agent(name="structured_response_in_words")(words)


def names_of_bound_tools(agent: Any) -> list[str]:
    """The names of the tools that are bound to a chat model and that its caller has to run.

    Tools that the provider runs itself, such as a web search, are not among them; nor are the tools of a Runnable that
    reads the calls itself, such as `with_structured_output`.
    """
    names: list[str] = []
    while isinstance(agent, Runnable):
        tools = getattr(agent, "kwargs", None) or {}
        names += [name for tool in tools.get("tools") or () if (name := _name_if_run_here(tool))]
        agent = getattr(agent, "bound", None) or getattr(agent, "last", None) or getattr(agent, "runnable", None)
    return names


def _name_if_run_here(tool: Any) -> str | None:
    """The name of a tool in a provider's form, if it is a function of the caller."""
    if not isinstance(tool, Mapping):
        return getattr(tool, "name", None) or getattr(tool, "__name__", None)
    if declared := tool.get("function_declarations"):
        return ", ".join(str(_value(function, "name")) for function in declared)
    function = tool.get("function")
    if isinstance(function, Mapping):
        return str(function.get("name"))
    is_function = tool.get("type") in ("function", "custom") or "input_schema" in tool or "parameters" in tool
    return str(tool.get("name")) if is_function else None


def _value(record: Any, key: str) -> Any:
    return record.get(key) if isinstance(record, Mapping) else getattr(record, key, None)


def innermost(runnable: Any) -> Any:
    """The Runnable that takes the input first, inside of bindings, fallbacks and sequences."""
    for inner in ("bound", "first", "runnable", "default"):
        if isinstance(runnable, Runnable) and isinstance(getattr(runnable, inner, None), Runnable):
            return innermost(getattr(runnable, inner))
    return runnable


def is_language_model(agent: object) -> bool:
    """Whether something is one of LangChain's models. Nothing is as long as their base class, a tenth of what is
    imported here, has not been imported."""
    module = sys.modules.get("langchain_core.language_models.base")
    return module is not None and isinstance(agent, module.BaseLanguageModel)
