"""Why a node has run, has not, or not yet: the first question of whoever writes an event-driven graph."""

from __future__ import annotations

from typing import Any

from langgraph.types import StateSnapshot

from agentmatrix.compose.ledger import Ledger
from agentmatrix.compose.triggered import TriggeredLedger
from agentmatrix.explanation import Explanation, NodeStatus
from agentmatrix.triggers import GroupState

__all__ = ["explained"]


def explained(ledger: Ledger | None, nodes: tuple[str, ...], snapshot: StateSnapshot) -> Explanation:
    """The explanation of a graph.

    Args:
        ledger: what has happened; None where no run has begun, or the graph keeps no ledger.
        nodes: the nodes, in the order of add_node.
        snapshot: the state of the thread.
    """
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
    return Explanation({node: _status(ledger, node, tasks.get(node)) for node in nodes})


def _status(ledger: Ledger | None, node: str, task: NodeStatus | None) -> NodeStatus:
    if ledger is None or not ledger.activations:
        return task or NodeStatus(node, "waiting", why="nothing has started it")
    plan, times = ledger.plan(), ledger.times(node)
    error = next((firing.error for firing in plan.fired if firing.node == node and firing.error), None)
    if error is not None:
        return NodeStatus(node, "failed", times, f"{type(error).__name__}: {error}")
    if task is not None and node in {*plan.ready, *(pending.send.node for pending in plan.pending)}:
        why = ", ".join(filter(None, (task.why, _started(ledger, node))))
        return NodeStatus(node, task.state, times, why)
    if node in plan.skipped:
        return NodeStatus(node, "skipped", why=ledger.blame(node))
    waits = _waits(ledger, node)
    if times:
        return NodeStatus(node, "ran", times, "; ".join(filter(None, (_last(ledger, node), waits))))
    return NodeStatus(node, "waiting", why=waits)


def _started(ledger: Ledger, node: str) -> str:
    groups = [firing.group for firing in ledger.plan().fired if firing.node == node]
    return f"started by {groups[0]}" if groups and groups[0] else ""


def _last(ledger: Ledger, node: str) -> str:
    group = next(entry.group for entry in reversed(ledger.activations) if entry.node == node)
    return f"started by {group}" if group else ""


def _waits(ledger: Ledger, node: str) -> str:
    """What the node waits for, group by group."""
    plan, sources = ledger.plan(), ledger.topology.edge_sources[node]
    if not isinstance(ledger, TriggeredLedger):
        left = [source for source in sources if source not in plan.done and source != ledger.topology.start]
        return f"waits for {_listed(left)}" if left and not ledger.times(node) else ""
    waits = [
        text for text in (_group_waits(ledger, node, group) for group in ledger.topology.groups.get(node, ())) if text
    ]
    if not ledger.repeats and sources and not ledger.times(node):
        left = [source for source in sources if source not in plan.done and source != ledger.topology.start]
        waits[:0] = [f"its edges wait for {_listed(left)}"] if left else []
    if ledger.times(node) and not ledger.repeats:
        return ""
    return "; ".join(waits)


def _group_waits(ledger: TriggeredLedger, node: str, group: Any) -> str:
    have, gone = ledger.standing(node, group)
    came = [label for label in group.labels if label in have]
    text = f"{group.name} has {_listed(came)} and waits for" if came else f"{group.name} waits for"
    if group.state(have, gone) is GroupState.WAITING:
        return f"{text} {_listed([label for label in group.missing(have) if label not in gone])}"
    lost = [label for label in group.labels if label in gone]
    return f"{group.name} cannot fire, without {_listed(lost)}: {ledger.blame(lost[0])}" if lost else ""


def _listed(labels: list[str]) -> str:
    return " and ".join(labels)
