"""A host in a process of its own that can be killed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import Any, Self

from agentmatrix import RemoteAgent
from tests.attacks import hosted
from tests.attacks.kit import rss
from tests.forked import Forked

__all__ = ["HostProcess"]


class HostProcess:
    """A host in a process of its own, which is killed at the end of a `with`.

    Args:
        graphs: makes its graphs; a function of a module.
        port: where it serves; by default any free port.
        options: of `Host`.
    """

    def __init__(
        self, graphs: Callable[[], dict[str, Any]] = hosted.ordinary, *, port: int = 0, **options: Any
    ) -> None:
        self.token: str | None = options.get("token")
        self._process = Forked(hosted.serve, graphs, f"127.0.0.1:{port}", options)
        line = self._process.stdout.readline().split()
        if len(line) != 2:
            raise RuntimeError(f"the host did not start: {self._process.stderr.read()}")
        self.address, self.pid = line[0], int(line[1])
        self._errors: list[str] = []
        # A pipe that nobody reads would stop the host.
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def _read_errors(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            self._errors.extend(self._process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def kill(self) -> None:
        """Kill it as `kill -9` does, and wait for its end. Idempotent."""
        with self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(60)
            self._reader.join(60)

    def terminate(self) -> None:
        """Send it SIGTERM: it drains."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float) -> int:
        return self._process.wait(timeout)

    def is_alive(self) -> bool:
        return rss(self.pid) >= 0

    def rss(self) -> int:
        """Its memory in MB."""
        return rss(self.pid)

    def errors(self) -> str:
        """What it has written to stderr."""
        return "".join(self._errors)

    def remote(self, agent: str, **options: Any) -> RemoteAgent:
        """One of its agents, for an honest caller."""
        return RemoteAgent(f"{self.address}/{agent}", api_key=self.token, **options)

    def stats(self) -> dict[str, int]:
        """Its `process_stats`; the run that asks is among the runs."""
        return dict(self.remote("stats", timeout=60).invoke({})["text"])
