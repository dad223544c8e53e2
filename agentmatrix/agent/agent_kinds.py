"""Agents as data that differ in their name and instructions only: one compiled agent serves all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig

from agentmatrix.agent.agent_spec import AgentSpec, Models, Tools

__all__ = ["AgentKinds", "InstructedAgent", "set_instructions"]

Compiled = TypeVar("Compiled")

_instructions: ContextVar[str] = ContextVar("instructions_of_agent", default="")
"""The instructions of the agent that is at work here."""


def set_instructions(text: str) -> None:
    """Say whose instructions count from here on, in this context."""
    _instructions.set(text)


class InstructedAgent(Runnable[Any, Any]):
    """An agent of a kind, at work under these instructions.

    Args:
        agent: what `AgentKinds` has compiled, as a Runnable.
        text: the instructions.
    """

    def __init__(self, agent: Runnable[Any, Any], text: str) -> None:
        self._agent, self._text = agent, text

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        token = _instructions.set(self._text)
        try:
            return self._agent.invoke(input, config, **kwargs)
        finally:
            _instructions.reset(token)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        token = _instructions.set(self._text)
        try:
            return await self._agent.ainvoke(input, config, **kwargs)
        finally:
            _instructions.reset(token)


class AgentKinds(Generic[Compiled]):
    """Compiles an `AgentSpec` once for all that differ in their name and instructions only.

    Args:
        compile: is given such an agent, which reads the instructions that count where it is at work.
        models: the chat models that a spec may name.
        tools: the tools that it may name.
    """

    def __init__(self, compile: Callable[[Any], Compiled], models: Models | None, tools: Tools | None) -> None:
        self._compile, self._models, self._tools = compile, models, tools
        self._kinds: dict[tuple[Any, ...], Compiled] = {}

    def of(self, spec: AgentSpec) -> Compiled:
        """What was compiled for agents of this kind."""
        if (kind := spec.kind) not in self._kinds:
            agent = spec.compile_kind(_instructions.get, self._models, self._tools)
            # Of two threads that come here at once one has its way.
            return self._kinds.setdefault(kind, self._compile(agent))
        return self._kinds[kind]
