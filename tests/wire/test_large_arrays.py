"""Large arrays come in buffers of their own: what is decoded keeps them, without a copy."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy
import pytest

from agentmatrix.wire.codec import Codec
from agentmatrix.wire.extensions import BUFFER

SIZE = 3_000_000


def sent(value: Any) -> list[Any]:
    """The pieces of a value as they come over the wire."""
    first, *buffers = Codec().encode_pieces(value)
    arrived = []
    for buffer in buffers:
        arrived.append(BytesIO())
        arrived[-1].write(buffer)
    return [first, *arrived]


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_keeps_the_buffer_that_it_came_in(order: Any) -> None:
    array = numpy.arange(SIZE, dtype=numpy.int16).reshape(3, -1).copy(order=order)
    pieces = sent({"array": array})
    assert len(pieces) == 2
    found = Codec().decode_pieces(pieces)["array"]
    assert numpy.array_equal(found, array) and found.flags.writeable
    assert found.flags.f_contiguous == array.flags.f_contiguous
    assert numpy.shares_memory(found, numpy.frombuffer(pieces[1].getbuffer(), numpy.int16))
    found[:] = 7
    assert found.max() == 7 != array.max()


def test_bytes_beside_an_array_are_their_own() -> None:
    words = bytes(range(250)) * (SIZE // 250)
    array = numpy.frombuffer(words, numpy.uint8)
    found = Codec().decode_pieces(sent([words, array, words, bytearray(words)]))
    found[1][:] = 0
    assert found[0] == found[2] == found[3] == words and type(found[3]) is bytearray


@pytest.mark.parametrize("kinds", [("array", "array"), ("bytes", "array"), ("array", "bytes")])
def test_two_that_name_one_buffer_share_nothing(kinds: tuple[str, str]) -> None:
    words = bytes(range(250)) * (SIZE // 250)
    given = [words if kind == "bytes" else numpy.frombuffer(words, numpy.uint8) for kind in kinds]
    message, buffer, _ = sent(given)
    place = message.rindex(bytes([BUFFER, 0, 1]))
    hostile = message[:place] + bytes([BUFFER, 0, 0]) + message[place + 3 :]
    found = Codec().decode_pieces([hostile, buffer])
    for value in found:
        if isinstance(value, numpy.ndarray):
            value[:] = 0
            break
    others = [value for value in found if value is not next(v for v in found if isinstance(v, numpy.ndarray))]
    assert bytes(others[0]) == words


def test_an_array_that_came_within_the_process_is_a_copy() -> None:
    array = numpy.ones(SIZE, numpy.uint8)
    pieces = Codec().encode_pieces(array)
    found = Codec().decode_pieces(pieces)
    found[:] = 0
    assert array.all() and set(pieces[1]) == {1}
