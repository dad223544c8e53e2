"""A host in the foreground of a process, from its start to the signal that ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from agentmatrix.cli.process_end import end_process

if TYPE_CHECKING:
    from agentmatrix import Host

__all__ = ["serve_in_foreground"]

_logger = logging.getLogger("agentmatrix.host")

_LOOK_SECONDS: Final = 0.05
"""How often the main thread looks up: it must stay free, since Python runs signal handlers on it alone."""


def serve_in_foreground(
    graphs: dict[str, Any],
    grace: float,
    drain_timeout: float,
    until_eof: bool,
    options: dict[str, Any],
    page: Callable[[Host], AbstractContextManager[None]] = lambda host: nullcontext(),
) -> None:
    """Print one line when the host serves, and end the process when it has stopped.

    The first signal drains the host, the second one stops it at once; while it starts, the first one does.

    Args:
        graphs: the graphs by their names on the host.
        grace: seconds that runs go on as they are after the first signal.
        drain_timeout: seconds until the host stops then.
        until_eof: the end of stdin counts as a signal, so that the host ends with the process that started it,
            however that one ends.
        options: arguments of `Host`.
        page: what stands beside the host while it serves.
    """
    from agentmatrix import Host
    from agentmatrix.host.frozen_objects import frozen_objects

    # Before the host listens: a signal that comes earlier would end the process without a drain.
    stop = _StopSignal()
    if until_eof:
        threading.Thread(target=stop.set_at_eof, args=(sys.stdin.fileno(),), daemon=True).start()
    host = Host(graphs, **options)
    try:
        if _started(host, stop):
            print(f"serving {', '.join(host.graphs)} at {host.address}", flush=True)
            with page(host), frozen_objects():
                stop.wait()
            _drain(host, stop, grace, drain_timeout)
    finally:
        host.stop()
    end_process(0)


def _started(host: Host, stop: _StopSignal) -> bool:
    """Whether the host has started, rather than been stopped by a signal meanwhile."""
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(host.start)
        while not starting.done() and not stop.wait(_LOOK_SECONDS):
            pass
        if not starting.done():
            host.stop()
        error = starting.exception()
    if error is not None and not stop.is_set():
        raise error
    return error is None


def _drain(host: Host, stop: _StopSignal, grace: float, timeout: float) -> None:
    stop.clear()
    drain = threading.Thread(target=host.drain, args=(timeout,), kwargs={"grace": grace}, daemon=True)
    drain.start()
    while drain.is_alive() and not stop.is_set():
        drain.join(_LOOK_SECONDS)


class _StopSignal(threading.Event):
    """An event that SIGINT and SIGTERM set."""

    def __init__(self) -> None:
        super().__init__()
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def set_at_eof(self, file: int) -> None:
        """Read a file to its end, in a thread of its own, and set the event.

        Unbuffered: a buffer's lock, held by this thread, would disturb the end of the process.
        """
        while os.read(file, 4096):
            pass
        _logger.info("the process that has started this host is gone")
        self.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        _logger.info("received %s", signal.Signals(number).name)
        self.set()
