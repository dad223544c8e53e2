"""A host in a process of its own that can be killed, and a TCP proxy in front of it that makes faults."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Self

from agentmatrix import RemoteAgent
from tests.attacks import hosted
from tests.attacks.kit import rss
from tests.forked import Forked

__all__ = ["FaultyProxy", "HostProcess"]


class HostProcess:
    """A host in a process of its own, which is killed at the end of a `with`.

    Args:
        graphs: makes its graphs; a function of a module.
        port: where it serves; by default any free port.
        options: of `Host`.
    """

    def __init__(
        self, graphs: Callable[[], dict[str, Any]] = hosted.ordinary, *, port: int = 0, **options: Any
    ) -> None:
        self.token: str | None = options.get("token")
        self._process = Forked(hosted.serve, graphs, f"127.0.0.1:{port}", options)
        line = self._process.stdout.readline().split()
        if len(line) != 2:
            raise RuntimeError(f"the host did not start: {self._process.stderr.read()}")
        self.address, self.pid = line[0], int(line[1])
        self._errors: list[str] = []
        # A pipe that nobody reads would stop the host.
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def _read_errors(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            self._errors.extend(self._process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def kill(self) -> None:
        """Kill it as `kill -9` does, and wait for its end. Idempotent."""
        with self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(60)
            self._reader.join(60)

    def terminate(self) -> None:
        """Send it SIGTERM: it drains."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float) -> int:
        return self._process.wait(timeout)

    def is_alive(self) -> bool:
        return rss(self.pid) >= 0

    def rss(self) -> int:
        """Its memory in MB."""
        return rss(self.pid)

    def errors(self) -> str:
        """What it has written to stderr."""
        return "".join(self._errors)

    def remote(self, agent: str, **options: Any) -> RemoteAgent:
        """One of its agents, for an honest caller."""
        return RemoteAgent(f"{self.address}/{agent}", api_key=self.token, **options)

    def stats(self) -> dict[str, int]:
        """Its `process_stats`; the run that asks is among the runs."""
        return dict(self.remote("stats", timeout=60).invoke({})["text"])


class FaultyProxy:
    """A TCP proxy whose faults are switched by attributes while it runs, until the end of a `with`.

    Args:
        port: where it leads to, on this machine.

    Attributes:
        port: where it listens.
        stalls: nothing is forwarded.
        stalls_up: nothing is forwarded from the caller to the host.
        delay: seconds before data is forwarded.
        rate: bytes a second; 0 for no limit.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.stalls = self.stalls_up = False
        self.delay, self.rate = 0.0, 0
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.port = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _open(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._pairs.append((writer, far_writer))
        ways = self._pump(reader, far_writer, is_up=True), self._pump(far_reader, writer, is_up=False)
        await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        try:
            while data := await reader.read(max(1, self.rate // 10) if self.rate else 65536):
                while self.stalls or (is_up and self.stalls_up):
                    await asyncio.sleep(0.05)
                await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0.0))
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for pair in self._pairs:
            for writer in pair:
                with contextlib.suppress(OSError, AttributeError):
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
        self._pairs.clear()
