"""How objects that stay with the caller are asked from the host: the rules, and what either half needs of the other."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from agentmatrix.errors import ProtocolError
from agentmatrix.wire.codec import Codec

__all__ = ["METHODS", "Lender", "Lent", "crossing", "is_async_method"]

METHODS: Final[Mapping[str, frozenset[str]]] = {
    "saver": frozenset(
        {"get_tuple", "list", "put", "put_writes", "delete_thread", "delete_for_runs", "copy_thread", "prune"}
        | {"aget_tuple", "alist", "aput", "aput_writes", "adelete_thread", "adelete_for_runs", "acopy_thread", "aprune"}
        | {"get_next_version", "get_delta_channel_history", "aget_delta_channel_history"}
    ),
    "store": frozenset({"batch", "abatch"}),
    "cache": frozenset({"get", "set", "clear", "aget", "aset", "aclear"}),
    "callback": frozenset({"call", "acall"}),
}
"""What a host may ask of each lent object. Anything else breaks the rules: a method's name comes from the wire."""


def is_async_method(target: str, method: str) -> bool:
    """Whether this method of a lent object is awaited (or iterated asynchronously) by the caller."""
    return method.startswith("a") and method[1:] in METHODS.get(target, ())


_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


def crossing(values: Mapping[str, Any], codec: Codec) -> dict[str, Any]:
    """Those of the values that can cross; nearly all are plain, and need no trial."""
    return {key: value for key, value in values.items() if type(value) in _PLAIN or codec.can_encode(value)}


class Lender(Protocol):
    """The caller, as the host's stand-ins see it."""

    def ask(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of a lent object and waits for what it returns or raises. Never on the I/O thread."""

    async def aask(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """The same, awaited."""

    def post(self, target: str, method: str, *args: Any, **kwargs: Any) -> None:
        """Calls a method of a lent object without waiting; what it raises is raised at the run's end."""

    def tell(self, kind: str, *args: Any) -> None:
        """Lets the caller's objects hear of something, in order, without an answer."""


class Lent:
    """The objects that a caller lends to one run, and how a request reaches them."""

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}
        self._checks: dict[str, Callable[[str, tuple[Any, ...]], None]] = {}
        self._unsaved: BaseException | None = None

    def lend(self, target: str, obj: object, check: Callable[[str, tuple[Any, ...]], None] | None = None) -> None:
        """Lends `obj` under a name of `METHODS`; `check(method, args)` may raise to refuse a request."""
        self._objects[target] = obj
        if check is not None:
            self._checks[target] = check

    def _method(self, target: str, method: str, args: tuple[Any, ...]) -> Callable[..., Any]:
        if target not in self._objects or method not in METHODS[target]:
            raise ProtocolError(f"the host asked for {target}.{method}, which is not lent to it")
        if target in self._checks:
            self._checks[target](method, args)
        function: Callable[..., Any] = getattr(self._objects[target], method)
        return function

    def serve(self, target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a synchronous method; iterators are read to their end."""
        with self._saved_in_order(target, method):
            value = self._method(target, method, args)(*args, **kwargs)
        return list(value) if method == "list" else value

    async def aserve(self, target: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls an asynchronous method; iterators are read to their end."""
        with self._saved_in_order(target, method):
            value = self._method(target, method, args)(*args, **kwargs)
            if method == "alist":
                return [item async for item in value]
            return await value if inspect.isawaitable(value) else value

    @contextlib.contextmanager
    def _saved_in_order(self, target: str, method: str) -> Iterator[None]:
        """Once a write of the run could not be saved, later ones are refused: they would leave a gap behind them."""
        if target != "saver" or method.removeprefix("a") not in ("put", "put_writes"):
            yield
            return
        if self._unsaved is not None:
            raise self._unsaved
        try:
            yield
        except BaseException as error:
            self._unsaved = error
            raise
