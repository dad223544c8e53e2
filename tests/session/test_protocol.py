"""The rules of a run's protocol, driven with frames in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.errors import ProtocolError
from agentmatrix.session.protocol import CallerProtocol, HostProtocol, Phase
from agentmatrix.wire.v1 import run_pb2 as pb

BODIES = {
    "start": lambda n: pb.Frame(start=pb.Start(id=str(n))),
    "reply": lambda n: pb.Frame(reply=pb.Reply(id=n, value=b"")),
    "credit": lambda n: pb.Frame(credit=pb.Credit(parts=n)),
    "cancel": lambda n: pb.Frame(cancel=pb.Cancel()),
    "signal": lambda n: pb.Frame(signal=pb.Signal(id=str(n), number=n)),
    "notice": lambda n: pb.Frame(notice=pb.Notice(kind="close" if n == 3 else "drain")),
    "accepted": lambda n: pb.Frame(accepted=pb.Accepted()),
    "part": lambda n: pb.Frame(part=pb.Part(value=b"x", more=bool(n % 2))),
    "event": lambda n: pb.Frame(event=pb.Event(kind="stream")),
    "taken": lambda n: pb.Frame(taken=pb.Taken(number=n)),
    "request": lambda n: pb.Frame(request=pb.Request(id=n, target="store", method="batch")),
    "end": lambda n: pb.Frame(end=pb.End(result=b"")),
    "nothing": lambda n: pb.Frame(),
}
any_frames = st.lists(st.tuples(st.sampled_from(sorted(BODIES)), st.integers(0, 3)), max_size=30)


@given(any_frames)
def test_a_caller_ends_at_most_once_whatever_a_host_sends(script: list[tuple[str, int]]) -> None:
    caller = CallerProtocol()
    caller.start(pb.Start())
    heard: list[str] = []
    for name, number in script:
        try:
            heard.append(caller.receive(BODIES[name](number)))
        except ProtocolError:
            assert caller.phase is Phase.ENDED
            heard.append("broken")
    endings = [kind for kind in heard if kind in ("end", "broken")]
    assert len(endings) <= 1
    if endings:
        assert all(kind == "ignored" for kind in heard[heard.index(endings[0]) + 1 :])


@given(any_frames)
def test_a_host_takes_any_frames_and_still_ends_its_run(script: list[tuple[str, int]]) -> None:
    host = HostProtocol()
    for name, number in script:
        try:
            host.receive(BODIES[name](number))
        except ProtocolError:
            host.end(failure=b"broken")
            break
        if host.phase is Phase.STARTED:
            assert host.accept() is not None
    host.end(result=b"")
    assert host.phase is Phase.ENDED
    assert host.end(result=b"again") is None
    assert host.request("store", "batch", b"") is None


steps = st.lists(
    st.sampled_from(["part", "more", "event", "ask", "answer", "deliver", "credit", "cancel", "signal", "take"]),
    max_size=60,
)


@given(steps)
def test_two_halves_never_break_each_others_rules(script: list[str]) -> None:
    """Both halves follow the rules, frames are delivered at any time: nobody complains, and both end."""
    caller, host = CallerProtocol(), HostProtocol()
    up: list[pb.Frame] = [caller.start(pb.Start(id="1"))]
    down: list[pb.Frame] = []
    asked: list[int] = []
    signalled: list[int] = []

    def deliver() -> None:
        while up:
            frame = up.pop(0)
            kind = host.receive(frame)
            if kind == "start":
                accepted = host.accept()
                assert accepted is not None
                down.append(accepted)
            elif kind == "signal":
                signalled.append(frame.signal.number)
        while down:
            frame = down.pop(0)
            if caller.receive(frame) == "request":
                asked.append(frame.request.id)

    for step in script:
        frame: pb.Frame | None = None
        if step == "deliver":
            deliver()
        elif step in ("part", "more"):
            frame = host.part(b"x", more=step == "more")
        elif step == "event":
            frame = host.event("stream", b"")
        elif step == "ask":
            frame = host.request("store", "batch", b"")
        elif step == "take" and signalled:
            frame = host.ack_signal(signalled.pop())
        down.extend([frame] if frame else [])
        back: pb.Frame | None = None
        if step == "answer" and asked:
            back = caller.reply(pb.Reply(id=asked.pop(0)))
        elif step == "credit":
            back = caller.credit()
        elif step == "cancel":
            back = caller.cancel("enough")
        elif step == "signal":
            back = caller.signal("id", "audio", b"")
        up.extend([back] if back else [])
    deliver()
    end = host.end(result=b"")
    assert end is not None
    down.append(end)
    deliver()
    assert caller.phase is host.phase is Phase.ENDED


def test_the_caller_answers_only_what_was_asked() -> None:
    caller = CallerProtocol()
    caller.start(pb.Start())
    with pytest.raises(ProtocolError, match="nobody asked"):
        caller.reply(pb.Reply(id=1))


def test_signals_are_answered_once_and_none_comes_after_the_close() -> None:
    caller, host = CallerProtocol(), HostProtocol()
    host.receive(caller.start(pb.Start()))
    accepted, first = host.accept(), caller.signal("1", "audio", b"x")
    assert accepted is not None and first is not None
    caller.receive(accepted)
    assert host.receive(first) == "signal"
    taken = host.ack_signal(first.signal.number, "no room")
    assert taken is not None and caller.receive(taken) == "taken"
    with pytest.raises(ProtocolError, match="nobody sent signal"):
        host.ack_signal(first.signal.number)
    closing = caller.control("close", b"")
    late = caller.signal("2", "audio", b"x")
    assert closing is not None and late is not None
    host.receive(closing)
    with pytest.raises(ProtocolError, match="after it had closed"):
        host.receive(late)
    with pytest.raises(ProtocolError, match="not open"):
        caller.receive(pb.Frame(taken=pb.Taken(number=first.signal.number)))
