"""What has changed, as server-sent events: the list of runs, and the items of the run that is looked at.

Each message of items has the index of its last one as its id. A browser that slept, or lost the connection, sends it as
`Last-Event-ID`, and gets what came after.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from sse_starlette import EventSourceResponse, ServerSentEvent

from agentmatrix.event_loop import call_on
from agentmatrix.ui.runs import RunStore

__all__ = ["EventStreams"]

_SECONDS: Final = 0.04
"""Between two messages: what comes meanwhile goes together."""
_MOST_ITEMS: Final = 400
_MOST_BYTES: Final = 250_000
"""In a message: a browser has time to paint between two."""
_PING_SECONDS: Final = 15


class EventStreams:
    """Makes the streams of all browsers. Its methods run on the loop of the server.

    Args:
        runs: the runs.
        graphs: describes the graphs.
    """

    def __init__(self, runs: RunStore, graphs: Callable[[], list[dict[str, Any]]]) -> None:
        self._runs, self._graphs = runs, graphs
        self._closed = False
        self._wakers: set[asyncio.Event] = set()

    def close(self) -> None:
        """End all streams: the server stops."""
        self._closed = True
        for waker in self._wakers:
            waker.set()

    def response(self, run: str, last_id: str | None) -> EventSourceResponse:
        """The stream of one browser.

        Args:
            run: the id of the run that it looks at; "" for none.
            last_id: of the last message that it has seen of it.
        """
        cursor = int(last_id) + 1 if last_id is not None and last_id.isdecimal() else 0
        return EventSourceResponse(self._messages(run, cursor), ping=_PING_SECONDS)

    async def _messages(self, run_id: str, cursor: int) -> AsyncIterator[ServerSentEvent]:
        loop, waker = asyncio.get_running_loop(), asyncio.Event()

        def wake(id: str) -> None:
            if not waker.is_set():
                call_on(loop, waker.set)

        stop_listening = self._runs.on_change(wake)
        self._wakers.add(waker)
        listed = ""
        try:
            while not self._closed:
                waker.clear()
                now = json.dumps({"runs": self._runs.describe(), "graphs": self._graphs()}, ensure_ascii=False)
                if now != listed:
                    listed = now
                    yield ServerSentEvent(now, event="list")
                run = self._runs.get(run_id)
                if run_id and run is None:
                    yield ServerSentEvent("{}", event="gone")
                    run_id = ""
                if run is not None:
                    run.flush()
                if run is not None and cursor > len(run.items):
                    # Of another server's run: this one begins again.
                    cursor = 0
                    yield ServerSentEvent("{}", event="again", id="")
                while run is not None and cursor < len(run.items) and not self._closed:
                    several = _batch(run.items, cursor)
                    cursor += len(several)
                    yield ServerSentEvent(f"[{','.join(several)}]", event="items", id=str(cursor - 1))
                yield ServerSentEvent(json.dumps({"now": time.time()}), event="caught-up")
                await waker.wait()
                await asyncio.sleep(_SECONDS)
        finally:
            self._wakers.discard(waker)
            stop_listening()


def _batch(items: list[str], first: int) -> list[str]:
    several: list[str] = []
    size = 0
    for item in items[first : first + _MOST_ITEMS]:
        size += len(item)
        if several and size > _MOST_BYTES:
            break
        several.append(item)
    return several
