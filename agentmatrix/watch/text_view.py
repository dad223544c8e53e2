"""A run as text for a terminal: the tree of the nodes, each with its state and what it has cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from agentmatrix.watch.node_record import GraphRecord, NodeRecord
from agentmatrix.watch.picture import counters, state_words
from agentmatrix.watch.structure import MOST_MEMBERS
from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["TextLine", "text_of_run"]


class TextLine(NamedTuple):
    """One line: `└─ expert`, its state, and the rest."""

    name: str
    state: str
    words: str


def text_of_run(run: WatchedRun) -> list[TextLine]:
    """The lines of all graphs that have run."""
    lines: list[TextLine] = []
    for record in run.records:
        nodes = run.nodes_of(record.name)
        lines.append(
            TextLine(record.name or "calls outside of a graph", record.state, _words(record.nodes[""], record))
        )
        lines += _level("", nodes, "")
    return lines


def _level(above: str, nodes: Mapping[str, NodeRecord], indent: str) -> Iterator[TextLine]:
    prefix = f"{above}/" if above else ""
    here = [path for path in nodes if path.startswith(prefix) and path and "/" not in path.removeprefix(prefix)]
    if len(here) > MOST_MEMBERS:
        yield TextLine(f"{indent}└─ {len(here)} nodes", "", counters([nodes[path] for path in here]))
        return
    for path in here:
        is_last = path == here[-1]
        yield TextLine(
            f"{indent}{'└─ ' if is_last else '├─ '}{path.removeprefix(prefix)}", nodes[path].state, _words(nodes[path])
        )
        yield from _level(path, nodes, indent + ("   " if is_last else "│  "))


def _words(node: NodeRecord, record: GraphRecord | None = None) -> str:
    """What there is to say beside the state."""
    words = [state_words(node).removeprefix(node.state).strip()]
    counted = record.nodes.values() if record else [node]
    if calls := sum(one.calls for one in counted):
        words.append(f"{calls} {'call' if calls == 1 else 'calls'}")
    if tokens := sum(one.tokens for one in counted):
        words.append(f"{tokens} tokens")
    if record is None and node.silent:
        words.append(f"{node.silent} silent")
    if node.errors and node.state == "failed":
        words.append(node.errors[-1])
    return ", ".join(filter(None, words))
