"""Parts of a stream that go together: the first at once, then by time and size."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.session.part_sender import BATCH_SECONDS, PartBatch
from agentmatrix.wire.codec import Codec

CODEC = Codec()


def encoded(part: Any) -> bytes:
    return CODEC.encode((part,))


PARTS = st.recursive(st.none() | st.integers() | st.text() | st.binary(), lambda part: st.lists(part) | st.tuples(part))


@given(st.lists(PARTS))
def test_a_batch_is_the_tuple_of_its_parts(parts: list[Any]) -> None:
    batch = PartBatch()
    for part in parts:
        batch.may_wait(encoded(part))
    assert len(batch) == len(parts)
    if parts:
        assert CODEC.decode(batch.take()) == tuple(parts)
    assert not batch


def test_the_first_part_goes_at_once_and_also_after_a_pause() -> None:
    now = 0.0
    batch = PartBatch(lambda: now)
    assert not batch.may_wait(encoded(1))
    batch.take()
    now += BATCH_SECONDS / 2
    assert batch.may_wait(encoded(2))
    now += BATCH_SECONDS
    assert not batch.may_wait(encoded(3))
    assert CODEC.decode(batch.take()) == (2, 3)


def test_parts_that_are_many_bytes_do_not_wait() -> None:
    batch = PartBatch(lambda: 0.0)
    batch.may_wait(encoded(0))
    batch.take()
    many = next(number for number in range(1, 100) if not batch.may_wait(encoded("x" * 100)))
    assert 20 < many < 40
    assert not batch.may_wait(encoded("x" * 10_000))
