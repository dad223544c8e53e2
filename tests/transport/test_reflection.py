"""Tools that know gRPC and nothing of us find the services of a host, with the token if it wants one."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from agentmatrix.transport import ServerOptions, listen
from agentmatrix.transport.reflection import METHOD, SERVICES
from tests.transport.echo import EchoHost

WAIT = 60


def field(number: int, value: str) -> bytes:
    """A request with one field, as another program writes it."""
    data = value.encode()
    return bytes([number << 3 | 2, len(data)]) + data


def parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that are bytes."""
    at = 0
    while at < len(data):
        number, at = data[at] >> 3, at + 1
        size = shift = 0
        while True:
            size, shift, at = size | (data[at] & 0x7F) << shift, shift + 7, at + 1
            if not data[at - 1] & 0x80:
                break
        yield number, data[at : at + size]
        at += size


@pytest.fixture
def channel() -> Iterator[grpc.Channel]:
    server = listen("127.0.0.1:0", EchoHost(), ServerOptions(token="secret"))
    with grpc.insecure_channel(server.start()) as channel:
        yield channel
    server.stop(0)


def ask(channel: grpc.Channel, service: str, *requests: bytes, token: str = "secret") -> list[dict[int, bytes]]:
    call = channel.stream_stream(f"/{service}/{METHOD}")
    metadata = (("authorization", f"Bearer {token}"),)
    return [dict(parts(answer)) for answer in call(iter(requests), timeout=WAIT, metadata=metadata)]


@pytest.mark.parametrize("service", SERVICES)
def test_the_services_are_listed_and_described(channel: grpc.Channel, service: str) -> None:
    (listed,) = ask(channel, service, field(7, "*"))
    names = [dict(parts(item))[1].decode() for _, item in parts(listed[6])]
    assert names[:2] == ["agentmatrix.wire.v1.AgentHost", "grpc.health.v1.Health"] and set(SERVICES) < set(names)
    pool = DescriptorPool()
    for name in names:  # a tool that knows nothing builds all of it from the answers
        (answer,) = ask(channel, service, field(4, name))
        assert answer[2]  # the request is in it
        call = channel.stream_stream(f"/{service}/{METHOD}")
        (raw,) = call(iter([field(4, name)]), timeout=WAIT, metadata=(("authorization", "Bearer secret"),))
        files = [content for number, response in parts(raw) if number == 4 for _, content in parts(response)]
        for file in reversed(files):
            pool.Add(FileDescriptorProto.FromString(file))  # type: ignore[no-untyped-call]
        assert pool.FindServiceByName(name).methods
    check = pool.FindMethodByName("grpc.health.v1.Health.Check")
    assert check.output_type.fields_by_name["status"].enum_type.values_by_name["NOT_SERVING"].number == 2


def test_what_is_not_there_is_said_and_the_stream_goes_on(channel: grpc.Channel) -> None:
    requests = field(4, "no.such.Symbol"), field(3, "gone.proto"), b"\xff\xff", b"", field(7, "")
    *missing, listed = ask(channel, SERVICES[0], *requests)
    assert [answer[7][1] for answer in missing] == [5, 5, 3, 5] and 6 in listed


def test_a_stranger_learns_nothing(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, SERVICES[0], field(7, "*"), token="guess")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
