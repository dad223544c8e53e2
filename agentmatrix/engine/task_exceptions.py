"""What ends a run before its nodes have run out: errors, commands to the parent graph, questions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from langgraph.errors import GraphInterrupt, InvalidUpdateError, ParentCommand
from langgraph.types import Interrupt

from agentmatrix.engine.listener import ListeningLoop
from agentmatrix.pregel.execution import Task
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation

__all__ = ["TaskExceptions", "each_once"]

_INNER_FRAMES: Final = tuple(str(Path(__file__).parents[1] / room) + os.sep for room in ("engine", "pregel"))


class TaskExceptions:
    """What has ended a run: errors, commands to the parent graph, questions.

    Of several that meet the first in canonical order counts.

    Args:
        loop: the loop whose step the activations belong to.

    Attributes:
        stops: whether nothing new is to start.
    """

    def __init__(self, loop: ListeningLoop) -> None:
        self._loop = loop
        self._ends: list[tuple[Any, Task, BaseException]] = []
        self.stops = False

    def add(self, task: Task, error: BaseException) -> None:
        """A task has ended with an exception."""
        self._ends.append((self._place(task), task, error))
        self._ends.sort(key=lambda end: end[0])
        self.stops = self.stops or not isinstance(error, GraphInterrupt)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has ended the run so far."""
        return not self._ends

    def remove(self, task_id: str) -> None:
        """A task was cancelled after it had ended."""
        self._ends = [end for end in self._ends if end[1].id != task_id]

    def _place(self, task: Task) -> Any:
        step = self._loop.open_step
        activation: ScheduledActivation | None = step.activations.get(task.id) if step else None
        if activation is None and step is not None:
            # An error handler has taken its place.
            activation = next((a for a in step.activations.values() if a.node == task.name), None)
        return (activation.depth, activation.order) if activation else (0, (0, task.name))

    def waits_for(self, at_work: Mapping[str, Any]) -> bool:
        """Whether to wait for more ends before the run ends.

        An error ends it at once, as in LangGraph. Of commands to the parent graph each would be lost beside another,
        so all that is at work is waited for.

        Args:
            at_work: by id of a task that is at work, its future.
        """
        commands = all(isinstance(end[2], GraphInterrupt | ParentCommand) for end in self._ends)
        return bool(at_work) if commands else any(future.done() for future in at_work.values())

    def raise_first(self) -> None:
        """Raise what counts: the first error, else the first command to the parent, else all questions together."""
        errors = [(t, e) for _, t, e in self._ends if not isinstance(e, GraphInterrupt | ParentCommand)]
        commands = [(t, e) for _, t, e in self._ends if isinstance(e, ParentCommand)]
        if errors:
            (_, first), *others = errors
            names = [task.name for task, _ in (*others, *commands)]
            if names:
                first.add_note(f"at the same time ended: {', '.join(map(repr, names))}")
            raise first.with_traceback(_without_inner_frames(first.__traceback__))
        if len(commands) > 1:
            names = [task.name for task, _ in commands]
            raise InvalidUpdateError(
                f"the nodes {' and '.join(map(repr, names))} both go to the parent graph with a Command, and neither "
                "comes after the other: one of the two would be lost; let one node collect what they found and go there"
            )
        if commands:
            raise commands[0][1]
        if self._ends:
            asked = [question for _, _, error in self._ends for question in (error.args[0] if error.args else ())]
            raise GraphInterrupt(each_once(asked))


def _without_inner_frames(trace: TracebackType | None) -> TracebackType | None:
    """A node's traceback without our frames between LangGraph and the node: they do not say why it has failed."""
    entries: list[TracebackType] = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    for entry in reversed(entries):
        if not entry.tb_frame.f_code.co_filename.startswith(_INNER_FRAMES):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept or (entries[0] if entries else None)


def each_once(asked: Iterable[Interrupt]) -> tuple[Interrupt, ...]:
    """The questions, each once: LangGraph tells one of a task that a task has called once for each of these tasks."""
    return tuple({question.id: question for question in asked}.values())
