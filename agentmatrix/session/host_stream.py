"""The stream of a run on a host: its parts go to the caller, and it waits for the caller's credits.

Threads: the I/O thread brings credits, and any thread stops it; all else happens where the verb runs, on a worker
thread or an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from agentmatrix.errors import HostError
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.bounded_stream import StreamGate, bounded_stream
from agentmatrix.pregel.paced_tasks import AsyncStreamGate, paced_astream
from agentmatrix.session import host_verbs
from agentmatrix.session.part_sender import PartSender, wait_for_write
from agentmatrix.stream_modes import SuperstepBoundary

if TYPE_CHECKING:
    from agentmatrix.session.host_run import HostRun

__all__ = ["AsyncHostStream", "HostStream"]


class HostStream:
    """The parts of a sync verb.

    Args:
        run: sends them.
        graph: whose verb it is.
        verb: its name.
        kwargs: what it is called with.
    """

    def __init__(self, run: HostRun, graph: Any, verb: str, kwargs: dict[str, Any]) -> None:
        self._run, self._graph, self._verb = run, graph, verb
        self._credits = threading.Semaphore(0)
        self._sender = PartSender(run, _superstep_boundaries(graph, verb, kwargs))
        self._kwargs = self._sender.kwargs(kwargs)

    def add_credit(self) -> None:
        """The caller has taken what was sent."""
        self._credits.release()

    def stop(self) -> None:
        """The run is stopped: a stream that waits for its caller looks at that now."""
        self._credits.release()

    def send_all(self, args: list[Any]) -> None:
        """Calls the verb, and sends all parts.

        Raises:
            HostError: the run was cancelled.
        """
        gate = StreamGate()
        call = bounded_stream(self._graph, gate) if self._verb == "stream" else getattr(self._graph, self._verb)
        iterator = iter(call(*args, **self._kwargs))
        try:
            for part in iterator:
                with gate.paused():
                    if self._sender.send(part) and not self._run.cancelled:
                        self._credits.acquire()
                    self._sender.wait()
                if self._run.cancelled:
                    raise HostError("the run was cancelled")
        finally:
            gate.open()
            if hasattr(iterator, "close"):
                iterator.close()


class AsyncHostStream:
    """The parts of an async verb; arguments as of `HostStream`. Made on the event loop."""

    def __init__(self, run: HostRun, graph: Any, verb: str, kwargs: dict[str, Any]) -> None:
        self._graph, self._verb = graph, verb
        self._loop, self._credits = asyncio.get_running_loop(), asyncio.Semaphore(0)
        self._sender = PartSender(run, _superstep_boundaries(graph, verb, kwargs))
        self._kwargs = self._sender.kwargs(kwargs)

    def add_credit(self) -> None:
        """The caller has taken what was sent."""
        with contextlib.suppress(RuntimeError):  # the host is gone, and its loop with it
            self._loop.call_soon_threadsafe(self._credits.release)

    def stop(self) -> None:
        """The run is stopped: its task is cancelled."""

    async def send_all(self, args: list[Any]) -> None:
        """Calls the verb, and sends all parts."""
        gate = AsyncStreamGate()
        call = paced_astream(self._graph, gate) if self._verb == "astream" else getattr(self._graph, self._verb)
        iterator = aiter(call(*args, **self._kwargs))
        try:
            async for part in iterator:
                waits = self._sender.send(part)
                with gate.paused(at_once=self._sender.begins_batch):
                    if waits:
                        await self._credits.acquire()
                    elif self._sender.begins_batch:
                        await wait_for_write()
                    await self._sender.await_room()
        finally:
            gate.open()
            if hasattr(iterator, "aclose"):
                await iterator.aclose()


def _superstep_boundaries(graph: Any, verb: str, kwargs: dict[str, Any]) -> SuperstepBoundary | None:
    """Finds where the supersteps of a stream begin; None for a history of states."""
    if verb not in host_verbs.RUNS:
        return None
    nested = config_keys.TASK_ID in (kwargs.get("config") or {}).get("configurable", {})
    return SuperstepBoundary(kwargs, "values" if nested else graph.stream_mode)
