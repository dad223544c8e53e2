"""The runs of this process on the page of another one: `AGENTMATRIX_UI=http://127.0.0.1:8321`, `watching(ui=...)`."""

from __future__ import annotations

import atexit
import functools
import ipaddress
import json
import logging
import os
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from agentmatrix.errors import AddressError
from agentmatrix.watch.hooks import hook_process
from agentmatrix.watch.run_reporter import RunReporter

__all__ = ["page_reporter", "report_process", "stop_reporting", "token_path"]

logger = logging.getLogger("agentmatrix")

_TIMEOUT: Final = 10.0
_LAST_SECONDS: Final = 3.0
"""How long the end of the process waits until all is told."""


def token_path(port: int) -> Path:
    """Where a page at this port keeps its token for programs of the same user."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache"
    return Path(folder) / "agentmatrix" / f"page-{port}.token"


class _PageConnection:
    """Posts to a page.

    Args:
        url: of the page, with `?token=` or without.

    Raises:
        AddressError: it is no such address, or the token would cross the network as it is.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AddressError(f"{url!r} is no address of a page: write http://127.0.0.1:8321")
        if parts.scheme == "http" and not _is_this_machine(parts.hostname):
            raise AddressError(f"{parts.hostname} is another machine: its page needs https, so that the token is kept")
        self.base = f"{parts.scheme}://{parts.netloc}"
        self._token = parse_qs(parts.query).get("token", [""])[0]
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._process = uuid.uuid4().hex
        self._has_failed = False
        # An http_proxy variable would send even loopback calls to the proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def deliver(self, lines: list[dict[str, Any]], *, is_last: bool = False) -> None:
        """Send what was recorded. A page that is not there changes nothing: it is logged, once."""
        body = {"process": self._process, "source": _source(), "lines": lines, "isLast": is_last}
        token = self._token or _read(token_path(self._port))
        request = urllib.request.Request(
            f"{self.base}/api/reports",
            data=json.dumps(body, ensure_ascii=False, default=repr).encode("utf-8", "backslashreplace"),
            headers={"content-type": "application/json", "authorization": f"Bearer {token}"},
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT):
                self._has_failed = False
        except (OSError, ValueError) as error:
            if not self._has_failed:
                self._has_failed = True
                logger.warning("the page at %s does not take the runs of this process: %s", self.base, error)


@functools.cache
def page_reporter(url: str) -> RunReporter:
    """The reporter of this process for a page.

    Raises:
        AddressError: it is no address of a page.
    """
    connection = _PageConnection(url)
    reporter = RunReporter(connection.deliver, connection.base)

    def end() -> None:
        reporter.flush(_LAST_SECONDS)
        if reporter.has_told:
            connection.deliver([], is_last=True)

    atexit.register(end)
    return reporter


def report_process(url: str) -> None:
    """Tell a page of all runs of this process, whoever starts them. What is wrong is logged."""
    try:
        hook_process(page_reporter(url).recorder)
    except AddressError as error:
        logger.warning("AGENTMATRIX_UI: %s", error)


def stop_reporting() -> None:
    """This process has a page itself."""
    hook_process(None)


def _source() -> str:
    return f"{Path(sys.argv[0]).name or 'python'}, process {os.getpid()}"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
