"""Hosts and callers that die, addresses where nobody is: one clear error, soon, and a new try works."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty

import pytest

from agentmatrix.errors import AgentMatrixError, HostLost, HostUnreachable
from agentmatrix.transport import ServerOptions, connect, listen, parse_target
from agentmatrix.wire.v1.run_pb2 import Frame
from tests.transport.caller import WAIT, Caller
from tests.transport.conftest import ROOT, Connect, Program, Serve
from tests.transport.echo import EchoHost

Start = Callable[..., Program]


def test_a_killed_host_loses_every_run_at_once(program: Start, reach: Connect) -> None:
    host = program()
    transport = reach(host.address)
    callers = [Caller(transport).started() for _ in range(20)]
    host.kill()
    for caller in callers:
        with pytest.raises(HostLost, match=f"host at {host.address} was lost"):
            caller.next()
    assert transport.state == "lost"
    callers[0].say(b"dropped without a word")
    with pytest.raises(HostUnreachable, match="refused; is it running there"):
        Caller(transport).next()


def test_a_host_that_came_back_on_its_port_is_reached_again(program: Start, reach: Connect) -> None:
    first = program()
    transport = reach(first.address)
    caller = Caller(transport).started()
    assert transport.ping(WAIT).result() > 0
    first.kill()
    with pytest.raises(HostLost):
        caller.next()
    with pytest.raises(HostUnreachable):
        transport.ping(WAIT).result()
    program(address=first.address)
    assert transport.ping(WAIT).result() > 0
    assert Caller(transport).started().echo(b"again") == b"again"
    assert transport.state == "connected"


def test_a_killed_caller_is_lost_to_the_host(serve: Serve) -> None:
    host = EchoHost()
    script = """
