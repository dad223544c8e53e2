"""The routes of the page: its files, the stream of what changes, and what a person does."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentmatrix.ui.checked_input import InputError
from agentmatrix.ui.event_stream import EventStreams
from agentmatrix.ui.graph_catalog import GraphCatalog
from agentmatrix.ui.opened_picture import opened_picture
from agentmatrix.ui.page_run import PageRun
from agentmatrix.ui.remote_runs import RemoteRuns
from agentmatrix.ui.run_actions import ActionError, RunActions

__all__ = ["PageApp"]

_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class PageApp:
    """The page as an ASGI application, without its protection.

    Args:
        catalog: the graphs.
        actions: what a person does.
        streams: what has changed.
        remote_runs: take what other processes tell.
    """

    def __init__(
        self, catalog: GraphCatalog, actions: RunActions, streams: EventStreams, remote_runs: RemoteRuns
    ) -> None:
        self._catalog, self._actions, self._streams, self._remote_runs = catalog, actions, streams, remote_runs
        self._files = {
            file.name: (file.read_bytes(), _TYPES[f".{file.name.rpartition('.')[2]}"])
            for file in files("agentmatrix.ui").joinpath("static").iterdir()
            if f".{file.name.rpartition('.')[2]}" in _TYPES
        }

    def routes(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/static/{name}", self._file),
                Route("/api/events", self._events),
                Route("/api/runs", self._start, methods=["POST"]),
                Route("/api/runs/{id}/items/{index:int}", self._item),
                Route("/api/runs/{id}/picture", self._run_picture),
                Route("/api/runs/{id}/history", self._history),
                Route("/api/runs/{id}/{action}", self._act, methods=["POST"]),
                Route("/api/reports", self._report, methods=["POST"]),
                Route("/api/graphs/{name}/picture", self._graph_picture),
                Route("/api/graphs/{name}/reload", self._reload, methods=["POST"]),
            ],
            exception_handlers={ActionError: _refused, InputError: _refused},
        )

    async def _page(self, request: Request) -> Response:
        return self._static("page.html")

    async def _file(self, request: Request) -> Response:
        return self._static(request.path_params["name"])

    def _static(self, name: str) -> Response:
        if name not in self._files:
            return JSONResponse({"error": f"there is no {name}"}, 404)
        content, kind = self._files[name]
        return Response(content, media_type=kind)

    async def _events(self, request: Request) -> Response:
        return self._streams.response(request.query_params.get("run", ""), request.headers.get("last-event-id"))

    async def _start(self, request: Request) -> Response:
        run = await run_in_threadpool(self._actions.start, await _body(request))
        return JSONResponse({"run": run.id}, 201)

    async def _act(self, request: Request) -> Response:
        run = self._actions.run(request.path_params["id"])
        given = await _body(request)
        with_body: dict[str, Callable[[PageRun, dict[str, Any]], None]] = {
            "answer": self._actions.answer,
            "fork": self._actions.fork,
            "say": self._actions.say,
            "signal": self._actions.signal,
        }
        alone: dict[str, Callable[[PageRun], None]] = {
            "close-input": self._actions.close_input,
            "go-on": self._actions.go_on,
            "stop": self._actions.stop,
        }
        action = request.path_params["action"]
        if action in with_body:
            await run_in_threadpool(with_body[action], run, given)
        elif action in alone:
            await run_in_threadpool(alone[action], run)
        else:
            return JSONResponse({"error": f"there is no action {action!r}"}, 404)
        return JSONResponse({"ok": True})

    async def _report(self, request: Request) -> Response:
        given = await _body(request)
        lines = given.get("lines")
        if not isinstance(lines, list):
            raise ActionError("a report has lines", 422)
        process, source = str(given.get("process", "")), str(given.get("source", ""))[:200]
        take = self._remote_runs.take
        try:
            await run_in_threadpool(take, process, source, lines, is_last=given.get("isLast") is True)
        except ValueError as error:
            raise ActionError(str(error), 422) from None
        return JSONResponse({"ok": True})

    async def _item(self, request: Request) -> Response:
        item = self._actions.run(request.path_params["id"]).whole(request.path_params["index"])
        if item is None:
            raise ActionError("this is kept no more: there is too much of it", 404)
        return Response(item, media_type="application/json")

    async def _history(self, request: Request) -> Response:
        run = self._actions.run(request.path_params["id"])
        return JSONResponse({"history": await run_in_threadpool(self._actions.history, run)})

    async def _run_picture(self, request: Request) -> Response:
        drawing = self._actions.run(request.path_params["id"]).drawing
        if drawing is None:
            return JSONResponse({"svg": "", "nodes": {}, "addresses": {}})
        return JSONResponse(await run_in_threadpool(opened_picture, drawing, *_opened(request)))

    async def _graph_picture(self, request: Request) -> Response:
        from agentmatrix.display.drawing import drawing_of

        entry = self._catalog.get(request.path_params["name"])
        if entry is None or entry.graph is None:
            return JSONResponse({"svg": "", "nodes": {}, "addresses": {}})
        drawing = await run_in_threadpool(drawing_of, entry.graph)
        return JSONResponse(await run_in_threadpool(opened_picture, drawing, *_opened(request)))

    async def _reload(self, request: Request) -> Response:
        entry = self._catalog.get(request.path_params["name"])
        if entry is None:
            raise ActionError("the page has no such graph", 404)
        await run_in_threadpool(self._catalog.reload, entry)
        return JSONResponse({"ok": True})


def _opened(request: Request) -> tuple[set[str], set[str]]:
    query = request.query_params
    return set(query.getlist("open")), set(query.getlist("closed"))


async def _body(request: Request) -> dict[str, Any]:
    try:
        given = json.loads(await request.body())
    except ValueError:
        raise ActionError("what was sent is not JSON", 400) from None
    if not isinstance(given, dict):
        raise ActionError("send a JSON object", 400)
    return given


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, ActionError) else 422
    return JSONResponse({"error": str(error)}, status)
