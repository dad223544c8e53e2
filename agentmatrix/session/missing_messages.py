"""Messages that a caller has named and that its host does not have any more: the host asks for them.

So it is where the host's memory has been used for others since, or where the run has come by another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from agentmatrix.errors import DecodeError, ProtocolError
from agentmatrix.session.proxies import RpcClient
from agentmatrix.wire.shared_messages import ReceivedMessages

__all__ = ["adecode_with_missing", "decode_with_missing"]

T = TypeVar("T")


def decode_with_missing(messages: ReceivedMessages, rpc: RpcClient, decode: Callable[[], T]) -> T:
    """What `decode` returns. It is called again once the messages that it lacked have come.

    Raises:
        DecodeError: as `decode` does, where no message was missing.
        ProtocolError: the caller does not have them either.
    """
    while True:
        try:
            return decode()
        except DecodeError:
            if not messages.missing:
                raise
        numbers = [*messages.missing]
        _add(messages, numbers, rpc.request("messages", "listed", numbers))


async def adecode_with_missing(messages: ReceivedMessages, rpc: RpcClient, decode: Callable[[], T]) -> T:
    """The same, awaited."""
    while True:
        try:
            return decode()
        except DecodeError:
            if not messages.missing:
                raise
        numbers = [*messages.missing]
        _add(messages, numbers, await rpc.arequest("messages", "listed", numbers))


def _add(messages: ReceivedMessages, numbers: Sequence[int], sent: Any) -> None:
    if type(sent) is not list or len(sent) != len(numbers):
        raise ProtocolError("the caller was asked for messages that it has named, and did not send them")
    messages.supply(dict(zip(numbers, sent, strict=True)))
