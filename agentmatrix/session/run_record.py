"""What a host knows of one of its runs: for its log and its metrics, which observe the runs.

Threads: a run is refused or begins on the I/O thread, and ends on the thread or loop that it ran on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from langchain_core.runnables import RunnableConfig

from agentmatrix.pregel.token_usage import TokenUsage

__all__ = ["Outcome", "RunObserver", "RunObservers", "RunRecord"]

_logger = logging.getLogger(__name__)

Outcome = Literal[
    "ok", "interrupted", "drained", "failed", "cancelled", "deadline", "caller lost", "stopped", "refused"
]
"""How a run has ended: "interrupted" at a question, "drained" at a checkpoint, "stopped" with its host."""


@dataclass
class RunRecord:
    """One run of a host.

    Attributes:
        agent: the name that the caller has called.
        verb: of the graph, by the name of its sync twin.
        run_id: the caller's, or LangGraph's where its config has one.
        caller: the name of its identity, else its address.
        thread_id: of the config; empty without one.
        came: when, by `time.monotonic`.
        waits: whether it had to wait for its turn.
        has_begun: whether its turn has come.
        queued: seconds that it has waited for its turn.
        seconds: from its coming to its end.
        bytes_in: of its frames.
        bytes_out: of its frames.
        signals: that it was sent.
        usage: the tokens that its chat models have counted.
        outcome: how it ended; empty while it runs.
        failure: what it raised.
    """

    agent: str
    verb: str
    run_id: str
    caller: str
    thread_id: str = ""
    came: float = field(default_factory=time.monotonic)
    waits: bool = False
    has_begun: bool = False
    queued: float = 0.0
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    signals: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    outcome: Outcome | Literal[""] = ""
    failure: BaseException | None = None

    def name(self, config: RunnableConfig) -> None:
        """Takes what a run is known by from its config."""
        self.thread_id = str((config.get("configurable") or {}).get("thread_id") or "")
        self.run_id = str(config.get("run_id") or self.run_id)

    def end(self, outcome: Outcome, failure: BaseException | None = None) -> None:
        """The run has ended, by this outcome; the first one counts."""
        if not self.outcome:
            self.outcome, self.failure = outcome, failure
            self.seconds = time.monotonic() - self.came


class RunObserver(Protocol):
    """Is told of the runs of a host. Returns at once."""

    def on_wait(self, run: RunRecord) -> None:
        """A run waits for its turn."""

    def on_begin(self, run: RunRecord) -> None:
        """A run begins."""

    def on_end(self, run: RunRecord) -> None:
        """A run has ended, or will not begin: then `on_begin` was not called, and `has_begun` is False."""


class RunObservers:
    """The observers of a host, as one. What one of them raises is logged, and harms no run."""

    def __init__(self, observers: Iterable[RunObserver] = ()) -> None:
        self._observers = tuple(observers)

    def on_wait(self, run: RunRecord) -> None:
        """Tells all that a run waits for its turn."""
        run.waits = True
        self._tell("on_wait", run)

    def on_begin(self, run: RunRecord) -> None:
        """Tells all that a run begins."""
        run.has_begun = True
        if run.waits:
            run.queued = time.monotonic() - run.came
        self._tell("on_begin", run)

    def on_end(self, run: RunRecord) -> None:
        """Tells all that a run has ended."""
        self._tell("on_end", run)

    def _tell(self, what: str, run: RunRecord) -> None:
        for observer in self._observers:
            try:
                getattr(observer, what)(run)
            except Exception:
                _logger.exception("an observer of the runs failed")
