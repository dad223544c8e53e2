"""What a host tells of a watched run is checked before it counts."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest

from agentmatrix.errors import ProtocolError
from agentmatrix.session.namespace_scope import NamespaceScope
from agentmatrix.watch import RunEvent, WatchedRun
from agentmatrix.watch.recorder import EventRecorder
from agentmatrix.watch.relay import EventRelay


def relay() -> tuple[EventRelay, WatchedRun, str]:
    """The relay of a host that works for the node `far` of a run."""
    run, id = WatchedRun(), uuid4()
    recorder = EventRecorder(run.take, run.open_graph)
    recorder.on_chain_start(None, {}, run_id=id, name="report")
    return EventRelay(recorder, id, NamespaceScope("far:1")), run, str(id)


def event(**fields: Any) -> list[Any]:
    """One event as it crosses: a list of events, each a list of fields."""
    plain = RunEvent("begin", "other", "elsewhere", "far:1|look:2", time.time(), {})
    return [list({**plain.as_json(), **fields}.values())]


def test_an_event_becomes_one_of_the_callers_run() -> None:
    far, run, id = relay()
    far.take(event())
    (_, told) = run.events()
    # Neither the run nor the path that the host names count.
    assert (told.run, told.path) == (id, "far/look")


@pytest.mark.parametrize("namespace", ["near:1", "far:2|look:2", "", "farther:1"])
def test_a_host_does_not_tell_of_other_nodes(namespace: str) -> None:
    far, run, _ = relay()
    with pytest.raises(ProtocolError, match="not below its node"):
        far.take(event(namespace=namespace))
    assert len(list(run.events())) == 1


@pytest.mark.parametrize(
    "broken",
    [
        *(None, 7, {}, [None], [7], [[]], [["begin"]], event(at="now"), event(data=None), event(more=1)),
        *(event(kind="say", data=data) for data in ({}, {"speaker": 1, "text": ""}, {"speaker": "look", "text": None})),
        event(kind="say", data={"speaker": "look", "text": "", "calls": [{"name": "pay"}]}),
        event(kind="call", data={"tokens": {"total": "many"}}),
        event(kind="ask", data={"questions": ["why"]}),
        event(kind="end", data={"seconds": "long"}),
    ],
)
def test_what_cannot_be_read_is_refused(broken: Any) -> None:
    far, _, _ = relay()
    with pytest.raises(ProtocolError, match="cannot be read"):
        far.take(broken)


def test_what_a_later_version_tells_besides_is_left_out() -> None:
    far, run, _ = relay()
    far.take(event(kind="explode"))
    far.take(event(data={"colour": "red"}))
    (_, told) = run.events()
    assert (told.kind, told.data) == ("begin", {})


def test_the_clock_of_a_host_is_translated() -> None:
    far, run, _ = relay()
    late = time.time() + 3600
    far.take(event(at=late))
    far.take(event(kind="end", at=late + 2, data={"seconds": 2.0}))
    _, begin, end = run.events()
    assert abs(begin.at - time.time()) < 60
    assert end.at - begin.at <= 2.0


def test_a_run_that_is_told_late_has_its_seconds() -> None:
    far, run, _ = relay()
    now = time.time()
    # The first event has waited for ten seconds, as where the caller's loop stood still; the others have not.
    far.take(event(at=now - 10))
    far.take(event(at=now - 5, namespace="far:1|look:2|first:3"))
    far.take(event(kind="end", at=now - 3, namespace="far:1|look:2|first:3", data={"seconds": 2.0}))
    far.take(event(at=now - 3, namespace="far:1|look:2|then:4"))
    far.take(event(kind="end", at=now, namespace="far:1|look:2|then:4", data={"seconds": 3.0}))
    far.take(event(kind="end", at=now, data={"seconds": 10.0}))
    times = [told.at for told in run.events()]
    assert times == sorted(times)
    look = run.nodes["far/look"]
    assert look.seconds == 10.0 and look.last - look.first >= 10.0 - 1e-6
