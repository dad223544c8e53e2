"""Live runs: graphs that take signals while they run."""

from __future__ import annotations

from agentmatrix.live.live_run import AsyncLiveRun, LiveRun

__all__ = ["AsyncLiveRun", "LiveRun"]
