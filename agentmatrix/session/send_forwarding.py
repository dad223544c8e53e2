"""Sends from inside a graph on another host to the graphs around it: its caller has them.

The caller's half lends the send scope of the node that the remote graph stands in; the host's half stands in its place
there. What a host sends, it sends in the name of that node and of tasks below it.
"""

from __future__ import annotations

from typing import Any, Final

from agentmatrix.errors import ProtocolError
from agentmatrix.live.send_scope import SendScope
from agentmatrix.session.proxies import RpcClient

__all__ = ["LentSends", "SendsProxy"]

_TARGET: Final = "sends"


class LentSends:
    """The caller's half.

    Args:
        scope: that of the node.
        namespace: the checkpoint namespace of the node's task.
    """

    def __init__(self, scope: SendScope, namespace: str) -> None:
        self._scope, self._namespace = scope, namespace

    def _check(self, *words: Any) -> None:
        path, namespace, *attempt = words
        if not isinstance(path, str) or not isinstance(namespace, str) or not all(isinstance(n, int) for n in attempt):
            raise ProtocolError("the host sends to a path in the name of a task, and these are none")
        if not f"{namespace}|".startswith(f"{self._namespace}|"):
            raise ProtocolError(f"the host sends in the name of {namespace!r}, which is not below {self._namespace!r}")

    def takes(self, path: str) -> bool:
        """See `SendScope`."""
        self._check(path, self._namespace)
        return self._scope.takes(path)

    def send(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """See `SendScope`."""
        self._check(path, namespace, attempt)
        self._scope.send(path, value, namespace, attempt)

    async def asend(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """See `SendScope`."""
        self._check(path, namespace, attempt)
        await self._scope.asend(path, value, namespace, attempt)

    def dismiss(self, path: str, namespace: str) -> None:
        """See `SendScope`."""
        self._check(path, namespace)
        self._scope.dismiss(path, namespace)

    async def adismiss(self, path: str, namespace: str) -> None:
        """See `SendScope`."""
        self._check(path, namespace)
        await self._scope.adismiss(path, namespace)


class SendsProxy:
    """The host's half.

    Args:
        rpc: reaches the caller.
    """

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    def takes(self, path: str) -> bool:
        """See `SendScope`."""
        return bool(self._rpc.request(_TARGET, "takes", path))

    def send(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """See `SendScope`."""
        self._rpc.request(_TARGET, "send", path, value, namespace, attempt)

    async def asend(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """See `SendScope`."""
        await self._rpc.arequest(_TARGET, "asend", path, value, namespace, attempt)

    def dismiss(self, path: str, namespace: str) -> None:
        """See `SendScope`."""
        self._rpc.request(_TARGET, "dismiss", path, namespace)

    async def adismiss(self, path: str, namespace: str) -> None:
        """See `SendScope`."""
        await self._rpc.arequest(_TARGET, "adismiss", path, namespace)
