"""Messages of a run's input that come back unchanged: they are named by their numbers, not sent again.

A graph returns its whole conversation, and puts it into each checkpoint. The caller numbers the messages that it sends
and keeps them for as long as the run; the host keeps a snapshot of each. A message that is the same object, and as it
came, goes back as its number. What a node has changed in place goes by value.
"""

from __future__ import annotations

import copy
from typing import Any, Final, Protocol

from langchain_core.messages import BaseMessage
from ormsgpack import Ext

from agentmatrix.wire.extensions import REFERENCE, InvalidPart, PartDecoder, PartEncoder, Tag
from agentmatrix.wire.objects import ObjectCodec

__all__ = ["ReceivedMessages", "SentMessages", "SharedMessages", "encode_message"]


class SharedMessages(Protocol):
    """The messages of one run that both sides have, on either side."""

    def restart(self) -> None:
        """A value is encoded from its beginning."""

    def encode(self, codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
        """What msgpack writes for a message."""

    def note(self, number: int, message: Any) -> None:
        """A message with a number has been decoded."""

    def get(self, number: int) -> BaseMessage:
        """The message that a number names.

        Raises:
            IndexError: there is none.
        """


class SentMessages:
    """On the caller: those that it has sent."""

    def __init__(self) -> None:
        self._messages: list[BaseMessage] = []

    def restart(self) -> None:
        self._messages.clear()

    def encode(self, codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
        self._messages.append(message)
        number = len(self._messages) - 1
        return [SHARED.ext, number, codec.encode(encoder, message, depth + 1)]

    def note(self, number: int, message: Any) -> None:
        """The host numbers nothing."""

    def get(self, number: int) -> BaseMessage:
        return self._messages[number]


class ReceivedMessages:
    """On the host: those that it has been sent."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Ext, BaseMessage, _Snapshot]] = {}

    def restart(self) -> None:
        """Nothing is numbered here."""

    def encode(self, codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
        known = self._known.get(id(message))
        if known is not None and known[2].is_of(message):
            return known[0]
        return codec.encode(encoder, message, depth)

    def note(self, number: int, message: Any) -> None:
        if isinstance(message, BaseMessage) and type(number) is int and 0 <= number < 1 << 32:
            name = Ext(REFERENCE, number.to_bytes(4, "big"))
            self._known[id(message)] = (name, message, _Snapshot(message))

    def get(self, number: int) -> BaseMessage:
        raise IndexError("a caller names no messages")


_SIZED: Final = frozenset({list, dict})
_SCALARS: Final = frozenset({str, bytes, int, float, bool, type(None)})


class _Snapshot:
    """How a message was: its fields, and copies of what may change in place."""

    __slots__ = ("_empty", "_extra", "_fields", "_full", "_how_many_set", "_private")

    def __init__(self, message: BaseMessage) -> None:
        self._fields = dict(message.__dict__)
        self._empty: list[Any] = []
        self._full: list[tuple[Any, Any]] = []
        for value in [value for value in self._fields.values() if type(value) not in _SCALARS]:
            if type(value) in _SIZED and not value:
                self._empty.append(value)
            else:
                self._full.append((value, copy.deepcopy(value)))
        extra = message.__pydantic_extra__
        self._extra = dict(extra) if extra else None
        self._how_many_set, self._private = len(message.__pydantic_fields_set__), message.__pydantic_private__

    def is_of(self, message: BaseMessage) -> bool:
        """Whether the message is as it was."""
        return (
            message.__dict__ == self._fields
            and not any(self._empty)
            and (not self._full or all(value == kept for value, kept in self._full))
            and (message.__pydantic_extra__ or None) == self._extra
            and len(message.__pydantic_fields_set__) == self._how_many_set
            and message.__pydantic_private__ == self._private
        )


def encode_message(codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
    """Encode a message, or its number where the peer has it."""
    shared = encoder.shared
    return codec.encode(encoder, message, depth) if shared is None else shared.encode(codec, encoder, message, depth)


def _decode_shared(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    if len(payload) != 3:
        raise InvalidPart("no numbered message")
    message = decoder.decode_part(payload[2], depth + 1)
    if decoder.shared is not None:
        decoder.shared.note(payload[1], message)
    return message


SHARED: Final = Tag(36, _decode_shared)
