"""Who may connect, what may cross in the clear, and what a user reads when a certificate does not fit."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
import trustme

from agentmatrix.errors import AddressError, HostUnreachable, Unauthenticated
from agentmatrix.transport import ClientOptions, ServerOptions, connect, listen, parse_target
from tests.transport.caller import WAIT, Caller
from tests.transport.conftest import Connect, Serve
from tests.transport.echo import EchoHost


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_authority() -> trustme.CA:
    return trustme.CA()


def pem(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def pair(authority: trustme.CA, *names: str) -> dict[str, bytes]:
    leaf = authority.issue_cert(*names)
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return {"certificate": chain, "private_key": leaf.private_key_pem.bytes()}


def test_tls_with_certificates_from_bytes_files_or_ready_credentials(
    authority: trustme.CA, serve: Serve, reach: Connect, tmp_path: Path
) -> None:
    files = {}
    for name, data in pair(authority, "127.0.0.1").items():
        (tmp_path / name).write_bytes(data)
        files[name] = str(tmp_path / name)
    authority.cert_pem.write_to_path(tmp_path / "ca")
    address = serve(token="secret", **files)
    ready = grpc.ssl_channel_credentials(pem(authority))
    for options in (
        {"root_certificates": pem(authority)},
        {"root_certificates": tmp_path / "ca"},
        {"credentials": ready},
    ):
        caller = Caller(reach(f"grpcs://{address}", token="secret", **options)).started()
        assert caller.echo(b"x" * 300_000) == b"x" * 300_000
    # An authority of one's own says TLS without the scheme.
    assert reach(address, token="secret", root_certificates=pem(authority)).ping(WAIT).result() > 0


def test_mutual_tls_gives_the_host_the_callers_names(authority: trustme.CA, serve: Serve, reach: Connect) -> None:
    host = EchoHost()
    address = serve(host=host, client_ca=pem(authority), **pair(authority, "127.0.0.1"))
    transport = reach(address, root_certificates=pem(authority), **pair(authority, "planner.example.org"))
    Caller(transport).started()
    assert "planner.example.org" in host.started.get(timeout=WAIT).peer.identity


def test_without_certificates_a_caller_has_no_identity(serve: Serve, reach: Connect) -> None:
    host = EchoHost()
    Caller(reach(serve(host=host))).started()
    assert host.started.get(timeout=WAIT).peer.identity == ()


def refused(transport: object) -> str:
    """The one sentence of a run and of a question that cannot be had."""
    with pytest.raises(HostUnreachable) as of_question:
        transport.describe("echo", WAIT).result()  # type: ignore[attr-defined]
    with pytest.raises(HostUnreachable) as of_run:
        Caller(transport).next()  # type: ignore[arg-type]
    assert str(of_run.value) == str(of_question.value) and "\n" not in str(of_run.value)
    return str(of_run.value)


def test_what_does_not_fit_is_said_in_one_sentence(
    authority: trustme.CA, other_authority: trustme.CA, serve: Serve, reach: Connect
) -> None:
    plain, tls = serve(), serve(**pair(authority, "127.0.0.1"))
    elsewhere = serve(**pair(authority, "elsewhere.example.org"))
    mutual = serve(client_ca=pem(authority), **pair(authority, "127.0.0.1"))
    trust = {"root_certificates": pem(authority)}
    assert "does it want TLS (grpcs://)?" in refused(reach(tls))
    assert "does not speak TLS; use grpc://" in refused(reach(plain, **trust))
    assert "not from an authority that is trusted here" in refused(reach(tls, root_certificates=pem(other_authority)))
    assert "is for another name" in refused(reach(elsewhere, **trust))
    assert reach(elsewhere, server_name="elsewhere.example.org", **trust).ping(WAIT).result() > 0
    assert "does it want a certificate from this caller?" in refused(reach(mutual, **trust))
    assert "must be PEM" in refused(reach(tls, root_certificates=b"no certificate"))
    assert "closed the connection" in refused(reach(mutual, **trust, **pair(other_authority, "x.example.org")))


def test_a_token_does_not_cross_a_network_in_the_clear(reach: Connect) -> None:
    with pytest.raises(AddressError, match="in the clear") as caught:
        reach("gpu-box:50051", token="secret")
    assert "secret" not in str(caught.value)
    assert reach("gpu-box:50051", token="secret", insecure=True).state == "idle"
    assert reach("grpcs://gpu-box:50051", token="secret").state == "idle"
    for near in ("localhost:1", "[::1]:1", "127.0.0.2:1", "unix:/run/x.sock"):
        assert reach(near, token="secret").state == "idle"


@pytest.mark.parametrize("options", [{"token": "a\nb"}, {"headers": {"a b": "c"}}, {"headers": {"grpc-x": "c"}}])
def test_headers_that_cannot_be_sent(options: dict[str, object]) -> None:
    with pytest.raises(AddressError):
        connect(parse_target("localhost:1"), ClientOptions(**options))


def test_secrets_do_not_show(authority: trustme.CA) -> None:
    keys = pair(authority, "x")
    options = (
        ClientOptions(token="tell-nobody", headers={"x": "tell-nobody"}, **keys),
        ServerOptions(token="tell-nobody", **keys),
    )
    assert not re.search("tell-nobody|PRIVATE", repr(options))


def test_every_call_wants_the_token_but_health_checks(serve: Serve) -> None:
    address = serve(token="secret")
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=WAIT) == b"\x08\x01"
        for method in ("AgentHost/Describe", "AgentHost/ListAgents", "AgentHost/Nonsense", "Other/Thing"):
            for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "secret"),)):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(f"/agentmatrix.wire.v1.{method}")(b"", timeout=WAIT, metadata=metadata)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        stream = channel.stream_stream("/agentmatrix.wire.v1.AgentHost/Converse")(iter([b""]), timeout=WAIT)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:0", "gpu-box:0"])
def test_an_address_that_others_reach_wants_tls_and_a_token(address: str, authority: trustme.CA) -> None:
    keys = pair(authority, "localhost")
    for options, missing in (
        ({}, r"TLS \(a certificate and its key\) and a token"),
        ({"token": "secret"}, r"add TLS \(a certificate and its key\),"),
        (keys, "add a token,"),
    ):
        with pytest.raises(AddressError, match=missing) as caught:
            listen(address, EchoHost(), ServerOptions(**options)).start()
        assert "can be reached from other machines" in str(caught.value)


def test_an_address_that_others_reach_is_bound_with_tls_and_a_token_or_when_told(
    authority: trustme.CA, serve: Serve, reach: Connect
) -> None:
    keys = pair(authority, "127.0.0.1")
    port = serve("0.0.0.0:0", token="secret", **keys).rpartition(":")[2]
    trust = {"root_certificates": pem(authority)}
    assert reach(f"127.0.0.1:{port}", token="secret", **trust).ping(WAIT).result() > 0
    with pytest.raises(Unauthenticated):
        reach(f"127.0.0.1:{port}", **trust).ping(WAIT).result()
    port = serve("0.0.0.0:0", insecure=True).rpartition(":")[2]
    assert reach(f"127.0.0.1:{port}").ping(WAIT).result() > 0


def test_certificates_that_cannot_be_used(authority: trustme.CA, tmp_path: Path) -> None:
    keys = pair(authority, "127.0.0.1")
    for options, sentence in (
        ({"certificate": keys["certificate"]}, "the private key is missing"),
        ({"private_key": keys["private_key"]}, "the certificate is missing"),
        ({"client_ca": pem(authority)}, "needs the host's own certificate"),
        ({**keys, "certificate": str(tmp_path / "none")}, "No such file"),
    ):
        with pytest.raises(AddressError, match=sentence):
            listen("127.0.0.1:0", EchoHost(), ServerOptions(**options))
    with pytest.raises(AddressError, match="cannot be used"):
        listen("127.0.0.1:0", EchoHost(), ServerOptions(certificate=b"nonsense", private_key=b"nonsense")).start()
    with pytest.raises(AddressError, match="takes a grpc.ChannelCredentials"):
        connect(parse_target("localhost:1"), ClientOptions(credentials="secret"))
