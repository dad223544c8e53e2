"""The event loop on which a host runs async code: its own, in a thread of its own, or one of its user.

All async code of a host runs on one loop, so that one client of a model, which belongs to the loop that it was made on,
serves all graphs. A node that blocks the loop holds up all async runs: `LoopMonitor` names it in a log line.

Threads: the watch has a thread of its own, which sleeps while no async run is at work. `_SERVED` is changed by atomic
operations only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, cast

from agentmatrix.errors import HostError
from agentmatrix.pregel.node_functions import node_on_stack
from agentmatrix.pregel.paced_tasks import paced_task_factory
from agentmatrix.transport.iothread import new_loop
from agentmatrix.transport.loop_handover import LoopHandover

__all__ = ["LoopMonitor", "UserLoop", "check_not_on_own_loop"]

_logger = logging.getLogger(__name__)

BLOCKED_SECONDS: Final = 0.5
"""How long a node may hold the loop before it is named."""

_CANCEL_SECONDS: Final = 1.0

_SERVED: dict[str, asyncio.AbstractEventLoop] = {}
"""By the addresses of the hosts of this process: the loop of their async code."""


class UserLoop:
    """The loop of a host.

    Args:
        loop: a loop that runs in another thread, or will; None for one of the host's own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._is_own = loop is None
        self.loop = loop or new_loop()
        self._address: str | None = None
        self._stopping = False
        self.watch = LoopMonitor(self.loop)
        self.handover = LoopHandover(self.loop, watches=self._is_own)
        if self._is_own:
            self.loop.set_task_factory(cast(Any, paced_task_factory))
            threading.Thread(target=self._run, name="agentmatrix-loop", daemon=True).start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopping:
            try:
                self.loop.run_forever()
            except BaseException:  # asyncio lets a SystemExit and a KeyboardInterrupt of user code through
                continue
        self.handover.close()
        with contextlib.suppress(BaseException):
            self.loop.run_until_complete(_cancel_tasks(self.loop))
        self.loop.close()

    def serve(self, address: str) -> None:
        """The host serves at this address now."""
        self._address = _plain(address)
        _SERVED[self._address] = self.loop

    def stop(self) -> None:
        """The host has stopped: its own loop ends."""
        if self._address is not None:
            _SERVED.pop(self._address, None)
        self.watch.stop()
        self._stopping = True
        if self._is_own:
            with contextlib.suppress(RuntimeError):  # it was stopped before, and is closed
                self.loop.call_soon_threadsafe(self.loop.stop)


async def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels what user code has left at work on a loop, as `asyncio.run` does, and waits for it a moment."""
    left = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=_CANCEL_SECONDS)
    await loop.shutdown_asyncgens()


def check_not_on_own_loop(address: str, verb: str) -> None:
    """Refuses a sync verb that would hold up the loop on which its own host is to work.

    Raises:
        HostError: the calling thread runs the loop of the host at `address`.
    """
    served = _SERVED.get(_plain(address))
    if served is None:
        return
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is served:
        raise HostError(
            f"{verb} was called on the event loop on which the host at {address} runs its async code, and would wait "
            f"for itself; await a{verb}, or give the host a loop of its own (Host(...).start())"
        )


def _plain(address: str) -> str:
    return address.replace("localhost:", "127.0.0.1:").removeprefix("inproc://")


class LoopMonitor:
    """Logs which node blocks an event loop.

    Args:
        loop: the loop.
        wait: waits for an event so many seconds and says whether it was set; a test may replace it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._loop, self._wait = loop, wait
        self._runs = 0
        self._changed = threading.Condition()
        self._sleeps = False
        """Whether the thread waits for a run. Set before it looks at `_runs`, which the loop alone changes."""
        self._thread: threading.Thread | None = None
        self._loop_thread = 0
        self._stopped = False

    def enter(self) -> None:
        """An async run begins. On the loop."""
        self._runs += 1
        self._loop_thread = threading.get_ident()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="agentmatrix-watch", daemon=True)
            self._thread.start()
        elif self._sleeps:
            with self._changed:
                self._changed.notify()

    def leave(self) -> None:
        """An async run has ended. On the loop."""
        self._runs -= 1

    def stop(self) -> None:
        """Ends the watch."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        never = threading.Event()
        while True:
            with self._changed:
                self._sleeps = True
                while not self._runs and not self._stopped:
                    self._changed.wait()
                self._sleeps = False
                if self._stopped:
                    return
            try:
                self.look()
            except RuntimeError:  # the loop is closed
                return
            self._wait(never, BLOCKED_SECONDS / 2)

    def look(self) -> None:
        """Waits until the loop gets to something new; names the node that does not let it."""
        beaten = threading.Event()
        self._loop.call_soon_threadsafe(beaten.set)
        if self._wait(beaten, BLOCKED_SECONDS):
            return
        self._report()
        while not self._wait(beaten, 10 * BLOCKED_SECONDS):
            if self._stopped or self._loop.is_closed():
                return

    def _report(self) -> None:
        found = node_on_stack(self._loop_thread)
        if found is None:
            return  # the machine is busy, or the loop waits for something that is no node
        _logger.warning(
            "the node %r has blocked the event loop of the host for more than %g s, at %s:%d: all async runs wait for "
            "it. Await what it waits for, or make it a sync node, which runs in a thread",
            found[0],
            BLOCKED_SECONDS,
            *found[1:],
        )
