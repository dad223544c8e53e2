"""What tells one agent from another in the keys of a cache.

LangGraph's key of a node's result has the name of the node and of the function in it. Two graphs, remote agents,
partials or callable objects in nodes of one name share a key: in one cache, one would be answered by the other.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final

from langchain_core.runnables import Runnable, RunnableSequence
from langgraph.pregel import Pregel

from agentmatrix.pregel.runnables import function_of
from agentmatrix.pregel.state_graph import edges_of, routers_of

__all__ = ["identity_of"]

_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None))
_LARGEST: Final = 10_000
"""Parts of an agent that are looked at."""


def identity_of(agent: Any) -> bytes | None:
    """What an agent is, as bytes, the same in each process; None for a function of a module, which its name tells.

    It is made of names, of what functions have closed over, and of the attributes of objects, as they are now. Things
    of the process alone, such as a connection, count by their class.
    """
    function = function_of(agent)
    if isinstance(function, types.FunctionType) and not function.__closure__ and not function.__defaults__:
        return None
    return repr(_Description().of(agent)).encode()


class _Description:
    """Describes an agent by names and plain values."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if id(value) in self._seen or len(self._seen) >= _LARGEST:
            return "seen before"
        self._seen[id(value)] = value  # keeps the id
        if isinstance(value, (type, types.ModuleType)):
            return (getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__))
        if isinstance(value, Mapping):
            return [(self.of(key), self.of(item)) for key, item in value.items()]
        if isinstance(value, (set, frozenset)):
            return sorted(map(repr, map(self.of, value)))
        if isinstance(value, Iterable) and isinstance(value, (list, tuple)):
            return [*map(self.of, value)]
        return self._of_code(value)

    def _of_code(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):
            return [self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, types.FunctionType):
            closed = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
            return [value.__module__, value.__qualname__, *map(self.of, (closed, value.__defaults__))]
        if isinstance(value, functools.partial):
            return [self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, Pregel):
            return self._of_graph(value)
        if isinstance(value, RunnableSequence):
            return [*map(self.of, value.steps)]
        if isinstance(value, Runnable) and (function := function_of(value)) is not value:
            return self.of(function)
        cls = type(value)
        return [cls.__module__, cls.__qualname__, self.of(_attributes(value))]

    def _of_graph(self, graph: Any) -> Any:
        if getattr(type(graph), "is_remote", False):
            return graph.__qualname__
        nodes = [(name, self.of(node.bound), sorted(node.triggers)) for name, node in graph.nodes.items()]
        builder = getattr(graph, "builder", None)
        if builder is None:
            return [graph.get_name(), nodes]
        routers = [(source, self.of(spec)) for source, specs in routers_of(builder).items() for spec in specs.items()]
        return [graph.get_name(), nodes, sorted(edges_of(builder)), routers]


def _attributes(value: Any) -> dict[str, Any]:
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()) if type(name) is str]
    own = {name: getattr(value, name) for name in slots if not name.startswith("__") and hasattr(value, name)}
    return own | getattr(value, "__dict__", {})


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
