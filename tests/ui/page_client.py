"""A page on a real port, and a browser's half of it without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from agentmatrix.ui.graph_catalog import CatalogGraph
from agentmatrix.ui.page_run import PageRun
from agentmatrix.ui.page_server import PageServer

__all__ = ["PageClient", "page", "wait_for"]


class PageClient:
    """Speaks with a page as its own scripts do."""

    def __init__(self, server: PageServer) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.base_url, timeout=100, trust_env=False)
        self.http.get(f"/?token={server.token}").raise_for_status()

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        origin = {"origin": self.server.base_url}
        return self.http.post(path, json={} if body is None else body, headers={**origin, **headers})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def start(self, graph: str, **given: Any) -> PageRun:
        """Start a run."""
        answer = self.post("/api/runs", {"graph": graph, **({"text": "Shall we?"} if not given else given)})
        assert answer.status_code == 201, answer.text
        run = self.server.runs.get(answer.json()["run"])
        assert run is not None
        return run

    def act(self, run: PageRun, action: str, **given: Any) -> httpx.Response:
        return self.post(f"/api/runs/{run.id}/{action}", given)

    def messages(self, run: str, last_id: str | None = None) -> Iterator[tuple[str, str, Any]]:
        """Event, id and data of what the stream sends; it ends with the server."""
        headers = {} if last_id is None else {"last-event-id": last_id}
        with self.http.stream("GET", f"/api/events?run={run}", headers=headers) as answer:
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    yield fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])
                    fields = {}


@contextmanager
def page(*graphs: CatalogGraph, **options: Any) -> Iterator[PageClient]:
    """A page on a free port, and its client."""
    with PageServer(graphs, address="127.0.0.1:0", **options) as server:
        client = PageClient(server)
        try:
            yield client
        finally:
            client.http.close()


def entry(name: str, graph: Any) -> CatalogGraph:
    return CatalogGraph(name, f"desk:{name}", lambda: graph)


def wait_for(client: PageClient, run: PageRun, condition: Callable[[], bool]) -> None:
    """Wait, by the stream of the run, until something holds."""
    for _ in client.messages(run.id):
        if condition():
            return
    raise AssertionError("the page has ended")
