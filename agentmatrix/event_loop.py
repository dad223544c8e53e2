"""Calls on an asyncio event loop, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

__all__ = ["call_on"]


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
