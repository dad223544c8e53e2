"""Messages that the peer has already: they are named by numbers, not sent again.

A conversation is sent whole with each turn, and comes back whole in each checkpoint and in the result. So a caller
numbers the messages that it sends, and the host keeps what they say for as long as the connection and its memory last.
The next turn names those that say the same, and the host makes them anew for its run. Within the run the host answers
by number where a message is the same object and says the same, and the caller takes its own object then. A list that
begins with messages that are known costs a few bytes for all of them.

Nothing depends on what is kept. A number is never given twice in a process, and a host that has nothing under one asks
for the message (`session/missing_messages.py`). What a node has changed in place goes by value, and so does what is
more than plain data.

The dynamic table of HPACK (RFC 7541) is the idea; here frames need not be decoded in the order in which they were sent.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage
from ormsgpack import Ext

from agentmatrix.wire.extensions import REFERENCE, InvalidPart, PartDecoder, PartEncoder, Tag
from agentmatrix.wire.message_cache import MessageCache, content_of, made_of, state_of
from agentmatrix.wire.objects import ObjectCodec
from agentmatrix.wire.size import decoded_size

__all__ = ["ReceivedMessages", "SentMessages", "SharedMessages", "encode_message"]

CACHED_BYTES: Final = 64 << 20
"""What a process keeps of the messages that it has sent, and of those that it was sent."""
LEAST: Final = 8
"""So many messages in a run are a conversation, which is worth to be kept."""
_OVERHEAD: Final = 400
"""Bytes that an entry takes beside its message, about."""
_MOST_PER_BYTE: Final = 80
_SMALL: Final = 4096
_LARGEST_NUMBER: Final = (1 << 63) - 1
_numbers = itertools.count(1)
_sent: Final[MessageCache[tuple[int, bytes], int]] = MessageCache(CACHED_BYTES)
_received: Final[MessageCache[tuple[int, int], bytes]] = MessageCache(CACHED_BYTES)


class SharedMessages(ABC):
    """The messages of one run that both sides have, on either side."""

    @abstractmethod
    def number_of(self, message: BaseMessage) -> int | None:
        """The number by which the peer knows a message that says this; None without one."""

    @abstractmethod
    def encode(self, codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
        """What msgpack writes for a message that has no number."""

    @abstractmethod
    def note(self, number: int, message: Any) -> None:
        """A message with a number has been decoded."""

    @abstractmethod
    def get(self, decoder: PartDecoder, number: int) -> Any:
        """The message that a number names.

        Raises:
            InvalidPart: there is none.
        """

    def encode_list(self, encoder: PartEncoder, values: list[Any], depth: int) -> Any:
        """What msgpack writes for a list that begins with messages that the peer has; None where it does not."""
        ranges: list[int] = []
        follows, count = -1, 0
        for message in values:
            if not isinstance(message, BaseMessage) or (number := self.number_of(message)) is None:
                break
            if number == follows:
                ranges[-1] += 1
            else:
                ranges += number, 1
            follows, count = number + 1, count + 1
        return [NAMED.ext, ranges, *encoder.encode_items(values, depth, count)] if count else None


class SentMessages(SharedMessages):
    """On the caller: those that it has sent.

    Args:
        connection: the number of the connection that the run is likely to take; None without one.
    """

    def __init__(self, connection: int | None) -> None:
        self._connection = connection
        self._messages: dict[int, BaseMessage] = {}
        self._new: dict[bytes, int] = {}

    def number_of(self, message: BaseMessage) -> int | None:
        if self._connection is None or (content := content_of(message)) is None:
            return None
        if (number := _sent.get((self._connection, content))) is not None:
            self._messages[number] = message
        return number

    def encode(self, codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
        if (content := content_of(message)) is None:
            return codec.encode(encoder, message, depth)
        number = self._new[content] = next(_numbers)
        self._messages[number] = message
        return [SHARED.ext, number, codec.encode(encoder, message, depth + 1)]

    def note(self, number: int, message: Any) -> None:
        """The host numbers nothing."""

    def get(self, decoder: PartDecoder, number: int) -> BaseMessage:
        if (message := self._messages.get(number)) is None:
            raise InvalidPart(f"no message of this run has the number {number}")
        return message

    def keep(self, connection: int) -> None:
        """The host keeps the messages of this run, on this connection."""
        for content, number in self._new.items():
            _sent.put((connection, content), number, len(content) + _OVERHEAD)

    def listed(self, numbers: Sequence[int]) -> list[BaseMessage]:
        """The messages of this run that its host asks for, since it does not have them any more.

        Raises:
            KeyError: there is none of that number in this run.
        """
        return [self._messages[number] for number in numbers]


class ReceivedMessages(SharedMessages):
    """On the host: those that it has been sent.

    Args:
        connection: the number of the run's connection.

    Attributes:
        missing: numbers that the caller has named and that are not known here.
    """

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._known: dict[int, int] = {}
        """The numbers of messages by their ids."""
        self._messages: list[BaseMessage] = []
        self._contents: dict[int, bytes] = {}
        self._states: dict[int, bytes] = {}
        self._new: list[int] = []
        self._supplied: dict[int, Any] = {}
        self.missing: set[int] = set()

    def number_of(self, message: BaseMessage) -> int | None:
        if (number := self._known.get(id(message))) is None:
            return None
        try:
            return number if state_of(message) == self._states[number] else None
        except TypeError:
            return None

    def encode(self, codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
        return codec.encode(encoder, message, depth)

    def note(self, number: int, message: Any) -> None:
        if not isinstance(message, BaseMessage) or type(number) is not int or not 0 <= number <= _LARGEST_NUMBER:
            return
        if (content := content_of(message)) is not None:
            self._new.append(number)
            self._remember(number, message, content)

    def _remember(self, number: int, message: BaseMessage, content: bytes) -> None:
        self._known[id(message)], self._contents[number], self._states[number] = number, content, state_of(message)
        self._messages.append(message)  # so that no other object has its id

    def supply(self, values: Mapping[int, Any]) -> None:
        """The caller has sent missing messages, by their numbers."""
        self._supplied.update(values)
        self.missing -= values.keys()
        for number, message in values.items():
            self.note(number, message)

    def get(self, decoder: PartDecoder, number: int) -> Any:
        if number in self._supplied:
            return self._supplied[number]
        content = self._contents.get(number) or _received.get((self._connection, number))
        # One of a class that this agent does not allow is sent too, and refused.
        if content is None or (message := made_of(content, decoder.allowed_class)) is None:
            self.missing.add(number)
            raise InvalidPart(f"message {number} of this connection is not here any more")
        most = _MOST_PER_BYTE * len(content)
        decoder.charge(most if len(content) < _SMALL else decoded_size(content, most))
        self._remember(number, message, content)
        return message

    def clear(self) -> None:
        """The run has ended."""
        self._known, self._contents, self._states, self._messages, self._supplied = {}, {}, {}, [], {}

    def keep(self) -> bool:
        """Keeps the messages of a conversation for the next run of this connection; returns whether it does."""
        if len(self._known) < LEAST:
            return False
        for number in self._new:
            content = self._contents[number]
            _received.put((self._connection, number), content, len(content) + _OVERHEAD)
        return True


def encode_message(codec: ObjectCodec, encoder: PartEncoder, message: BaseMessage, depth: int) -> Any:
    """Encode a message, or its number where the peer has it."""
    if (shared := encoder.shared) is None:
        return codec.encode(encoder, message, depth)
    if (number := shared.number_of(message)) is None:
        return shared.encode(codec, encoder, message, depth)
    return Ext(REFERENCE, number.to_bytes(8, "big"))


def _decode_shared(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    if len(payload) != 3:
        raise InvalidPart("no numbered message")
    message = decoder.decode_part(payload[2], depth + 1)
    if decoder.shared is not None:
        decoder.shared.note(payload[1], message)
    return message


def _decode_named(decoder: PartDecoder, payload: list[Any], depth: int) -> list[Any]:
    shared: SharedMessages | None = decoder.shared
    ranges = payload[1]
    if shared is None or type(ranges) is not list or not all(type(n) is int and n >= 0 for n in ranges):
        raise InvalidPart("no list of named messages")
    decoder.charge(200 * sum(ranges[1::2]))
    values: list[Any] = []
    missing: InvalidPart | None = None
    for first, count in zip(ranges[::2], ranges[1::2], strict=True):
        for number in range(first, first + count):
            try:
                values.append(shared.get(decoder, number))
            except InvalidPart as invalid:  # all that are missing are asked for at once
                missing = invalid
    if missing is not None:
        raise missing
    del payload[1]
    return values + decoder.decode_rest(payload, depth)


SHARED: Final = Tag(36, _decode_shared)
NAMED: Final = Tag(37, _decode_named)
