"""Both halves of a connection joined without I/O: in whatever order things happen, all arrives, and nobody is blamed.

And messages that were recorded and then broken: they end a run or the connection, and nothing else.
"""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.errors import AgentMatrixError, HostBusy, ProtocolError
from agentmatrix.transport.base import FrameStream, ReceivedFrame
from agentmatrix.transport.flow import RUN_CREDIT, ByteBudget
from agentmatrix.transport.multiplexer import ConnectionLoss, Multiplexer
from agentmatrix.wire.v1.run_pb2 import Frame, Frames
from tests.transport.caller import whole


class End:
    """One end of a run: it keeps what arrives until the test has it consumed."""

    def __init__(self) -> None:
        self.held: deque[ReceivedFrame] = deque()
        self.got: list[int] = []
        self.sent: list[int] = []
        self.error: AgentMatrixError | None = None
        self.stream: FrameStream | None = None

    def receive(self, received: ReceivedFrame) -> None:
        self.held.append(received)

    def lost(self, error: AgentMatrixError) -> None:
        self.error = error

    def consume(self) -> None:
        received = self.held.popleft()
        frame = whole(received)
        value = frame.part.value or frame.signal.value
        if value:
            self.got.append(len(value))
        received.release()

    def send(self, size: int, *, upward: bool) -> None:
        assert self.stream is not None
        self.sent.append(size)
        value = b"x" * size
        self.stream.send(Frame(signal={"value": value}) if upward else Frame(part={"value": value, "more": True}))


class Pair:
    """A caller's and a host's multiplexer, and the messages between them."""

    def __init__(self, limit: int = 64 << 20) -> None:
        self.ends: dict[int, End] = {}
        self.budgets = [ByteBudget(limit, "this side holds", "limit") for _ in range(2)]
        self.caller = Multiplexer(lambda: None, 1 << 30, budget=self.budgets[0])
        self.host = Multiplexer(lambda: None, 1 << 30, accept=self._accept, budget=self.budgets[1])
        self.messages: list[bytes] = []

    def _accept(self, stream: FrameStream) -> End:
        end = self.ends[-stream.run] = End()
        end.stream = stream
        return end

    def open(self, run: int) -> None:
        end = self.ends[run] = End()
        stream = self.caller.open(run, end)
        assert stream is not None
        end.stream = stream
        stream.send(Frame(start={"agent": "x"}))
        self.carry(upward=True)

    def carry(self, *, upward: bool) -> bool:
        source, sink = (self.caller, self.host) if upward else (self.host, self.caller)
        message = source.next_message()
        if message is not None:
            self.messages.append(message)
            sink.receive_message(message)
        return message is not None

    def settle(self) -> None:
        """Carries and consumes until nothing moves."""
        moved = True
        while moved:
            moved = self.carry(upward=True) | self.carry(upward=False)
            for end in self.ends.values():
                while end.held:
                    end.consume()
                    moved = True


