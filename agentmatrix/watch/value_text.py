"""The input or output of a node as JSON text of a bounded length: it is written until there is no room, never in whole.

`json.dumps` and pydantic would write a value of 10 MB, or read a generator to its end, before anything can be cut.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from itertools import islice
from json.encoder import encode_basestring  # type: ignore[attr-defined,unused-ignore]
from typing import Any, Final

from langchain_core.messages import BaseMessage
from langgraph.types import Send
from pydantic import BaseModel

__all__ = ["MOST_CHARACTERS", "value_text"]

MOST_CHARACTERS: Final = 100_000
"""Of one value."""
_ROOM_TO_END: Final = 200
"""For what says how much is left out, and the brackets that are open."""
_DEEPEST: Final = 40
_LONGEST_REPR: Final = 1_000
_OF_MESSAGES: Final = ("type", "name", "content", "tool_calls", "tool_call_id", "status", "usage_metadata", "id")
_BYTES: Final = (bytes, bytearray, memoryview)
_LISTS: Final = (Sequence, Set, deque)


def value_text(value: Any, most: int = MOST_CHARACTERS) -> str:
    """The value as JSON.

    Args:
        value: any value. Messages, models and dataclasses are objects; what has no JSON form is its `repr`.
        most: the number of characters at which it is cut. Texts that are cut tell their length, lists and objects how
            many items are left out.
    """
    writer = _BoundedText(most - _ROOM_TO_END)
    writer.write(value, 0)
    return "".join(writer.parts)


class _BoundedText:
    def __init__(self, room: int) -> None:
        self.parts: list[str] = []
        self._room = room

    def _put(self, text: str) -> None:
        self.parts.append(text)
        self._room -= len(text)

    def write(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind is str:
            self._text(value)
        elif value is None or value is True or value is False:
            self._put({None: "null", True: "true", False: "false"}[value])
        elif (kind is int and value.bit_length() < 1024) or (kind is float and math.isfinite(value)):
            self._put(str(value))
        elif isinstance(value, str):
            self._text(str(value))
        elif isinstance(value, _BYTES):
            self._put(f'"<{len(value)} bytes>"')
        elif depth >= _DEEPEST:
            self._put('"..."')
        else:
            try:
                found = self._parts_of(value)
            except Exception:
                found = f"<{type(value).__name__}>"  # A class of a user's, whose own methods may raise.
            if isinstance(found, str):
                self._text(found)
            elif isinstance(found[0], dict):
                self._object(found[0], found[1], depth + 1)
            else:
                self._list(found[0], found[1], depth + 1)

    def _parts_of(self, value: Any) -> str | tuple[dict[str, Any] | list[Any], int]:
        """What a value consists of, as far as there may be room, and of how many parts in all; or its text."""
        kind = type(value)
        if kind is dict or kind is list:
            pass
        elif isinstance(value, BaseMessage):
            # For what a pydantic model has not, `getattr` takes long.
            said = vars(value)
            value = {name: said[name] for name in _OF_MESSAGES if said.get(name) or name == "content"}
        elif isinstance(value, Send):
            value = {"node": value.node, "arg": value.arg}
        elif isinstance(value, BaseModel):
            value = {name: getattr(value, name, None) for name in type(value).model_fields}
        elif is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name, None) for field in fields(value)}
        if type(value) is dict or isinstance(value, Mapping):
            return {str(key): value[key] for key in islice(value, max(self._room, 0) // 4 + 1)}, len(value)
        if kind is list or isinstance(value, _LISTS):
            return list(islice(value, max(self._room, 0) // 2 + 1)), len(value)
        return repr(value)[:_LONGEST_REPR]

    def _text(self, text: str) -> None:
        room = max(self._room - 2, 0)
        if len(text) <= room and len(written := encode_basestring(text)) <= room + 2:
            self._put(written)
            return
        # An escaped character takes up to six.
        kept = text[:room]
        while len(written := encode_basestring(kept)) > room + 2:
            kept = kept[: max(len(kept) - (len(written) - room) // 6 - 1, 0)]
        self._put(f'{written[:-1]}... ({len(text):,} characters)"')

    def _object(self, parts: dict[str, Any], size: int, depth: int) -> None:
        self._put("{")
        for number, (key, value) in enumerate(parts.items()):
            self._put(", " if number else "")
            if self._room <= 0:
                self._put(f'"...": "{size - number:,} more"')
                break
            self._text(key)
            self._put(": ")
            self.write(value, depth)
        self._put("}")

    def _list(self, parts: list[Any], size: int, depth: int) -> None:
        self._put("[")
        for number, value in enumerate(parts):
            self._put(", " if number else "")
            if self._room <= 0:
                self._put(f'"... {size - number:,} more"')
                break
            self.write(value, depth)
        self._put("]")
