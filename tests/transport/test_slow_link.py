"""A link that is slow is no enemy: a large value passes while the pings, which nobody may miss, pass beside it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from agentmatrix.transport import grpc_options
from tests.transport.caller import Caller
from tests.transport.conftest import Connect, Serve


class ThrottledProxy:
    """Forwards what comes over TCP, so many bytes a second each way.

    Attributes:
        address: where it listens.
        rate: bytes a second; 0 for no limit.
    """

    def __init__(self, to: str) -> None:
        host, _, port = to.rpartition(":")
        self._to, self.rate = (host, int(port)), 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            self._sockets += [near, far]
            for way in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=way, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(max(1, self.rate // 20) if self.rate else 65536):
                time.sleep(len(data) / self.rate if self.rate else 0)  # the link, not a wait for anything
                sink.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        for end in self._sockets:
            end.close()


@pytest.fixture
def pings_that_end_a_connection_soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(grpc_options, "_PING_EVERY_MS", 1000)
    monkeypatch.setattr(grpc_options, "_PING_ANSWER_MS", 3300)
    yield


@pytest.mark.usefixtures("pings_that_end_a_connection_soon")
def test_a_value_that_takes_longer_than_a_ping_may_arrives(serve: Serve, reach: Connect) -> None:
    proxy = ThrottledProxy(serve())
    try:
        caller = Caller(reach(proxy.address)).started()
        proxy.rate = 1_200_000
        value = bytes(range(256)) * 18_000  # 4.6 MB: without a bound its last byte is 4 seconds behind its first
        assert caller.echo(value) == value
        proxy.rate = 0
        assert caller.echo(b"quick") == b"quick"
    finally:
        proxy.close()
