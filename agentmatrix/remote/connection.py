"""The connection that all copies of one remote agent share.

Any thread may use it. `_lock` guards which transport is the current one. The card is set once and then never changes,
so reading it needs no lock. The I/O thread keeps the host's answer as it is; the thread that first needs the card
decodes it.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import Final

from agentmatrix.card import AgentCard
from agentmatrix.errors import AgentMatrixError
from agentmatrix.transport import connect
from agentmatrix.transport.base import Transport
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import Target
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1.service_pb2 import DescribeReply

__all__ = ["AgentConnection"]

_logger = logging.getLogger(__name__)

CARD_TIMEOUT_FACTOR: Final = 6
"""Times `connect_timeout`: how long a host may take for a card. LangGraph draws 1,000 nodes in a second."""


class AgentConnection:
    """The target, the options, the codec and the transport of a remote agent, and its card once it is fetched."""

    def __init__(self, target: Target, options: ClientOptions, allow: tuple[object, ...]) -> None:
        self.target, self.options, self.allow = target, options, allow
        self.codec = Codec(allow)
        self._card: AgentCard | None = None
        self._answer: DescribeReply | None = None
        self._requested = False
        self._transport: Transport | None = None
        self._lock = threading.Lock()

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
        if self._card is None and not self._requested:
            self._requested = True
            self.describe()

    def _on_described(self, future: Future[DescribeReply]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._requested = False
        else:
            self._answer = future.result()

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
