"""Objects that stay with the caller, and how their proxies on the host reach them.

A checkpointer, a store, a cache and callback handlers stay in the caller's process, as `ProxiedObjects`. On the host
stand proxies of the same type, which turn each call into a request through an `RpcClient`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from agentmatrix.errors import ProtocolError

__all__ = ["METHODS", "ProxiedObjects", "RpcClient", "is_async_method"]

METHODS: Final[Mapping[str, frozenset[str]]] = {
    "saver": frozenset(
        {"get_tuple", "list", "put", "put_writes", "get_next_version", "get_delta_channel_history"}
        | {"aget_tuple", "alist", "aput", "aput_writes", "aget_delta_channel_history"}
    ),
    "store": frozenset({"batch", "abatch"}),
    "cache": frozenset({"get", "set", "clear", "aget", "aset", "aclear"}),
    "callback": frozenset({"call", "acall"}),
    "messages": frozenset({"listed"}),
    "sends": frozenset({"takes", "send", "asend", "dismiss", "adismiss"}),
}
"""The methods that a host may call, by object. A method's name comes from the wire, so any other is an error."""


def is_async_method(target: str, method: str) -> bool:
    """Whether this method of an object is awaited (or iterated asynchronously) by the caller."""
    return method.startswith("a") and method[1:] in METHODS.get(target, ())


class RpcClient(Protocol):
    """Sends what is done to a proxy to the process that has the object. The verbs are those of JSON-RPC."""

    def request(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of an object; blocks until it has returned or raised. Never on the I/O thread."""

    async def arequest(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """The same, awaited."""

    def request_nowait(self, target: str, method: str, *args: Any, **kwargs: Any) -> None:
        """Calls a method of an object without waiting; an exception that it raises ends the run at the caller."""

    def notify(self, kind: str, *args: Any) -> None:
        """Sends a notification, in order with the others and with requests; it has no answer."""


class ProxiedObjects:
    """The objects of a caller that the host of one run may call.

    Async methods are called on the caller's event loop, sync methods on another thread: the one that drives the run, or
    a helper thread (see `caller_sync`, `caller_async`).
    """

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}
        self._failed_write: BaseException | None = None

    def expose(self, target: str, obj: object) -> None:
        """Exposes `obj` under a name of `METHODS`. It checks for itself what it is asked."""
        self._objects[target] = obj

    def call(self, target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a synchronous method; iterators are read to their end.

        Where the host runs a sync verb on its event loop, since the graph has nothing but async nodes, it asks for the
        async method and gets the sync one.
        """
        method = method[1:] if is_async_method(target, method) else method
        with self._stop_after_failed_write(target, method):
            value = self._method(target, method)(*args, **kwargs)
        return list(value) if method == "list" else value

    async def acall(self, target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls an asynchronous method; iterators are read to their end."""
        with self._stop_after_failed_write(target, method):
            value = self._method(target, method)(*args, **kwargs)
            if method == "alist":
                return [item async for item in value]
            return await value if inspect.isawaitable(value) else value

    def _method(self, target: str, method: str) -> Callable[..., Any]:
        if target not in self._objects or method not in METHODS[target]:
            raise ProtocolError(f"the host asked for {target}.{method}, which is not lent to it")
        function: Callable[..., Any] = getattr(self._objects[target], method)
        return function

    @contextlib.contextmanager
    def _stop_after_failed_write(self, target: str, method: str) -> Iterator[None]:
        """Refuses checkpoint writes once one has failed: pipelined ones are under way, and would leave a gap behind."""
        if target != "saver" or method.removeprefix("a") not in ("put", "put_writes"):
            yield
            return
        if self._failed_write is not None:
            raise self._failed_write
        try:
            yield
        except BaseException as error:
            self._failed_write = error
            raise
