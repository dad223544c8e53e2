"""The page on a port of this machine, served from a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from agentmatrix.errors import AddressError, MissingExtra
from agentmatrix.transport.binding import check_exposure
from agentmatrix.transport.options import ServerOptions
from agentmatrix.transport.target import split_port

try:
    import uvicorn

    from agentmatrix.ui.access import PageAccess, new_token
    from agentmatrix.ui.app import PageApp
    from agentmatrix.ui.event_stream import EventStreams
except ImportError:
    raise MissingExtra("ui: pip install starlette uvicorn sse-starlette") from None

from agentmatrix.ui.graph_catalog import CatalogGraph, GraphCatalog
from agentmatrix.ui.remote_runs import RemoteRuns
from agentmatrix.ui.run_actions import RunActions
from agentmatrix.ui.run_driver import RunDriver
from agentmatrix.ui.run_files import RunFiles
from agentmatrix.ui.runs import RunStore
from agentmatrix.watch.page_connection import stop_reporting, token_path

__all__ = ["PageServer"]

logger = logging.getLogger("agentmatrix")

_EXPIRE_SECONDS: Final = 5.0


class PageServer:
    """Serves the page. A context manager.

    Args:
        graphs: that can be run on it.
        address: `host:port`; port 0 takes a free one.
        token: that the first URL carries; None makes one.
        certificate, private_key: PEM files, for TLS.
        reloads: whether graphs are loaded again when a file of their project changes.
        folder: where all runs are kept; by default the last ones are kept in memory.

    Attributes:
        url: that a browser is opened with; it carries the token.
        runs: the runs of the page.

    Raises:
        AddressError: the address cannot be understood or bound, or others can reach it without TLS and a token.
        MissingExtra: the extra `ui` is not installed.
    """

    def __init__(
        self,
        graphs: Iterable[CatalogGraph] = (),
        *,
        address: str = "127.0.0.1:8321",
        token: str | None = None,
        certificate: Path | None = None,
        private_key: Path | None = None,
        reloads: bool = False,
        folder: Path | None = None,
    ) -> None:
        host, port = split_port(address.removeprefix("http://").removeprefix("https://"), address, lowest=0)
        check_exposure(host, ServerOptions(token=token, certificate=certificate, private_key=private_key))
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.token = token or new_token()
        self.runs = RunStore(files=None if folder is None else RunFiles(folder))
        self.catalog = GraphCatalog(graphs, reloads=reloads, on_change=self.runs.touch)
        self.runs.graph_of = self._compiled
        is_tls = certificate is not None
        shown = f"[{host}]" if ":" in host else host
        self.base_url = f"{'https' if is_tls else 'http'}://{shown}:{self.port}"
        self.driver = RunDriver(self.base_url)
        self.runs.on_drop = self.driver.forget
        self.actions = RunActions(self.runs, self.catalog, self.driver)
        self.remote_runs = RemoteRuns(self.runs)
        self._streams = EventStreams(self.runs, self.catalog.describe)
        app = PageApp(self.catalog, self.actions, self._streams, self.remote_runs).routes()
        access = PageAccess(app, self.token, host, self.port, is_tls=is_tls)
        self.url = f"{self.base_url}/?token={self.token}"
        config = uvicorn.Config(
            access,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=3,
            ssl_certfile=certificate,
            ssl_keyfile=private_key,
        )
        self._server = _UvicornServer(config)
        self._thread = threading.Thread(target=self._serve, name="agentmatrix-ui", daemon=True)
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _compiled(self, name: str) -> Any:
        entry = self.catalog.get(name)
        return None if entry is None else entry.graph

    def start(self) -> Self:
        """Serve, and load the graphs. Returns when the page can be opened."""
        self._thread.start()
        self._server.is_up.wait()
        if _is_own_page(os.environ.get("AGENTMATRIX_UI", ""), self.port):
            stop_reporting()
        self._write_token()
        self.catalog.open()
        threading.Thread(target=self._expire, name="agentmatrix-ui-processes", daemon=True).start()
        return self

    def _expire(self) -> None:
        while not self._stopped.wait(_EXPIRE_SECONDS):
            self.remote_runs.expire()

    def _write_token(self) -> None:
        """Programs of the same user find the token by the port. Where it cannot be written, they need it in the URL."""
        path = token_path(self.port)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(self.token)
        except OSError as error:
            logger.warning("%s cannot be written (%s): AGENTMATRIX_UI needs the token in it", path, error.strerror)

    def stop(self) -> None:
        """Cut off what is at work, and serve no more."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            if token_path(self.port).read_text() == self.token:
                token_path(self.port).unlink()
        self.catalog.close()
        self.driver.close()
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._streams.close)
        self._server.should_exit = True
        self._thread.join(10)

    def _serve(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        try:
            asyncio.run(serve())
        finally:
            self._server.is_up.set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _UvicornServer(uvicorn.Server):
    """Leaves signals to the program."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


def _is_own_page(url: str, port: int) -> bool:
    """Whether the variable names this page: it shows the runs of its process by itself."""
    return url.startswith("http") and urlsplit(url).port == port


def _bound(host: str, port: int) -> socket.socket:
    shown = f"{host}:{port}"
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressError(f"{shown} cannot be bound: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(name)
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"port {port} on {host} is in use: choose another one (0 takes any), or stop what listens there"
            ) from None
        raise AddressError(f"{shown} cannot be bound: {error.strerror}") from None
    return bound
