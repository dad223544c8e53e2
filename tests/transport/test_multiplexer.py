"""Many runs share one connection and do not notice: the same over gRPC and inside a process."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest

from agentmatrix.errors import (
    AgentNotFound,
    DeadlineExceeded,
    HostBusy,
    HostLost,
    HostUnreachable,
    ProtocolError,
    Unauthenticated,
)
from agentmatrix.transport import ReceivedFrame, ServerOptions, listen
from agentmatrix.wire.v1.run_pb2 import Frame
from tests.transport.caller import WAIT, Caller
from tests.transport.conftest import Connect, Serve
from tests.transport.echo import EchoHost, EchoRun

MIB = 1 << 20


def test_a_run_is_echoed_in_order_and_ends(new_address: str, serve: Serve, reach: Connect) -> None:
    transport = reach(serve(new_address))
    assert transport.state == "idle"
    caller = Caller(transport).started()
    for number in range(100):
        caller.say(b"%d" % number)
    assert [caller.heard() for _ in range(100)] == [b"%d" % number for number in range(100)]
    assert caller.finish() == b"cancelled"
    assert transport.state == "connected"


def test_64_mb_cross_both_ways_while_small_frames_of_another_run_flow(
    new_address: str, serve: Serve, reach: Connect
) -> None:
    transport = reach(serve(new_address))
    large, small = Caller(transport).started(), Caller(transport).started()
    value = bytes(range(256)) * (64 * MIB // 256)
    large.say(value)
    beside = 0
    while large.inbox.empty():
        assert small.echo(b"small") == b"small"
        beside += 1
    assert large.heard() == value
    assert beside > 2, "the small run stood still"


def test_200_runs_from_many_threads(new_address: str, serve: Serve, reach: Connect) -> None:
    transport = reach(serve(new_address))

    def run(number: int) -> bool:
        caller = Caller(transport).started()
        sizes = [number, 1500, 300_000 if number % 20 == 0 else 0, 7]
        values = [bytes((number % 256,)) * size for size in sizes]
        for value in values:
            caller.say(value)
        return [caller.heard() for _ in values] == values and caller.finish() == b"cancelled"

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(run, range(200)))


def test_the_host_tells_its_agents(new_address: str, serve: Serve, reach: Connect) -> None:
    transport = reach(serve(new_address))
    assert transport.describe("echo", WAIT).result().card.name == "echo"
    assert [agent.name for agent in transport.list_agents(WAIT).result().agents] == ["echo"]
    assert 0 < transport.ping(WAIT).result() < WAIT


def test_what_a_question_may_fail_with(new_address: str, serve: Serve, reach: Connect) -> None:
    transport = reach(serve(new_address))
    with pytest.raises(AgentNotFound, match="no agent 'nobody' here; there is 'echo'"):
        transport.describe("nobody", WAIT).result()
    with pytest.raises(DeadlineExceeded, match="within 0.2 seconds"):
        transport.describe("silent", 0.2).result()
    with pytest.raises(HostLost, match="out of paper"):
        transport.describe("broken", WAIT).result()
    with pytest.raises(HostLost, match="gave up"):
        transport.describe("given-up", WAIT).result()
    assert transport.describe("echo", WAIT).result().card.name == "echo"


def test_headers_reach_the_host_and_the_token_stays_with_the_transport(
    new_address: str, serve: Serve, reach: Connect
) -> None:
    host = EchoHost()
    transport = reach(serve(new_address, host, token="secret"), token="secret", headers={"X-Tenant": "blue"})
    transport.describe("echo", WAIT).result()
    Caller(transport).started()
    for peer in (host.peers.get(timeout=WAIT), host.started.get(timeout=WAIT).peer):
        assert peer.metadata["x-tenant"] == "blue"
        assert "secret" not in repr(peer) and peer.address


@pytest.mark.parametrize(("token", "sentence"), [(None, "wants a token and got none"), ("wrong", "not the right one")])
def test_a_wrong_or_missing_token(
    new_address: str, serve: Serve, reach: Connect, token: str | None, sentence: str
) -> None:
    transport = reach(serve(new_address, token="secret"), token=token)
    with pytest.raises(Unauthenticated, match=sentence):
        Caller(transport).next()
    for question in (transport.describe("echo", WAIT), transport.ping(WAIT)):
        with pytest.raises(Unauthenticated, match=sentence):
            question.result()


def test_a_host_with_all_its_runs_taken_is_busy_and_later_is_not(
    new_address: str, serve: Serve, reach: Connect
) -> None:
    transport = reach(serve(new_address, max_runs=2))
    first, second = Caller(transport).started(), Caller(transport).started()
    with pytest.raises(HostBusy, match="has 2 runs and takes no more"):
        Caller(transport).next()
    assert first.finish() and second.echo(b"x") == b"x"
    Caller(transport).started()


def test_a_frame_beyond_the_limit_ends_its_run_alone(new_address: str, serve: Serve, reach: Connect) -> None:
    host = EchoHost()
    address = serve(new_address, host, max_frame=MIB)
    transport = reach(address)
    other, greedy = Caller(transport).started(), Caller(transport).started()
    assert host.started.get(timeout=WAIT) and host.started.get(timeout=WAIT)
    greedy.say(b"x" * 2 * MIB)
    with pytest.raises(ProtocolError, match="larger than the 1,048,576 bytes"):
        greedy.next()
    run, error = host.lost.get(timeout=WAIT)
    assert run.frames.run == greedy.frames.run and isinstance(error, ProtocolError)
    assert other.echo(b"still here") == b"still here"

    modest = Caller(reach(address, max_frame=MIB // 2)).started()
    modest.say(b"x" * (MIB - 100))
    with pytest.raises(ProtocolError, match="larger than the 524,288 bytes"):
        modest.next()
    assert isinstance(host.lost.get(timeout=WAIT)[1], ProtocolError)


def test_a_run_that_fails_to_take_a_frame_is_ended_alone(new_address: str, serve: Serve, reach: Connect) -> None:
    class Clumsy(EchoRun):
        def receive(self, received: ReceivedFrame) -> None:
            if received.frame.HasField("signal"):
                raise KeyError("dropped it")
            super().receive(received)

    class ClumsyHost(EchoHost):
        def accept(self, frames, peer):  # type: ignore[no-untyped-def]
            if self.started.empty():
                return EchoRun(self, frames, peer)
            return Clumsy(self, frames, peer)

    transport = reach(serve(new_address, ClumsyHost()))
    other, caller = Caller(transport).started(), Caller(transport).started()
    caller.say(b"x")
    with pytest.raises(ProtocolError, match="KeyError"):
        caller.next()
    assert other.echo(b"y") == b"y"


def test_a_host_that_fails_to_take_a_run_says_so(new_address: str, serve: Serve, reach: Connect) -> None:
    class Closed(EchoHost):
        def accept(self, frames, peer):  # type: ignore[no-untyped-def]
            raise SystemExit(1)

    transport = reach(serve(new_address, Closed()))
    for _ in range(2):
        with pytest.raises(ProtocolError, match="failed to take the run"):
            Caller(transport).next()


def test_frames_for_a_run_that_is_closed_are_dropped(new_address: str, serve: Serve, reach: Connect) -> None:
    host = EchoHost()
    transport = reach(serve(new_address, host))
    caller, other = Caller(transport).started(), Caller(transport).started()
    caller.say(b"x" * MIB)
    caller.frames.close()
    caller.frames.close()
    caller.say(b"not sent")
    assert other.echo(b"y") == b"y"
    before, host_run = caller.inbox.qsize(), host.started.get(timeout=WAIT)
    host_run.frames.send(Frame(part={"value": b"too late"}))
    assert other.echo(b"y") == b"y"
    assert caller.inbox.qsize() == before
    run, error = host.lost.get(timeout=WAIT)
    assert run is host_run and isinstance(error, HostLost)
    host_run.frames.close()
    assert other.echo(b"z") == b"z"
    assert host.lost.empty()


def test_a_stopping_host_takes_no_new_runs_and_waits_for_the_others(new_address: str, reach: Connect) -> None:
    host = EchoHost()
    server = listen(new_address, host, ServerOptions())
    transport = reach(server.start())
    old = Caller(transport).started()
    stopping = threading.Thread(target=server.stop, args=(WAIT,))
    stopping.start()
    while True:  # until the host has begun to stop
        new = Caller(transport)
        try:
            new.started().finish()
        except HostUnreachable as error:
            assert "stopping and takes no new runs" in str(error)
            break
    assert old.echo(b"still served") == b"still served"
    assert old.finish() == b"cancelled"
    stopping.join(WAIT)
    assert not stopping.is_alive()
    # What is sent before this side has heard that the host is gone may have arrived.
    with pytest.raises((HostUnreachable, HostLost)):
        Caller(transport).next()


def test_runs_that_outlast_the_grace_are_lost_on_both_sides(new_address: str, reach: Connect) -> None:
    host = EchoHost()
    server = listen(new_address, host, ServerOptions())
    transport = reach(server.start())
    caller = Caller(transport).started()
    server.stop(0.05)
    server.stop(0.05)
    with pytest.raises(HostLost, match="the connection to the host at .* was lost"):
        caller.next()
    assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)
    assert transport.state == "lost"


def test_frames_sent_just_before_the_end_of_the_grace_arrive(new_address: str, reach: Connect) -> None:
    host = EchoHost()
    server = listen(new_address, host, ServerOptions())
    caller = Caller(reach(server.start())).started()
    run = host.started.get(timeout=WAIT)
    run.frames.send(Frame(part={"value": b"x" * 5 * MIB}))
    run.frames.send(Frame(end={"result": b"last word"}))
    run.frames.close()
    server.stop(WAIT)
    assert len(caller.next().part.value) == 5 * MIB
    assert caller.next().end.result == b"last word"


def test_a_closed_transport_says_so(new_address: str, serve: Serve, reach: Connect) -> None:
    transport = reach(serve(new_address))
    caller = Caller(transport).started()
    transport.close()
    transport.close()
    with pytest.raises(HostLost, match="closed here"):
        caller.next()
    with pytest.raises(HostUnreachable, match="has been closed here"):
        Caller(transport).next()
    with pytest.raises(HostUnreachable, match="has been closed here"):
        transport.describe("echo", WAIT).result()
    assert transport.state == "closed"


def test_a_run_keeps_its_connection_though_nobody_holds_the_transport(
    new_address: str, serve: Serve, reach: Connect, stack: object
) -> None:
    from agentmatrix.transport import connect, parse_target

    caller = Caller(connect(parse_target(serve(new_address)))).started()
    gc.collect()
    assert caller.echo(b"x") == b"x"


def test_receivers_are_called_on_one_thread(new_address: str, serve: Serve, reach: Connect) -> None:
    threads: Queue[int] = Queue()

    class Watching(Caller):
        def receive(self, received: ReceivedFrame) -> None:
            threads.put(threading.get_ident())
            super().receive(received)

    transport = reach(serve(new_address))
    callers = [Watching(transport).started() for _ in range(5)]
    assert [caller.echo(b"x") for caller in callers] == [b"x"] * 5
    seen = {threads.get(timeout=WAIT) for _ in range(10)}
    assert len(seen) == 1 and threading.get_ident() not in seen
