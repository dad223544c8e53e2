"""How a superstep ends, and how the next one begins: through LangGraph, with a checkpoint in between, or at once where
nobody would see that checkpoint.

A checkpoint hands the folded state to LangGraph's channels. It is needed where a saver keeps it, where a stream shows
it and where a breakpoint may stand. Where nobody looks on, the runner goes on by itself: from START to the first nodes,
and, with barriers, from each level to the next, with a checkpoint for the saver if there is one.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence, Set
from itertools import pairwise
from typing import Any

from langgraph.constants import START
from langgraph.errors import GraphInterrupt
from langgraph.graph.message import add_messages

from agentmatrix.engine.checkpoint import close, hand_over
from agentmatrix.engine.loop import SchedulerLoop
from agentmatrix.engine.step import OpenStep
from agentmatrix.engine.tasks import TaskIds
from agentmatrix.pregel.checkpoint_order import SaverFuture, checkpoints_under_way
from agentmatrix.pregel.compiled_graph import branch_target
from agentmatrix.pregel.execution import (
    CONF,
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_RESUMING,
    PULL,
    Task,
    TaskWrites,
    hidden_task,
    map_debug_tasks,
    output_values,
    prepare_next_tasks,
)
from agentmatrix.scheduling.log import ActivationLog
from agentmatrix.scheduling.reducer_checks import updated
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write
from agentmatrix.scheduling.state import is_overwrite

__all__ = ["SuperstepLoop"]


class SuperstepLoop(SchedulerLoop):
    """Ends supersteps."""

    _is_between = _is_over = _has_gone_on = _has_unshown_values = False
    _input_writes: list[Write] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shows_tasks = self._streams_checkpoints or self._breaks
        self._saves = self.checkpointer is not None and self.durability != "exit"

    # at once

    def _prepare_tasks_and_emit_checkpoint(self) -> None:
        if self.checkpointer is None and (writes := self._writes_of_input()) is not None:
            # Nobody asks for the task, nor for the checkpoint after it.
            self.tasks = {START: TaskWrites((PULL, START), START, writes, (START,))}  # type: ignore[dict-item]
            self._end_between()
        super()._prepare_tasks_and_emit_checkpoint()

    def _prepare_input(self) -> bool:
        # A task without writes is one that LangGraph would run.
        if self.checkpointer is None or not (writes := self._writes_of_input()):
            return False
        self._input_writes = writes
        made = prepare_next_tasks(
            self.checkpoint,
            self.checkpoint_pending_writes,
            self.nodes,
            self.channels,
            self.managed,
            self.config,
            self.step,
            self.stop,
            for_execution=False,
            trigger_to_nodes=self.trigger_to_nodes,
            updated_channels=self.updated_channels,
        )
        self.tasks = {task.id: hidden_task(task, (START,)) for task in made.values()}
        return True

    def _writes_of_input(self) -> list[Write] | None:
        """What START writes, where it may do so at once."""
        write, given = self.schedule.write_input, self.channels[START]
        if write is None or self._shows_tasks or self.checkpoint_pending_writes or not given.is_available():
            return None
        if self.step + 1 > self.stop:
            return None
        try:
            writes = write(given.get())
            if (route := self.schedule.route_input) is None:
                return writes
            keys = {key for key, _ in writes} & self.schedule.keys.all
            if any(map(self._may_change_in_place, keys)):
                return writes
            routed = route(self._state_after(writes, keys), self.config)
        except Exception:
            # LangGraph says what is wrong with it, and where.
            return None
        if routed is None or any(channel not in self.channels for channel, _ in routed):
            return writes
        return [write for write in writes if branch_target(write[0]) is None] + routed

    def _may_change_in_place(self, key: str) -> bool:
        """Whether the reducer of a key may change what it is given, so that it is not to be asked twice."""
        keys = self.schedule.keys
        return key not in keys.trusted and keys.reducers.get(key) not in (None, add_messages, operator.add)

    def _state_after(self, writes: Sequence[Write], keys: Set[str]) -> dict[str, Any]:
        """The state after these writes of one step, to these keys."""
        channels = dict(self.channels)
        for key in keys:
            channels[key] = updated(channels[key], [value for name, value in writes if name == key])
        return {key: channels[key].get() for key in self.schedule.keys.all if channels[key].is_available()}

    def goes_on(self) -> bool:
        """Whether the next superstep is to begin at once, without LangGraph's loop in between. Called by the runner
        when all of one has finished, before LangGraph hears of that."""
        if self._shows_tasks or self.step + 1 > self.stop:
            return False
        if self.control is not None and self.control.drain_requested:
            return False
        step = self.open_step
        if self._saves and (step is None or self.shows_parts or self.is_listening):
            # Streams and signals are looked at in between.
            return False
        return step is None or (self.schedule.barriers and bool(step.held))

    def end_step(self) -> list[SaverFuture]:
        """Put the checkpoint behind the superstep that is open, if it is kept. Returns what is to be done before the
        next one begins, as in LangGraph."""
        with self.lock:
            if (step := self.open_step) is None or not self._saves:
                return []
            self.updated_channels = updated = self._close(step, step.held)
            self._has_unshown_values |= not updated.isdisjoint(self._outputs)
            self._put_checkpoint({"source": "loop"})
            step.finished = {}
        return checkpoints_under_way([self]) if self.durability == "sync" else []

    def next_step(self) -> list[Task] | None:
        """Begin the next superstep at once. Returns its tasks, or None where the run is over."""
        with self.lock:
            if (step := self.open_step) is None:
                self._end_between()
                self._is_over = not self.tick()
                return None if self._is_over else list(self.tasks.values())
            if not self._saves:
                self.step += 1
            elif self.control is not None and self.control.drain_requested:
                self.status, self._is_over, self.open_step = "draining", True, None
                self._show_values(frozenset())
                return None
            return self._next_level(step)

    def _show_values(self, updated: Set[str]) -> None:
        """Stream the values, if some of these channels are among them, or have been since they were streamed last."""
        if self._is_live_values and (self._has_unshown_values or not updated.isdisjoint(self._outputs)):
            self._has_unshown_values = False
            self._emit("values", output_values, self.output_keys, self.channels)

    def _end_between(self) -> None:
        self._is_between = True
        self.after_tick()
        self._is_between = False

    def _next_level(self, step: OpenStep) -> list[Task]:
        if self._is_live_values and self.shows_parts:
            self._emit_values(self._level_writes)
        self._level_writes = []
        self._has_gone_on = not self._saves
        self.checkpoint_pending_writes.clear()
        self._wrote.clear()
        self.is_replaying = False
        self.config[CONF].pop(CONFIG_KEY_RESUMING, None)
        self.tasks = step.go_on(self._factory(step.scheduler, TaskIds(self.checkpoint["id"], self.step)))
        self._emit("tasks", map_debug_tasks, self.tasks.values())
        return list(self.tasks.values())

    def tick(self) -> bool:
        if self._is_over or not super().tick():
            return False
        if (writes := self._input_writes) is not None:
            self._input_writes = None
            [start] = self.tasks.values()
            start.writes.extend(writes)
            self.put_writes(start.id, start.writes)
        return True

    def _put_checkpoint(self, metadata: Any) -> None:
        if not self._is_between:
            super()._put_checkpoint(metadata)
            return
        metadata |= {"step": self.step, "parents": self.config[CONF].get(CONFIG_KEY_CHECKPOINT_MAP, {})}
        self.checkpoint_metadata = metadata
        self.step += 1

    # through LangGraph

    def after_tick(self) -> None:
        step = self.open_step
        if self._is_over:
            return
        if step is None:
            super().after_tick()
            return
        self.updated_channels = updated = self._close(step, step.held, rests=self._is_resting)
        if not self.shows_parts or self.schedule.barriers:
            self._show_values(updated)
        self.checkpoint_pending_writes.clear()
        self.is_replaying = False
        if not self.schedule.barriers:
            self.step += max(0, step.scheduler.levels - 1)
        self.open_step = None
        self._has_ended = not step.held and not self._is_resting
        self._continued = step if self._is_resting or (self.schedule.barriers and step.held) else None
        self._put_checkpoint({"source": "loop"})
        if self._is_resting:
            # A checkpoint for its own sake is no step of the run's, whose number is limited.
            self._is_resting = False
            self.stop += 1
        self.config[CONF].pop(CONFIG_KEY_RESUMING, None)
        after = self.interrupt_after
        if after and step.held and any(after == "*" or node in after for node in step.finished.values()):
            self.status = "interrupt_after"
            self._prepare_tasks_and_emit_checkpoint()
            self.open_step = None
            raise GraphInterrupt()

    def _replays_alike(self, key: str, log: ActivationLog) -> bool:
        """Whether a DeltaChannel comes to its value from what is saved beside the checkpoint, so that it needs no
        snapshot. LangGraph replays writes by the paths of their tasks: that is the order of nodes by name."""
        if self._resume_loaded_writes or self._exit_delta_writes is not None or log.floor:
            return False
        entries = log.in_order(log.writers[key])
        nodes = [log.nodes[entry] for entry in entries]
        if log.writers[key] & log.outside or any(log.orders[entry][0] for entry in entries):
            return False  # written from outside, or by a Send
        written = [value for entry in entries for name, value in log.writes[entry] if name == key]
        saved = [id for id, name, _ in self.checkpoint_pending_writes if name == key]
        return (
            all(one < other for one, other in pairwise(nodes))
            and len(saved) == len(written)
            and len({*saved}) == len(entries)
            and not any(map(is_overwrite, written))
        )

    def _close(
        self,
        step: OpenStep,
        unfinished: Sequence[ScheduledActivation],
        ids: TaskIds | None = None,
        *,
        rests: bool = False,
    ) -> set[str]:
        following = self._next_version()
        if self.checkpointer is None and not (unfinished or rests):
            # Nobody will ask what has run.
            return hand_over(step.scheduler, self.checkpoint, self.channels, following)  # type: ignore[arg-type]
        self._log = log = step.scheduler.log
        may_replay = ids is None and not (unfinished or rests)
        for name in self._delta_channel_names:
            if name in log.writers and not (may_replay and self._replays_alike(name, log)):
                self._delta_channels_forced_snapshot.add(name)
        return close(
            step.scheduler,
            unfinished,
            self.checkpoint,
            self.channels,  # type: ignore[arg-type]
            self.nodes,
            following,
            ids,
            rests=rests,
        )
