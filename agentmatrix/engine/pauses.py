"""How a run ends unfinished, and how another one begins where a step was never closed.

A pause (a question, an error) is a checkpoint of its own: what has finished is in the state, what has not is to run
from there, under the ids that it had. Without one, what has finished lies beside the checkpoint that the step began
with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.types import Command

from agentmatrix.engine.actors_loop import ActorsLoop
from agentmatrix.engine.channels import HELD, RUN
from agentmatrix.engine.checkpoint import is_open, opened
from agentmatrix.engine.step import OpenStep
from agentmatrix.pregel.execution import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_RESUMING,
    NULL_TASK_ID,
    with_configurable,
)

__all__ = ["PausingLoop"]


class PausingLoop(ActorsLoop):
    """What a loop without barriers does about pauses."""

    # a run that ends unfinished

    def _suppress_interrupt(self, *exit: Any) -> bool | None:
        error = exit[1]
        pauses = isinstance(error, GraphInterrupt) or not isinstance(error, GraphBubbleUp)
        if self.open_step is not None and isinstance(error, Exception) and pauses:
            with self.lock:
                self._pause(self.open_step)
        if self._has_unshown_values:
            self._show_values(frozenset())
        return super()._suppress_interrupt(*exit)

    def _pause(self, step: OpenStep) -> None:
        """A checkpoint of its own: what has finished is in the state, what has not is to run from there."""
        if not (step.finished or step.factory.answer_taken or self._has_gone_on):
            return
        pending = self.checkpoint_pending_writes
        self.updated_channels = updated = self._close(step, step.unfinished(), step.factory.ids)
        if not self.shows_parts:
            self._show_values(updated)
        # A local function in a thread runs out: what it writes is kept beside the pause, and taken at the resume.
        self.tasks = {id: replace(task, writes=deque()) for id, task in self.tasks.items()}
        self.open_step = None
        if self.checkpointer is None:
            return
        told = {*step.finished, NULL_TASK_ID}
        kept = [write for write in pending if write[0] not in told and write[1] != RUN]
        kept = [write for write in kept if write[1] != HELD or write[2][1] not in told]
        if self._has_gone_on and not step.finished:
            # It is the checkpoint of the superstep before, which was not put.
            self.step -= 1
        self._put_checkpoint({"source": "loop"})
        self.checkpoint_pending_writes = kept
        if self.durability == "exit":
            # They are put at the exit.
            self._written_task_ids.update(write[0] for write in kept)
        else:
            self._put_beside(kept)

    def _put_beside(self, pending: Sequence[tuple[str, str, Any]]) -> None:
        """Keep these writes beside the checkpoint that was just put."""
        if self.checkpointer_put_writes is None:
            return
        namespace = self.config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, "")
        here = {CONFIG_KEY_CHECKPOINT_NS: namespace, CONFIG_KEY_CHECKPOINT_ID: self.checkpoint["id"]}
        config = with_configurable(self.checkpoint_config, here)
        by_task: dict[str, list[tuple[str, Any]]] = {}
        for task_id, channel, value in pending:
            by_task.setdefault(task_id, []).append((channel, value))
        for task_id, writes in by_task.items():
            self.submit(self.checkpointer_put_writes, config, writes, task_id)

    # another run begins

    def _first(self, **given: Any) -> set[str] | None:
        if self._begins_anew():
            self._fold_what_has_finished()
        elif self._addressed_checkpoint_superseded and self._is_answer():
            self._branch_off()
        return super()._first(**given)

    def _is_answer(self) -> bool:
        return isinstance(self.input, Command) and self.input.resume is not None

    def _branch_off(self) -> None:
        """Another answer to a question of the past: LangGraph puts no checkpoint there, and takes the old answer."""
        self.checkpoint_pending_writes = []
        self._delta_channels_forced_snapshot = set()
        self._put_checkpoint({"source": "fork"})
        self._addressed_checkpoint_superseded = False

    def _begins_anew(self) -> bool:
        """Whether new input meets a step that was never closed, as after a kill."""
        resumes = self.config[CONF].get(CONFIG_KEY_RESUMING, self.input is None or isinstance(self.input, Command))
        if resumes or self._addressed_checkpoint_superseded or not self.checkpoint_pending_writes:
            return False
        return is_open(self.checkpoint, self.channels)

    def _fold_what_has_finished(self) -> None:
        scheduler, ids = opened(
            self.checkpoint,
            self.channels,
            self.nodes,
            self.step,
            self.checkpoint_pending_writes,
            branches=False,
            actors=self.known_actors,
        )
        step = OpenStep(self.schedule, scheduler, self._factory(scheduler, ids))
        step.replay(self.checkpoint_pending_writes)
        if step.finished:
            self._delta_channels_forced_snapshot = set()
            self._close(step, [])
            self.checkpoint_pending_writes = []
