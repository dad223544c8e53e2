"""The log of a host's runs: a line for each by the logger `agentmatrix.runs`.

INFO: each run that has ended, with its outcome, and each that was refused. DEBUG: each that begins. ERROR: the
traceback of what user code has raised. No input, no result, no token and no header is in any of them. Each record has
the same as attributes (`extra=`), for formatters that write fields.

A host has no handler of its own: who wants to read configures `logging`, and `agentmatrix serve` does.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from agentmatrix.session.run_record import RunRecord
from agentmatrix.transport.rate_limited_log import RateLimitedLog

__all__ = ["RunLog"]

_logger = logging.getLogger("agentmatrix.runs")
_logger.addHandler(logging.NullHandler())  # else Python prints errors to stderr where nobody has configured logging

_LONGEST: Final = 100
"""Characters of a name that a caller has sent."""


class RunLog:
    """Logs the runs of a host."""

    def __init__(self) -> None:
        self._refusals = RateLimitedLog(_logger, "runs were refused")

    def on_wait(self, run: RunRecord) -> None:
        _logger.debug("%s waits for its turn run=%s", _call(run), _plain(run.run_id), extra=_begun(run))

    def on_begin(self, run: RunRecord) -> None:
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "%s begins for %s run=%s", _call(run), _plain(run.caller), _plain(run.run_id), extra=_begun(run)
            )

    def on_end(self, run: RunRecord) -> None:
        if run.outcome == "refused":
            self._refusals.warning(
                "%s refused for %s: %s", _call(run), _plain(run.caller), _one_line(run.failure), extra=_begun(run)
            )
            return
        if run.outcome == "failed":
            _logger.error("%s failed run=%s", _call(run), _plain(run.run_id), exc_info=run.failure, extra=_begun(run))
        if _logger.isEnabledFor(logging.INFO):
            _logger.info(_line(run), extra=_ended(run))


def _line(run: RunRecord) -> str:
    parts = [f"{_call(run)} {run.outcome} for {_plain(run.caller)} in {run.seconds:.3f} s"]
    if run.queued:
        parts.append(f"queued={run.queued:.3f} s")
    if run.thread_id:
        parts.append(f"thread={_plain(run.thread_id)}")
    parts.append(f"run={_plain(run.run_id)} in={run.bytes_in} B out={run.bytes_out} B")
    if run.usage.total:
        parts.append(f"tokens={run.usage.input_tokens}+{run.usage.output_tokens}")
    if run.signals:
        parts.append(f"signals={run.signals}")
    return " ".join(parts).replace("%", "%%")


def _begun(run: RunRecord) -> dict[str, Any]:
    return {"agent": run.agent, "verb": run.verb, "run_id": run.run_id, "caller": run.caller}


def _ended(run: RunRecord) -> dict[str, Any]:
    return {
        **_begun(run),
        "thread_id": run.thread_id,
        "outcome": run.outcome,
        "seconds": round(run.seconds, 6),
        "queued": round(run.queued, 6),
        "bytes_in": run.bytes_in,
        "bytes_out": run.bytes_out,
        "input_tokens": run.usage.input_tokens,
        "output_tokens": run.usage.output_tokens,
        "signals": run.signals,
    }


def _call(run: RunRecord) -> str:
    return f"{_plain(run.agent)}.{_plain(run.verb)}"


def _one_line(error: object) -> str:
    return "".join(c if c.isprintable() else " " for c in " ".join(str(error).split()))


def _plain(name: str) -> str:
    """A name that a caller has sent, as it can stand in a line: it can begin no line of its own."""
    short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return short if short.isprintable() and " " not in short else repr(short)
