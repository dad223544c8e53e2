"""Whatever is sent in whatever order arrives whole and in order, run by run, and no run waits long for another."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.errors import ProtocolError
from agentmatrix.transport.flow import CreditGrant
from agentmatrix.transport.framing import CHUNK_BYTES, FRAMES_OF_A_MESSAGE, BulkFields, decode, is_counted
from agentmatrix.transport.outbox import MESSAGE_BYTES, Outbox
from agentmatrix.wire.v1.run_pb2 import Chunk, Frame, Frames

sizes = st.one_of(
    st.integers(0, 300),
    st.sampled_from(
        [CHUNK_BYTES - 40, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES]
    ),
)


@dataclass(frozen=True)
class Spec:
    """A frame, short enough to read in a report."""

    run: int
    body: str
    seed: bytes
    size: int

    def frame(self) -> Frame:
        value = (self.seed * (self.size // len(self.seed) + 1))[: self.size]
        match self.body:
            case "part":
                return Frame(run=self.run, part={"value": value, "more": self.size % 2 == 0})
            case "result":
                return Frame(run=self.run, end={"result": value})
            case "failure":
                return Frame(run=self.run, end={"failure": value})
            case "start":
                return Frame(run=self.run, start={"id": "a", "arguments": value, "config": b"c", "path": ["x", "y"]})
            case "config":
                return Frame(run=self.run, start={"config": value, "timeout": 2.5})
            case "reply":
                return Frame(run=self.run, reply={"id": 2**63, "value": value})
            case "signal":
                return Frame(run=self.run, signal={"id": "é", "value": value})
            case "accepted":
                return Frame(run=self.run, accepted={})
        return Frame(run=self.run)


specs = st.builds(
    Spec,
    run=st.integers(1, 3) | st.sampled_from([2**64 - 1, 128]),
    body=st.sampled_from(["part", "result", "failure", "start", "config", "reply", "signal", "accepted", "none"]),
    seed=st.binary(min_size=1, max_size=8),
    size=sizes,
)


class Reader:
    """The other side, as far as framing goes: it consumes all that it reads, and says so."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.partial: dict[int, BulkFields] = {}
        self.frames: dict[int, list[Frame]] = defaultdict(list)
        self.grants: dict[int, CreditGrant] = defaultdict(CreditGrant)
        self.read_bytes = 0

    def read(self, message: bytes) -> None:
        content = decode(message)
        for frame, size in content.frames:
            run, grant = frame.run, self.grants[frame.run]
            assert grant.receive(size) or not is_counted(frame)
            if frame.HasField("chunk"):
                assert len(frame.chunk.data) <= CHUNK_BYTES
                grant.consume(size - len(frame.chunk.data))
                if self.partial[run].add(frame.chunk.data):
                    fields = self.partial.pop(run)
                    grant.consume(0, fields.size)
                    body = getattr(fields.frame, fields.frame.WhichOneof("body") or "")
                    for name, pieces in fields.values.items():
                        setattr(body, name, b"".join(piece.getvalue() for piece in pieces))
                    self.frames[run].append(fields.frame)
            elif frame.bulk:
                assert run not in self.partial
                fields = self.partial[run] = BulkFields(frame)
                grant.announce(fields.size)
                grant.consume(size)
            else:
                grant.consume(size)
                self.frames[run].append(frame)
        self.read_bytes += len(message) if content.frames else 0
        self.outbox.acknowledged(self.read_bytes)
        for run, grant in self.grants.items():
            self.outbox.credited(run, grant.due())

    def read_all(self) -> None:
        while taken := self.outbox.take():
            assert len(taken[0]) < 2 * MESSAGE_BYTES
            self.read(taken[0])


def opened(*runs: int, **options: object) -> tuple[Outbox, Reader]:
    """An outbox in which these runs have begun, and the other side."""
    outbox = Outbox(lambda: None, **options)  # type: ignore[arg-type]
    for run in runs:
        outbox.open(run)
    return outbox, Reader(outbox)


@settings(max_examples=60, deadline=None)
@given(st.lists(specs | st.none(), max_size=25))
def test_frames_arrive_whole_and_in_order(sent: list[Spec | None]) -> None:
    expected = defaultdict(list)
    outbox, reader = opened(*{spec.run for spec in sent if spec})
    for spec in sent:  # None: the carrier takes a message in between
        if spec is None:
            if taken := outbox.take():
                reader.read(taken[0])
        else:
            expected[spec.run].append(spec.frame())
            outbox.put(spec.frame())
    reader.read_all()
    assert reader.frames == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(specs, min_size=1, max_size=8))
def test_a_message_is_what_protobuf_itself_writes(sent: list[Spec]) -> None:
    outbox, reader = opened(*{spec.run for spec in sent})
    for spec in sent:
        outbox.put(spec.frame())
    while taken := outbox.take():
        message, runs = taken
        reader.read(message)
        parsed = Frames.FromString(message)
        assert parsed.SerializeToString() == message
        assert {frame.run for frame in parsed.frames} == set(runs)


