"""The parts of a stream on their way from a host to its caller: when to go on, when to wait, and what goes together.

Two things make a host wait. Where a superstep begins it waits until the caller has taken the parts before, as a local
generator does (see `SuperstepBoundary`). Within a superstep it goes on, until half of the run's credit is used up by
parts that nobody takes; the other half is left for the requests and events of nodes at work.

Parts that come quickly one after the other go together: a frame costs both sides more than a token in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from agentmatrix.errors import HostBusy
from agentmatrix.stream_modes import SuperstepBoundary
from agentmatrix.transport.base import FrameStream
from agentmatrix.transport.flow import RUN_CREDIT
from agentmatrix.transport.iothread import io_thread
from agentmatrix.wire.containers import joined

if TYPE_CHECKING:
    from agentmatrix.session.host_run import HostRun

__all__ = ["BATCH_SECONDS", "PartBatch", "PartSender", "wait_for_write", "async_room", "wait_for_room"]

BATCH_SECONDS: Final = 0.003
"""How long a part may wait for the next ones, and how long after a frame a part counts as the next one."""
_BATCH_BYTES: Final = 3072
"""Bytes of parts that go without more waiting; a frame of them needs no room in a budget."""
_FOR_PARTS: Final = RUN_CREDIT // 2
_MOST_BACKLOG: Final = 64 << 20
"""Bytes of a run that may wait for its caller where the code that sends them runs on an event loop and cannot wait."""


def wait_for_room(frames: FrameStream, least: int = 1) -> None:
    """Waits until a run may send, or until its stream is closed. On an event loop, where nothing may wait, it returns.

    Raises:
        HostBusy: on an event loop, when too much waits already.
    """
    if frames.room >= least:
        return
    if _on_event_loop():
        if frames.room < -_MOST_BACKLOG:
            raise HostBusy(f"the caller of this run reads too slowly: more than {_MOST_BACKLOG >> 20} MiB wait for it")
        return
    has_room = threading.Event()
    frames.on_room(least, has_room.set)
    has_room.wait()


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def async_room(frames: FrameStream, least: int) -> None:
    """Waits until a run may send `least` bytes, or until its stream is closed."""
    if frames.room >= least:
        return
    loop, has_room = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the task with it
            loop.call_soon_threadsafe(has_room.set)

    frames.on_room(least, wake)
    await has_room.wait()


async def wait_for_write() -> None:
    """Waits until the I/O thread has begun to write what was sent.

    A node that writes token after token leaves the interpreter to no other thread for milliseconds. The first token
    would wait for so long.
    """
    loop, io = asyncio.get_running_loop(), io_thread()
    turn = loop.create_future()

    def end_turn() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the task with it
            loop.call_soon_threadsafe(_set, turn)

    # In the loop's next round, in which it writes.
    io.call(io.loop.call_soon, end_turn)
    await turn


def _set(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class PartBatch:
    """Encoded parts that wait for those that come next. Not thread-safe.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._parts: list[bytes] = []
        self._size = 0
        self._taken = float("-inf")

    def __len__(self) -> int:
        return len(self._parts)

    def may_wait(self, part: bytes) -> bool:
        """Adds a part, which is the encoding of a tuple of it; returns whether the batch may wait for more. The first
        one after a pause may not."""
        self._parts.append(part)
        self._size += len(part)
        return self._size < _BATCH_BYTES and self._clock() - self._taken < BATCH_SECONDS

    def take(self) -> bytes:
        """All parts, encoded as one tuple."""
        parts, self._parts, self._size, self._taken = self._parts, [], 0, self._clock()
        return joined(parts)


class PartSender:
    """Sends the parts of a stream; says when to wait for a credit of the caller."""

    def __init__(self, run: HostRun, steps: SuperstepBoundary | None) -> None:
        self.run, self.steps = run, steps
        self._sent_since_credit = False
        self._has_batched = self.begins_batch = False
        """Whether the last part is the first of the run to wait for others: see `wait_for_write`."""

    def kwargs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments to stream with."""
        return kwargs if self.steps is None else self.steps.modes.kwargs

    def wait(self) -> None:
        """Waits until there is room for parts."""
        wait_for_room(self.run.frames, _FOR_PARTS)

    async def await_room(self) -> None:
        """The same, awaited."""
        await async_room(self.run.frames, _FOR_PARTS)

    def send(self, part: Any) -> bool:
        """Sends a part; returns whether to wait for a credit before the next."""
        self.begins_batch = False
        if self.steps is None:
            self._send_part(part, more=False)
            return True
        part, visible, starts = self.steps.read(part)
        if visible:
            self._send_part(part, more=not starts)
            self._sent_since_credit = True
        elif starts and self._sent_since_credit:
            self.run.send_part(None, more=False)
        if not starts or not self._sent_since_credit:
            return False
        self._sent_since_credit = False
        return True

    def _send_part(self, part: Any, *, more: bool) -> None:
        waits = self.run.send_part(part, more=more)
        self.begins_batch = waits and not self._has_batched
        self._has_batched = self._has_batched or waits
