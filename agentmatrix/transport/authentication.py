"""How many runs a host takes, and that it takes none while it stops. The same for every kind of server."""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading

from agentmatrix.transport.base import Lane, Peer, Receiver, Servicer
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import Refusal

__all__ = ["Admission", "refusal_of_token"]

_logger = logging.getLogger(__name__)


class Admission:
    """The door between connections and a servicer. `leave` may be called from any thread.

    Args:
        servicer: gets the runs that are let in.
        limit: runs at a time.
    """

    def __init__(self, servicer: Servicer, limit: int) -> None:
        self._servicer = servicer
        self._limit = limit
        self._lock = threading.Lock()
        self._runs = 0
        self._empty: asyncio.Event | None = None

    def accept(self, lane: Lane, peer: Peer) -> Receiver:
        """The receiver of a new run.

        Raises:
            Refusal: there is no room, the host is stopping, or the servicer failed.
        """
        self._enter()
        try:
            return self._servicer.accept(lane, peer)
        except BaseException as error:
            self.leave()
            _logger.exception("the host failed to take a run")
            raise Refusal("protocol", f"the host failed to take the run ({type(error).__name__})") from error

    def leave(self) -> None:
        """A run that was let in has gone."""
        with self._lock:
            self._runs -= 1
            empty = self._empty if self._runs == 0 else None
        if empty:
            io_thread().call(empty.set)

    async def drain(self, grace: float) -> None:
        """Let no run in, and wait until those inside have gone, at most `grace` seconds."""
        with self._lock:
            self._empty = asyncio.Event()
            if self._runs == 0:
                self._empty.set()
        waiting = asyncio.ensure_future(self._empty.wait())
        await asyncio.wait({waiting}, timeout=grace)
        waiting.cancel()

    def _enter(self) -> None:
        with self._lock:
            if self._empty:
                raise Refusal("stopping", "")
            if self._runs >= self._limit:
                raise Refusal("busy", f"it has {self._runs} runs and takes no more")
            self._runs += 1


def refusal_of_token(expected: str | None, given: str | bytes | None) -> str | None:
    """Why a caller with this `authorization` header is turned away; None when it is not.

    Args:
        expected: the host's token.
        given: the whole header, `"Bearer <token>"`.
    """
    if expected is None:
        return None
    if given is None:
        return "it wants a token and got none (api_key=, or AGENTMATRIX_TOKEN)"
    given = given.encode() if isinstance(given, str) else given
    if not hmac.compare_digest(given, f"Bearer {expected}".encode()):
        return "the token is not the right one"
    return None
