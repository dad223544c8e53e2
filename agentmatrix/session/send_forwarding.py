"""Sends from inside a graph on another host to the graphs around it: its caller has them.

The caller's half lends the send scope of the node that the remote graph stands in; the host's half stands in its place
there. What a host sends, it sends in the name of that node and of tasks below it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import Any, Final

from agentmatrix.errors import ProtocolError
from agentmatrix.live.send_scope import Sender, SendScope
from agentmatrix.pregel.checkpoint_order import await_all, checkpoints_under_way, wait_for_all
from agentmatrix.session.proxies import RpcClient

__all__ = ["LentSends", "SendsProxy"]

_TARGET: Final = "sends"
_log = logging.getLogger("agentmatrix.host")


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
        self._scope.send(path, value, Sender(namespace, attempt))

    async def asend(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """See `SendScope`."""
        self._check(path, namespace, attempt)
        await self._scope.asend(path, value, Sender(namespace, attempt))

    def dismiss(self, path: str, namespace: str, attempt: int = 1) -> None:
        """See `SendScope`."""
        self._check(path, namespace, attempt)
        self._scope.dismiss(path, Sender(namespace, attempt))

    async def adismiss(self, path: str, namespace: str, attempt: int = 1) -> None:
        """See `SendScope`."""
        self._check(path, namespace, attempt)
        await self._scope.adismiss(path, Sender(namespace, attempt))


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

    def send(self, path: str, value: Any, sender: Sender) -> None:
        """See `SendScope`."""
        wait_for_all(checkpoints_under_way(sender.loops))
        self._rpc.request(_TARGET, _in_order("send", sender), path, value, sender.namespace, sender.attempt)

    async def asend(self, path: str, value: Any, sender: Sender) -> None:
        """See `SendScope`."""
        await await_all(checkpoints_under_way(sender.loops))
        await self._rpc.arequest(_TARGET, "asend", path, value, sender.namespace, sender.attempt)

    def dismiss(self, path: str, sender: Sender) -> None:
        """See `SendScope`."""
        wait_for_all(checkpoints_under_way(sender.loops))
        self._rpc.request(_TARGET, _in_order("dismiss", sender), path, sender.namespace, sender.attempt)

    async def adismiss(self, path: str, sender: Sender) -> None:
        """See `SendScope`."""
        await await_all(checkpoints_under_way(sender.loops))
        await self._rpc.arequest(_TARGET, "adismiss", path, sender.namespace, sender.attempt)


def _in_order(method: str, sender: Sender) -> str:
    """A method as a thread is to call it: the caller carries out async ones behind the checkpoints that came before.

    On the thread of an event loop it is called as it is. That loop stands still until the answer comes, and may be the
    caller's too.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return f"a{method}"
    if any(loop.checkpointer is not None for loop in sender.loops):
        _warn_of_order(method)
    return method


@cache
def _warn_of_order(method: str) -> None:
    _log.warning(
        "an async function of a graph on this host calls %s, which does not wait for the checkpoints before it: await "
        "a%s instead, or a kill of the caller may have what was done counted twice, or lost",
        method,
        method,
    )
