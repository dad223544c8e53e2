"""Addresses of signals: nodes and a name, `"panel/audio"`, checked against the signals that the graphs declare."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from agentmatrix.errors import SignalError

__all__ = ["check_address", "signal_addresses"]


def check_address(graph: Any, address: str, above: tuple[str, ...] = ()) -> None:
    """Checks that a graph declares the signal at this address.

    The part of an address behind a remote agent whose card was not fetched yet is left to its host.

    Args:
        graph: the graph that the address begins at.
        address: nodes and the name of a signal, `"panel/audio"`.
        above: the nodes above that graph; for the message.

    Raises:
        SignalError: no graph declares it; the message names the signals that there are.
    """
    *path, name = address.split("/")
    here = graph
    for node in path:
        if here is not None and _signals(here) is not None:
            here = dict(here.get_subgraphs()).get(node)
    declared = frozenset() if here is None else _signals(here)
    if declared is not None and name not in declared:
        prefix = "".join(f"{node}/" for node in above)
        known = [f"{prefix}{known}" for known in signal_addresses(graph)]
        close = difflib.get_close_matches(f"{prefix}{address}", known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(known)) or 'no signals'}"
        raise SignalError(f"no graph declares the signal {prefix + address!r} ({hint})")


def _signals(graph: Any) -> frozenset[str] | None:
    """The signals that a graph declares; None for a remote agent whose card was not fetched yet."""
    signals: frozenset[str] | None = getattr(graph, "signals", frozenset())
    return signals


def signal_addresses(graph: Any) -> Iterator[str]:
    """The addresses of all signals that the graph and its nested graphs declare, as far as they are known."""
    declared = _signals(graph)
    if declared is not None:
        yield from declared
        for node, nested in graph.get_subgraphs():
            yield from (f"{node}/{address}" for address in signal_addresses(nested))
