"""What the messages of a connection say, as bytes, and the memory for those that are named again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import ormsgpack
from langchain_core.messages import BaseMessage

from agentmatrix.wire.extensions import PACK_OPTIONS
from agentmatrix.wire.objects import set_attribute, wire_name
from agentmatrix.wire.unlisted import STORED_TYPE

__all__ = ["MessageCache", "content_of", "made_of", "state_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_STORED: Final = STORED_TYPE.encode()


def content_of(message: BaseMessage) -> bytes | None:
    """All that a message says: its class, its fields, which of them were set. None where it holds more than plain data.

    Equal contents are equal to the last type: 1 is not True.
    """
    if message.__pydantic_private__ is not None:
        return None
    fields_set = sorted(message.__pydantic_fields_set__)
    parts = [wire_name(type(message)), fields_set, message.__dict__, message.__pydantic_extra__]
    try:
        content: bytes = ormsgpack.packb(parts, option=PACK_OPTIONS)
    except TypeError:
        return None
    # A dict that stands for an object of an unlisted class is that object where it was stored, and else itself.
    return None if _STORED in content else content


def state_of(message: BaseMessage) -> bytes:
    """By which is seen whether a message of plain data has changed; the half of `content_of` that may, for less.

    Raises:
        TypeError: it has changed, to more than plain data.
    """
    parts = [len(message.__pydantic_fields_set__), message.__pydantic_extra__, message.__dict__]
    state: bytes = ormsgpack.packb(parts, option=PACK_OPTIONS)
    return state


def made_of(content: bytes, allowed_class: Callable[[str], type | None]) -> BaseMessage | None:
    """A new message that says this.

    Args:
        content: from `content_of`, of a message that was checked when it was decoded.
        allowed_class: returns the class of a wire name, None where it is not allowed: so is the message then.
    """
    name, fields_set, fields, extra = ormsgpack.unpackb(content)
    if (cls := allowed_class(name)) is None:
        return None
    message: BaseMessage = object.__new__(cls)
    set_attribute(message, "__dict__", fields)
    set_attribute(message, "__pydantic_fields_set__", set(fields_set))
    set_attribute(message, "__pydantic_extra__", extra)
    set_attribute(message, "__pydantic_private__", None)
    return message


class MessageCache(Generic[K, V]):
    """The values that were used last, up to a number of bytes. Threads share it.

    Args:
        max_bytes: of all values.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._sizes: dict[K, int] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value, which counts as used now; None without one."""
        with self._lock:
            if (value := self._values.get(key)) is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V, size: int) -> None:
        """Keeps a value of so many bytes, rather than those that were not used for longest."""
        with self._lock:
            self._bytes += size - self._sizes.get(key, 0)
            self._values[key], self._sizes[key] = value, size
            self._values.move_to_end(key)
            while self._bytes > self._max_bytes:
                self._bytes -= self._sizes.pop(self._values.popitem(last=False)[0])
