"""The arguments of a host's events: those of callbacks are encoded whatever user code has put into them."""

from __future__ import annotations

from typing import Any, Final

from agentmatrix.errors import AgentMatrixError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import decode_failure, encode_failure

__all__ = ["GATHERED", "encode_event"]

GATHERED: Final = frozenset({"stream", "writer"})
"""The kinds of events that go together when they come quickly: each has a tuple of the arguments of several."""


def encode_event(codec: Codec, kind: str, args: tuple[Any, ...]) -> bytes:
    """The arguments of an event.

    Raises:
        EncodeError: one of them cannot be encoded, and the event is no callback.
    """
    try:
        return codec.encode(args, f"event {kind}")
    except AgentMatrixError:
        if kind != "callback":
            raise
    group, event, positional, named = args
    args = tuple(_encodable(codec, value) for value in positional)
    kwargs = {name: _encodable(codec, value) for name, value in named.items()}
    return codec.encode((group, event, args, kwargs), "callback")


def _encodable(codec: Codec, value: Any) -> Any:
    """A value as a callback of the caller gets it: what cannot be encoded is replaced by its text."""
    if codec.can_encode(value):
        return value
    if isinstance(value, BaseException):
        return decode_failure(encode_failure(value, codec), codec)
    if isinstance(value, dict):
        return {key: _encodable(codec, item) for key, item in value.items() if isinstance(key, str)}
    if isinstance(value, list):
        return [_encodable(codec, item) for item in value]
    return repr(value)
