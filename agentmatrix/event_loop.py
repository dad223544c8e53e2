"""Calls on an asyncio event loop from any thread, and loops that end while sync code is at work in their threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["call_on", "runner_without_executor_shutdown"]


class _UnjoinedThreads(ThreadPoolExecutor):
    """Threads that nobody waits for: the sync code in them cannot be stopped."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def runner_without_executor_shutdown() -> asyncio.Runner:
    """A runner that Ctrl-C ends although sync code, such as a node, is at work in a thread of its loop."""
    runner = asyncio.Runner()
    runner.get_loop().set_default_executor(_UnjoinedThreads(thread_name_prefix="asyncio"))
    return runner


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Call a function on an event loop: at once where that is the one that runs this, else as soon as it can.

    To wake a loop from another thread costs a write to a socket and a turn of the loop. A closed loop is called no
    more: nobody waits on it.

    Args:
        loop: the event loop.
        function: must not raise.
        args: its arguments.
    """
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        function(*args)
        return
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)
