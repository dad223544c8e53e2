"""The bounds in bytes: what waits for credit, what may be under way, what may be held. Counted, on a fake clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.errors import HostBusy
from agentmatrix.transport.flow import RUN_CREDIT, BudgetExceeded, ByteBudget, BytesInFlight, CreditGrant
from agentmatrix.transport.framing import decode
from agentmatrix.transport.outbox import Outbox
from agentmatrix.wire.v1.run_pb2 import Frame
from tests.transport.test_framing import Reader, opened

KB = 1024


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def part(run: int, size: int = 100 * KB) -> Frame:
    return Frame(run=run, part={"value": b"x" * size, "more": True})


def drained(outbox: Outbox) -> int:
    """Bytes that go out while the peer reads and gives no credit."""
    total = 0
    while taken := outbox.take():
        total += len(taken[0])
        outbox.acknowledged(total)
    return total


def test_a_run_without_credit_waits_and_the_others_go_on() -> None:
    outbox, _ = opened(1, 2)
    for _ in range(50):
        outbox.put(part(1))
    assert RUN_CREDIT <= drained(outbox) <= RUN_CREDIT + 110 * KB
    assert outbox.room(1) < 0 < outbox.room(2)
    outbox.put(part(2, 10))
    message, runs = outbox.take() or (b"", [])
    assert runs == [2]
    outbox.credited(1, 2 * RUN_CREDIT)
    assert outbox.take() is not None


@pytest.mark.parametrize("size", [10, 5 * RUN_CREDIT])
def test_a_cancel_still_goes_where_its_caller_leaves_at_once(size: int) -> None:
    woken: list[int] = []
    outbox = Outbox(lambda: woken.append(1))
    outbox.open(1)
    outbox.put(Frame(run=1, start={"agent": "x"}))
    outbox.put(part(1, size))
    drained(outbox)
    outbox.put(Frame(run=1, cancel={"reason": "deadline"}))
    outbox.put(part(1))
    outbox.drop(1, keeps_control=True)
    outbox.put(Frame(run=1, reset={"kind": "closed"}))
    message, _ = outbox.take() or (b"", [])
    assert [frame.WhichOneof("body") for frame, _ in decode(message).frames] == ["cancel", "reset"]
    assert outbox.take() is None and outbox.empty and woken
    assert outbox.room(1) == RUN_CREDIT


def test_a_cancel_goes_before_what_waits_for_credit_and_not_before_the_start() -> None:
    outbox, _ = opened(1)
    outbox.put(Frame(run=1, start={"agent": "x"}))
    outbox.put(Frame(run=1, cancel={"reason": "early"}))
    first = [frame.WhichOneof("body") for frame, _ in decode((outbox.take() or (b"", []))[0]).frames]
    assert first == ["start", "cancel"]
    for _ in range(20):
        outbox.put(part(1))
    drained(outbox)
    outbox.put(Frame(run=1, cancel={"reason": "late"}))
    (frame, _), *_ = decode((outbox.take() or (b"", []))[0]).frames
    assert frame.cancel.reason == "late"


def test_who_waits_for_room_is_told_when_there_is_some_and_when_there_never_will_be() -> None:
    told: list[str] = []
    outbox, _ = opened(1, 2)
    outbox.on_room(1, 1, lambda: told.append("at once"))
    for run in (1, 2):
        for _ in range(20):
            outbox.put(part(run))
    outbox.on_room(1, RUN_CREDIT // 2, lambda: told.append("half"))
    outbox.on_room(1, 1, lambda: told.append("some"))
    outbox.on_room(2, 1, lambda: told.append("never"))
    assert told == ["at once"]
    outbox.credited(1, 2 * RUN_CREDIT)
    assert told == ["at once", "some"]
    outbox.credited(1, 3 * RUN_CREDIT)
    outbox.drop(2)
    assert told == ["at once", "some", "half", "never"]


def test_bytes_under_way_are_few_on_a_slow_link_and_many_on_a_quick_one() -> None:
    for rate, least, most in ((100 * KB, 100 * KB, 512 * KB), (100_000 * KB, 4000 * KB, 40_000 * KB)):
        clock = Clock()
        under_way, longest = 0, 0
        outbox, reader = opened(1, clock=clock)
        outbox.put(part(1, 30_000 * KB))
        queue: list[bytes] = []
        while not reader.frames[1]:
            while taken := outbox.take():
                queue.append(taken[0])
                under_way += len(taken[0])
            longest = max(longest, under_way)
            message = queue.pop(0)
            clock.now += len(message) / rate
            under_way -= len(message)
            reader.read(message)
        assert least <= longest <= most, (rate, longest)


def test_a_peer_cannot_claim_to_have_read_what_was_not_written() -> None:
    flight = BytesInFlight()
    flight.write(100, 0.0)
    for claimed in (101, 2**63, 0):
        flight.read(claimed, 1.0)
        assert not flight.idle
    flight.read(100, 1.0)
    assert flight.idle


def test_reading_is_told_with_the_next_message_or_after_a_while() -> None:
    woken: list[int] = []
    outbox = Outbox(lambda: woken.append(1))
    assert outbox.take() is None
    outbox.acknowledge(1000)
    assert outbox.take() is None and not woken
    outbox.open(1)
    outbox.put(part(1, 10))
    assert decode((outbox.take() or (b"", []))[0]).received == 1000
    outbox.acknowledge(1000)
    assert outbox.take() is None
    outbox.acknowledge(40 * KB)
    assert len(woken) == 2
    alone = decode((outbox.take() or (b"", []))[0])
    assert (alone.received, alone.frames) == (2000 + 40 * KB, [])


@given(st.lists(st.tuples(st.integers(1, 300_000), st.booleans()), max_size=60))
def test_credit_never_exceeds_what_was_consumed_by_more_than_its_bound(frames: list[tuple[int, bool]]) -> None:
    grant = CreditGrant()
    consumed, waiting = 0, list[tuple[int, int]]()
    for size, consumes in frames:
        while grant.received >= grant.granted:  # a peer that follows the rules waits
            assert waiting, "nothing is held, and no credit comes"
            done = waiting.pop(0)
            grant.consume(*done)
            consumed += sum(done)
            grant.due()
        assert grant.receive(size)
        waiting.append((size, 0))
        if consumes:
            done = waiting.pop(0)
            grant.consume(*done)
            consumed += sum(done)
        grant.due()
        assert grant.granted - consumed <= RUN_CREDIT


def test_a_peer_without_credit_is_told_apart() -> None:
    grant = CreditGrant()
    assert grant.receive(RUN_CREDIT - 1) and grant.receive(5000)
    assert not grant.receive(1)


def test_a_large_frame_is_granted_when_it_is_announced_and_a_second_when_the_first_is_consumed() -> None:
    grant, large = CreditGrant(), 5 * RUN_CREDIT
    grant.receive(30)
    grant.announce(large)
    assert grant.due() - grant.received > large
    grant.receive(large)
    assert 0 < grant.granted - grant.received < RUN_CREDIT // 2  # who looks for half of the credit waits
    grant.receive(30)
    grant.announce(large)
    assert not grant.due()
    grant.consume(30, large)
    assert grant.due() - grant.received > large
    grant.receive(large)
    grant.consume(30, large)
    grant.due()
    assert RUN_CREDIT - 1000 < grant.granted - grant.received <= RUN_CREDIT


def test_a_budget_counts_in_the_wider_ones_and_says_which_is_used_up() -> None:
    process = ByteBudget(1000, "the host holds", "max_bytes")
    caller = ByteBudget(800, "the host holds for this caller", "max_caller_bytes", process)
    other = ByteBudget(800, "the host holds for this caller", "max_caller_bytes", process)
    caller.take(700)
    with pytest.raises(BudgetExceeded, match=r"caller 700 bytes, and 101 more are over its 800 \(max_caller_bytes\)"):
        caller.take(101)
    with pytest.raises(BudgetExceeded, match=r"max_bytes\)"):
        other.take(301)
    assert (process.held, caller.held, other.held) == (700, 700, 0)
    caller.give(700)
    other.take(800)
    assert process.held == 800


def test_an_outbox_takes_no_more_than_its_budget_and_gives_it_back() -> None:
    budget = ByteBudget(300 * KB, "this process holds", "max_bytes")
    outbox, reader = opened(1, 2, budget=budget)
    outbox.put(part(1, 200 * KB))
    with pytest.raises(HostBusy, match="could not be sent: this process holds"):
        outbox.put(part(1, 200 * KB))
    outbox.put(Frame(run=1, reset={"kind": "bound"}))  # to say so costs nothing
    reader.read_all()
    assert budget.held == 0
    outbox.put(part(2, 200 * KB))
    outbox.drop(2)
    outbox.put(part(1, 90 * KB))
    outbox.clear()
    assert budget.held == 0


def test_a_peer_that_asks_and_does_not_read_is_found() -> None:
    outbox = Outbox(lambda: None)
    for run in range(25_000):
        outbox.put(Frame(run=run, reset={"kind": "busy", "reason": "full"}))
    assert outbox.overfull
    Reader(outbox).read_all()
    assert not outbox.overfull
