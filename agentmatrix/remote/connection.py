"""What all copies of one remote agent share."""

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

__all__ = ["Connection"]


DRAWING: Final = 6
"""How many times as long as for a connection a host may take for a card: LangGraph draws 1,000 nodes in a second."""


class Connection:
    """What all copies of one `RemoteAgent` share: where, how, the codec, and the card once it was fetched."""

    def __init__(self, target: Target, options: ClientOptions, allow: tuple[object, ...]) -> None:
        self.target, self.options, self.allow = target, options, allow
        self.codec = Codec(allow)
        self.card: AgentCard | None = None
        self._asked = False
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
        future = self.transport.describe(self.target.agent, DRAWING * self.options.connect_timeout)
        future.add_done_callback(self._learn)
        return future

    def ask_once(self) -> None:
        """Fetches the card beside the first run, without waiting for it."""
        if self.card is None and not self._asked:
            self._asked = True
            self.describe()

    def _learn(self, future: Future[DescribeReply]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._asked = False
        else:
            self.learn(future.result())

    def learn(self, reply: DescribeReply) -> None:
        """Takes the card out of the host's answer."""
        if self.card is None:
            self.card = AgentCard.unpack(self.codec.decode(reply.card.details, "card"))

    def close(self) -> None:
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
