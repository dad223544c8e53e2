"""The order in which savers get what builds upon something else: checkpoints of several graphs, writes beside them.

LangGraph hands checkpoints and writes to its executor and goes on. A checkpoint waits for the one before it in the same
graph; between graphs, and between writes and checkpoints, nothing waits. These functions add what has to wait.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONF, CONFIG_KEY_CALL, TASKS
from langgraph.pregel import Pregel
from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop

from agentmatrix.pregel.task_config import loop_of

__all__ = [
    "SaverFuture",
    "await_all",
    "await_checkpoints",
    "checkpoints_under_way",
    "is_final",
    "is_write_awaited",
    "keep_after",
    "loops_of",
    "put_after",
    "wait_for_all",
    "wait_for_checkpoints",
]

SaverFuture = asyncio.Future[Any] | concurrent.futures.Future[Any]
"""What an executor of LangGraph gives for a call of a saver."""

is_write_awaited: ContextVar[bool | None] = ContextVar("agentmatrix_is_write_awaited", default=None)
"""Whether somebody waits until a saver has kept what it is given here. None where LangGraph's own loop gives it: that
waits for checkpoints, under durability "sync", and never for the writes of tasks."""
_PATIENCE = 10.0
"""The seconds after which an event loop that does not answer is taken to be blocked."""
_ORDER = "_agentmatrix_order"

_log = logging.getLogger("agentmatrix")


def is_final(graph: Any, checkpoint: Mapping[str, Any]) -> bool:
    """Whether a graph ends with a checkpoint, as LangGraph's loop finds out: no node starts by what was written."""
    updated = checkpoint.get("updated_channels")
    if not updated or checkpoint["channel_values"].get(TASKS):
        return False
    return TASKS not in updated and graph.trigger_to_nodes.keys().isdisjoint(updated)


def loops_of(config: RunnableConfig) -> Iterator[Any]:
    """LangGraph's loops that the task of `config` runs in, as far as they are in this process: its own one first, that
    of the outermost graph last."""
    while CONFIG_KEY_CALL in config.get(CONF, {}):
        loop = loop_of(config)
        yield loop
        config = loop.config


def checkpoints_under_way(loops: Iterable[Any]) -> list[SaverFuture]:
    """The futures of the last checkpoints of these loops: whatever stands beside or below them builds upon them."""
    futures = (getattr(loop, "_put_checkpoint_fut", None) for loop in loops)
    return [future for future in futures if future is not None]


def wait_for_checkpoints(config: RunnableConfig) -> None:
    """Return when the checkpoints that the task of `config` builds upon are kept: what stands beside or below one that
    is not there is found by nobody after a kill."""
    loops = [*loops_of(config)]
    wait_for_all(_waitable(checkpoints_under_way(loops), loops))


async def await_checkpoints(config: RunnableConfig) -> None:
    """The same as `wait_for_checkpoints`, async."""
    await await_all(checkpoints_under_way(loops_of(config)))


def wait_for_all(futures: Iterable[SaverFuture]) -> None:
    """Return when all these are done, on any thread but that of the event loop that one of them needs: that is passed
    over, and so is one whose loop is blocked, as by an `invoke` in an async node."""
    for future in futures:
        if future.done() or isinstance(future, concurrent.futures.Future):
            future.result()
        elif (done := _on_thread(future)) is not None:
            done.result()


async def await_all(futures: Iterable[SaverFuture]) -> None:
    """The same as `wait_for_all`, async. Whoever is cancelled meanwhile cancels none of them."""
    for future in futures:
        if future.done():
            future.result()
            continue
        if isinstance(future, concurrent.futures.Future):
            future = asyncio.wrap_future(future)
        elif future.get_loop() is not asyncio.get_running_loop():
            future = asyncio.ensure_future(asyncio.to_thread(wait_for_all, [future]))
        await asyncio.wait([future])
        future.result()


def _on_thread(future: asyncio.Future[Any]) -> concurrent.futures.Future[Any] | None:
    """A future that is done when one of an event loop is; None where this thread cannot wait for it."""
    loop = future.get_loop()
    with contextlib.suppress(RuntimeError):
        if asyncio.get_running_loop() is loop:
            return None
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    heard = threading.Event()

    def end(future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            done.set_exception(concurrent.futures.CancelledError())
        elif (error := future.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(future.result())

    def follow() -> None:
        heard.set()
        future.add_done_callback(end)

    try:
        loop.call_soon_threadsafe(follow)
    except RuntimeError:  # the loop is closed, and so is its run
        return None
    if heard.wait(_PATIENCE):
        return done
    _log.warning(
        "the event loop of a graph has been blocked for %g s, and what another one builds upon its checkpoints goes on "
        "without them: in an async node await ainvoke, where invoke holds up the loop",
        _PATIENCE,
    )
    return None


def put_after(futures: Sequence[SaverFuture], put: Callable[..., Any], loop: PregelLoop) -> Callable[..., Any]:
    """A function of a loop that hands something to its saver, as one that waits for these futures first.

    Args:
        futures: what has to be done before.
        put: the function: it is async where the loop is.
        loop: the loop.
    """
    if not futures:
        return put

    def after(*given: Any) -> Any:
        wait_for_all(futures)
        return put(*given)

    async def aafter(*given: Any) -> Any:
        await await_all(futures)
        return await put(*given)

    return aafter if isinstance(loop, AsyncPregelLoop) else after


def keep_after(loops: Iterable[Any], futures: Sequence[SaverFuture], outer: Any) -> None:
    """Let all that these loops hand to their savers from here on wait for these futures.

    Args:
        loops: the sender's first.
        futures: of savers.
        outer: the loop at which to stop; it waits too if it is the first.
    """
    for place, loop in enumerate(loops):
        if loop is outer and place:
            return
        if loop.checkpointer_put_writes is not None:
            _wait_in(loop, futures)
        if loop is outer:
            return


def _wait_in(loop: Any, futures: Sequence[SaverFuture]) -> None:
    before: tuple[list[SaverFuture], Any, Any] | None = getattr(loop, _ORDER, None)
    waits, put, put_writes = before or ([], loop._checkpointer_put_after_previous, loop.checkpointer_put_writes)
    # A new list each time: what was handed over before does not wait for what has come later, which waits for it.
    waits = [*(future for future in waits if not _is_kept(future)), *_waitable(futures, [loop])]
    setattr(loop, _ORDER, (waits, put, put_writes))
    loop._checkpointer_put_after_previous = put_after(waits, put, loop)
    loop.checkpointer_put_writes = put_after(waits, put_writes, loop)


def _is_kept(future: SaverFuture) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _waitable(futures: Sequence[SaverFuture], loops: Sequence[Any]) -> Sequence[SaverFuture]:
    """These futures without those that cannot be waited for: one of these loops is sync and runs on the thread of their
    event loop, as where an async node calls `invoke`, and nothing else runs there until it has ended."""
    if not any(isinstance(loop, SyncPregelLoop) for loop in loops):
        return futures
    return [each for each in futures if each.done() or not isinstance(each, asyncio.Future) or not _runs(loops, each)]


def _runs(loops: Sequence[Any], future: asyncio.Future[Any]) -> bool:
    frame = sys._current_frames().get(getattr(future.get_loop(), "_thread_id", -1))
    while frame is not None:
        if frame.f_code is Pregel.stream.__code__ and any(frame.f_locals.get("loop") is loop for loop in loops):
            return True
        frame = frame.f_back
    return False
