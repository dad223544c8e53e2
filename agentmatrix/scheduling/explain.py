"""Where each node stands and why, told from the scheduler: the first question of whoever writes an event-driven
graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentmatrix.explanation import Explanation, NodeStatus
from agentmatrix.scheduling.graph_scheduler import GraphScheduler

__all__ = ["explain", "why"]


def explain(scheduler: GraphScheduler | None, nodes: Iterable[str], tasks: Iterable[Any]) -> Explanation:
    """The explanation of a graph.

    Args:
        scheduler: what has happened, with all told that has finished; None where no run has begun.
        nodes: the nodes, in the order of add_node.
        tasks: the tasks of the thread's snapshot.
    """
    known = _statuses(tasks)
    # Actors and members who are at work have no nodes of their own.
    others = [name for name in known if scheduler is not None and scheduler.topology.node_of(name) != name]
    return Explanation({node: why(scheduler, node, known.get(node)) for node in (*nodes, *others)})


def _statuses(tasks: Iterable[Any]) -> Mapping[str, NodeStatus]:
    found: dict[str, NodeStatus] = {}
    for task in tasks:
        if task.error is not None:
            # Out of a saver it is the text of an error.
            error: Any = task.error
            text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            found[task.name] = NodeStatus(task.name, "failed", why=text)
        elif task.interrupts:
            asked = ", ".join(repr(interrupt.value) for interrupt in task.interrupts)
            found[task.name] = NodeStatus(task.name, "paused", why=f"by the interrupt {asked}")
        elif task.name not in found:
            found[task.name] = NodeStatus(task.name, "ready")
    return found


def why(scheduler: GraphScheduler | None, node: str, task: NodeStatus | None) -> NodeStatus:
    """Where one node stands.

    Args:
        scheduler: as for `explain`.
        node: the node.
        task: what its task says, if it has one.
    """
    if scheduler is None:
        return task or NodeStatus(node, "waiting", why="nothing has started it")
    rules = scheduler.rules
    times = max(rules.times(node), int(node in scheduler.ran()))
    group = rules.started_by(node)
    started = f"started by {group}" if group else ""
    if (error := rules.failure(node)) is not None:
        return NodeStatus(node, "failed", times, f"{type(error).__name__}: {error}")
    if task is not None:
        return NodeStatus(node, task.state, times, ", ".join(filter(None, (task.why, started))))
    if not times and (reason := rules.skip_reason(node)) is not None:
        return NodeStatus(node, "skipped", why=reason)
    waits = rules.waits_for(node)
    if times:
        return NodeStatus(node, "ran", times, "; ".join(filter(None, (started, waits))))
    return NodeStatus(node, "waiting", why=waits)
