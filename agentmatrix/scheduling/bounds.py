"""How often a loop may go round."""

from __future__ import annotations

from collections.abc import Mapping

from agentmatrix.errors import BoundError
from agentmatrix.scheduling.topology import Topology, drawn

__all__ = ["bound_error"]


def bound_error(topology: Topology, node: str, rounds: Mapping[str, int], mend: str) -> BoundError | None:
    """What a node raises in place of running, when its loop has gone round too often.

    Args:
        topology: the shape of the graph.
        node: the node that is to start.
        rounds: by node, how often it has run so far.
        mend: what to do about it, besides to raise the bound.
    """
    limit = topology.max_rounds
    if not limit or rounds.get(node, 0) < limit:
        return None
    busy = {other for other, count in rounds.items() if count >= limit - 1}
    loop = topology.loop_through(node, busy) or topology.loop_through(node) or [node]
    return BoundError(
        f"the loop {drawn(loop)} has gone round {limit} times in this run without an end: "
        f"give {mend}, or raise the bound with compile(max_rounds=...)"
    )
