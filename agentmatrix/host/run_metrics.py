"""The metrics of a host's runs, by OpenTelemetry: no-ops where no SDK is set up, nothing where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from agentmatrix.session.run_record import RunObserver, RunRecord

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

__all__ = ["run_metrics"]


def run_metrics(agents: Container[str]) -> list[RunObserver]:
    """What measures the runs of a host; nothing without OpenTelemetry.

    Args:
        agents: the names of the host's agents. Others, which callers may make up, are not told apart.
    """
    if importlib.util.find_spec("opentelemetry") is None:
        return []
    from opentelemetry import metrics

    return [_RunMetrics(metrics.get_meter("agentmatrix"), agents)]


class _RunMetrics:
    """Measures runs by agent and verb.

    Args:
        meter: makes the instruments.
        agents: see `run_metrics`.
    """

    def __init__(self, meter: Meter, agents: Container[str]) -> None:
        self._agents = agents
        self._begun = meter.create_counter("agentmatrix.runs.begun", description="Runs that have begun.")
        self._ended = meter.create_counter("agentmatrix.runs.ended", description="Runs that have ended, by outcome.")
        self._refused = meter.create_counter("agentmatrix.runs.refused", description="Runs that were not taken.")
        self._active = meter.create_up_down_counter("agentmatrix.runs.active", description="Runs under way.")
        self._queued = meter.create_up_down_counter("agentmatrix.runs.queued", description="Runs that wait.")
        self._wait = meter.create_histogram("agentmatrix.run.wait", unit="s", description="From start to begin.")
        self._duration = meter.create_histogram("agentmatrix.run.duration", unit="s", description="From start to end.")
        self._bytes = meter.create_counter("agentmatrix.run.size", unit="By", description="Bytes of frames, each way.")
        self._tokens = meter.create_counter(
            "agentmatrix.run.tokens", unit="{token}", description="Tokens, as chat models count them."
        )
        self._signals = meter.create_counter("agentmatrix.run.signals", description="Signals that runs were sent.")

    def on_wait(self, run: RunRecord) -> None:
        self._queued.add(1, self._attributes(run))

    def on_begin(self, run: RunRecord) -> None:
        attributes = self._attributes(run)
        if run.waits:
            self._queued.add(-1, attributes)
            self._wait.record(run.queued, attributes)
        self._begun.add(1, attributes)
        self._active.add(1, attributes)

    def on_end(self, run: RunRecord) -> None:
        attributes = self._attributes(run)
        if run.waits and not run.has_begun:
            self._queued.add(-1, attributes)
        if run.outcome == "refused":
            self._refused.add(1, {**attributes, "error.type": type(run.failure).__name__})
            return
        if run.has_begun:
            self._active.add(-1, attributes)
        self._ended.add(1, {**attributes, "outcome": run.outcome})
        self._duration.record(run.seconds, attributes)
        self._bytes.add(run.bytes_in, {**attributes, "direction": "in"})
        self._bytes.add(run.bytes_out, {**attributes, "direction": "out"})
        if run.usage.total:
            self._tokens.add(run.usage.input_tokens, {**attributes, "type": "input"})
            self._tokens.add(run.usage.output_tokens, {**attributes, "type": "output"})
        if run.signals:
            self._signals.add(run.signals, attributes)

    def _attributes(self, run: RunRecord) -> dict[str, Any]:
        known = run.agent in self._agents
        return {"agent": run.agent if known else "", "verb": run.verb if known else ""}
