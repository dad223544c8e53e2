"""The frames of many runs on their way out of a connection: order, fairness, credit of the peer, bytes under way.

Any thread may put frames; the I/O thread takes messages. Frames are encoded before the lock is taken, which therefore
covers only the moving of references and, in `take`, the choice of what goes next. Callbacks are called without it.

A run whose peer gives no more credit is in none of the lines until there is more. Control frames of a run that has
begun, which no credit bounds, go before its other frames: a cancel must not wait behind what the peer does not take.

Messages are kept until the peer has acknowledged them, where the connection may be taken up again after a cut.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from agentmatrix.errors import HostBusy
from agentmatrix.transport.base import NO_FIELDS
from agentmatrix.transport.flow import RUN_CREDIT, BudgetExceeded, ByteBudget, BytesInFlight
from agentmatrix.transport.framing import (
    FRAMES_OF_A_MESSAGE,
    encode,
    encoded_credit,
    encoded_received,
    encoded_run,
    encoded_slice,
    in_message,
    slices,
)
from agentmatrix.transport.retransmission import RetransmissionBuffer
from agentmatrix.transport.send_queue import SendQueue
from agentmatrix.wire.v1.run_pb2 import Frame

__all__ = ["MESSAGE_BYTES", "Outbox"]

MESSAGE_BYTES: Final = 1024 * 1024
"""Bytes after which a message is full; it may exceed this by less than one frame or slice."""
_ACKNOWLEDGE_EVERY: Final = 32 * 1024
"""Bytes that are read before the peer is told of it in a message of its own. Less than what may always be under way."""
_SMALL: Final = 4096
"""Bytes of a frame that no budget counts."""
_MOST_UNCOUNTED: Final = 20_000
"""Frames without credit that may wait: a peer that asks for more answers than this does not read."""


class Outbox:
    """Frames of many runs on their way out, in order within each run. Thread-safe.

    Each message takes all small frames that are waiting and then slices of large ones, run after run, so that a large
    frame delays the others by at most one message, and small frames do not keep a large one for ever.

    Args:
        wake: called, from the thread that sends, when `take` found nothing before and there is something now.
        budget: the bytes that may wait here.
        clock: seconds.
        is_resumable: whether messages are kept until they are acknowledged.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        budget: ByteBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_resumable: bool = False,
    ) -> None:
        self._wake, self._budget, self._clock = wake, budget, clock
        self._lock = threading.Lock()
        self._queues: dict[int, SendQueue] = {}
        self._small: deque[SendQueue] = deque()
        self._bulky: deque[SendQueue] = deque()
        self._in_flight = BytesInFlight()
        self._written = RetransmissionBuffer() if is_resumable else None
        self._message_budgeted = 0
        """Bytes of the message that `take` puts together which a budget counts."""
        self._waiting = False
        self._received = self._told = 0
        self._uncounted = 0

    @property
    def overfull(self) -> bool:
        """Whether the peer asks for answers and does not read them."""
        return self._uncounted > _MOST_UNCOUNTED

    @property
    def empty(self) -> bool:
        """Whether nothing waits, not even for credit."""
        with self._lock:
            return all(queue.empty for queue in self._queues.values())

    @property
    def received(self) -> int:
        """Bytes of messages that this side has read in all."""
        return self._received

    def open(self, run: int) -> None:
        """A run begins."""
        with self._lock:
            self._queues.setdefault(run, SendQueue(run))

    def close(self, run: int) -> None:
        """A run sends nothing more. What waits still goes out."""
        with self._lock:
            queue = self._queues.get(run)
            if queue is None:
                return
            queue.closed = True
            waiting, queue.waiting = queue.waiting, []
            self._forget_if_done(queue)
        _call(call for _, call in waiting)

    def drop(self, run: int, *, keeps_control: bool = False) -> None:
        """What waits of a run goes out no more: one side has left it.

        With `keeps_control` its control frames still do, before the reset that follows: they say why a caller has left.
        """
        with self._lock:
            queue = self._queues.get(run)
            if queue is None:
                return
            self._give(queue.budgeted)
            self._uncounted -= sum(not frame.counted for frame in queue.frames)
            queue.frames.clear()
            queue.slices.clear()
            queue.queued = queue.budgeted = queue.credit = 0
            waiting, queue.waiting = queue.waiting, []
            if keeps_control and queue.urgent:
                queue.closed = True
                if queue in self._bulky:
                    self._bulky.remove(queue)
                    queue.listed = False
                self._list(queue)
            else:
                del self._queues[run]
                self._uncounted -= len(queue.urgent)
                queue.urgent.clear()
        _call(call for _, call in waiting)

    def put(self, frame: Frame, large: Mapping[str, Sequence[bytes]] = NO_FIELDS, *, flush: bool = True) -> int:
        """Adds a frame behind the earlier ones of its run. The frame is used up. Returns its size in bytes.

        Args:
            frame: the frame.
            large: see `FrameStream.send`.
            flush: whether to wake the carrier for it; else `flush` does so.

        Raises:
            HostBusy: there is no room for it in the budget.
        """
        run, encoded = frame.run, encode(frame, large)
        size = encoded.size
        budgeted = self._take(size) if size > _SMALL else 0
        with self._lock:
            queue = self._queues.get(run)
            if queue is None:
                queue = self._queues[run] = SendQueue(run)
                queue.closed = True  # a frame about a run that is not open, such as a refusal
            queue.budgeted += budgeted
            if encoded.counted or not queue.sent:
                queue.frames.append(encoded)
                queue.queued += size
            else:
                queue.urgent.append(encoded.data)
            if not encoded.counted:
                self._uncounted += 1
            if not queue.listed:
                self._list(queue)
            wake = flush and self._is_to_wake()
        if wake:
            self._wake()
        return size

    def flush(self) -> None:
        """Wakes the carrier if it has seen nothing to send, and there is something."""
        with self._lock:
            wake = self._is_to_wake()
        if wake:
            self._wake()

    def give_credit(self, run: int, credit: int) -> None:
        """Tells the peer how many bytes of a run it may have sent in all."""
        with self._lock:
            queue = self._queues.get(run)
            if queue is None or credit <= queue.credit:
                return
            queue.credit = credit
            self._list(queue)
            wake = self._is_to_wake()
        if wake:
            self._wake()

    def credited(self, run: int, credit: int) -> None:
        """The peer gives credit."""
        with self._lock:
            queue = self._queues.get(run)
            if queue is None or credit <= queue.limit:
                return
            queue.limit = credit
            waiting = [call for least, call in queue.waiting if queue.room >= least]
            queue.waiting = [(least, call) for least, call in queue.waiting if queue.room < least]
            self._list(queue)
            wake = self._is_to_wake()
        _call(waiting)
        if wake:
            self._wake()

    def acknowledge(self, size: int) -> None:
        """This side has read so many more bytes of messages."""
        self.acknowledged(0, size)

    def acknowledged(self, received: int, size: int = 0) -> None:
        """The peer has read so many bytes of messages in all, if it says so, and this side `size` more of its."""
        with self._lock:
            self._received += size
            wake = self._waiting and self._received - self._told >= _ACKNOWLEDGE_EVERY
            if received:
                self._in_flight.read(received, self._clock())
                if self._written is not None:
                    self._give(self._written.acknowledge(received))
                wake = wake or (self._waiting and self._has_more)
            self._waiting = self._waiting and not wake
        if wake:
            self._wake()

    def resume(self, received: int) -> None:
        """There is a new line, whose peer has read so many bytes in all: messages after these are written again.

        Raises:
            ProtocolError: it cannot have.
        """
        assert self._written is not None
        with self._lock:
            self._give(self._written.resume(received))
            self._in_flight.restart(received)
            self._told = self._received  # by the handshake

    def room(self, run: int) -> int:
        """Bytes that a run may send before it has to wait for its peer; negative for those that wait already."""
        with self._lock:
            queue = self._queues.get(run)
            return RUN_CREDIT if queue is None or queue.closed else queue.room

    def on_room(self, run: int, least: int, call: Callable[[], None]) -> None:
        """Has something called once, from any thread, when the run may send `least` bytes, or never will."""
        with self._lock:
            queue = self._queues.get(run)
            if queue is not None and not queue.closed and queue.room < least:
                queue.waiting.append((least, call))
                return
        call()

    def take(self) -> tuple[bytes, list[int]] | None:
        """The next message with the runs whose frames are in it; None, and a `wake` to come, when nothing may go."""
        with self._lock:
            parts: list[bytes | memoryview] = []
            runs: list[int] = []
            if self._has_more and ((room := self._in_flight.room) > 0 or self._in_flight.idle):
                if self._written is not None and self._written.must_repeat:
                    message = self._written.repeat()
                    self._in_flight.write(len(message), self._clock())
                    return message, runs
                room = min(MESSAGE_BYTES, max(1, room))
                size = self._take_small(parts, runs, room)
                if self._bulky:
                    self._take_bulky(parts, runs, size, room)
            if not parts and self._received - self._told < _ACKNOWLEDGE_EVERY:
                self._waiting = True
                return None
            if self._received > self._told:
                self._told = self._received
                parts.append(encoded_received(self._received))
            message = b"".join(parts)
            if runs:
                self._in_flight.write(len(message), self._clock())
                self._keep(message)
        return message, runs

    def clear(self) -> None:
        """Drops everything: the connection is lost."""
        with self._lock:
            runs = list(self._queues)
            if self._written is not None:
                self._give(self._written.clear())
        for run in runs:
            self.drop(run)

    # Under the lock.

    @property
    def _has_more(self) -> bool:
        """Whether there is something to write, if enough may be under way."""
        return bool(self._small or self._bulky) or (self._written is not None and self._written.must_repeat)

    def _take_small(self, parts: list[bytes | memoryview], runs: list[int], room: int) -> int:
        size = 0
        while self._small and size < room and len(runs) < FRAMES_OF_A_MESSAGE // 2:
            queue = self._small.popleft()
            queue.listed = False
            while not queue.empty and size < room and len(runs) < FRAMES_OF_A_MESSAGE // 2:
                data = self._next_small(queue)
                if data is None:
                    break
                runs.append(queue.run)
                parts += (in_message(len(data)), data)
                size += len(data)
            if not queue.empty:
                self._list(queue)
            elif queue.closed:
                self._forget_if_done(queue)
        return size

    def _next_small(self, queue: SendQueue) -> bytes | None:
        credit = encoded_credit(queue.credit) if queue.credit else b""
        if queue.urgent:
            data = queue.urgent.popleft()
            self._uncounted -= 1
        elif queue.frames and not queue.slices and (queue.sent < queue.limit or not queue.frames[0].counted):
            frame = queue.frames.popleft()
            data = frame.data
            queue.queued -= len(data)
            if frame.size > _SMALL:
                self._give_sent(queue, len(data))
            if frame.bulk:
                queue.slices.extend(slices(frame.bulk))
            if frame.counted:
                queue.sent += len(data) + len(credit)
            else:
                self._uncounted -= 1
        elif credit:
            data = encoded_run(queue.run)
        else:
            return None
        queue.credit = 0
        return data + credit if credit else data

    def _take_bulky(self, parts: list[bytes | memoryview], runs: list[int], size: int, room: int) -> None:
        taken = 0  # one at least, however many small frames there are
        while self._bulky and (size < room or not taken):
            queue = self._bulky.popleft()
            queue.listed = False
            if not queue.slices or queue.sent >= queue.limit:
                self._list(queue)
                continue
            piece = queue.slices.popleft()
            head = encoded_slice(queue.run, piece)
            runs.append(queue.run)
            parts += (in_message(len(head) + len(piece)), head, piece)
            queue.sent += len(head) + len(piece)
            queue.queued -= len(piece)
            self._give_sent(queue, len(piece))
            self._list(queue)
            self._forget_if_done(queue)
            size, taken = size + len(piece), taken + 1

    def _list(self, queue: SendQueue) -> None:
        """Puts a queue into the line where it belongs."""
        if not queue.listed and not queue.empty and queue.may_send:
            queue.listed = True
            bulky = queue.slices and not queue.urgent and not queue.credit
            (self._bulky if bulky else self._small).append(queue)

    def _is_to_wake(self) -> bool:
        """Whether to wake the carrier, which has seen nothing to send, since there is something."""
        wake = self._waiting and bool(self._small or self._bulky)
        self._waiting = self._waiting and not wake
        return wake

    def _forget_if_done(self, queue: SendQueue) -> None:
        if queue.closed and queue.empty and self._queues.get(queue.run) is queue:
            del self._queues[queue.run]

    # The budget counts what is large; of small frames there are as many as credit allows.

    def _take(self, size: int) -> int:
        if self._budget is None:
            return 0
        try:
            self._budget.take(size)
        except BudgetExceeded as over:
            raise HostBusy(f"a frame could not be sent: {over}") from None
        return size

    def _give(self, size: int) -> None:
        if self._budget is not None and size:
            self._budget.give(size)

    def _give_sent(self, queue: SendQueue, size: int) -> None:
        size = min(size, queue.budgeted)
        queue.budgeted -= size
        self._message_budgeted += size

    def _keep(self, message: bytes) -> None:
        """A message goes out: the budget counts it until it is acknowledged, where it is kept so long."""
        budgeted, self._message_budgeted = self._message_budgeted, 0
        if self._written is None:
            self._give(budgeted)
        else:
            self._written.write(message, budgeted)


def _call(waiting: Iterable[Callable[[], None]]) -> None:
    for call in waiting:
        call()