RUNS = (1, 2, 3)
sizes = st.one_of(st.integers(1, 5000), st.sampled_from([100_000, 131_072, 131_073, 400_000, 3_000_000]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([*RUNS, *(-run for run in RUNS)]), sizes),
        st.tuples(st.just("carry"), st.booleans(), st.just(0)),
        st.tuples(st.just("consume"), st.sampled_from([*RUNS, *(-run for run in RUNS)]), st.integers(1, 5)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_in_any_order_all_arrives_and_no_rule_is_broken(script: list[tuple[str, int, int]]) -> None:
    pair = Pair(1 << 30)
    for run in RUNS:
        pair.open(run)
    for step, run, number in script:
        if step == "send":
            pair.ends[run].send(number, upward=run > 0)
        elif step == "carry":
            pair.carry(upward=bool(run))
        else:
            for _ in range(min(number, len(pair.ends[run].held))):
                pair.ends[run].consume()
        for end in pair.ends.values():
            held = sum(received.frame.ByteSize() for received in end.held)
            assert held <= RUN_CREDIT + 131_072 + 1000  # and two large values, which a budget counts
    pair.settle()
    for run in RUNS:
        assert pair.ends[run].got == pair.ends[-run].sent
        assert pair.ends[-run].got == pair.ends[run].sent
    assert all(end.error is None for end in pair.ends.values())
    assert [budget.held for budget in pair.budgets] == [0, 0]


def _recorded() -> list[bytes]:
    pair = Pair()
    for run in RUNS:
        pair.open(run)
    for number, size in enumerate((10, 2000, 140_000, 700_000)):
        for run in RUNS:
            pair.ends[run].send(size + number, upward=True)
            pair.ends[-run].send(size - number, upward=False)
            pair.settle()
    return [message[:2000] if len(message) > 5000 else message for message in pair.messages]


RECORDED = _recorded()

changes = st.lists(
    st.tuples(st.sampled_from(["replace", "remove", "insert", "cut"]), st.integers(0, 10_000), st.binary(max_size=8)),
    max_size=6,
)


def _changed(data: bytes, how: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(data)
    for kind, where, content in how:
        at = where % (len(changed) + 1)
        if kind == "replace":
            changed[at : at + len(content)] = content
        elif kind == "remove":
            del changed[at : at + len(content)]
        elif kind == "insert":
            changed[at:at] = content
        else:
            del changed[at:]
    return bytes(changed)


@settings(max_examples=1250, deadline=None)  # 5,000 messages
@given(st.lists(st.tuples(st.integers(0, len(RECORDED) - 1), changes), min_size=4, max_size=4), st.booleans())
def test_recorded_messages_that_were_broken_end_a_run_or_the_connection_alone(
    messages: list[tuple[int, list[tuple[str, int, bytes]]]], upward: bool
) -> None:
    pair = Pair(4 << 20)
    pair.open(1)
    sink = pair.host if upward else pair.caller
    try:
        for number, how in messages:
            sink.receive_message(_changed(RECORDED[number], how))
    except ProtocolError as error:
        assert str(error)
        loss = ConnectionLoss(error, error)
        pair.caller.connection_lost(loss)
        pair.host.connection_lost(loss)
    for end in pair.ends.values():
        assert end.error is None or isinstance(end.error, AgentMatrixError)
    assert all(budget.held <= 4 << 20 for budget in pair.budgets)
    pair.caller.connection_lost(ConnectionLoss(HostBusy("over"), HostBusy("over")))
    pair.host.connection_lost(ConnectionLoss(HostBusy("over"), HostBusy("over")))
    for end in pair.ends.values():
        while end.held:
            end.held.popleft().release()
    assert [budget.held for budget in pair.budgets] == [0, 0]


def test_a_frame_that_is_announced_and_does_not_come_is_given_up() -> None:
    now = [0.0]
    budget = ByteBudget(10 << 20, "this side holds", "limit")
    ends: list[End] = []

    def accept(stream: FrameStream) -> End:
        ends.append(End())
        return ends[-1]

    host = Multiplexer(lambda: None, 1 << 30, accept=accept, budget=budget, clock=lambda: now[0])

    def receive(frame: Frame) -> None:
        host.receive_message(Frames(frames=[frame]).SerializeToString())

    receive(Frame(run=1, start={"agent": "x"}, bulk=[{"field": 6, "size": 5 << 20}]))
    receive(Frame(run=2, start={"agent": "x"}, bulk=[{"field": 6, "size": 5 << 20}]))
    assert budget.held == 10 << 20
    now[0] = 50.0
    receive(Frame(run=2, chunk={"data": b"x"}))
    now[0] = 61.0
    host.give_up_stalled()
    assert isinstance(ends[0].error, HostBusy) and "nothing of it came for 60 seconds" in str(ends[0].error)
    assert ends[1].error is None and budget.held == 5 << 20
    told = Frames.FromString(host.next_message() or b"").frames
    assert [(frame.run, frame.reset.kind) for frame in told if frame.HasField("reset")] == [(1, "bound")]


def test_a_run_that_is_over_its_budget_gives_all_back() -> None:
    pair = Pair(1 << 20)
    pair.open(1)
    pair.ends[1].send(600_000, upward=True)
    with pytest.raises(HostBusy):
        pair.ends[1].send(600_000, upward=True)
    pair.settle()
    pair.ends[-1].send(600_000, upward=False)
    pair.carry(upward=False)
    pair.host.reset(1, "bound", "enough")
    pair.settle()
    assert isinstance(pair.ends[1].error, HostBusy)
    assert [budget.held for budget in pair.budgets] == [0, 0]
