"""Admission control: how many runs a host takes at a time, and that it takes none while it stops.

The same for every kind of server. Runs are accepted on the I/O thread and may end on any thread; `_lock` guards the
count, and is never held while the servicer is called.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from agentmatrix.transport.base import FrameReceiver, FrameStream, Peer, Servicer
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import RunRejected

__all__ = ["AdmissionControl", "caller_of"]

_logger = logging.getLogger(__name__)


def caller_of(peer: Peer) -> str:
    """By what a host tells a peer from others when it counts what each one has."""
    return peer.user.name if peer.user else " ".join(peer.identity) or peer.address


class AdmissionControl:
    """Counts the runs of a server over all its connections.

    Args:
        servicer: takes the runs that are admitted.
        limit: runs at a time.
    """

    def __init__(self, servicer: Servicer, limit: int) -> None:
        self._servicer = servicer
        self._limit = limit
        self._lock = threading.Lock()
        self._runs = 0
        self._drained: asyncio.Event | None = None
        """Set when the last run has ended; None until `drain` is called."""

    def accept(self, frames: FrameStream, peer: Peer) -> FrameReceiver:
        """The receiver of a new run. On the I/O thread.

        Raises:
            RunRejected: the host has as many runs as it may, is stopping, or failed.
        """
        self._admit()
        try:
            return self._servicer.accept(frames, peer)
        except BaseException as error:
            self.release()
            _logger.exception("the host failed to take a run")
            raise RunRejected("protocol", f"the host failed to take the run ({type(error).__name__})") from error

    def release(self) -> None:
        """An admitted run has ended. On any thread."""
        with self._lock:
            self._runs -= 1
            drained = self._drained if self._runs == 0 else None
        if drained:
            io_thread().call(drained.set)

    async def drain(self, grace: float) -> None:
        """Admits no more runs, then waits until those under way have ended, at most `grace` seconds.

        On the I/O thread.
        """
        with self._lock:
            self._drained = asyncio.Event()
            if self._runs == 0:
                self._drained.set()
        waiting = asyncio.ensure_future(self._drained.wait())
        await asyncio.wait({waiting}, timeout=grace)
        waiting.cancel()

    def _admit(self) -> None:
        with self._lock:
            if self._drained:
                raise RunRejected("stopping", "")
            if self._runs >= self._limit:
                raise RunRejected("busy", f"it has {self._runs} runs and takes no more")
            self._runs += 1
