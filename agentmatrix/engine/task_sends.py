"""What a node, and all that runs in it, sends to nodes and actors.

It counts when the node has ended, with all else that the node has done, in one write. So a node that is asked once
more, after a kill or a failure, sends nothing twice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from dataclasses import dataclass, field
from typing import Any

from langgraph.types import Send

from agentmatrix.engine.actor_middleware import BLOCKED
from agentmatrix.engine.actors_loop import ActorsLoop
from agentmatrix.engine.channels import dismissal
from agentmatrix.live.send_scope import SendScope
from agentmatrix.pregel.execution import TASKS, Task
from agentmatrix.pregel.task_config import namespace_of

__all__ = ["TaskSends"]


@dataclass(eq=False, slots=True)
class TaskSends:
    """The sends of one task.

    Args:
        loop: the loop that the task runs in.
        task: the task.
        outer: the sends of the node that its graph stands in, or None.
    """

    loop: ActorsLoop
    task: Task
    outer: SendScope | None
    # By namespace of a task inside: which of its attempts it is, and how often that has sent.
    _counts: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)

    def takes(self, path: str) -> bool:
        """See `SendScope`."""
        return self.loop.takes(path) or (self.outer is not None and self.outer.takes(path))

    def check(self, path: str, value: Any) -> None:
        """Whether a node or an actor of the task's own graph takes this, if it has one of that path.

        Raises:
            SendError: it does not.
            BoundError: it would hire one too many.
        """
        if self.loop.takes(path):
            self.loop.check_send(self.task, path, value)

    def passed(self, path: str, value: Any) -> Any:
        """A message as it is kept, where an actor of the task's own graph is to read it; `BLOCKED` for none."""
        return self.loop.pass_message(self.task, path, value) if self.loop.takes(path) else value

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
        if (value := self.passed(path, value)) is BLOCKED:
            return None
        self.loop.check_send(self.task, path, value)
        if namespace == namespace_of(self.task.config):
            send = Send(path, value)
            self.loop.note_passed(self.task, send)
            self.task.writes.append((TASKS, send))
            return None
        # The graph inside goes on from its own checkpoint, and does not send again what it has sent.
        with self.loop.lock:
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
