"""Runs as they are seen: one model of what nested graphs do, here and on hosts, and its pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "AnsweredQuestion": "node_record", "ComparedRun": "compare", "Comparison": "compare", "GraphRecord": "node_record",
    "NodeActivation": "node_record", "NodeRecord": "node_record", "OpenQuestion": "node_record",
    "RunEvent": "run_event", "RunSummary": "summary", "TranscriptLine": "node_record", "WatchedRun": "watched_run",
    "load": "watching",
}  # fmt: skip
"""The modules of what is imported when it is first used: every graph can be watched, and few are."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"agentmatrix.watch.{_HOMES[name]}"), name)
    return value
