"""What a peer may say when a connection is taken up again, and how often a caller tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.transport.resumption import ConnectionGrant, ConnectionRequest, ReconnectBackoff


@given(st.text(st.characters(codec="ascii"), min_size=1), st.integers(0, 10**18), st.floats(0.1, 1e5))
def test_what_is_written_is_read(id: str, received: int, linger: float) -> None:
    if id != "new":
        assert ConnectionRequest.read(dict(ConnectionRequest(id, received).headers)) == ConnectionRequest(id, received)
    read = ConnectionGrant.read(ConnectionGrant(id, linger, received).headers)
    assert (read.id, read.received) == (id, received) and read.linger == pytest.approx(linger, rel=1e-4)


def test_a_new_connection_and_none() -> None:
    assert ConnectionRequest.read(dict(ConnectionRequest().headers)) == ConnectionRequest()
    assert ConnectionRequest.read({}) is None
    assert ConnectionGrant.read(()).id == "" and ConnectionGrant("", 5, 5).headers == ()


@pytest.mark.parametrize("linger", ["", "x", "nan", "inf", "-1", "0", "1e400"])
def test_a_host_that_does_not_say_how_long_keeps_nothing(linger: str) -> None:
    grant = ConnectionGrant.read((("agentmatrix-connection", "id"), ("agentmatrix-linger", linger)))
    assert (grant.id, grant.linger) == ("", 0.0)


@pytest.mark.parametrize("received", ["", "x", "-1", "1.5", "٣", "9" * 20, "1_0"])
def test_what_is_no_number_is_what_no_peer_can_have_read(received: str) -> None:
    request = ConnectionRequest.read({"agentmatrix-connection": "id", "agentmatrix-received": received})
    assert request is not None and request.received == -1


def attempts(seconds: float, *, is_patient: bool, refused: bool) -> list[float]:
    """When a host is tried that is never reached."""
    now = 0.0
    backoff, times = ReconnectBackoff("cut", seconds, is_patient=is_patient, clock=lambda: now), list[float]()
    while (pause := backoff.next_pause()) is not None:
        now += pause
        times.append(now)
        backoff.failed(ConnectionError("no"), refused=refused)
        assert backoff.why == "cut; then no"
    return times


def test_a_caller_tries_at_once_and_then_less_and_less_often() -> None:
    times = attempts(60, is_patient=False, refused=False)
    assert times[0] <= 0.02 and times[-1] == pytest.approx(60)
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert 0.05 <= pauses[0] <= 0.1 and max(pauses) <= 5 and 15 <= len(times) <= 40


def test_where_nobody_listens_any_more_a_caller_gives_up_soon_unless_it_is_patient() -> None:
    times = attempts(60, is_patient=False, refused=True)
    assert len(times) == 3 and times[-1] < 0.5
    assert attempts(60, is_patient=True, refused=True)[-1] == pytest.approx(60)
