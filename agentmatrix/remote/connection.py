"""The connection that all copies of one remote agent share.

Any thread may use it. `_lock` guards which transport is the current one. The card is set once and then never changes;
the I/O thread may set it, when the host has answered, so reading it needs no lock.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Final

from agentmatrix.card import AgentCard
from agentmatrix.transport import connect
from agentmatrix.transport.base import Transport
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import Target
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1.service_pb2 import DescribeReply

__all__ = ["AgentConnection"]


CARD_TIMEOUT_FACTOR: Final = 6
"""Times `connect_timeout`: how long a host may take for a card. LangGraph draws 1,000 nodes in a second."""


class AgentConnection:
    """The target, the options, the codec and the transport of a remote agent, and its card once it is fetched."""

    def __init__(self, target: Target, options: ClientOptions, allow: tuple[object, ...]) -> None:
        self.target, self.options, self.allow = target, options, allow
        self.codec = Codec(allow, tracebacks=False)  # what fails here is nothing for the host
        self.card: AgentCard | None = None
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
    def state(self) -> str:
        return "idle" if self._transport is None else self._transport.state

    def describe(self) -> Future[DescribeReply]:
        future = self.transport.describe(self.target.agent, CARD_TIMEOUT_FACTOR * self.options.connect_timeout)
        future.add_done_callback(self._on_described)
        return future

    def prefetch_card(self) -> None:
        """Fetches the card beside the first run, without waiting for it."""
        if self.card is None and not self._requested:
            self._requested = True
            self.describe()

    def _on_described(self, future: Future[DescribeReply]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._requested = False
        else:
            self.set_card(future.result())

    def set_card(self, reply: DescribeReply) -> None:
        """Decodes the card in the host's answer."""
        if self.card is None:
            self.card = AgentCard.unpack(self.codec.decode(reply.card.details, "card"))

    def close(self) -> None:
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
