"""What a run has cost, by agent, and which of its nodes everything waited for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from agentmatrix.watch.node_record import GraphRecord, NodeActivation, NodeRecord
from agentmatrix.watch.run_event import node_above

__all__ = ["RunSummary", "Step", "critical_path", "summary_of"]

_AT_ONCE: Final = 0.002
"""Seconds by which a node may begin before the one that it waited for has ended: clocks of hosts differ by that."""


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the critical path: a node, and its seconds at work."""

    path: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What the runs of a block have cost.

    Attributes:
        graphs: the names of the graphs that ran.
        state: of all of it: `done`, `failed`, `asking`, `running`, `cut off` or `waiting`.
        runs: how many runs were started.
        seconds: from the first begin to the last end.
        busy_seconds: those of all agents together, each measured where it runs.
        calls: of models.
        tokens, input_tokens, output_tokens: of models that say how many.
        tools: calls of tools.
        errors: how often something was raised, and how often something was cut off.
        silent_turns: turns of members of chat groups that said nothing.
        critical_path: of the longest run, the nodes that each next one waited for, from its begin to its end.
        by_agent: by path, the nodes that have no nodes inside.
    """

    graphs: tuple[str, ...]
    state: str
    runs: int
    seconds: float
    busy_seconds: float
    calls: int
    tokens: int
    input_tokens: int
    output_tokens: int
    tools: int
    errors: int
    cut_off: int
    silent_turns: int
    critical_path: tuple[Step, ...]
    by_agent: dict[str, NodeRecord]

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [("agent", "state", "times", "seconds", "calls", "tokens", "silent", "errors")]
        for path, node in self.by_agent.items():
            numbers = (node.count, f"{node.seconds:.2f}", node.calls, node.tokens, node.silent, len(node.errors))
            rows.append((path, node.state, *(str(number) for number in numbers)))  # type: ignore[arg-type]
        total = (f"{self.busy_seconds:.2f}", self.calls, self.tokens, self.silent_turns, self.errors)
        rows.append(("all", self.state, str(self.runs), *(str(number) for number in total)))  # type: ignore[arg-type]
        waited = " > ".join(f"{step.path} {step.seconds:.2f} s" for step in self.critical_path)
        last = f"{self.seconds:.2f} s from begin to end" + (f", on the critical path: {waited}" if waited else "")
        return "\n".join([*_aligned(rows), last])


def summary_of(records: Sequence[GraphRecord]) -> RunSummary:
    """The summary of what graphs have done."""
    several = len(records) > 1
    agents: dict[str, NodeRecord] = {}
    for record in records:
        inner = {path.rpartition("/")[0] for path in record.nodes if path}
        for path, node in record.nodes.items():
            if (path or node.calls) and (path not in inner or node.calls) and not node.is_hidden:
                agents["/".join(filter(None, (record.name if several or not path else "", path)))] = node
    roots = [record.nodes[""] for record in records]
    first = min((root.first for root in roots if root.first), default=0.0)
    last = max((root.last for root in roots), default=0.0)
    nodes = [node for record in records for node in record.nodes.values()]
    return RunSummary(
        graphs=tuple(record.name for record in records),
        state=state_of(records),
        runs=sum(root.count for root in roots),
        seconds=max(last - first, 0.0),
        busy_seconds=sum(agent.seconds for agent in agents.values()),
        calls=sum(node.calls for node in nodes),
        tokens=sum(node.tokens for node in nodes),
        input_tokens=sum(node.input_tokens for node in nodes),
        output_tokens=sum(node.output_tokens for node in nodes),
        tools=sum(node.tools for node in nodes),
        errors=sum(len(agent.errors) for agent in agents.values()),
        cut_off=sum(agent.cut_off for agent in agents.values()),
        silent_turns=sum(node.silent for node in nodes),
        critical_path=critical_path(
            activation
            for record in records
            for activation in record.activations
            if not record.nodes[activation.path].is_hidden
        ),
        by_agent=agents,
    )


def state_of(records: Iterable[GraphRecord]) -> str:
    """The state of several graphs together: the one that a person wants to hear of first."""
    states = {record.state for record in records}
    order = ("running", "asking", "failed", "cut off", "done")
    return next((state for state in order if state in states), "waiting")


def critical_path(activations: Iterable[NodeActivation]) -> tuple[Step, ...]:
    """Of the longest run, the activations that each next one waited for: whatever begins next has waited for the one
    that has ended last. Where that is a graph, the path goes through its nodes."""
    runs: dict[str, list[NodeActivation]] = {}
    for activation in activations:
        if activation.ended is not None:
            runs.setdefault(activation.run, []).append(activation)
    roots = [activation for several in runs.values() for activation in several if not activation.path]
    if not roots:
        return ()
    longest = max(roots, key=lambda root: (root.ended or 0.0) - root.begun)
    inside: dict[str, list[NodeActivation]] = {}
    for activation in runs[longest.run]:
        if activation.path:
            inside.setdefault(node_above(activation.namespace), []).append(activation)
    return tuple(_steps(longest, longest.namespace, inside))


def _steps(around: NodeActivation, namespace: str, inside: dict[str, list[NodeActivation]]) -> list[Step]:
    found: list[Step] = []
    left = sorted(inside.get(namespace, ()), key=lambda activation: activation.ended or 0.0)
    until = around.ended or 0.0
    while left:
        last = left.pop()
        if (last.ended or 0.0) > until + _AT_ONCE:
            continue
        until = last.begun
        found = [*(_steps(last, last.namespace, inside) or [Step(last.path, last.seconds)]), *found]
    return found


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
