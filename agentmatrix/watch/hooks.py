"""LangChain's hook: the handlers that every run of a block gets, whoever starts it and however.

LangChain asks each hook for a handler where it configures the callbacks of a call. A hook has one handler in a context,
so a block inside of a block has a hook of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from weakref import WeakSet

from langchain_core.tracers.context import register_configure_hook

from agentmatrix.pregel.node_handler import NodeHandler, is_hook_muted
from agentmatrix.watch.recorder import EventRecorder

__all__ = ["hook_process", "hooked", "is_process_hook_muted", "mute_process_hook"]

is_process_hook_muted: ContextVar[bool] = ContextVar("is_process_hook_muted", default=False)
"""Whether the handler of the process is not for runs in this context: they are told of in another way."""
_depth: ContextVar[int] = ContextVar("agentmatrix_watch_depth", default=0)
_lock = threading.Lock()


class _Hook:
    """What LangChain takes for a context variable: it calls `get`.

    A thread that was started in a block, without its context, as in a thread pool, belongs to that block too.
    """

    def __init__(self, depth: int) -> None:
        self._handler: ContextVar[NodeHandler | None] = ContextVar(f"agentmatrix_watch_{depth}", default=None)
        self._blocks: list[tuple[NodeHandler, WeakSet[threading.Thread]]] = []
        register_configure_hook(cast(Any, self), inheritable=True)

    def get(self) -> NodeHandler | None:
        if is_hook_muted.get():
            return None
        handler = self._handler.get()
        if handler is None and self._blocks:
            here = threading.current_thread()
            return next((found for found, before in reversed(self._blocks) if here not in before), None)
        return handler

    @contextmanager
    def block(self, handler: NodeHandler) -> Iterator[None]:
        block = (handler, WeakSet(threading.enumerate()))
        token = self._handler.set(handler)
        self._blocks.append(block)
        try:
            yield
        finally:
            self._blocks.remove(block)
            try:
                self._handler.reset(token)
            except ValueError:
                # The block is left in another context, as by a generator that was collected.
                self._handler.set(None)


_hooks: list[_Hook] = []


@contextmanager
def hooked(handler: NodeHandler) -> Iterator[None]:
    """Every run that begins in the block, in this context or on a thread that begins in it, gets the handler."""
    depth, muted = _depth.get(), is_hook_muted.get()
    with _lock:
        if depth == len(_hooks):
            _hooks.append(_Hook(depth))
    _depth.set(depth + 1)
    is_hook_muted.set(False)
    try:
        with _hooks[depth].block(handler):
            yield
    finally:
        _depth.set(depth)
        is_hook_muted.set(muted)


class _ProcessHook:
    """The handler of all runs of the process, whoever starts them; on a host, of the runs of callers too."""

    handler: EventRecorder | None = None
    is_registered = False

    def get(self) -> EventRecorder | None:
        return None if is_process_hook_muted.get() else self.handler


_process_hook = _ProcessHook()


def hook_process(handler: EventRecorder | None) -> None:
    """Every run of the process gets the handler, in place of the one before; None for none."""
    if handler is not None and not _process_hook.is_registered:
        register_configure_hook(cast(Any, _process_hook), inheritable=True)
        _process_hook.is_registered = True
    _process_hook.handler = handler


def mute_process_hook(page: str) -> None:
    """The run in this context is told to a page already: the handler of the process does not tell the same page."""
    handler = _process_hook.handler
    if page and handler is not None and handler.page == page:
        is_process_hook_muted.set(True)
