"""Runs that work elsewhere, and are only looked at here: of other processes, and of the host that has the page."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from agentmatrix.display.drawing import Drawing
from agentmatrix.ui.page_run import PageRun
from agentmatrix.ui.runs import RunStore
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.structure import drawing_from_json

__all__ = ["RemoteRuns"]

SILENT_SECONDS: Final = 30.0
"""After which a process is taken for gone."""
_ENDS: Final = ("end", "fail", "ask", "cancel")


@dataclass(slots=True)
class _ReportingProcess:
    source: str
    heard: float = 0.0
    drawings: dict[str, Drawing] = field(default_factory=dict)
    # By id of the run there, the run here.
    runs: dict[str, PageRun] = field(default_factory=dict)


class RemoteRuns:
    """Takes what processes tell of their runs. Its methods may be called on any thread.

    Args:
        runs: where the runs go.
    """

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._processes: dict[str, _ReportingProcess] = {}
        self._lock = threading.Lock()

    def take(
        self, process: str, source: str, lines: list[Any], *, is_last: bool = False, is_silent: bool = False
    ) -> None:
        """Take what a process tells, in order.

        Args:
            process: tells processes apart.
            source: what the page calls it.
            lines: drawings and events, as `WatchedRun.as_json` has them.
            is_last: whether it ends now.
            is_silent: whether it tells nothing while nothing happens; `end` says when it is gone.

        Raises:
            ValueError: one of them cannot be read.
        """
        with self._lock:
            found = self._processes.setdefault(process, _ReportingProcess(source))
            found.heard = float("inf") if is_silent else time.monotonic()
            for line in lines:
                if isinstance(line, dict) and "drawing" in line:
                    self._take_drawing(found, str(line.get("graph")), drawing_from_json(line["drawing"]))
                else:
                    self._take_event(found, RunEvent.from_json(line))
            if is_last:
                self._end(process)

    def expire(self) -> None:
        """End the runs of processes that have told nothing for long."""
        with self._lock:
            now = time.monotonic()
            for process in [key for key, one in self._processes.items() if now - one.heard > SILENT_SECONDS]:
                self._end(process)

    def end(self, process: str) -> None:
        """A process is gone: what was at work there is cut off."""
        with self._lock:
            if process in self._processes:
                self._end(process)

    def _end(self, process: str) -> None:
        for run in self._processes.pop(process).runs.values():
            if run.is_at_work:
                run.set_at_work(False)

    def _take_drawing(self, process: _ReportingProcess, name: str, drawing: Drawing) -> None:
        process.drawings[name] = drawing
        for run in process.runs.values():
            if run.graph == name:
                run.drawing = drawing

    def _take_event(self, process: _ReportingProcess, event: RunEvent) -> None:
        run = process.runs.get(event.run)
        is_begin = event.kind == "begin" and not event.path
        if run is None:
            if not is_begin:
                return  # Its begin was told to nobody: the page is younger than the run.
            run = self._begin(process, event)
        if is_begin:
            run.set_at_work(True)
        run.take_event(event)
        if not event.path and event.kind in _ENDS:
            run.set_at_work(False)

    def _begin(self, process: _ReportingProcess, event: RunEvent) -> PageRun:
        """The run of a thread that goes on, or a new one."""
        name, thread = str(event.data.get("name") or "graph"), str(event.data.get("thread_id") or "")
        for run in process.runs.values():
            if thread and (run.graph, run.thread) == (name, thread) and not run.is_at_work:
                process.runs[event.run] = run
                return run
        run = PageRun(uuid.uuid4().hex[:12], name, thread, process.source, self._runs.changed)
        if name in process.drawings:
            run.drawing = process.drawings[name]
        process.runs[event.run] = run
        while len(process.runs) > 1000:
            oldest = next((id for id, one in process.runs.items() if not one.is_at_work), None)
            if oldest is None:
                break
            del process.runs[oldest]
        return self._runs.add(run)
