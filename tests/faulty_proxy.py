"""A TCP proxy between a caller and a host whose faults are switched while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Self

__all__ = ["FaultyProxy"]


class FaultyProxy:
    """Forwards connections until the end of a `with`.

    Args:
        to: the address that it leads to.
        port: where it listens; by default any free port.

    Attributes:
        address: where it listens.
        accepted: how many connections it has had.
        held: bytes that it has read and not forwarded, while it stalls.
        stalls: nothing is forwarded, either way, and nothing is closed: a half-open connection.
        stalls_up: nothing is forwarded from the caller to the host.
        refuses: new connections are reset at once.
        delay: seconds before data is forwarded.
        rate: bytes a second; 0 for no limit.
    """

    def __init__(self, to: str, *, port: int = 0) -> None:
        host, _, far_port = to.rpartition(":")
        self._to = host, int(far_port)
        self.stalls = self.stalls_up = self.refuses = False
        self.delay, self.rate = 0.0, 0
        self.accepted = self.held = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.address = asyncio.run_coroutine_threadsafe(self._open(port), self._loop).result(60)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _open(self, port: int) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        self.stalls = self.stalls_up = False
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            await self._cut()
            await asyncio.wait(rest, timeout=0.1)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        ways = self._pump(reader, far_writer, is_up=True), self._pump(far_reader, writer, is_up=False)
        await asyncio.gather(*ways, return_exceptions=True)
        self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(max(1, self.rate // 10) if self.rate else 65536):
                self.held += len(data)
                while (self.stalls or (is_up and self.stalls_up)) and not writer.is_closing():
                    await asyncio.sleep(0.02)
                self.held -= len(data)
                await asyncio.sleep(self.delay + (len(data) / self.rate if self.rate else 0.0))
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Reset every connection, on both sides; returns when that is done."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(60)

    async def _cut(self) -> None:
        for writer in self._writers:
            with contextlib.suppress(OSError, AttributeError):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._writers.clear()
