"""A connection that is cut at any moment and taken up again: each frame arrives once, in order, and nothing is held."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.errors import HostLost, HostUnreachable, ProtocolError
from agentmatrix.transport.base import FrameStream
from agentmatrix.transport.flow import ByteBudget
from agentmatrix.transport.multiplexer import ConnectionLoss, Multiplexer
from agentmatrix.transport.retransmission import RetransmissionBuffer
from agentmatrix.wire.v1.run_pb2 import Frame
from tests.transport.test_multiplexer_pair import RUNS, End

LOST = ConnectionLoss(HostLost("lost"), HostUnreachable("lost"))


class Line:
    """Two resumable halves of a connection, and the messages that are under way between them, each way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ends: dict[int, End] = {}
        self.budgets = [ByteBudget(1 << 30, "this side holds", "limit") for _ in range(2)]
        self.caller = Multiplexer(
            lambda: None, 1 << 30, budget=self.budgets[0], clock=lambda: self.now, is_resumable=True
        )
        self.host = Multiplexer(
            lambda: None, 1 << 30, self._accept, budget=self.budgets[1], clock=lambda: self.now, is_resumable=True
        )
        self.under_way: tuple[deque[bytes], deque[bytes]] = deque(), deque()

    def _accept(self, stream: FrameStream) -> End:
        end = self.ends[-stream.run] = End()
        end.stream = stream
        return end

    def open(self, run: int) -> None:
        end = self.ends[run] = End()
        end.stream = self.caller.open(run, end)
        assert end.stream is not None
        end.stream.send(Frame(start={"agent": "x"}))

    def write(self, *, upward: bool) -> bool:
        """One side writes a message, if it has one and there is a line."""
        if self.caller.is_cut:
            return False
        message = (self.caller if upward else self.host).next_message()
        if message is not None:
            self.under_way[not upward].append(message)
        return message is not None

    def arrive(self, *, upward: bool) -> bool:
        """The oldest message that is under way is read."""
        if not self.under_way[not upward]:
            return False
        (self.host if upward else self.caller).receive_message(self.under_way[not upward].popleft())
        return True

    def cut(self) -> None:
        """What is under way is lost."""
        for way in self.under_way:
            way.clear()
        self.caller.cut()
        self.host.cut()

    def reconnect(self, *, answered: bool = True) -> None:
        """The host takes the caller up again; its answer may be lost with the new line."""
        if not self.caller.is_cut:
            self.cut()
        self.host.resume(self.caller.outbox.received)
        if answered:
            self.caller.resume(self.host.outbox.received)
        else:
            self.host.next_message()
            self.cut()

    def settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for upward in (True, False):
                moved |= self.write(upward=upward) | self.arrive(upward=upward)
            for end in list(self.ends.values()):
                while end.held:
                    end.consume()
                    moved = True


sizes = st.one_of(st.integers(1, 5000), st.sampled_from([100_000, 131_073, 400_000, 3_000_000]))
ends = st.sampled_from([*RUNS, *(-run for run in RUNS)])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), ends, sizes),
        st.tuples(st.sampled_from(["write", "arrive"]), st.booleans(), st.integers(1, 6)),
        st.tuples(st.just("consume"), ends, st.integers(1, 5)),
        st.tuples(st.sampled_from(["cut", "reconnect", "reconnect in vain"]), st.just(0), st.just(1)),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_whatever_is_cut_each_frame_arrives_once_and_in_order(script: list[tuple[str, int, int]]) -> None:
    line = Line()
    for run in RUNS:
        line.open(run)
    line.settle()
    for step, what, number in script:
        line.now += 0.1
        for _ in range(1 if step == "send" else number):
            if step == "send":
                line.ends[what].send(number, upward=what > 0)
            elif step == "write":
                line.write(upward=bool(what))
            elif step == "arrive":
                line.arrive(upward=bool(what))
            elif step == "cut":
                line.cut()
            elif step == "consume" and line.ends[what].held:
                line.ends[what].consume()
            elif step.startswith("reconnect"):
                line.reconnect(answered=step == "reconnect")
    line.reconnect()
    line.settle()
    for run in RUNS:
        assert line.ends[run].got == line.ends[-run].sent
        assert line.ends[-run].got == line.ends[run].sent
    assert all(end.error is None for end in line.ends.values())
    # What the other side has not acknowledged yet counts still; with the connection it is gone.
    line.caller.connection_lost(LOST)
    line.host.connection_lost(LOST)
    assert [budget.held for budget in line.budgets] == [0, 0]


def test_what_was_sent_while_there_was_no_line_arrives_with_the_next_one() -> None:
    line = Line()
    line.open(1)
    line.settle()
    line.cut()
    line.now += 5
    line.ends[1].send(10, upward=True)
    line.ends[-1].send(20, upward=False)
    line.settle()
    assert not line.ends[-1].got and line.ends[1].stream is not None and line.ends[1].stream.is_cut
    line.reconnect()
    line.settle()
    assert (line.ends[-1].got, line.ends[1].got) == ([10], [20])
    assert line.host.downtime == line.ends[1].stream.downtime == 5


def test_a_run_that_was_left_while_there_was_no_line_ends_at_the_host_with_the_next_one() -> None:
    line = Line()
    line.open(1)
    line.settle()
    line.cut()
    stream = line.ends[1].stream
    assert stream is not None
    stream.close()
    line.reconnect()
    line.settle()
    assert isinstance(line.ends[-1].error, HostLost) and len(line.host) == 0


def test_what_fills_a_slow_line_is_written_again_little_by_little() -> None:
    line = Line()
    line.open(1)
    line.settle()
    line.ends[-1].send(30_000_000, upward=False)
    for _ in range(12):  # a fast line: more and more may be under way
        while line.write(upward=False):
            pass
        under_way = sum(map(len, line.under_way[True]))
        if under_way > 3 << 20:
            break
        for upward in (False, True):
            while line.arrive(upward=upward) | line.write(upward=not upward):
                pass
    assert under_way > 3 << 20
    line.reconnect()
    while line.write(upward=False):
        pass
    assert 0 < sum(map(len, line.under_way[True])) < 2 << 20
    line.settle()
    assert line.ends[1].got == [30_000_000]


@pytest.mark.parametrize("received", [1, 25, 31, 1 << 60])
def test_a_peer_that_claims_what_cannot_be_changes_nothing(received: int) -> None:
    buffer = RetransmissionBuffer()
    for size in (10, 10, 10):
        buffer.write(b"x" * size, size)
    assert buffer.acknowledge(10) == 10
    with pytest.raises(ProtocolError, match="it had 10 of 30 before"):
        buffer.resume(received)
    assert buffer.resume(20) == 10
    assert buffer.must_repeat and buffer.repeat() == b"x" * 10 and not buffer.must_repeat
    assert (buffer.acknowledge(30), len(buffer)) == (10, 0)


def test_a_peer_that_has_read_less_than_it_said_cannot_go_on() -> None:
    buffer = RetransmissionBuffer()
    buffer.write(b"x" * 10)
    buffer.write(b"y" * 10)
    buffer.acknowledge(10)
    with pytest.raises(ProtocolError):
        buffer.resume(0)
