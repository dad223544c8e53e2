"""The proxies of a store and of a cache, and the check of the namespaces that a host may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.store.base import BaseStore, GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp, TTLConfig

from agentmatrix.session.proxies import RpcClient

__all__ = ["CacheProxy", "StoreProxy", "only_under"]


def only_under(prefix: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """A check that refuses operations on a store outside the namespaces that begin with `prefix`.

    Returns:
        A function of the method's name and arguments that raises PermissionError.
    """

    def check(method: str, args: tuple[Any, ...]) -> None:
        for op in args[0]:
            if _namespace(op)[: len(prefix)] != prefix:
                raise PermissionError(
                    f"the remote agent may use the store only under {prefix!r}, not {_namespace(op)!r}; "
                    "see RemoteAgent(store_prefix=...)"
                )

    return check


def _namespace(op: object) -> tuple[str, ...]:
    if isinstance(op, (GetOp, PutOp)):
        return op.namespace
    if isinstance(op, SearchOp):
        return op.namespace_prefix
    if isinstance(op, ListNamespacesOp):
        prefixes = [c.path for c in op.match_conditions or () if c.match_type == "prefix"]
        return tuple(prefixes[0]) if prefixes else ()
    return ()


class StoreProxy(BaseStore):
    """The proxy of a store. Every operation of a store comes down to `batch` and `abatch`."""

    def __init__(self, rpc: RpcClient, *, supports_ttl: bool, ttl_config: TTLConfig | None) -> None:
        self.rpc = rpc
        self.supports_ttl = supports_ttl
        self.ttl_config = ttl_config

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        results: list[Result] = self.rpc.request("store", "batch", [*ops])
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        results: list[Result] = await self.rpc.arequest("store", "abatch", [*ops])
        return results


class CacheProxy(BaseCache[Any]):
    """The proxy of a cache of node results."""

    def __init__(self, rpc: RpcClient) -> None:
        super().__init__()
        self.rpc = rpc

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        found: dict[FullKey, Any] = self.rpc.request("cache", "get", [*keys])
        return found

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        found: dict[FullKey, Any] = await self.rpc.arequest("cache", "aget", [*keys])
        return found

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        self.rpc.request("cache", "set", dict(pairs))

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        await self.rpc.arequest("cache", "aset", dict(pairs))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        self.rpc.request("cache", "clear", None if namespaces is None else [*namespaces])

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        await self.rpc.arequest("cache", "aclear", None if namespaces is None else [*namespaces])
