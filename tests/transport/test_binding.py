"""Where a host may stand: ports, sockets, names; and what it answers to the usual probes."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from agentmatrix.errors import AddressError
from agentmatrix.transport import ServerOptions, connect, listen, parse_target
from tests.transport.caller import WAIT, Caller
from tests.transport.conftest import Connect, Program, Serve
from tests.transport.echo import EchoHost


def attempt(address: str) -> str:
    """Why this cannot be bound."""
    with pytest.raises(AddressError) as caught:
        listen(address, EchoHost(), ServerOptions()).start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "grpc://127.0.0.1:0", "[::1]:0"])
def test_the_address_that_was_bound_can_be_called(address: str, serve: Serve, reach: Connect) -> None:
    bound = serve(address)
    assert not bound.endswith(":0")
    assert Caller(reach(f"{bound}/echo")).started().echo(b"x") == b"x"


def test_a_port_in_use(program: Callable[..., Program]) -> None:
    taken = program().address
    host, port = taken.split(":")
    for address in (taken, f"localhost:{port}"):
        assert attempt(address) == (
            f"port {port} on {host} is in use; choose another (--port), or stop what listens there"
        )
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        assert "is in use" in attempt(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_port_is_free_again_after_the_stop(reach: Connect) -> None:
    address = "127.0.0.1:0"
    for _ in range(3):
        server = listen(address, EchoHost(), ServerOptions())
        address = server.start()
        assert Caller(reach(address)).started().echo(b"x") == b"x"
        server.stop(0)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1", "has no port"),
        ("127.0.0.1:65536", "not a port"),
        ("127.0.0.1:1/agent", "no address to bind"),
        ("unix:", "1 to 103 bytes"),
        ("unix:/" + "x" * 200, "1 to 103 bytes"),
        ("unix:/no/such/folder/x.sock", "No such file or directory"),
        ("inproc://", "cannot be the name of a host"),
    ],
)
def test_addresses_that_cannot_be_bound(address: str, sentence: str) -> None:
    assert sentence in attempt(address)


@pytest.mark.parametrize(
    ("address", "sentence"), [("192.0.2.7:0", "is no address of this machine"), ("no-such.invalid:0", "is known")]
)
def test_addresses_of_other_machines(address: str, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence):
        listen(address, EchoHost(), ServerOptions(insecure=True)).start()


def test_a_unix_socket_serves_one_host_and_only_its_owner(
    tmp_path: Path, program: Callable[..., Program], reach: Connect
) -> None:
    path = tmp_path / "x.sock"
    host = program(address=f"unix:{path}")
    assert host.address == f"unix:{path}"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert Caller(reach(f"{host.address}/echo")).started().finish() == b"cancelled"
    assert "in use by another host" in attempt(host.address)
    host.say("stop")
    assert host.process.wait(WAIT) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_a_killed_host_left_is_taken_over(
    tmp_path: Path, program: Callable[..., Program], serve: Serve, reach: Connect
) -> None:
    killed = program(address=f"unix:{tmp_path}/x.sock")
    killed.kill()
    assert (tmp_path / "x.sock").exists()
    assert Caller(reach(serve(killed.address))).started().echo(b"x") == b"x"


def test_a_name_in_this_process_serves_one_host(serve: Serve) -> None:
    serve("inproc://only")
    assert "in use by another host of this process" in attempt("inproc://only")


def test_health_probes(reach: Connect) -> None:
    server = listen("127.0.0.1:0", EchoHost(), ServerOptions())
    with grpc.insecure_channel(server.start()) as channel:
        server.ready()
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        named = b"\x0a\x1d" + b"agentmatrix.wire.v1.AgentHost"
        assert check(b"", timeout=WAIT) == check(named, timeout=WAIT) == b"\x08\x01"
        for unknown in (b"\x0a\x05other", b"nonsense"):
            with pytest.raises(grpc.RpcError) as caught:
                check(unknown, timeout=WAIT)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
            assert next(watch(unknown, timeout=WAIT)) == b"\x08\x03"
        watching = watch(b"", timeout=WAIT)
        assert next(watching) == b"\x08\x01"
        server.stop(0)
        assert next(watching) == b"\x08\x02"


def test_building_and_connecting_touches_no_network_and_reads_no_name() -> None:
    transport = connect(parse_target("no-such-host.invalid:50051/x"))
    assert transport.state == "idle"
    transport.close()