import sys
from agentmatrix.transport import connect, parse_target
from tests.transport.caller import Caller
transport = connect(parse_target(sys.argv[1]))
callers = [Caller(transport).started() for _ in range(3)]
print("started", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, serve(host=host)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for _ in range(3):
        run, error = host.lost.get(timeout=WAIT)
        assert isinstance(error, HostLost) and "caller at 127.0.0.1:" in str(error)
        run.frames.send(Frame())


def test_nobody_at_the_port(reach: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(HostUnreachable, match="the connection was refused; is it running there"):
            Caller(reach(address, connect_timeout=1000)).next()
        with pytest.raises(HostUnreachable, match="the connection was refused"):
            reach(address, connect_timeout=1000).describe("echo", 1000).result()


def test_no_machine_of_that_name(reach: Connect) -> None:
    with pytest.raises(HostUnreachable, match="no machine of the name in no-such-host.invalid:1 is known"):
        Caller(reach("no-such-host.invalid:1")).next()


@contextmanager
def listener(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Something that listens and is no host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    held.append(connection)
                    answer(connection)
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def test_what_accepts_and_never_answers(reach: Connect) -> None:
    with listener(lambda _: None) as address:
        transport = reach(address, connect_timeout=0.5)
        with pytest.raises(HostUnreachable, match="in time|within 0.5 seconds"):
            Caller(transport).next()
        with pytest.raises(HostUnreachable, match="in time|within 0.3 seconds"):
            transport.describe("echo", 0.3).result()


def test_a_question_that_waits_when_the_connection_goes(program: Start, reach: Connect) -> None:
    host = program()
    for end, open_run in ((0, True), (0, False), (1, True)):
        transport = reach(host.address, headers={"x": f"{end}{open_run}"})
        if open_run:
            Caller(transport).started()
        question = transport.describe("silent", WAIT)
        assert transport.ping(WAIT).result() > 0
        (host.kill if end else transport.close)()
        with pytest.raises((HostLost, HostUnreachable)):
            question.result(WAIT)


class Wire:
    """Stands between a caller and a host, and can stop passing bytes on without closing anything."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.to = (host, int(port))
        self.cut = threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        near, _ = self.server.accept()
        far = socket.create_connection(self.to)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            if not self.cut.is_set():
                sink.sendall(data)


def test_a_silent_stream_lives_and_a_wire_that_was_cut_is_noticed_on_both_sides(
    serve: Serve, reach: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentmatrix.transport import grpc_options

    monkeypatch.setattr(grpc_options, "_PING_EVERY_MS", 200)
    host = EchoHost()
    wire = Wire(serve(host=host))
    silent = Caller(reach(wire.address)).started()
    with pytest.raises(Empty):
        silent.inbox.get(timeout=1.5)
    assert silent.echo(b"x") == b"x"
    silent.finish()
    monkeypatch.setattr(grpc_options, "_PING_ANSWER_MS", 1000)
    wire = Wire(serve(host=host))
    caller = Caller(reach(wire.address)).started()
    wire.cut.set()
    with pytest.raises(HostLost):
        caller.next()
    assert isinstance(host.lost.get(timeout=WAIT)[1], HostLost)


def test_what_speaks_http_1(reach: Connect) -> None:
    with listener(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
        with pytest.raises(HostUnreachable, match="does not speak gRPC; is the port right"):
            Caller(reach(address)).next()


async def test_what_speaks_grpc_but_is_no_host(reach: Connect) -> None:
    import grpc.aio

    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = reach(f"127.0.0.1:{port}")
    with pytest.raises(HostUnreachable, match="is no AgentMatrix host"):
        await asyncio.to_thread(Caller(transport).next)
    with pytest.raises(HostUnreachable, match="is no AgentMatrix host"):
        await asyncio.wrap_future(transport.describe("echo", WAIT))
    await server.stop(0)


def test_a_proxy_variable_does_not_lead_astray(program: Start, reach: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Caller(reach(program().address)).started().echo(b"x") == b"x"


def test_transports_with_equal_options_share_a_connection_and_each_closes_its_own_runs(
    serve: Serve, reach: Connect
) -> None:
    host = EchoHost()
    address = serve(host=host)
    first, second, other = reach(address), reach(f"grpc://{address}"), reach(address, headers={"a": "b"})
    callers = [Caller(transport).started() for transport in (first, second, other)]
    peers = [host.started.get(timeout=WAIT).peer.address for _ in callers]
    assert peers[0] == peers[1] != peers[2]
    first.close()
    with pytest.raises(HostLost, match="closed here"):
        callers[0].next()
    assert host.lost.get(timeout=WAIT)[0].peer.address == peers[0]
    assert callers[1].echo(b"x") == callers[2].echo(b"x") == b"x"
    second.close()
    with pytest.raises(HostLost, match="closed here"):
        callers[1].next()
    assert callers[2].echo(b"x") == b"x"
    assert host.lost.get(timeout=WAIT)[0].peer.address == peers[0]


def test_a_transport_that_nobody_holds_gives_up_its_connection(serve: Serve) -> None:
    host = EchoHost()
    transport = connect(parse_target(serve(host=host)))
    caller = Caller(transport).started()
    caller.frames.close()
    run = host.started.get(timeout=WAIT)
    del transport, caller
    assert host.lost.get(timeout=WAIT)[0] is run


SHUTDOWN = """
import sys, threading
from agentmatrix.transport import ClientOptions, ServerOptions, connect, listen, parse_target
from tests.transport.caller import Caller
from tests.transport.echo import EchoHost
server = listen("127.0.0.1:0", EchoHost(), ServerOptions())
address = server.start()
transport = connect(parse_target(address))
callers = [Caller(transport).started() for _ in range(5)]
callers[0].say(b"x" * (4 << 20))
inproc = listen("inproc://here", EchoHost(), ServerOptions())
Caller(connect(parse_target(inproc.start()))).started()
Caller(connect(parse_target("192.0.2.1:1"), ClientOptions(connect_timeout=1000)))
if sys.argv[1] == "talking":
    def talk():
        while True:
            callers[1].echo(b"y")
    threading.Thread(target=talk, daemon=True).start()
    callers[1].inbox.get()
elif sys.argv[1] == "raising":
    raise RuntimeError("the user's own")
"""


@pytest.mark.parametrize("manner", ["idle", "talking", "raising"])
def test_a_process_ends_with_everything_open_at_once_and_without_noise(manner: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SHUTDOWN, manner], cwd=ROOT, capture_output=True, text=True, timeout=WAIT
    )
    if manner == "raising":
        assert result.returncode == 1 and result.stderr.endswith("RuntimeError: the user's own\n")
        assert result.stderr.count("Traceback") == 1
    else:
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# The parent has gRPC and the I/O thread but no channel: with one, gRPC itself crashes some forked children.
FORKED = """
import multiprocessing
import grpc
from agentmatrix.errors import AddressError, HostUnreachable
from agentmatrix.transport import connect, listen, parse_target
from tests.transport.caller import Caller
from tests.transport.echo import EchoHost
caller = Caller(connect(parse_target(listen("inproc://parent", EchoHost()).start()))).started()
transport = connect(parse_target("127.0.0.1:1"))
def child():
    for attempt in (
        lambda: Caller(transport).next(),
        lambda: Caller(connect(parse_target("127.0.0.1:2"))).next(),
        lambda: transport.ping(5).result(),
        lambda: listen("127.0.0.1:0", EchoHost()).start(),
    ):
        try:
            attempt()
        except (AddressError, HostUnreachable) as error:
            print("'spawn'" in str(error))
    inproc = listen("inproc://child", EchoHost())
    print(Caller(connect(parse_target(inproc.start()))).started().echo(b"x"), flush=True)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
print(caller.echo(b"y"), process.exitcode)
"""


def test_a_forked_process_is_told_to_spawn_and_its_parent_goes_on() -> None:
    result = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, timeout=WAIT)
    assert (result.stdout, result.stderr) == ("True\n" * 4 + "b'x'\nb'y' 0\n", "")


def test_ctrl_c_in_a_host_ends_it(program: Start) -> None:
    host = program()
    host.process.send_signal(signal.SIGINT)
    _, errors = host.process.communicate(timeout=WAIT)
    assert errors.strip().endswith("KeyboardInterrupt")


def test_a_host_that_leaves_without_stopping_loses_its_callers(program: Start, reach: Connect) -> None:
    host = program()
    caller = Caller(reach(host.address)).started()
    host.say("exit")
    with pytest.raises(HostLost):
        caller.next()
    assert host.process.wait(WAIT) == 0


def test_a_stopping_host_in_another_process_takes_its_leave(program: Start, reach: Connect) -> None:
    host = program()
    caller = Caller(reach(host.address)).started()
    host.say("stop")
    assert caller.finish() == b"cancelled"
    assert host.process.wait(WAIT) == 0


def test_closing_and_losing_at_once_tells_each_run_at_most_once(reach: Connect) -> None:
    for _ in range(5):
        server = listen("127.0.0.1:0", EchoHost(), ServerOptions())
        transport = reach(server.start())
        callers = [Caller(transport).started() for _ in range(10)]
        ending = [threading.Thread(target=server.stop, args=(0,)), threading.Thread(target=transport.close)]
        for thread in ending:
            thread.start()
        for caller in callers:
            with pytest.raises(AgentMatrixError):
                caller.next()
        for thread in ending:
            thread.join(WAIT)
        assert all(caller.inbox.empty() for caller in callers)


def test_a_run_that_was_not_yet_sent_is_unreachable_not_lost(reach: Connect) -> None:
    server = listen("127.0.0.1:0", EchoHost(), ServerOptions())
    transport = reach(server.start())
    begun, waiting = Caller(transport).started(), Caller(transport, start=False)
    server.stop(0)
    with pytest.raises(HostLost):
        begun.next()
    with pytest.raises(HostUnreachable, match="before it had got this run"):
        waiting.next()
