"""Live runs: graphs that take signals while they work."""

from __future__ import annotations

from agentmatrix.live.live_run import AsyncLiveRun, LiveRun

__all__ = ["AsyncLiveRun", "LiveRun"]
