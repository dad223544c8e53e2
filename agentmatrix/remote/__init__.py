"""Agents on other machines: a graph that a host serves stands in its parent as a local one does."""

from __future__ import annotations

from agentmatrix.remote.remote_agent import RemoteAgent

__all__ = ["RemoteAgent"]
