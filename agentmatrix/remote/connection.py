"""The connection that all copies of one remote agent share.

Any thread may use it. `_lock` guards which transport is the current one. The card is set once and then never changes,
so reading it needs no lock. The I/O thread keeps the host's answer as it is; the thread that first needs the card
decodes it. The codec is replaced by one that lists more classes, under the lock; a run keeps the one that it began
with.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Final

from agentmatrix.card import AgentCard
from agentmatrix.errors import AgentMatrixError, HostBusy, HostLost, HostUnreachable
from agentmatrix.transport import connect
from agentmatrix.transport.base import Transport
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import Target
from agentmatrix.wire.codec import DEFAULT_MAX_BYTES, Codec, Unlisted, types_of
from agentmatrix.wire.v1.service_pb2 import DescribeReply

__all__ = ["AgentConnection"]

_logger = logging.getLogger(__name__)

MOST_SCHEMAS: Final = 256
"""Graphs around the agent that are remembered: a process may build a new one for each of its runs."""
CARD_TIMEOUT_FACTOR: Final = 6
"""Times `connect_timeout`: how long a host may take for a card. LangGraph draws 1,000 nodes in a second."""


class AgentConnection:
    """The target, the options, the codec and the transport of a remote agent, and its card once it is fetched."""

    def __init__(
        self, target: Target, options: ClientOptions, allow: tuple[object, ...], unlisted: Unlisted = "dict"
    ) -> None:
        self.target, self.options, self.allow, self.unlisted = target, options, allow, unlisted
        # What fails here is nothing for the host: without tracebacks.
        most = max(DEFAULT_MAX_BYTES, options.max_frame)
        self.codec = Codec(allow, max_bytes=most, unlisted=unlisted, tracebacks=False)
        self._schemas: set[Hashable] = set()
        self._card: AgentCard | None = None
        self._answer: DescribeReply | None = None
        self.card_refused = False
        self._requested = False
        self._transport: Transport | None = None
        self._lock = threading.Lock()

    def list_types_of(self, annotations: Sequence[object]) -> None:
        """Lists the classes that a state with these annotations may hold: a graph in which the agent stands has them.

        Args:
            annotations: types. Only the first call with equal ones looks into them.
        """
        known: Hashable = tuple(annotations)
        try:
            if known in self._schemas:
                return
        except TypeError:  # an annotation that has no hash
            known = repr(annotations)
            if known in self._schemas:
                return
        with self._lock:
            if len(self._schemas) >= MOST_SCHEMAS:
                self._schemas.clear()
            self._schemas.add(known)
            if new := [cls for cls in types_of(*annotations) if not self.codec.allows(cls)]:
                self.codec = self.codec.extended(new)

    @property
    def transport(self) -> Transport:
        with self._lock:
            if self._transport is None or self._transport.state == "closed":
                self._transport = connect(self.target, self.options)
            return self._transport

    @property
    def card(self) -> AgentCard | None:
        """The card; None while it is not known, or where the host's answer cannot be read."""
        answer = self._answer
        if self._card is None and answer is not None:
            self._answer = None
            try:
                self.set_card(answer)
            except AgentMatrixError as error:
                # LangGraph reads the attributes of a graph while it is built, where nothing may raise.
                _logger.warning("the card of %s cannot be read: %s", self.target, error)
                self.card_refused = True
        return self._card

    @property
    def state(self) -> str:
        return "idle" if self._transport is None else self._transport.state

    def describe(self) -> Future[DescribeReply]:
        future = self.transport.describe(self.target.agent, CARD_TIMEOUT_FACTOR * self.options.connect_timeout)
        future.add_done_callback(self._on_described)
        return future

    def prefetch_card(self) -> None:
        """Fetches the card beside the first run, without waiting for it."""
        if self._card is None and not self._requested and not self.card_refused:
            self._requested = True
            self.describe()

    def _on_described(self, future: Future[DescribeReply]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._requested = False
        else:
            self._answer = future.result()

    def note_card_failed(self, error: AgentMatrixError, seconds: float) -> None:
        """Notes that the host gave no card, which may run the agent all the same; the run says what is wrong, if it is.

        Args:
            error: what the host, or the connection, has answered.
            seconds: how long that took.

        Raises:
            HostUnreachable: nobody answered in time: a run would wait as long again.
        """
        if isinstance(error, HostUnreachable) and seconds >= self.options.connect_timeout:
            raise error
        self.card_refused = not isinstance(error, (HostBusy, HostUnreachable, HostLost))

    def set_card(self, reply: DescribeReply) -> None:
        """Decodes the card in the host's answer.

        Raises:
            DecodeError, ProtocolError: it is none.
        """
        if self._card is None:
            self._card = AgentCard.unpack(self.codec.decode(reply.card.details, "card"))

    def close(self) -> None:
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
