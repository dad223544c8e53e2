"""Runs as they are seen: one model of what nested graphs do, here and on hosts, and its pictures."""

from agentmatrix.watch.compare import ComparedRun, Comparison
from agentmatrix.watch.node_record import (
    AnsweredQuestion,
    GraphRecord,
    NodeActivation,
    NodeRecord,
    OpenQuestion,
    TranscriptLine,
)
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.summary import RunSummary
from agentmatrix.watch.watched_run import WatchedRun
from agentmatrix.watch.watching import load

__all__ = [
    "AnsweredQuestion",
    "ComparedRun",
    "Comparison",
    "GraphRecord",
    "NodeActivation",
    "NodeRecord",
    "OpenQuestion",
    "RunEvent",
    "RunSummary",
    "TranscriptLine",
    "WatchedRun",
    "load",
]
