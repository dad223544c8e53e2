"""A store and a cache on two machines: what the caller lends of its own, and the proxies of that on the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.store.base import BaseStore, GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp, TTLConfig

from agentmatrix.session.proxies import RpcClient
from agentmatrix.session.saver_scope import check_filter

__all__ = ["CacheProxy", "ClosedStore", "LentCache", "LentStore", "StoreProxy"]


CLOSED: Final = (
    "the store of the caller is closed to this remote agent: RemoteAgent(store_prefix=[...]) opens the namespaces that "
    "begin so, store_prefix=() all of it"
)


class LentStore:
    """A store that a host may use, under a prefix of namespaces. Its methods are those that are lent.

    Args:
        store: the caller's store.
        prefix: what namespaces begin with; None for a store that is closed.
    """

    def __init__(self, store: BaseStore, prefix: tuple[str, ...] | None) -> None:
        self._store, self._prefix = store, prefix

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        ops = self._checked(ops)
        return self._shown(ops, self._store.batch(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        ops = self._checked(ops)
        return self._shown(ops, await self._store.abatch(ops))

    def _checked(self, ops: Iterable[Op]) -> list[Op]:
        """Refuses operations outside of the prefix.

        Raises:
            PermissionError: names the namespace.
        """
        if self._prefix is None:
            raise PermissionError(CLOSED)
        ops = [*ops]
        for op in ops:
            namespace = _namespace(op)
            if not all(isinstance(label, str) for label in namespace) or not self._covers(namespace):
                raise PermissionError(
                    f"the remote agent may use the store only under {self._prefix!r}, not {namespace!r}; "
                    "see RemoteAgent(store_prefix=...)"
                )
            if isinstance(op, SearchOp):
                check_filter(op.filter)
            if isinstance(op, (SearchOp, ListNamespacesOp)) and not type(op.limit) is type(op.offset) is int:
                raise PermissionError("the remote agent sent a limit or an offset that is no number")
        return ops

    def _covers(self, namespace: tuple[str, ...]) -> bool:
        return self._prefix is not None and tuple(namespace[: len(self._prefix)]) == self._prefix

    def _shown(self, ops: Sequence[Op], results: list[Result]) -> list[Result]:
        """The results without what is not under the prefix: some stores compare namespaces as text."""
        return [self._shown_result(op, result) for op, result in zip(ops, results, strict=True)]

    def _shown_result(self, op: Op, result: Any) -> Result:
        if isinstance(op, SearchOp):
            return [item for item in result if self._covers(item.namespace)]
        if isinstance(op, ListNamespacesOp):
            length = len(self._prefix or ())
            return [name for name in result if tuple(name[:length]) == (self._prefix or ())[: len(name)]]
        shown: Result = result
        return shown


class LentCache:
    """A cache that a host may use: all that it reads, writes and clears is under a namespace of its own.

    Args:
        cache: the caller's cache.
        prefix: that namespace.
    """

    def __init__(self, cache: BaseCache[Any], prefix: Namespace) -> None:
        self._cache, self._prefix = cache, prefix

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        return self._shown(self._cache.get([self._placed(key) for key in keys]))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        return self._shown(await self._cache.aget([self._placed(key) for key in keys]))

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        self._cache.set({self._placed(key): pair for key, pair in pairs.items()})

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        await self._cache.aset({self._placed(key): pair for key, pair in pairs.items()})

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        self._cache.clear(self._cleared(namespaces))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        await self._cache.aclear(self._cleared(namespaces))

    def _placed(self, key: FullKey) -> FullKey:
        namespace, name = key
        return self._below(namespace), name

    def _below(self, namespace: Namespace) -> Namespace:
        if not isinstance(namespace, tuple) or not all(isinstance(label, str) for label in namespace):
            raise PermissionError(f"the remote agent used the cache at {namespace!r}, which is no namespace")
        return (*self._prefix, *namespace)

    def _cleared(self, namespaces: Sequence[Namespace] | None) -> list[Namespace]:
        if namespaces is None:
            raise PermissionError("the remote agent may clear its own namespaces of the cache, not all of it")
        return [self._below(namespace) for namespace in namespaces]

    def _shown(self, found: Mapping[FullKey, Any]) -> dict[FullKey, Any]:
        return {(namespace[len(self._prefix) :], name): value for (namespace, name), value in found.items()}


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


class ClosedStore(BaseStore):
    """The store of a caller that lends none of it: any use of it raises a sentence that says how it is opened."""

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        raise PermissionError(CLOSED)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        raise PermissionError(CLOSED)


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
