"""Agents as data: instructions, and the names of a model and of tools."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from agentmatrix.agent.adapter import as_agent, prompted
from agentmatrix.agent.tool_agent import Tool, tool_agent
from agentmatrix.errors import BuildError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = ["AgentSpec", "Models", "Tools"]

Models: TypeAlias = "Mapping[str, BaseChatModel]"
Tools: TypeAlias = "Mapping[str, Tool] | Sequence[Tool]"


class AgentSpec(BaseModel):
    """An agent as data, which a file or a message can carry: what `as_agent` is told, with the model and tools by name.

    A builder takes it where it takes an agent, and `compile(models=, tools=)` resolves the names.

    Attributes:
        name: the name of the agent.
        model: the name of its chat model.
        system_prompt: its instructions.
        tools: the names of its tools.
        response_format: the JSON schema of its answers.
        max_model_calls: the calls of the model in a turn, for an agent with tools; a message says that they are over.
        max_tool_calls: the calls of tools in a turn; a further one is answered with an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    model: str = "default"
    system_prompt: str = ""
    tools: tuple[str, ...] = ()
    response_format: dict[str, Any] | None = None
    max_model_calls: int | None = Field(default=None, ge=1)
    max_tool_calls: int | None = Field(default=None, ge=1)

    def compile(self, models: Models | None = None, tools: Tools | None = None) -> Any:
        """Make the agent.

        Args:
            models: the chat models by name.
            tools: the tools by name, or a sequence of tools that have names of their own.

        Returns:
            What `as_agent` returns.

        Raises:
            BuildError: a name that is not there.
            MissingExtra: the agent has tools or a schema, and langchain is not installed.
        """
        model = self._named("model", self.model, models or {})
        known = _by_name(tools or ())
        chosen = [self._named("tool", tool, known) for tool in self.tools]
        if not chosen and self.response_format is None:
            return as_agent(model, name=self.name, system_prompt=self.system_prompt or None)
        return tool_agent(
            model,
            tools=chosen,
            system_prompt=self.system_prompt or None,
            response_format=self.response_format,
            name=self.name,
            max_model_calls=self.max_model_calls,
            max_tool_calls=self.max_tool_calls,
        )

    @property
    def kind(self) -> tuple[Any, ...]:
        """What agents have in common that differ in their name and their instructions only."""
        limits = self.max_model_calls, self.max_tool_calls
        return self.model, self.tools, repr(self.response_format), *limits, bool(self.system_prompt)

    def compile_kind(self, prompt: Callable[[], str], models: Models | None = None, tools: Tools | None = None) -> Any:
        """Make one agent for all of this kind.

        Args:
            prompt: gives the instructions of the one that is at work.
            models: as for `compile`.
            tools: as for `compile`.
        """
        model = self._named("model", self.model, models or {})
        known = _by_name(tools or ())
        chosen = [self._named("tool", tool, known) for tool in self.tools]
        if not chosen and self.response_format is None:
            return prompted(model, prompt) if self.system_prompt else as_agent(model)
        return tool_agent(
            model,
            tools=chosen,
            system_prompt=prompt if self.system_prompt else None,
            response_format=self.response_format,
            max_model_calls=self.max_model_calls,
            max_tool_calls=self.max_tool_calls,
        )

    def _named(self, kind: str, name: str, known: Mapping[str, Any]) -> Any:
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name, known, n=1)
        there_are = (
            f"there are: {', '.join(known)}" if known else f"there are none: compile({kind}s={{...}}) gives them"
        )
        hint = f"did you mean {close[0]!r}?" if close else there_are
        raise BuildError(f"the agent {self.name!r} names the {kind} {name!r}, which is unknown ({hint})")


def _by_name(tools: Tools) -> dict[str, Tool]:
    if isinstance(tools, Mapping):
        return dict(tools)
    return {_name_of(tool): tool for tool in tools}


def _name_of(tool: Any) -> str:
    name = tool.get("name") or tool.get("type") if isinstance(tool, Mapping) else None
    name = name or getattr(tool, "name", None) or getattr(tool, "__name__", None)
    if not isinstance(name, str):
        raise BuildError(f"the tool {tool!r} has no name: give the tools as a mapping of names to tools")
    return name
