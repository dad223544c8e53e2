"""Agents are graphs and graphs are agents, here or on another machine.

The names load when they are first used: `import agentmatrix` imports neither langgraph nor grpc. Modules that this file
imports for itself have private names: completion in notebooks offers every public name that it finds here.
"""

import importlib as _importlib
import os as _os
import typing as _typing

if _typing.TYPE_CHECKING:
    from agentmatrix import display as display
    from agentmatrix import errors as errors
    from agentmatrix import middleware as middleware
    from agentmatrix import speakers as speakers
    from agentmatrix import stops as stops
    from agentmatrix import testing as testing
    from agentmatrix import watch as watch
    from agentmatrix.agent import AgentSpec, as_agent
    from agentmatrix.budget import Budget
    from agentmatrix.card import AgentCard
    from agentmatrix.chat import ChatGroup, members
    from agentmatrix.compose import CyclicGraph, Dag
    from agentmatrix.compose.activation import Activation, get_activation
    from agentmatrix.dataset import (
        CompletedRow,
        FailedRow,
        Ray,
        Report,
        arefine,
        arefine_as_completed,
        refine,
        refine_as_completed,
    )
    from agentmatrix.errors import AgentMatrixError
    from agentmatrix.host import Host
    from agentmatrix.remote import RemoteAgent
    from agentmatrix.transport.identity import Identity
    from agentmatrix.triggers import after, all_of, any_of, at_least, every, idle, signal
    from agentmatrix.watch.compare import acompare, compare
    from agentmatrix.watch.watching import watching
    from agentmatrix.wire.unlisted import UnlistedValue

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "AgentCard",
    "AgentMatrixError",
    "AgentSpec",
    "Budget",
    "ChatGroup",
    "CompletedRow",
    "CyclicGraph",
    "Dag",
    "FailedRow",
    "Host",
    "Identity",
    "Ray",
    "RemoteAgent",
    "Report",
    "UnlistedValue",
    "acompare",
    "after",
    "all_of",
    "any_of",
    "arefine",
    "arefine_as_completed",
    "as_agent",
    "at_least",
    "compare",
    "every",
    "get_activation",
    "idle",
    "members",
    "refine",
    "refine_as_completed",
    "signal",
    "watching",
]

_HOMES = {
    "Activation": "agentmatrix.compose.activation",
    "AgentCard": "agentmatrix.card",
    "AgentMatrixError": "agentmatrix.errors",
    "AgentSpec": "agentmatrix.agent",
    "Budget": "agentmatrix.budget",
    "ChatGroup": "agentmatrix.chat",
    "CompletedRow": "agentmatrix.dataset",
    "CyclicGraph": "agentmatrix.compose",
    "Dag": "agentmatrix.compose",
    "FailedRow": "agentmatrix.dataset",
    "Host": "agentmatrix.host",
    "Identity": "agentmatrix.transport.identity",
    "Ray": "agentmatrix.dataset",
    "RemoteAgent": "agentmatrix.remote",
    "Report": "agentmatrix.dataset",
    "UnlistedValue": "agentmatrix.wire.unlisted",
    "acompare": "agentmatrix.watch.compare",
    "after": "agentmatrix.triggers",
    "all_of": "agentmatrix.triggers",
    "any_of": "agentmatrix.triggers",
    "arefine": "agentmatrix.dataset",
    "arefine_as_completed": "agentmatrix.dataset",
    "as_agent": "agentmatrix.agent",
    "at_least": "agentmatrix.triggers",
    "compare": "agentmatrix.watch.compare",
    "every": "agentmatrix.triggers",
    "get_activation": "agentmatrix.compose.activation",
    "idle": "agentmatrix.triggers",
    "members": "agentmatrix.chat",
    "refine": "agentmatrix.dataset",
    "refine_as_completed": "agentmatrix.dataset",
    "signal": "agentmatrix.triggers",
    "watching": "agentmatrix.watch.watching",
}
_MODULES = ("display", "errors", "middleware", "speakers", "stops", "testing", "watch")


def __getattr__(name: str) -> _typing.Any:
    if name in _MODULES:
        return _importlib.import_module(f"agentmatrix.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agentmatrix' has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])


if _os.environ.get("AGENTMATRIX_UI", "").startswith("http"):
    # The page of another process is to show what runs in this one; the variable is the option --ui of `serve` besides.
    _importlib.import_module("agentmatrix.watch.page_connection").report_process(_os.environ["AGENTMATRIX_UI"])
