"""Composition: graphs of agents. It knows no wire."""

from __future__ import annotations

from agentmatrix.compose.cyclic import CyclicGraph
from agentmatrix.compose.dag import Dag
from agentmatrix.pregel.pickling import mend_pickles

__all__ = ["CyclicGraph", "Dag"]

# A compiled graph that a user sends to another process, as Ray does, must be the same there.
mend_pickles()
