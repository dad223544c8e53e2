"""The page of `agentmatrix serve --ui`: what callers run on the host, and its graphs to be run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentmatrix import Host
    from agentmatrix.ui.page_server import PageServer

__all__ = ["served_page"]

_logger = logging.getLogger("agentmatrix.host")


def served_page(
    address: str, *, certificate: Path | None, private_key: Path | None, token: str | Path | None
) -> Callable[[Host], AbstractContextManager[None]]:
    """The page of a host that has started. Its port is bound now, so that errors come before the host serves.

    Args:
        address: `host:port` of the page.
        certificate, private_key: of the host, for a page that other machines reach.
        token: of the host; a page that other machines reach has the same.
    """
    from agentmatrix.transport.target import is_loopback
    from agentmatrix.ui.page_server import PageServer

    is_near = is_loopback(address.rpartition(":")[0].strip("[]"))
    text = token.read_text().strip() if isinstance(token, Path) else token
    server = PageServer(
        address=address,
        token=None if is_near else text,
        certificate=None if is_near else certificate,
        private_key=None if is_near else private_key,
    )
    return partial(_page, server, text, certificate is not None)


@contextmanager
def _page(server: PageServer, token: str | None, is_tls: bool, host: Host) -> Iterator[None]:
    from agentmatrix.ui.graph_catalog import CatalogGraph
    from agentmatrix.watch.hooks import hook_process
    from agentmatrix.watch.run_reporter import RunReporter

    def deliver(lines: list[dict[str, Any]]) -> None:
        try:
            server.remote_runs.take("host", "for callers of this host", lines)
        except Exception:
            _logger.exception("the page does not take what runs on this host")

    if not is_tls:
        # By its address, so that these runs wait for their turn as those of others.
        for name in host.graphs:
            target = f"{host.address}/{name}"
            server.catalog.add(CatalogGraph(name, target, partial(_agent, target, token), is_remote=True))
    hook_process(RunReporter(deliver, server.base_url).recorder)
    try:
        with server:
            print(f"the page is at {server.url}", flush=True)
            yield
    finally:
        hook_process(None)


def _agent(target: str, token: str | None) -> Any:
    from agentmatrix import RemoteAgent

    agent = RemoteAgent(target, token=token)
    _ = agent.card
    return agent
