"""What a node, and all that runs in it, sends to nodes and actors.

It counts when the node has ended, with all else that the node has done, in one write. So a node that is asked once
more, after a kill or a failure, sends nothing twice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

from langgraph.types import Send

from agentmatrix.engine.actors_loop import ActorsLoop
from agentmatrix.engine.channels import dismissal
from agentmatrix.live.send_scope import SendScope
from agentmatrix.pregel.execution import TASKS, Task
from agentmatrix.pregel.task_config import namespace_of

__all__ = ["TaskSends"]


class TaskSends:
    """The sends of one task.

    Args:
        loop: the loop that the task runs in.
        task: the task.
        outer: the sends of the node that its graph stands in, or None.
    """

    def __init__(self, loop: ActorsLoop, task: Task, outer: SendScope | None) -> None:
        self.loop, self.task, self.outer = loop, task, outer
        # By namespace of a task inside: which of its attempts it is, and how often that has sent.
        self._counts: dict[str, tuple[int, int]] = {}

    def takes(self, path: str) -> bool:
        """See `SendScope`."""
        return self.loop.takes(path) or (self.outer is not None and self.outer.takes(path))

    def send(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """See `SendScope`. What was sent by a graph inside the node is in the saver when this returns, but on the
        thread of an event loop, which cannot wait."""
        if not self.loop.takes(path) and self.outer is not None:
            self.outer.send(path, value, namespace, attempt)
        elif isinstance(saved := self._send(path, value, namespace, attempt), concurrent.futures.Future):
            saved.result()

    async def asend(self, path: str, value: Any, namespace: str, attempt: int) -> None:
        """The same as `send`, async."""
        if not self.loop.takes(path) and self.outer is not None:
            await self.outer.asend(path, value, namespace, attempt)
        elif (saved := self._send(path, value, namespace, attempt)) is not None:
            await (asyncio.wrap_future(saved) if isinstance(saved, concurrent.futures.Future) else saved)

    def _send(self, path: str, value: Any, namespace: str, attempt: int) -> Any:
        self.loop.check_send(self.task, path, value)
        if namespace == namespace_of(self.task.config):
            self.task.writes.append((TASKS, Send(path, value)))
            return None
        # The graph inside goes on from its own checkpoint, and does not send again what it has sent.
        before, count = self._counts.get(namespace, (attempt, 0))
        place = count if before == attempt else 0
        self._counts[namespace] = attempt, place + 1
        return self.loop.hold(self.task, namespace, place, path, value)

    def dismiss(self, path: str, namespace: str) -> None:
        """See `SendScope`."""
        if not self.loop.takes(path) and self.outer is not None:
            self.outer.dismiss(path, namespace)
        else:
            self.loop.check_dismissal(path)
            self.task.writes.append(dismissal(path))

    async def adismiss(self, path: str, namespace: str) -> None:
        """The same as `dismiss`, async."""
        if not self.loop.takes(path) and self.outer is not None:
            await self.outer.adismiss(path, namespace)
        else:
            self.dismiss(path, namespace)
