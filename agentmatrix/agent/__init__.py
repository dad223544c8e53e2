"""Agents as nodes of a graph: adapters, chat models with instructions, and agents as data."""

from __future__ import annotations

from agentmatrix.agent.adapter import as_agent, as_update, messages_in, only_calls_models
from agentmatrix.agent.agent_spec import AgentSpec
from agentmatrix.agent.tool_agent import names_of_bound_tools

__all__ = ["AgentSpec", "as_agent", "as_update", "messages_in", "names_of_bound_tools", "only_calls_models"]
