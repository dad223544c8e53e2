"""Drives a run from the thread that called a sync verb.

Threads and locks. The I/O thread puts what the host sends into `_queue`; the reader, which is the thread that called
the verb, takes it out and handles it: events, requests, parts, the end. While the consumer of a stream holds a part,
the reader is paused in a `yield`, and a helper thread handles events and requests in its place, as LangGraph's own
workers would go on; it only sets parts and the end aside, in `_ready`. `_helper_lock` is held by the helper as long as
it handles anything: the reader takes it when it resumes, so that the two never handle the queue at one time, and what
the host sent first is handled first. A helper is started under `_lock` (see `caller`): never two at once.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import Any, Final

from agentmatrix.cancel_scope import current_scope
from agentmatrix.errors import DeadlineExceeded
from agentmatrix.session.call_spec import CallSpec
from agentmatrix.session.caller import UNWIND_SECONDS, CallerRun
from agentmatrix.session.user_loop import check_not_on_own_loop
from agentmatrix.transport.base import Transport
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["SyncCallerRun"]

UNWIND_SECONDS_INTERACTIVE: Final = 2.0
"""Instead of `UNWIND_SECONDS` where a person may be waiting: after Ctrl-C, a notebook's stop button, or a stream that
is left early (which is what a stream sees of a Ctrl-C in the body of its loop)."""


def _nothing() -> None:
    return None


class SyncCallerRun(CallerRun):
    """A run that is driven by the thread that called a sync verb."""

    is_async = False

    def __init__(self, transport: Transport, codec: Codec, spec: CallSpec) -> None:
        super().__init__(transport, codec, spec)
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._ready: deque[tuple[str, Any]] = deque()
        self._helper: threading.Thread | None = None
        self._helper_lock = threading.Lock()
        self._reader_paused = False
        self._context = contextvars.copy_context()

    def _enqueue(self, kind: str, item: Any) -> None:
        self._queue.put((kind, item))
        if self._reader_paused:
            self._start_helper()

    def result(self) -> Any:
        """Runs to the end; parts, if any come, are dropped. Returns the verb's result or raises as it did."""
        stream = self.parts()
        try:
            while True:
                next(stream)
        except StopIteration as stop:
            return stop.value

    def parts(self) -> Generator[Any, None, Any]:
        """Yields the parts of the run; its return value is the verb's result."""
        scope, leave_scope = current_scope.get(), _nothing
        check_not_on_own_loop(self.transport.address, self.spec.verb)
        try:
            self.open(self._first_frame())
            if scope is not None:
                leave_scope = scope.on_cancel(lambda: self.cancel("the work that this is part of was given up"))
            while True:
                kind, item = self._next()
                if kind == "part":
                    for value in self._decode_part(item):
                        self._pause_reader()
                        try:
                            yield value
                        finally:
                            self._resume_reader()
                    self.credit()
                elif kind == "end":
                    return self._result_of(item)
                else:
                    raise item
        except BaseException as error:
            if not isinstance(error, DeadlineExceeded):
                interactive = isinstance(error, (KeyboardInterrupt, GeneratorExit))
                self._unwind(UNWIND_SECONDS_INTERACTIVE if interactive else UNWIND_SECONDS)
            raise
        finally:
            leave_scope()
            self.close()

    def _first_frame(self) -> pb.Start:
        start = self._start_frame()
        if (first := self._first_checkpoint()) is not None:
            saver, asked = first
            with contextlib.suppress(Exception):  # the host asks, and is told what the saver raises
                self._send_along(start, saver, asked, saver.get_tuple(asked))
        return start

    def _next(self) -> tuple[str, Any]:
        """The next part, end or loss; handles the events and requests before it."""
        while not self._ready:
            try:
                kind, item = self._queue.get(timeout=self._remaining())
            except queue.Empty:
                raise self._deadline_exceeded() from None
            self._handle(kind, item)
        return self._ready.popleft()

    def _handle(self, kind: str, item: Any) -> None:
        """Handles an event or a request; sets anything else aside for the reader."""
        if kind == "event":
            self._on_event(item)
        elif kind == "request":
            self._handle_request(item)
        elif kind != "resumed":
            self._ready.append((kind, item))

    def _unwind(self, seconds: float) -> None:
        """Stops the run, and answers the host's requests while it unwinds there."""
        with self._lock:
            frame = self.protocol.cancel("the caller left")
            self._send(frame)
        if frame is None:
            return
        self._end_where_cut()
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            try:
                kind, item = self._queue.get(timeout=left)
            except queue.Empty:
                return
            if kind in ("end", "lost"):
                return
            if kind == "request":
                self._handle_request(item)
            elif item is not None:  # a helper that has ended meanwhile has left its mark
                item.release()

    def _pause_reader(self) -> None:
        self._reader_paused = True
        # Else the I/O thread starts the helper, with the next thing that comes.
        if not self._queue.empty():
            self._start_helper()

    def _resume_reader(self) -> None:
        self._reader_paused = False
        if self._helper is not None:
            self._queue.put(("resumed", None))  # wakes a helper that waits for the queue
        with self._helper_lock:
            self._helper = None

    def _start_helper(self) -> None:
        with self._lock:
            if self._helper is None and self._reader_paused:
                self._helper = threading.Thread(
                    target=self._context.copy().run,
                    args=(self._run_helper,),
                    name="agentmatrix-caller",
                    daemon=True,
                )
                self._helper.start()

    def _run_helper(self) -> None:
        with self._helper_lock:
            while self._reader_paused:
                try:
                    kind, item = self._queue.get(timeout=0.5)
                except queue.Empty:
                    break
                if kind == "resumed":
                    break
                try:
                    self._handle(kind, item)
                except BaseException as error:
                    self._ready.append(("lost", error))
                    break
        with self._lock:
            self._helper = None
        # What came between the last look at the queue and the line above has seen this helper, and started none.
        if self._reader_paused and not self._queue.empty():
            self._start_helper()
