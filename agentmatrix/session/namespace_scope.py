"""The namespaces that a host may use and speak for: at or below those of the node that it works for.

LangGraph writes a namespace as parts of a node and its task, `"panel:<id>|optimist:<id>"`; a second graph that a task
calls adds a number (`"panel:<id>|1"`), and a graph compiled with `checkpointer=True` keeps its history where the task
ids are left out, `"panel|optimist"`. So they are compared part by part: `"child2"` is not below `"child"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentmatrix.pregel import config_keys

__all__ = ["NamespaceScope", "granted_namespace", "without_task_ids"]

_TASK_SEP: Final = ":"


class NamespaceScope:
    """The namespaces at or below one, and at or below the same without task ids.

    Args:
        namespace: the checkpoint namespace of a node's task; `""` is the root of a thread, and covers all of it.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        parts = _parts(namespace)
        names = tuple(part.split(_TASK_SEP)[0] for part in parts)
        # LangGraph leaves the numbers out in some places. A node may be named by a number: its part has a task id.
        unnumbered = tuple(part.split(_TASK_SEP)[0] for part in parts if not part.isdigit())
        self._roots = {parts, names, unnumbered}

    def covers(self, namespace: object) -> bool:
        """Whether a namespace, as a string or as the tuple of its parts, is at or below this one."""
        if namespace == self.namespace:
            return True
        parts = _parts(namespace) if isinstance(namespace, str) else namespace
        if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
            return False
        return any(tuple(parts[: len(root)]) == root for root in self._roots)

    def is_visit(self, namespace: object) -> bool:
        """Whether a replay may name a graph so: as a namespace that is covered, without the id of its last task."""
        return self.covers(namespace) or namespace == self.namespace.rpartition(_TASK_SEP)[0]

    def commands(self, graph: object) -> bool:
        """Whether a command to this graph is meant for the graph around the node, the direct parent.

        LangGraph names that graph by the namespace of the node's task, with or without task ids, or by the node.
        """
        parts = _parts(self.namespace)
        node = parts[-1].split(_TASK_SEP)[0] if parts else None
        return graph == node or graph in {config_keys.NS_SEP.join(root) for root in self._roots}


def _parts(namespace: str) -> tuple[str, ...]:
    return tuple(namespace.split(config_keys.NS_SEP)) if namespace else ()


def without_task_ids(namespace: str) -> str:
    """The namespace in which a graph with `checkpointer=True` keeps its history, by that of its task."""
    return config_keys.NS_SEP.join(part.split(_TASK_SEP)[0] for part in namespace.split(config_keys.NS_SEP))


def granted_namespace(configurable: Mapping[str, Any], *, is_run: bool) -> str:
    """The namespace that a run, or a state verb, is about: that in its config.

    A run that no task has started begins at the root, whatever its config says: so LangGraph runs it.
    """
    if is_run and config_keys.TASK_ID not in configurable:
        return ""
    return str(configurable.get(config_keys.CHECKPOINT_NS) or "")
