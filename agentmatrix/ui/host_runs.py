"""Runs on a host that somebody else has started, on the page: read only, by an agent of the host that tells of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from agentmatrix.ui.remote_runs import RemoteRuns

__all__ = ["SHARED_RUNS", "HostRuns"]

logger = logging.getLogger("agentmatrix")

SHARED_RUNS: Final = "agentmatrix-runs"
"""The name of the agent."""
_SECONDS: Final = 2.0
"""Between two tries to reach the host."""


class HostRuns:
    """Reads what a host tells of its runs.

    Args:
        address: of the host, as it is shown.
        connect: gives the agent of the host that tells of them.
    """

    def __init__(self, address: str, connect: Callable[[], Any]) -> None:
        self._address, self._connect = address, connect
        self._seen: dict[str, Any] = {}

    def start(self, runs: RemoteRuns) -> None:
        """Read, in a thread of its own, as long as the process lives."""
        threading.Thread(target=self._read, args=(runs,), name="agentmatrix-ui-host", daemon=True).start()

    def _read(self, runs: RemoteRuns) -> None:
        never, has_failed = threading.Event(), False
        while True:
            try:
                for part in self._connect().stream(self._seen, stream_mode="custom"):
                    # A host that has started anew tells other runs.
                    runs.take(f"host {part['host']}", f"at {self._address}", part["lines"], is_silent=True)
                    self._seen = {"host": part["host"], "after": part["after"]}
                    has_failed = False
            except Exception as error:
                if not has_failed:
                    logger.warning("the runs of %s cannot be read: %s", self._address, error)
                has_failed = True
            if self._seen:
                runs.end(f"host {self._seen['host']}")
            never.wait(_SECONDS)
