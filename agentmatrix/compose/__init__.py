"""Composition: graphs of agents. It knows no wire."""

from __future__ import annotations

from agentmatrix.compose.cyclic import CyclicGraph
from agentmatrix.compose.dag import Dag

__all__ = ["CyclicGraph", "Dag"]
