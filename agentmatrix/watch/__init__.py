"""Runs as they are seen: one model of what nested graphs do, here and on hosts, and its pictures."""

from agentmatrix.watch.node_record import NodeRecord
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.summary import RunSummary
from agentmatrix.watch.watched_run import WatchedRun, load

__all__ = ["NodeRecord", "RunEvent", "RunSummary", "WatchedRun", "load"]
