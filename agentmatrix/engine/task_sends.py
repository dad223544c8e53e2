"""What a node, and all that runs in it, sends to nodes and actors.

It counts when the node has ended, with all else that the node has done, in one write. So a node that is asked once
more, after a kill or a failure, sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.types import Send

from agentmatrix.engine.actor_middleware import BLOCKED
from agentmatrix.engine.actors_loop import ActorsLoop
from agentmatrix.engine.channels import dismissal
from agentmatrix.live.send_scope import Sender, SendScope
from agentmatrix.pregel.checkpoint_order import (
    SaverFuture,
    await_all,
    checkpoints_under_way,
    keep_after,
    wait_for_all,
)
from agentmatrix.pregel.execution import TASKS, Task
from agentmatrix.pregel.task_config import namespace_of
from agentmatrix.scheduling.scheduled_activation import Write

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

    def send(self, path: str, value: Any, sender: Sender) -> None:
        """See `SendScope`."""
        if not self.loop.takes(path) and self.outer is not None:
            self.outer.send(path, value, sender)
        else:
            wait_for_all(self._send(path, value, sender))

    async def asend(self, path: str, value: Any, sender: Sender) -> None:
        """The same as `send`, async."""
        if not self.loop.takes(path) and self.outer is not None:
            await self.outer.asend(path, value, sender)
        else:
            await await_all(self._send(path, value, sender))

    def _send(self, path: str, value: Any, sender: Sender) -> Sequence[SaverFuture]:
        if (value := self.passed(path, value)) is BLOCKED:
            return ()
        self.loop.check_send(self.task, path, value)
        send = Send(path, value)
        if sender.namespace != namespace_of(self.task.config):
            return self._hold((TASKS, send), sender)
        self.loop.note_passed(self.task, send)
        self.task.writes.append((TASKS, send))
        return ()

    def _hold(self, write: Write, sender: Sender) -> Sequence[SaverFuture]:
        """Keep what a graph inside the node has done: that goes on from its own checkpoint, and does not do it again.

        Returns:
            What a sender on another host has to wait for.
        """
        with self.loop.lock:
            before, count = self._counts.get(sender.namespace, (sender.attempt, 0))
            place = count if before == sender.attempt else 0
            self._counts[sender.namespace] = sender.attempt, place + 1
            # By the sender's checkpoint others know it again: what it has sent is not kept without that.
            after = checkpoints_under_way(sender.loops)
            kept = self.loop.hold(self.task, sender.namespace, place, write, after)
        if sender.loops and kept:
            keep_after(sender.loops, kept, self.loop)
        return () if sender.loops else kept

    def dismiss(self, path: str, sender: Sender) -> None:
        """See `SendScope`."""
        if not self.loop.takes(path) and self.outer is not None:
            self.outer.dismiss(path, sender)
        else:
            wait_for_all(self._dismiss(path, sender))

    async def adismiss(self, path: str, sender: Sender) -> None:
        """The same as `dismiss`, async."""
        if not self.loop.takes(path) and self.outer is not None:
            await self.outer.adismiss(path, sender)
        else:
            await await_all(self._dismiss(path, sender))

    def _dismiss(self, path: str, sender: Sender) -> Sequence[SaverFuture]:
        self.loop.check_dismissal(path)
        if sender.namespace != namespace_of(self.task.config):
            return self._hold(dismissal(path), sender)
        self.task.writes.append(dismissal(path))
        return ()
