"""Composition: graphs of agents. It knows no wire."""

from __future__ import annotations

from agentmatrix.compose.chat import ChatGroup
from agentmatrix.compose.cyclic import CyclicGraph

__all__ = ["ChatGroup", "CyclicGraph"]
