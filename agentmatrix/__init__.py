"""Agents are graphs and graphs are agents, here or on another machine.

The names load when they are first used: `import agentmatrix` imports neither langgraph nor grpc.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentmatrix.agent import as_agent
    from agentmatrix.card import AgentCard
    from agentmatrix.compose import ChatGroup, CyclicGraph, Dag
    from agentmatrix.errors import AgentMatrixError
    from agentmatrix.host import Host
    from agentmatrix.remote import RemoteAgent

__version__ = "0.1.0"

__all__ = [
    "AgentCard",
    "AgentMatrixError",
    "ChatGroup",
    "CyclicGraph",
    "Dag",
    "Host",
    "RemoteAgent",
    "as_agent",
]

_HOMES = {
    "AgentCard": "agentmatrix.card",
    "AgentMatrixError": "agentmatrix.errors",
    "ChatGroup": "agentmatrix.compose",
    "CyclicGraph": "agentmatrix.compose",
    "Dag": "agentmatrix.compose",
    "Host": "agentmatrix.host",
    "RemoteAgent": "agentmatrix.remote",
    "as_agent": "agentmatrix.agent",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agentmatrix' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
