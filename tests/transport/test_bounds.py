"""What a peer can take of a host, and a host of its caller: counted on real streams."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentmatrix.errors import HostBusy, HostLost, ProtocolError
from agentmatrix.transport.caller_streams import StreamTable
from agentmatrix.transport.flow import RUN_CREDIT
from agentmatrix.wire.v1.run_pb2 import Chunk, Frame, Frames, Start
from tests.transport.caller import WAIT, Caller
from tests.transport.conftest import Connect, Serve
from tests.transport.echo import EchoHost

SERVICE = "agentmatrix.wire.v1.AgentHost"
WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
MIB = 1 << 20


def converse(channel: grpc.Channel, *messages: bytes) -> tuple[Any, threading.Event]:
    """A stream that writes these messages and then nothing, until the event is set."""
    ended = threading.Event()

    def requests() -> Iterator[bytes]:
        yield from messages
        ended.wait()

    return channel.stream_stream(f"/{SERVICE}/Converse")(requests()), ended


def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        for _ in call:
            pass
    error: Any = caught.value
    return error.code(), error.details()


def test_a_run_that_nobody_reads_has_sent_no_more_than_its_credit(
    new_address: str, serve: Serve, reach: Connect
) -> None:
    host = EchoHost()
    transport = reach(serve(new_address, host))
    deaf, other = Caller(transport, consumes=False).started(), Caller(transport).started()
    run = host.started.get(timeout=WAIT)
    for _ in range(100):
        run.frames.send(Frame(part={"value": b"x" * 100_000, "more": True}))
    for number in range(20):  # which go on beside it
        assert other.echo(b"%d" % number * 50_000)
    assert run.frames.room < -8 * MIB
    arrived = [deaf.inbox.get_nowait() for _ in range(deaf.inbox.qsize())]
    assert RUN_CREDIT <= sum(frame.ByteSize() for frame in arrived if isinstance(frame, Frame)) < RUN_CREDIT + 200_000
    has_room = threading.Event()
    run.frames.on_room(1, has_room.set)
    assert not has_room.is_set()
    deaf.frames.close()  # its host hears of it, and nothing waits for ever
    assert has_room.wait(WAIT)
    assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)


def test_a_peer_that_sends_beyond_its_credit_loses_the_run_alone(serve: Serve) -> None:
    messages = [Frames(frames=[Frame(run=n, start=Start(agent="echo"))]).SerializeToString() for n in (1, 2)]
    # The echo does not consume what it did not get: more than one credit at once is too much.
    flood = [Frame(run=1, signal={"value": b"x" * 100_000}) for _ in range(20)]
    messages.append(Frames(frames=flood).SerializeToString())
    messages.append(Frames(frames=[Frame(run=2, cancel={})]).SerializeToString())
    host = EchoHost()
    host.consumes = False
    told: dict[int, Frame] = {}
    with grpc.insecure_channel(serve(host=host)) as channel:
        call, ended = converse(channel, *messages)
        for message in call:
            for frame in Frames.FromString(message).frames:
                if frame.WhichOneof("body") in ("reset", "end"):
                    told[frame.run] = frame
            if told.keys() == {1, 2}:
                break
        ended.set()
        call.cancel()
    assert told[1].reset.kind == "protocol" and "of its credit" in told[1].reset.reason
    assert told[2].end.result == b"cancelled"


def test_slices_of_a_run_that_has_not_begun_are_refused_one_by_one(serve: Serve) -> None:
    chunks = [Frame(run=run, chunk=Chunk(data=b"z" * 10_000)) for run in range(1, 51)]
    refused: set[int] = set()
    with grpc.insecure_channel(serve()) as channel:
        call, ended = converse(channel, Frames(frames=chunks).SerializeToString())
        for message in call:
            for frame in Frames.FromString(message).frames:
                assert "begins with start, not with chunk" in frame.reset.reason
                refused.add(frame.run)
            if len(refused) == 50:
                break
        ended.set()
        call.cancel()


def test_a_value_over_the_budget_of_its_caller_is_refused_before_it_is_sent(
    new_address: str, serve: Serve, reach: Connect
) -> None:
    transport = reach(serve(new_address, max_bytes=8 * MIB, max_caller_bytes=4 * MIB))
    other, greedy = Caller(transport).started(), Caller(transport).started()
    greedy.say(b"x" * 5 * MIB)
    with pytest.raises(HostBusy, match=r"holds for this caller 0 bytes, and 5,242,880 more .* \(max_caller_bytes\)"):
        greedy.next()
    assert len(other.echo(b"y" * 3 * MIB)) == 3 * MIB
    assert len(other.echo(b"y" * 3 * MIB)) == 3 * MIB  # what was consumed is given back


def test_a_malformed_message_ends_the_stream_with_a_status(serve: Serve) -> None:
    with grpc.insecure_channel(serve()) as channel:
        call, ended = converse(channel, b"\xff" * 100)
        assert status_of(call) == (grpc.StatusCode.INVALID_ARGUMENT, "a message holds no frames")
        ended.set()


def test_a_stream_that_starts_no_run_ends_and_says_so(serve: Serve) -> None:
    with grpc.insecure_channel(serve(start_timeout=0.1)) as channel:
        call, ended = converse(channel)
        code, details = status_of(call)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED and "no run was started within 0.1 seconds" in details
        ended.set()


def test_a_stream_that_has_started_a_run_stays(serve: Serve, reach: Connect) -> None:
    transport = reach(serve(start_timeout=2.0))
    caller = Caller(transport).started()
    caller.finish()
    threading.Event().wait(2.5)  # the time that a stream without a run would have
    assert Caller(transport).started().echo(b"x") == b"x" and transport.state == "connected"


def test_silent_streams_make_room_for_callers(serve: Serve, reach: Connect) -> None:
    address = serve(max_streams=4, max_caller_streams=2)
    channels = [grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(2)]
    silent = [converse(channels[number % 2]) for number in range(4)]
    for call, _ in silent:
        call.initial_metadata()
    crowded, crowded_end = converse(channels[0])
    code, details = status_of(crowded)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "2 streams of this connection" in details
    callers = [Caller(reach(address, headers={"n": str(n)})).started() for n in range(4)]
    assert status_of(silent[0][0])[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(HostBusy, match="serves 4 callers already, as many as it may"):
        Caller(reach(address, headers={"n": "one too many"})).next()
    assert all(caller.echo(b"x") == b"x" for caller in callers)
    for _, ended in [*silent, (crowded, crowded_end)]:
        ended.set()
    for channel in channels:
        channel.close()


def test_watches_of_the_health_have_a_number_of_their_own(serve: Serve, reach: Connect) -> None:
    address = serve(max_watches=3, max_streams=2, token="secret")
    with grpc.insecure_channel(address) as channel:
        watches = [channel.unary_stream(WATCH)(b"") for _ in range(3)]
        for watch in watches:
            assert next(watch)[1] == 1
        code, details = status_of(channel.unary_stream(WATCH)(b""))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "use Check" in details
        assert channel.unary_unary(CHECK)(b"")[1] == 1
        assert Caller(reach(address, token="secret")).started().echo(b"x") == b"x"
        watches[0].cancel()
        assert next(_admitted(channel))[1] == 1


def _admitted(channel: grpc.Channel) -> Any:
    """A watch that the host takes; it hears of the end of another one late."""
    for _ in range(1000):
        watch = channel.unary_stream(WATCH)(b"")
        try:
            next(watch)
        except grpc.RpcError:
            continue
        return iter([b"\x08\x01"])
    raise AssertionError("the place of a watch that has ended is not free")


class Stream:
    """A stream as the table sees it."""

    def __init__(self, connection: str) -> None:
        self.connection, self.began, self.ended = connection, False, ""

    def end(self, kind: str, why: str) -> None:
        self.ended = kind


def test_the_table_of_streams_ends_the_oldest_that_never_began() -> None:
    table = StreamTable(3, 2)
    streams = [Stream(connection) for connection in "abc"]
    for stream in streams:
        table.add(stream)
    table.begin(streams[0])
    table.add(new := Stream("d"))
    assert [stream.ended for stream in streams] == ["", "busy", ""] and len(table) == 3
    table.begin(streams[2])
    table.begin(new)
    with pytest.raises(HostBusy, match="serves 3 callers"):
        table.add(Stream("e"))
    for stream in [*streams, new]:
        table.remove(stream)
    assert not len(table)
    for connection in "aa":
        table.add(Stream(connection))
    with pytest.raises(HostBusy, match="2 streams of this connection"):
        table.add(Stream("a"))


def test_a_unix_socket_is_ours_alone_from_its_first_moment(
    tmp_path: Path, serve: Serve, reach: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, modes = tmp_path / "host.sock", list[int]()
    before = os.umask(0)
    try:
        add = grpc.aio._server.Server.add_insecure_port

        def adding(server: Any, address: str) -> int:
            port = add(server, address)
            modes.append(stat.S_IMODE(path.stat().st_mode))
            return port

        monkeypatch.setattr(grpc.aio._server.Server, "add_insecure_port", adding)
        assert Caller(reach(serve(f"unix:{path}"))).started().echo(b"x") == b"x"
        assert os.umask(0) == 0  # the process has its own back
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_a_host_that_announces_what_it_does_not_have_is_refused(serve: Serve, reach: Connect) -> None:
    host = EchoHost()
    caller = Caller(reach(serve(host=host))).started()
    run = host.started.get(timeout=WAIT)
    run.frames.send(Frame(part={}, bulk=[{"field": 9, "size": 5}]))
    with pytest.raises(ProtocolError, match="announces large fields that it does not have"):
        caller.next()
