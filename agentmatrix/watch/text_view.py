"""A run as text for a terminal: the tree of the nodes, each with its state and what it has cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agentmatrix.watch.node_record import GraphRecord, NodeRecord
from agentmatrix.watch.picture import counters, state_words
from agentmatrix.watch.structure import MOST_MEMBERS
from agentmatrix.watch.watched_graph import Transfer
from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["TextLine", "text_of_run"]


class TextLine(NamedTuple):
    """One line: `└─ expert`, its state, and the rest."""

    name: str
    state: str
    words: str


def text_of_run(run: WatchedRun) -> list[TextLine]:
    """The lines of all graphs that have run; before, of the one that will."""
    lines: list[TextLine] = []
    expected = run.drawing("")
    waiting = [GraphRecord("")] if expected is not None and not run.records else []
    for record in run.records or waiting:
        nodes = run.nodes_of(record.name)
        inside: dict[str, list[str]] = {}
        for path in nodes:
            inside.setdefault(path.rpartition("/")[0], []).append(path)
        with_errors = {above for path, node in nodes.items() if node.errors for above in _above(path)}
        root = record.nodes[""]
        words = _words(root, record.nodes.values(), tells_error=not with_errors)
        lines.append(
            TextLine(record.name or (expected.label if expected else "calls outside of a graph"), record.state, words)
        )
        tree = _Tree(nodes, inside, with_errors, run.transfers)
        lines += tree.lines("", "")
    return lines


def _above(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


@dataclass(frozen=True, slots=True)
class _Tree:
    nodes: Mapping[str, NodeRecord]
    inside: Mapping[str, list[str]]
    with_errors: set[str]
    transfers: Mapping[str, Transfer]

    def lines(self, above: str, indent: str) -> Iterator[TextLine]:
        here = self.inside.get(above, [])
        if len(here) > MOST_MEMBERS:
            yield TextLine(f"{indent}└─ {len(here)} nodes", "", counters([self.nodes[path] for path in here]))
            return
        for path in here:
            node, is_last = self.nodes[path], path == here[-1]
            name = path.removeprefix(f"{above}/") if above else path
            # What was raised passes through the graphs around: it is told where that was.
            words = _words(node, [node], tells_error=path not in self.with_errors)
            if (transfer := self.transfers.get(path)) is not None:
                words = f"{words}, {transfer}" if words else str(transfer)
            yield TextLine(f"{indent}{'└─ ' if is_last else '├─ '}{name}", node.state, words)
            yield from self.lines(path, indent + ("   " if is_last else "│  "))


def _words(node: NodeRecord, counted: Collection[NodeRecord], *, tells_error: bool) -> str:
    """What there is to say beside the state, with the calls and tokens of all that are counted."""
    words = [state_words(node).removeprefix(node.state).strip()]
    if calls := sum(one.calls for one in counted):
        words.append(f"{calls} {'call' if calls == 1 else 'calls'}")
    if tokens := sum(one.tokens for one in counted):
        words.append(f"{tokens} tokens")
    if node.silent:
        words.append(f"{node.silent} silent")
    if tells_error and node.errors and node.state == "failed":
        words.append(node.errors[-1])
    return ", ".join(filter(None, words))
