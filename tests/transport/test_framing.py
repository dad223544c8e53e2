"""Whatever is sent in whatever order arrives whole and in order, run by run, and no run waits long for another."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.errors import ProtocolError
from agentmatrix.transport.framing import CHUNK_BYTES, MESSAGE_BYTES, Outbox, Reassembly, decode
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
    """The other side, as far as framing goes."""

    def __init__(self) -> None:
        self.partial: dict[int, Reassembly] = defaultdict(lambda: Reassembly(1 << 30))
        self.frames: dict[int, list[Frame]] = defaultdict(list)

    def read(self, message: bytes) -> None:
        for frame in decode(message):
            run = frame.run
            if frame.HasField("chunk"):
                assert len(frame.chunk.data) <= CHUNK_BYTES
                whole = self.partial[run].add(frame.chunk.data, frame.chunk.last)
                if whole is None:
                    continue
                frame = whole
            self.frames[run].append(frame)


@settings(max_examples=60, deadline=None)
@given(st.lists(specs | st.none(), max_size=25))
def test_frames_arrive_whole_and_in_order(sent: list[Spec | None]) -> None:
    outbox, reader, expected = Outbox(lambda: None), Reader(), defaultdict(list)
    for spec in sent:  # None: the carrier takes a message in between
        if spec is None:
            if taken := outbox.take():
                reader.read(taken[0])
        else:
            expected[spec.run].append(spec.frame())
            outbox.put(spec.frame())
    while taken := outbox.take():
        assert len(taken[0]) < 2 * MESSAGE_BYTES
        reader.read(taken[0])
    assert reader.frames == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(specs, min_size=1, max_size=8))
def test_a_message_is_what_protobuf_itself_writes(sent: list[Spec]) -> None:
    outbox = Outbox(lambda: None)
    for spec in sent:
        outbox.put(spec.frame())
    while taken := outbox.take():
        message, runs = taken
        parsed = Frames.FromString(message)
        assert parsed.SerializeToString() == message
        assert {frame.run for frame in parsed.frames} == set(runs)


def test_a_small_frame_overtakes_a_large_one_of_another_run() -> None:
    outbox, reader = Outbox(lambda: None), Reader()
    outbox.put(Frame(run=1, part={"value": b"x" * 50 * CHUNK_BYTES}))
    outbox.take()
    outbox.put(Frame(run=2, part={"value": b"y"}))
    message, runs = outbox.take() or (b"", [])
    reader.read(message)
    assert reader.frames[2] and runs[0] == 2


def test_a_large_frame_gets_on_however_many_small_ones_there_are() -> None:
    outbox, reader = Outbox(lambda: None), Reader()
    outbox.put(Frame(run=1, part={"value": b"x" * 10 * CHUNK_BYTES}))
    messages = 0
    while not reader.frames[1]:
        for run in range(2, 40):
            outbox.put(Frame(run=run, part={"value": b"y" * (CHUNK_BYTES - 64)}))
        reader.read((outbox.take() or (b"", []))[0])
        messages += 1
        assert messages <= 11  # its head goes first


def test_large_frames_share_the_way() -> None:
    outbox, order = Outbox(lambda: None), []
    for run in (1, 2, 3):
        outbox.put(Frame(run=run, part={"value": b"x" * 3 * CHUNK_BYTES}))
    while taken := outbox.take():
        order += [frame.run for frame in decode(taken[0])]
    assert order == [1, 2, 3] * 4  # each has a head and three slices


def test_the_carrier_is_woken_once_for_each_time_it_ran_dry() -> None:
    woken: list[int] = []
    outbox = Outbox(lambda: woken.append(1))
    outbox.put(Frame(run=1))
    assert not woken
    assert outbox.take() and outbox.take() is None
    outbox.put(Frame(run=1))
    outbox.put(Frame(run=2))
    assert len(woken) == 1


def test_frames_put_by_many_threads_keep_the_order_of_each() -> None:
    outbox, reader = Outbox(lambda: None), Reader()

    def put(run: int) -> None:
        for number in range(200):
            outbox.put(Frame(run=run, request={"id": number}))

    threads = [threading.Thread(target=put, args=(run,)) for run in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if taken := outbox.take():
            reader.read(taken[0])
    while taken := outbox.take():
        reader.read(taken[0])
    assert all([f.request.id for f in reader.frames[run]] == list(range(200)) for run in range(8))


def test_a_frame_beyond_the_limit_is_refused_before_it_is_kept() -> None:
    reassembly = Reassembly(1000)
    reassembly.add(b"x" * 900, False)
    with pytest.raises(ProtocolError, match="larger than the 1,000 bytes"):
        reassembly.add(b"x" * 101, False)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_frame_raise_a_protocol_error_or_give_a_frame(data: bytes) -> None:
    for read in (lambda: Reassembly(100).add(data, True), lambda: list(decode(data))):
        try:
            read()
        except ProtocolError as error:
            assert str(error)


def test_slices_within_slices_are_refused() -> None:
    inner = Frame(run=1, chunk=Chunk(data=b"x")).SerializeToString()
    with pytest.raises(ProtocolError, match="holds a slice again"):
        Reassembly(100).add(inner, True)
