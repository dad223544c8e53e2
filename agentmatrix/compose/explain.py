"""Why a node has run, has not, or not yet."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import StateSnapshot

from agentmatrix.engine.checkpoint import schedule_of
from agentmatrix.engine.state_update import reopened
from agentmatrix.explanation import Explanation, NodeStatus
from agentmatrix.scheduling.rules import Rules

__all__ = ["explained"]


def explained(graph: Any, saved: CheckpointTuple | None, saver: Any, snapshot: StateSnapshot) -> Explanation:
    """Where each node of a graph stands, and why.

    Args:
        graph: the graph.
        saved: where the thread stands, or None where it has not begun.
        saver: the saver that has it.
        snapshot: the state of the thread.
    """
    found = reopened(graph, saved, saver) if saved is not None else None
    rules = found[0].scheduler.rules if found else None
    tasks: dict[str, NodeStatus] = {}
    for task in snapshot.tasks:
        if task.error is not None:
            # Out of a saver it is the text of an error.
            error: Any = task.error
            why = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            tasks[task.name] = NodeStatus(task.name, "failed", why=why)
        elif task.interrupts:
            asked = ", ".join(repr(interrupt.value) for interrupt in task.interrupts)
            tasks[task.name] = NodeStatus(task.name, "paused", why=f"by the interrupt {asked}")
        elif task.name not in tasks:
            tasks[task.name] = NodeStatus(task.name, "ready")
    nodes = schedule_of(graph.channels).topology.nodes
    return Explanation({node: tasks.get(node) or _status(rules, node) for node in nodes})


def _status(rules: Rules | None, node: str) -> NodeStatus:
    if rules is None:
        return NodeStatus(node, "waiting", why="nothing has started it")
    if node in rules.ran:
        return NodeStatus(node, "ran", 1)
    if (reason := rules.skip_reason(node)) is not None:
        return NodeStatus(node, "skipped", why=reason)
    sources = rules.waits_for(node)
    return NodeStatus(node, "waiting", why=f"waits for {' and '.join(sources)}" if sources else "")
