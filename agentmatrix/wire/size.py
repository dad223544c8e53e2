"""How large and how deep a message is, found before anything is built from it.

msgpack readers allocate what the bytes announce and recurse in C: 20 MB of empty maps become 1.4 GB, and a thousand
levels overflow the stack of a small thread. Small messages are bounded by counting bytes, which is fast; others are
scanned head by head.
"""

from __future__ import annotations

from typing import Final

from agentmatrix.wire.extensions import Refusal

_MOST_PER_BYTE: Final = 80
"""No byte of msgpack becomes more than this many bytes of Python objects (an empty dict and its place in a list)."""
_LEVELS: Final = 254
"""Levels that the encoder can write; the decoder's recursion in C takes some 0.5 KB of stack for each."""
_OPENINGS: Final = bytes([*range(0x81, 0x90), *range(0x91, 0xA0), *range(0xDC, 0xE0)])
_OTHERS: Final = bytes(set(range(256)) - set(_OPENINGS))

_FOLLOWING: Final = [0] * 256
"""For each head of a fixed size, the bytes that follow it; -1 for the others."""
_COST: Final = [16] * 256
"""For each head of a fixed size, the memory of the object, in bytes."""
for _n in range(32):
    _FOLLOWING[0xA0 + _n], _COST[0xA0 + _n] = _n, 80 + 4 * _n
for _n in range(8):
    _FOLLOWING[0xCC + _n], _COST[0xCC + _n] = 1 << _n % 4, 48
for _n in range(5):
    _FOLLOWING[0xD4 + _n], _COST[0xD4 + _n] = 1 + (1 << _n), 128
_FOLLOWING[0xCA], _COST[0xCA] = 4, 32
_FOLLOWING[0xCB], _COST[0xCB] = 8, 32
_COST[0x80] = _COST[0x90] = 72
for _n in (*_OPENINGS, *range(0xC4, 0xCA), *range(0xD9, 0xDC)):
    _FOLLOWING[_n] = -1


def survey(data: bytes | memoryview, most_bytes: int) -> int:
    """The memory that the value of a message takes, at most.

    Args:
        data: the message; it need not be one.
        most_bytes: where to stop, in bytes.

    Returns:
        Bytes, rounded up generously.

    Raises:
        Refusal: containers are nested deeper than any encoder writes.
    """
    most = len(data) * _MOST_PER_BYTE
    raw = bytes(data)
    if most <= most_bytes >> 1 and len(raw.translate(None, _OTHERS)) <= _LEVELS:
        return most
    return _scan(raw, most_bytes)


def _scan(data: bytes, most_bytes: int) -> int:
    following, cost = _FOLLOWING, _COST
    total, at, end, left = 0, 0, len(data), 1
    open_: list[int] = []
    while at < end and total <= most_bytes:
        head = data[at]
        skip = following[head]
        left -= 1
        if skip >= 0:
            at += skip + 1
            total += cost[head]
        elif head in _OPENINGS:
            count, at, is_map = _opening(data, head, at)
            total += 64 + count * (110 if is_map else 8)
            if count:
                open_.append(left)
                left = count * (1 + is_map)
                if len(open_) > _LEVELS:
                    raise Refusal(f"nested deeper than {_LEVELS}")
        else:
            at, size = _counted(data, head, at)
            total += size
        while not left and open_:
            left = open_.pop()
    return total


def _opening(data: bytes, head: int, at: int) -> tuple[int, int, bool]:
    """The number of entries of a list or map, where they begin, and whether it is a map."""
    if head < 0xA0:
        return head & 15, at + 1, head < 0x90
    width = 2 << (head & 1)
    return int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width, head >= 0xDE


def _counted(data: bytes, head: int, at: int) -> tuple[int, int]:
    """The end of a text, buffer or extension that announces its size, and the memory it takes."""
    width = 1 << (head - (0xC4 if head < 0xC7 else 0xC7 if head < 0xCA else 0xD9))
    begin = at + 1 + width
    count = int.from_bytes(data[at + 1 : begin], "big")
    if head >= 0xD9:
        return begin + count, 80 + count * (1 if data[begin : begin + count].isascii() else 4)
    return begin + count + (0xC7 <= head < 0xCA), 128 + count
