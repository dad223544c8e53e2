"""Lines that are cut under runs: the runs go on where they stopped, or end with what is known of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agentmatrix.errors import HostLost, HostUnreachable, Unauthenticated
from agentmatrix.transport import grpc_options
from agentmatrix.transport.grpc_client import GrpcTransport
from agentmatrix.wire.v1.run_pb2 import Frame
from tests.faulty_proxy import FaultyProxy
from tests.transport.caller import WAIT, Caller
from tests.transport.conftest import Connect, Program, Serve
from tests.transport.echo import EchoHost, EchoRun

LARGE = bytes(range(256)) * 40_000


@pytest.fixture
def host() -> EchoHost:
    return EchoHost()


@pytest.fixture
def proxy(serve: Serve, host: EchoHost) -> Iterator[FaultyProxy]:
    with FaultyProxy(serve(host=host, linger=60)) as proxy:
        yield proxy


def test_a_run_goes_on_where_it_stopped(proxy: FaultyProxy, reach: Connect, host: EchoHost) -> None:
    caller = Caller(reach(proxy.address)).started()
    for number in range(10):
        assert caller.echo(b"before %d" % number) == b"before %d" % number
        proxy.cut()
        assert caller.echo(b"after %d" % number) == b"after %d" % number
    assert caller.finish() == b"cancelled"
    assert host.started.qsize() == 1 and host.lost.empty() and proxy.accepted >= 11


def test_all_runs_of_a_connection_go_on_and_new_ones_need_not_wait_for_it(
    proxy: FaultyProxy, reach: Connect, host: EchoHost
) -> None:
    transport = reach(proxy.address)
    callers = [Caller(transport).started() for _ in range(20)]
    proxy.refuses = True
    proxy.cut()
    assert eventually(lambda: transport.state == "lost")
    with pytest.raises(HostUnreachable):
        Caller(transport).started()
    proxy.refuses = False
    later = Caller(transport).started()
    for caller in [*callers, later]:
        assert caller.echo(b"x") == b"x" and caller.finish() == b"cancelled"
    assert host.lost.empty() and transport.state == "connected"


def test_a_run_whose_start_did_not_arrive_goes_on_too(proxy: FaultyProxy, reach: Connect, host: EchoHost) -> None:
    transport = reach(proxy.address)
    assert Caller(transport).started().finish() == b"cancelled"
    proxy.stalls_up = True
    caller = Caller(transport)
    assert eventually(lambda: bool(proxy.held))
    proxy.cut()
    proxy.stalls_up = False
    assert caller.started().echo(b"x") == b"x"
    assert host.started.qsize() == 2 and host.lost.empty()


def test_large_values_that_are_cut_in_the_middle_arrive_whole(
    proxy: FaultyProxy, reach: Connect, host: EchoHost
) -> None:
    caller = Caller(reach(proxy.address)).started()
    proxy.rate = 20_000_000
    heard: list[bytes] = []
    calling = threading.Thread(target=lambda: heard.extend(caller.echo(LARGE) for _ in range(2)))
    calling.start()
    pause = 0.2
    while calling.is_alive():
        calling.join(pause)
        proxy.cut()
        pause *= 1.3  # on a machine that needs longer to come back than to be cut, nothing would arrive
    assert heard == [LARGE, LARGE] and host.lost.empty()


def test_a_line_that_says_nothing_is_found_dead_and_the_run_goes_on(
    proxy: FaultyProxy, reach: Connect, host: EchoHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the caller notices: to the host the old line is alive when the new one comes.
    caller = Caller(_with_pings(reach, proxy.address, monkeypatch)).started()
    proxy.stalls = True
    caller.say(b"x")
    before = proxy.accepted
    assert eventually(lambda: proxy.accepted > before)
    proxy.stalls = False
    assert caller.heard() == b"x"
    assert caller.finish() == b"cancelled" and host.lost.empty()


def _with_pings(reach: Connect, address: str, monkeypatch: pytest.MonkeyPatch) -> GrpcTransport:
    monkeypatch.setattr(grpc_options, "_PING_EVERY_MS", 3000)
    monkeypatch.setattr(grpc_options, "_PING_ANSWER_MS", 500)
    transport = reach(address)
    assert isinstance(transport, GrpcTransport)
    return transport


def test_who_comes_back_too_late_is_told_so(serve: Serve, reach: Connect, host: EchoHost) -> None:
    with FaultyProxy(serve(host=host, linger=0.3)) as proxy:
        caller = Caller(reach(proxy.address, reconnect_timeout=60)).started()
        proxy.refuses = True
        proxy.cut()
        run, error = host.lost.get(timeout=WAIT)
        assert "has not come back within 0.3 s (linger of the host)" in str(error)
        proxy.refuses = False
        with pytest.raises(HostLost, match="does not keep this connection any more") as lost:
            caller.next()
    assert "was lost" in str(lost.value)
    run.frames.send(Frame())


def test_a_host_that_was_started_again_does_not_know_the_run(program: Callable[..., Program], reach: Connect) -> None:
    first = program(linger=60)
    with FaultyProxy(first.address) as proxy:
        caller = Caller(reach(proxy.address)).started()
        first.kill()
        program(linger=60, address=first.address)
        with pytest.raises(HostLost, match="was restarted, or the line was cut for longer"):
            caller.next()


def test_a_host_that_is_gone_is_not_waited_for(program: Callable[..., Program], reach: Connect) -> None:
    host = program(linger=10 * WAIT)
    caller = Caller(reach(host.address)).started()
    host.kill()
    with pytest.raises(HostLost, match="the connection was refused"):
        caller.next()


def test_a_patient_caller_waits_for_a_tunnel_to_come_back(proxy: FaultyProxy, reach: Connect, host: EchoHost) -> None:
    caller = Caller(reach(proxy.address, reconnect_timeout=60)).started()
    with FaultyProxy(proxy.address) as tunnel:
        address = tunnel.address
        tunnelled = Caller(reach(address, reconnect_timeout=60)).started()
    refused = threading.Event()
    assert not refused.wait(1.0)  # some attempts are refused meanwhile
    with FaultyProxy(proxy.address, port=int(address.rpartition(":")[2])):
        assert tunnelled.echo(b"x") == b"x"
    assert caller.echo(b"y") == b"y" and host.lost.empty()


@pytest.mark.parametrize("side", ["caller", "host"])
def test_either_side_may_want_no_such_thing(serve: Serve, reach: Connect, host: EchoHost, side: str) -> None:
    with FaultyProxy(serve(host=host, linger=0 if side == "host" else 60)) as proxy:
        caller = Caller(reach(proxy.address, reconnect_timeout=0 if side == "caller" else None)).started()
        proxy.cut()
        with pytest.raises(HostLost):
            caller.next()
        assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)


def test_a_caller_that_closes_is_gone_at_once(serve: Serve, reach: Connect, host: EchoHost) -> None:
    transport = reach(serve(host=host, linger=600))
    Caller(transport).started()
    transport.close()
    assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)


def test_a_run_that_is_left_while_the_line_is_cut_ends_there_with_the_next_one(
    proxy: FaultyProxy, reach: Connect, host: EchoHost
) -> None:
    transport = reach(proxy.address)
    caller, other = Caller(transport).started(), Caller(transport).started()
    proxy.refuses = True
    proxy.cut()
    assert eventually(lambda: caller.frames.is_cut)
    caller.frames.close()
    proxy.refuses = False
    assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)
    assert other.echo(b"x") == b"x"


def test_a_host_that_stops_loses_who_is_cut_off(serve: Serve, reach: Connect, host: EchoHost) -> None:
    from agentmatrix.transport import ServerOptions, listen

    server = listen("127.0.0.1:0", host, ServerOptions(linger=600))
    with FaultyProxy(server.start()) as proxy:
        caller = Caller(reach(proxy.address)).started()
        proxy.refuses = True
        proxy.cut()
        assert eventually(lambda: caller.frames.is_cut)
        server.stop(0)
        assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)


def test_what_a_closing_host_has_not_read_was_not_delivered(reach: Connect, host: EchoHost) -> None:
    from agentmatrix.transport import ServerOptions, listen

    server = listen("127.0.0.1:0", host, ServerOptions())
    with FaultyProxy(server.start()) as proxy:
        transport = reach(proxy.address)
        begun = Caller(transport).started()
        proxy.stalls_up = True
        written = Caller(transport)
        assert eventually(lambda: written.frames.delivered)  # type: ignore[attr-defined]
        server.stop(0)
        with pytest.raises(HostLost):
            begun.next()
        with pytest.raises(HostUnreachable, match="before it had got this run"):
            written.next()
    assert host.started.qsize() == 1


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_question_whose_line_is_cut_is_asked_again(proxy: FaultyProxy, reach: Connect, is_connected: bool) -> None:
    transport = reach(proxy.address)
    if is_connected:
        assert transport.ping(WAIT).result(WAIT) > 0
    proxy.stalls = True
    asked = transport.ping(WAIT)
    assert eventually(lambda: bool(proxy.held))
    proxy.cut()
    proxy.stalls = False
    assert asked.result(WAIT) > 0


def test_too_many_who_are_cut_off_make_room_for_others(
    serve: Serve, host: EchoHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentmatrix.callers")
    tokens = {"alice": "a" * 20, "bob": "b" * 20}
    runs: list[EchoRun] = []
    with FaultyProxy(serve(host=host, linger=600, max_streams=3, tokens=tokens)) as proxy:

        def cut_off(name: str) -> None:
            stream = Stream(proxy.address, ("agentmatrix-connection", "new"), token=tokens[name])
            runs.append(host.started.get(timeout=WAIT))
            proxy.cut()
            assert eventually(lambda: caplog.text.count("runs go on for 600 s") == len(runs))
            stream.close()

        for name in ("bob", "alice", "alice"):
            cut_off(name)
        assert host.lost.empty()
        cut_off("alice")
        assert host.lost.get(timeout=WAIT)[0] is runs[1]
        cut_off("bob")
        run, error = host.lost.get(timeout=WAIT)
        assert run is runs[2] and "too many callers are cut off" in str(error)


def eventually(condition: Callable[[], bool]) -> bool:
    limit = time.monotonic() + WAIT
    while not condition() and time.monotonic() < limit:
        time.sleep(0.01)
    return condition()


class Stream:
    """A stream to a host that asks by hand for a connection."""

    def __init__(self, address: str, *headers: tuple[str, str], token: str = "") -> None:
        import grpc

        self._ended = threading.Event()
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        metadata = (*headers, *((("authorization", f"Bearer {token}"),) if token else ()))
        self._call = self._channel.stream_stream(f"/{grpc_options.SERVICE}/Converse")(self._wait(), metadata=metadata)

    def _wait(self) -> Iterator[bytes]:
        from agentmatrix.wire.v1.run_pb2 import Frames, Start

        yield Frames(frames=[Frame(run=1, start=Start(agent="echo"))]).SerializeToString()
        self._ended.wait()

    def granted(self) -> dict[str, str]:
        return dict(self._call.initial_metadata())

    def refused(self) -> str:
        import grpc

        with pytest.raises(grpc.RpcError) as refused:
            next(self._call)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        return str(refused.value.details())

    def close(self) -> None:
        self._ended.set()
        self._call.cancel()
        self._channel.close()


def test_nobody_else_can_take_up_a_connection(serve: Serve, host: EchoHost) -> None:
    tokens = {"alice": "a" * 20, "bob": "b" * 20}
    address = serve(host=host, linger=600, tokens=tokens)
    own = Stream(address, ("agentmatrix-connection", "new"), token=tokens["alice"])
    id = own.granted()["agentmatrix-connection"]
    run = host.started.get(timeout=WAIT)
    assert not any("connection" in name for name in run.peer.metadata)
    words = set()
    for token, wanted in ((tokens["bob"], id), (tokens["alice"], "x" * len(id)), (tokens["bob"], "x" * len(id))):
        other = Stream(address, ("agentmatrix-connection", wanted), ("agentmatrix-received", "0"), token=token)
        words.add(other.refused())
        other.close()
    assert len(words) == 1  # what is another's is as if it did not exist
    for received in ("7", "-1", "", "9" * 40, "x"):
        liar = Stream(
            address, ("agentmatrix-connection", id), ("agentmatrix-received", received), token=tokens["alice"]
        )
        assert liar.refused()
        liar.close()
    assert host.lost.empty() and host.started.empty()
    again = Stream(address, ("agentmatrix-connection", id), ("agentmatrix-received", "0"), token=tokens["alice"])
    assert int(again.granted()["agentmatrix-received"]) > 0
    own.close()
    again.close()


def test_a_caller_whose_token_was_taken_away_is_not_taken_back(
    serve: Serve, reach: Connect, host: EchoHost, tmp_path: object
) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "token"
    file.write_text("a" * 20)
    with FaultyProxy(serve(host=host, linger=2, token=file)) as proxy:
        caller = Caller(reach(proxy.address, token="a" * 20)).started()
        file.write_text("b" * 20)
        proxy.cut()
        with pytest.raises((HostLost, Unauthenticated), match="refuses this caller"):
            caller.next()
        assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)