def test_a_small_frame_overtakes_a_large_one_of_another_run() -> None:
    outbox, reader = opened(1, 2)
    outbox.put(Frame(run=1, part={"value": b"x" * 50 * CHUNK_BYTES}))
    reader.read((outbox.take() or (b"", []))[0])
    outbox.put(Frame(run=2, part={"value": b"y"}))
    message, runs = outbox.take() or (b"", [])
    reader.read(message)
    assert reader.frames[2] and runs[0] == 2


def test_a_large_frame_gets_on_however_many_small_ones_there_are() -> None:
    outbox, reader = opened(*range(1, 40))
    outbox.put(Frame(run=1, part={"value": b"x" * 10 * CHUNK_BYTES}))
    messages = 0
    while not reader.frames[1]:
        for run in range(2, 40):
            outbox.put(Frame(run=run, part={"value": b"y" * (CHUNK_BYTES - 64)}))
        reader.read((outbox.take() or (b"", []))[0])
        messages += 1
        assert messages <= 12  # its head goes first, and the queue that was in the line first


def test_large_frames_share_the_way() -> None:
    outbox, reader = opened(1, 2, 3)
    order = []
    for run in (1, 2, 3):
        outbox.put(Frame(run=run, part={"value": b"x" * 3 * CHUNK_BYTES}))
    while taken := outbox.take():
        order += [frame.run for frame, _ in decode(taken[0]).frames]
        reader.read(taken[0])
    assert order == [1, 2, 3] * 4  # each has a head and three slices


def test_the_carrier_is_woken_once_for_each_time_it_ran_dry() -> None:
    woken: list[int] = []
    outbox = Outbox(lambda: woken.append(1))
    outbox.open(1)
    outbox.open(2)
    outbox.put(Frame(run=1))
    assert not woken
    assert outbox.take() and outbox.take() is None
    outbox.put(Frame(run=1))
    outbox.put(Frame(run=2))
    assert len(woken) == 1


def test_frames_put_by_many_threads_keep_the_order_of_each() -> None:
    outbox, reader = opened(*range(8))

    def put(run: int) -> None:
        for number in range(200):
            outbox.put(Frame(run=run, request={"id": number}))

    threads = [threading.Thread(target=put, args=(run,)) for run in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if taken := outbox.take():
            reader.read(taken[0])
    reader.read_all()
    assert all([f.request.id for f in reader.frames[run]] == list(range(200)) for run in range(8))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_raise_a_protocol_error_or_give_frames(data: bytes) -> None:
    try:
        for frame, size in decode(data).frames:
            assert size and isinstance(frame, Frame)
    except ProtocolError as error:
        assert str(error)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5), st.integers(0, 2**64 - 1))
def test_a_message_is_read_as_protobuf_reads_it(runs: list[int], received: int) -> None:
    written = Frames(frames=[Frame(run=run, accepted={}) for run in runs], received=received)
    content = decode(written.SerializeToString())
    assert [frame for frame, _ in content.frames] == list(written.frames) and content.received == received
    assert [size for _, size in content.frames] == [frame.ByteSize() for frame in written.frames]


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = b"\x98\x01\x07" + b"\xa2\x01\x03abc" + b"\xa9\x01" + b"8" * 8 + b"\xad\x01" + b"4" * 4  # 19 to 21
    frame = Frame(run=7, accepted={})
    content = decode(later + Frames(frames=[frame]).SerializeToString() + later)
    assert [frame for frame, _ in content.frames] == [frame]


def test_more_frames_than_a_message_may_have_are_refused_before_they_are_built() -> None:
    frame = Frames(frames=[Frame(run=1)]).SerializeToString()
    assert len(decode(frame * FRAMES_OF_A_MESSAGE).frames) == FRAMES_OF_A_MESSAGE
    for bomb in (frame, b"\x0a\x00"):
        with pytest.raises(ProtocolError, match="more than 4,096 frames"):
            decode(bomb * 2_000_000)


def test_an_outbox_writes_no_message_with_more_frames_than_one_may_have() -> None:
    outbox, reader = opened(1)
    for _ in range(3 * FRAMES_OF_A_MESSAGE):
        outbox.put(Frame(run=1, accepted={}))
    reader.read_all()
    assert len(reader.frames[1]) == 3 * FRAMES_OF_A_MESSAGE


@pytest.mark.parametrize(
    ("bulk", "data"),
    [
        ({"field": 2, "size": 3}, None),  # a part has no such field
        ({"field": 1, "size": 0}, None),
        ({"field": 1, "size": 3}, b"xxxx"),
        ({"field": 1, "size": 3}, b""),
    ],
)
def test_large_fields_that_are_not_as_announced_are_refused(bulk: dict[str, int], data: bytes | None) -> None:
    frame = Frame(run=1, part={"more": True}, bulk=[bulk])
    with pytest.raises(ProtocolError):
        fields = BulkFields(frame)
        assert data is not None
        fields.add(data)


def test_a_slice_holds_no_frame() -> None:
    with pytest.raises(ProtocolError):
        BulkFields(Frame(run=1, chunk=Chunk(data=b"x"), bulk=[{"field": 1, "size": 3}]))
