"""Runs graphs for the page: on one event loop, or in a thread where the graph's saver has sync methods only."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from agentmatrix.live.live_run import AsyncLiveRun, LiveRun, SyncLiveRun
from agentmatrix.session.user_loop import UserLoop
from agentmatrix.ui.page_run import PageRun
from agentmatrix.watch.hooks import hooked, is_process_hook_muted
from agentmatrix.watch.recorder import EventRecorder
from agentmatrix.watch.token_recorder import new_recorder

__all__ = ["RunningTask", "RunDriver"]

_BEGIN_SECONDS: Final = 30.0


class RunningTask:
    """A run that is at work.

    Attributes:
        live: takes signals, once it has begun.
        task: of an async run.
        begun: set once `live` is there, or never will be.
    """

    def __init__(self) -> None:
        self.live: AsyncLiveRun | SyncLiveRun | None = None
        self.task: asyncio.Task[None] | None = None
        self.begun, self.ended = threading.Event(), threading.Event()
        self.is_stopped = False

    def begin(self, live: AsyncLiveRun | SyncLiveRun) -> None:
        """Signals may be sent from now on."""
        self.live = live
        self.begun.set()


class RunDriver:
    """Runs graphs. Its methods may be called on any thread.

    Args:
        page: the address of the page that the runs are for.
    """

    def __init__(self, page: str) -> None:
        self._page = page
        self._user_loop: UserLoop | None = None
        self._active: dict[str, RunningTask] = {}
        self._recorders: dict[str, EventRecorder] = {}
        self._lock = threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where async code of graphs runs."""
        with self._lock:
            if self._user_loop is None:
                self._user_loop = UserLoop()
            return self._user_loop.loop

    def active(self, run: PageRun) -> RunningTask | None:
        """What is at work for a run."""
        return self._active.get(run.id)

    def start(
        self,
        run: PageRun,
        graph: Any,
        value: Any,
        config: dict[str, Any],
        *,
        takes_signals: bool,
        then: Callable[[PageRun], None],
    ) -> bool:
        """Have a graph work for a run. Returns at once.

        Args:
            run: takes what happens.
            graph: compiled, or a remote agent.
            value: an input, a `Command`, or None to go on.
            config: names the thread.
            takes_signals: whether it goes on until its input is closed.
            then: called when it works no more.

        Returns:
            False where it is at work already.
        """
        active = RunningTask()
        with self._lock:
            if run.id in self._active:
                return False
            self._active[run.id] = active
        recorder = self._recorders.get(run.id)
        if recorder is None:
            recorder = new_recorder(run.take_event, run.open_graph, tokens=True, values=True)
            recorder.page = self._page
            self._recorders[run.id] = recorder
            run.watched.follow(recorder.transfers)
        run.set_at_work(True)
        work = self._run(run, active, recorder, (graph, value, config), takes_signals, then)
        self.loop.call_soon_threadsafe(self._create_task, active, work)
        return True

    def _create_task(self, active: RunningTask, work: Any) -> None:
        # A context of its own: runs do not watch each other.
        active.task = self.loop.create_task(work, context=contextvars.Context())

    async def _run(
        self,
        run: PageRun,
        active: RunningTask,
        recorder: EventRecorder,
        arguments: Any,
        takes_signals: bool,
        then: Callable[[PageRun], None],
    ) -> None:
        # A host that tells the page of the runs of its callers does not tell of this one.
        is_process_hook_muted.set(True)
        try:
            if active.is_stopped:
                # Not before: a task that is cancelled before it has begun ends nothing.
                raise asyncio.CancelledError
            if await _is_sync_only(arguments[0], arguments[2]):
                await _run_on_thread(active, recorder, arguments, takes_signals)
            else:
                with hooked(recorder):
                    async with LiveRun(*arguments, stream_mode=[]) as live:
                        active.begin(live)
                        if not takes_signals:
                            live.close_input()
                        await live.result()
        except asyncio.CancelledError:
            run.tell("stopped")
        except BaseException as error:
            run.tell("error", text=f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000])
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            with self._lock:
                self._active.pop(run.id, None)
            run.set_at_work(False)
            active.begun.set()
            active.ended.set()
            then(run)

    def signal(self, run: PageRun, address: str, value: Any, *, timeout: float) -> bool:
        """Send a signal to what is at work, and wait until it is acknowledged. Returns False where nothing is.

        Raises:
            SignalError: it was not taken.
            TimeoutError: it was not acknowledged in time.
        """
        live = self._live_run_of(run, timeout)
        if live is None:
            return False
        sent = live.signal(address, value, timeout=timeout)
        if sent is not None:
            self._wait_for(sent)
        return True

    def close_input(self, run: PageRun) -> bool:
        """What is at work ends once nothing in it can start. Returns False where nothing is."""
        live = self._live_run_of(run, _BEGIN_SECONDS)
        if live is None:
            return False
        self.loop.call_soon_threadsafe(live.close_input)
        return True

    def _live_run_of(self, run: PageRun, timeout: float) -> AsyncLiveRun | SyncLiveRun | None:
        """What takes signals: a run that was just started is waited for."""
        active = self._active.get(run.id)
        if active is None:
            return None
        active.begun.wait(timeout)
        return active.live

    def update_state(self, graph: Any, config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """Write edited values beside a checkpoint. Returns the config of the new one."""
        try:
            return dict(self._wait_for(graph.aupdate_state(config, values)))
        except NotImplementedError:
            return dict(graph.update_state(config, values))

    def history(self, graph: Any, config: dict[str, Any], *, limit: int = 200) -> list[Any]:
        """The snapshots of a thread, newest first."""

        async def collect() -> list[Any]:
            return [snapshot async for snapshot in graph.aget_state_history(config, limit=limit)]

        try:
            return list(self._wait_for(collect()))
        except NotImplementedError:
            return list(graph.get_state_history(config, limit=limit))

    def _wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def stop(self, run: PageRun) -> bool:
        """Cut off what is at work. Returns False where nothing is."""
        active = self._active.get(run.id)
        if active is None:
            return False
        active.is_stopped = True
        if isinstance(active.live, SyncLiveRun):
            threading.Thread(target=active.live.exit, args=(InterruptedError(),), daemon=True).start()
        elif active.task is not None:
            self.loop.call_soon_threadsafe(active.task.cancel)
        return True

    def forget(self, run_id: str) -> None:
        """A run is kept no more."""
        self._recorders.pop(run_id, None)

    def close(self) -> None:
        """Cut off all that is at work."""
        for active in list(self._active.values()):
            active.is_stopped = True
            if active.task is not None:
                self.loop.call_soon_threadsafe(active.task.cancel)
            active.ended.wait(2)
        if self._user_loop is not None:
            self._user_loop.stop()


async def _run_on_thread(active: RunningTask, recorder: EventRecorder, arguments: Any, takes_signals: bool) -> None:
    work = asyncio.ensure_future(asyncio.to_thread(_run_in_thread, active, recorder, arguments, takes_signals))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if active.live is None:
            # Stopped before it has begun: it ends as soon as it does.
            await asyncio.wait([work])
        raise


def _run_in_thread(active: RunningTask, recorder: EventRecorder, arguments: Any, takes_signals: bool) -> None:
    with hooked(recorder), LiveRun(*arguments, stream_mode=[]) as live:
        active.begin(live)
        if active.is_stopped:
            raise InterruptedError
        if not takes_signals:
            live.close_input()
        live.result()


async def _is_sync_only(graph: Any, config: dict[str, Any]) -> bool:
    """Whether the graph's saver, such as SqliteSaver, has sync methods only."""
    try:
        if hasattr(graph.checkpointer, "aget_tuple"):
            await graph.checkpointer.aget_tuple(config)
    except NotImplementedError:
        return True
    return False
