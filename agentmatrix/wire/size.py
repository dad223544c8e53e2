"""Bounds on the size and depth of a message, checked before anything is built from it.

A msgpack reader recurses in C and makes much of little: 20 MB of empty maps become 1.4 GB, and a thousand levels
overflow the stack of a small thread. Small messages are bounded by their number of bytes, which is fast, and exact
enough since ormsgpack allocates for an entry when it reads it, whatever its container announces (a test holds that);
others are scanned item by item.
"""

from __future__ import annotations

from typing import Final

from agentmatrix.wire.extensions import InvalidPart

SHORT: Final = 1 << 16
"""Bytes of a message of which a look at each byte costs little."""
_MOST_PER_BYTE: Final = 80
"""No byte of msgpack becomes more than this many bytes of Python objects (an empty dict and its place in a list)."""
_LEVELS: Final = 254
"""Levels that the encoder can write; the decoder's recursion in C takes some 0.5 KB of stack for each."""
_CONTAINERS: Final = bytes([*range(0x81, 0x90), *range(0x91, 0xA0), *range(0xDC, 0xE0)])
_OTHERS: Final = bytes(set(range(256)) - set(_CONTAINERS))

_FOLLOWING: Final = [0] * 256
"""By first byte of an item of fixed size: how many bytes follow; -1 for items that announce their size."""
_COST: Final = [16] * 256
"""By first byte of an item of fixed size: the memory of its object, in bytes."""
for _n in range(32):
    _FOLLOWING[0xA0 + _n], _COST[0xA0 + _n] = _n, 80 + 4 * _n
for _n in range(8):
    _FOLLOWING[0xCC + _n], _COST[0xCC + _n] = 1 << _n % 4, 48
for _n in range(5):
    _FOLLOWING[0xD4 + _n], _COST[0xD4 + _n] = 1 + (1 << _n), 128
_FOLLOWING[0xCA], _COST[0xCA] = 4, 32
_FOLLOWING[0xCB], _COST[0xCB] = 8, 32
_COST[0x80] = _COST[0x90] = 72
for _n in (*_CONTAINERS, *range(0xC4, 0xCA), *range(0xD9, 0xDC)):
    _FOLLOWING[_n] = -1


def decoded_size(data: bytes | memoryview, limit: int, levels: int | None = None) -> int:
    """An upper bound of the memory that the value of a message takes.

    Args:
        data: the message, or any other bytes.
        limit: where the scan may stop, in bytes of memory.
        levels: `most_levels` of the data, where that is known.

    Returns:
        The bound, in bytes; some number above `limit` where it is above.

    Raises:
        InvalidPart: containers are nested deeper than any encoder writes.
    """
    most = len(data) * _MOST_PER_BYTE
    if most <= limit >> 1 and (most_levels(data) if levels is None else levels) <= _LEVELS:
        return most
    return _scan(bytes(data), limit)


def most_levels(data: bytes | memoryview) -> int:
    """No container in a message can be deeper than this: a fast look, which takes each byte for one that may be."""
    return len(bytes(data).translate(None, _OTHERS))


def _scan(data: bytes, limit: int) -> int:
    following, cost = _FOLLOWING, _COST
    total, at, end, left = 0, 0, len(data), 1
    open_: list[int] = []
    while at < end and total <= limit:
        head = data[at]
        skip = following[head]
        left -= 1
        if skip >= 0:
            at += skip + 1
            total += cost[head]
        elif head in _CONTAINERS:
            count, at, is_map = _container(data, head, at)
            if count > end - at:  # each entry takes a byte at least
                raise InvalidPart(f"a container announces {count:,} entries in {end - at:,} bytes")
            total += 64 + count * (110 if is_map else 8)
            if count:
                open_.append(left)
                left = count * (1 + is_map)
                if len(open_) > _LEVELS:
                    raise InvalidPart(f"nested deeper than {_LEVELS}")
        else:
            at, size = _sized(data, head, at)
            total += size
        while not left and open_:
            left = open_.pop()
    return total


def _container(data: bytes, head: int, at: int) -> tuple[int, int, bool]:
    """Of a list or map: the number of its entries, the offset of the first, and whether it is a map."""
    if head < 0xA0:
        return head & 15, at + 1, head < 0x90
    width = 2 << (head & 1)
    return int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width, head >= 0xDE


def _sized(data: bytes, head: int, at: int) -> tuple[int, int]:
    """Of a string, buffer or extension that announces its size: the offset of its end, and its memory in bytes."""
    width = 1 << (head - (0xC4 if head < 0xC7 else 0xC7 if head < 0xCA else 0xD9))
    begin = at + 1 + width
    count = int.from_bytes(data[at + 1 : begin], "big")
    if head >= 0xD9:
        return begin + count, 80 + count * (1 if data[begin : begin + count].isascii() else 4)
    return begin + count + (0xC7 <= head < 0xCA), 128 + count
