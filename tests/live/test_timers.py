"""`every()` keeps time: a tick is due whole periods after the start, however late the one before it was taken."""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.engine.listener import SignalListener

START = 1_000.0


@given(period=st.sampled_from([0.25, 1.0, 7.5]), waits=st.lists(st.integers(0, 2_000).map(lambda number: number / 256)))
def test_a_timer_does_not_drift(period: float, waits: list[float]) -> None:
    with mock.patch("agentmatrix.engine.listener.time.monotonic", return_value=START) as clock:
        timers = SignalListener((), frozenset(), {"clock": (period, True)}, lambda: None)
        periods = 1
        for wait in waits:
            clock.return_value += wait
            passed = int((clock.return_value - START) // period)
            # Ticks that nobody has taken in time are one.
            assert timers.next_tick() == ("clock" if passed >= periods else None)
            assert timers.next_tick() is None
            periods = max(periods, passed + 1)
            assert clock.return_value + (timers.seconds() or 0.0) == START + periods * period


def test_a_timer_that_fires_once_does_so() -> None:
    with mock.patch("agentmatrix.engine.listener.time.monotonic", return_value=START) as clock:
        timers = SignalListener((), frozenset(), {"late": (3.0, False)}, lambda: None)
        assert timers.next_tick() is None and timers.seconds() == 3.0
        clock.return_value += 10.0
        assert (timers.next_tick(), timers.next_tick(), timers.seconds()) == ("late", None, None)
