"""LangGraph's loop without barriers: what a finished task makes ready starts in the same superstep.

The order for each task that ends: accept (what it writes is checked and recorded), save (its writes are put beside the
checkpoint), start (what has become ready). `Runner` drives it; everything here runs under `lock`, in the thread that
runs the task or in the runner's own.

A step closes when nothing is at work any more. Its folded state is handed to LangGraph's channels as it is, in one
checkpoint; an exception that ends the run closes it as a pause.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from langgraph.types import Interrupt

from agentmatrix.engine.channels import RUN, RunChannel
from agentmatrix.engine.checkpoint import is_branch, is_open, levels_of, opened, schedule_of
from agentmatrix.engine.recorded_writes import RecordedWritesLoop, with_message_ids
from agentmatrix.engine.step import OpenStep
from agentmatrix.engine.tasks import TaskFactory, TaskIds
from agentmatrix.interrupts import cancelled_interrupts
from agentmatrix.pregel.execution import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_STREAM,
    INTERRUPT,
    NULL_TASK_ID,
    PregelLoop,
    Task,
    map_debug_checkpoint,
    map_debug_tasks,
    output_values,
    with_configurable,
)
from agentmatrix.pregel.node_handler import node_handlers
from agentmatrix.pregel.task_config import namespace_of
from agentmatrix.pregel.task_template import TaskTemplates
from agentmatrix.pregel.untraced import is_watched
from agentmatrix.scheduling.graph_scheduler import Record
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write

__all__ = ["RESULT_ONLY", "SchedulerLoop"]

RESULT_ONLY = "__pregel_agentmatrix_result_only"
"""The key in `config["configurable"]` by which `invoke` says that it reads the last values and the interrupts, and
nothing else. With LangGraph's own prefix it stays out of metadata, savers and the wire."""


class SchedulerLoop(RecordedWritesLoop):
    """What the sync and the async loop have in common.

    Attributes:
        open_step: the step that is open, or None while LangGraph's own superstep takes the input in.
        lock: held while the end of a task is recorded, and while tasks are made. Reentrant: writes are put under it.
        saved: by id of a task, the future of the saver that keeps its writes; only under durability "sync".
        submit_activation: runs an activation that is not alone, in LangGraph's executor.
        given_up: the ids of the tasks that were cancelled, until the runner has cancelled them.
        known_actors: the actors that checkpoints know of, as plain values.
        submit_call: runs the tasks that a task calls; None for the loop's own `submit`.
        waits_to_start: whether what follows an activation starts only when a saver or a cache has answered.
        is_listening: whether something from outside is taken.
        shows_parts: whether anything but the result of the run is read while it goes on.
        is_unread: whether nobody reads what a single task has written: no saver, no cache, and no stream.
    """

    open_step: OpenStep | None = None
    submit_activation: Any = None
    submit_call: Any = None
    waits_to_start = is_listening = False
    _put_futures: FutureRecorder | None = None
    _continued: OpenStep | None = None
    _is_input_closed = _is_resting = _has_ended = _tells_changes = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Somebody who streams this graph as a part of his own reads everything.
        self.shows_parts = not self.config[CONF].get(RESULT_ONLY) or CONFIG_KEY_STREAM in self.config[CONF]
        if RESULT_ONLY in self.config[CONF]:
            # It is said to this run alone, not to graphs inside.
            configurable = {**self.config[CONF]}
            del configurable[RESULT_ONLY]
            self.config = {**self.config, CONF: configurable}
        self.schedule = schedule_of(self.specs)
        self._task_nodes: Mapping[str, Any] = self.nodes if is_watched(self.manager) else self.schedule.untraced
        self._templates = TaskTemplates()
        self.lock = threading.RLock()
        self.saved: dict[str, Any] = {}
        self.is_unread = not self.shows_parts and self.checkpointer is None and self.cache is None
        self.known_actors: list[list[Any]] = []
        self._accepted: list[Task] = []
        self.given_up: list[str] = []
        self._given_up: set[str] = set()
        self._wrote: set[str] = set()
        modes = frozenset[str]() if self.stream is None else self.stream.modes
        self._is_live_values = "values" in modes
        self._streams_checkpoints = not modes.isdisjoint(("checkpoints", "debug"))
        self._breaks = bool(self.interrupt_before or self.interrupt_after)
        self._level_writes: list[Write] = []

    def _set_executors(self, unlimited: Any, calls: Any) -> None:
        """Called when LangGraph has entered its own executor."""
        self.submit_activation, self.submit_call = self.submit, calls
        self.waits_to_start = self.cache is not None
        if unlimited is not None:
            self.submit = unlimited
        # What an actor has sent is in the saver before it is read. A superstep waits for the checkpoint before it only.
        has_actors = self.schedule.topology.actors and self.durability != "exit"
        if (has_actors or (self.durability == "sync" and not self.schedule.barriers)) and self.checkpointer is not None:
            self._put_futures = FutureRecorder(self.submit)
            self.submit = cast(Any, self._put_futures.submit)
            self.waits_to_start = True

    # opening a step

    def _prepare_tasks_and_emit_checkpoint(self) -> None:
        self.open_step = None
        if not is_open(self.checkpoint, self.channels):
            if self.channels[RUN].is_available() and self.checkpoint["channel_versions"]:
                # Another run begins: what the last one has left unfinished is over.
                self._set_channel(RUN, RunChannel(self.schedule))
            if not self._prepare_input():
                super()._prepare_tasks_and_emit_checkpoint()
            return
        self.tasks = {}
        if not self._has_ended:
            self._open_step()
        self._emit_checkpoint()

    def _prepare_input(self) -> bool:
        """Make the task of START, as one that nobody is to run. Returns False where LangGraph is to make and run it."""
        return False

    def _set_channel(self, name: str, channel: Any) -> None:
        channel.key = name
        self.channels[name] = channel  # type: ignore[index]
        self.checkpoint["channel_versions"][name] = self._next_version()

    def _next_version(self) -> Any:
        versions = self.checkpoint["channel_versions"]
        return self.checkpointer_get_next_version(max(versions.values()) if versions else None, None)

    def _open_step(self) -> None:
        pending = self.checkpoint_pending_writes
        if self._continued is not None:
            step, self._continued = self._continued, None
            self.tasks = step.go_on(self._factory(step.scheduler, TaskIds(self.checkpoint["id"], self.step)))
        else:
            scheduler, ids = opened(
                self.checkpoint,
                self.channels,
                self.nodes,
                self.step,
                self.checkpoint_pending_writes,
                branches=is_branch(self.checkpoint_metadata),
                input_open=self._is_input_open(),
                replays=self._reapplies_pending_writes,
                actors=self.known_actors,
            )
            step = OpenStep(self.schedule, scheduler, self._factory(scheduler, ids))
            self.tasks = step.replay(pending if self._reapplies_pending_writes else [])
            step.factory.go_on()
        self._wrote = {write[0] for write in pending}
        if self.tasks or step.finished or step.scheduler.awaits_external():
            self.open_step = step
            if (record := step.scheduler.take_record()) is not None and record["choices"]:
                self._save(record)

    def _factory(self, scheduler: Any, ids: TaskIds) -> TaskFactory:
        return TaskFactory(
            ids,
            self.checkpoint,
            self.checkpoint_pending_writes,
            self._task_nodes,
            self.managed,
            self.config,
            self.stop,
            {
                "store": self.store,
                "checkpointer": self.checkpointer,
                "manager": self.manager,
                "retry_policy": self.retry_policy,
                "cache_policy": self.cache_policy,
            },
            self._templates,
            view=scheduler.view,
            given=scheduler.given,
            level=levels_of(self.schedule, scheduler),
            node_of=scheduler.topology.node_of,
        )

    def _emit_checkpoint(self) -> None:
        if not self._streams_checkpoints or self._checkpointer_put_after_previous is None:
            return
        self._emit(
            "checkpoints",
            map_debug_checkpoint,
            with_configurable(self.checkpoint_config, {CONFIG_KEY_CHECKPOINT_ID: self.checkpoint["id"]}),
            self.channels,
            self.stream_keys,
            self.checkpoint_metadata,
            self.tasks.values(),
            self.checkpoint_pending_writes,
            self.prev_checkpoint_config,
            self.output_keys,
        )

    def _resume_error_handlers_if_applicable(self) -> None:
        if self.open_step is None:
            super()._resume_error_handlers_if_applicable()

    # a task has ended

    def accept(self, task: Task) -> None:
        """What a task has written counts from here on. Called under the lock, before its writes are saved.

        Raises:
            InvalidUpdateError: it cannot be; nothing has changed.
        """
        assert self.open_step is not None
        step = self.open_step
        # A cached message gets an id of its own in each run.
        copies = task.cache_key is not None
        recorded = with_message_ids(task.writes, self.schedule.keys.reducers, copies=copies)
        record = step.finish(task, task.writes if recorded is None else recorded)
        if recorded is not None and not self.is_unread:
            self._recorded[task.id] = recorded
        self._accepted.append(task)
        if record is not None:
            # What was decided because of it is saved with it, before anything that follows starts.
            task.writes.append((RUN, record))
            if recorded is not None:
                recorded.append((RUN, record))
        if step.scheduler.rules.cancelled:
            self.give_up(step.scheduler.take_cancelled())
        if self._tells_changes:
            self._on_change()

    def give_up(self, activations: Sequence[ScheduledActivation]) -> None:
        """These activations are cancelled: what they write does not count, and what they raise neither."""
        if self.open_step is None:
            return
        for id in self.open_step.cancel(activations):
            self.given_up.append(id)
            self._given_up.add(id)
            if (task := self.tasks.pop(id, None)) is not None:
                self._tell_cut_off(task)
            if (cancelled := cancelled_interrupts.get()) is not None:
                cancelled.update(interrupt.id for interrupt in self._asked(id))

    def _tell_cut_off(self, task: Task) -> None:
        """A task that is given up ends for whoever follows it, in the stream too."""
        if not self._asked(task.id):
            error = asyncio.CancelledError("cut off: another source was enough")
            ended = {"id": task.id, "name": task.name, "error": error, "result": {}, "interrupts": []}
            self._emit("tasks", iter, [ended])
        for handler in node_handlers(self.manager):
            handler.on_node_cancel(namespace_of(task.config))

    def _asked(self, task_id: str) -> list[Interrupt]:
        """The interrupts that a task has paused with."""
        pending = self.checkpoint_pending_writes
        return [one for id, channel, value in pending if (id, channel) == (task_id, INTERRUPT) for one in value]

    def _on_change(self) -> None:
        """Something has been recorded."""

    def _save(self, record: Record) -> Any:
        """Keep a record beside the checkpoint."""
        raise NotImplementedError

    def _is_input_open(self) -> bool:
        """Whether signals may come."""
        return False

    def put_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        if (task := getattr(self, "tasks", {}).get(task_id)) is not None:
            self._names[task_id] = task.name
        if (recorded := self._recorded.pop(task_id, None)) is not None:
            self._streamed[task_id], writes = writes, recorded
        if self.open_step is None or task_id in self._wrote or task_id == NULL_TASK_ID:
            super().put_writes(task_id, writes, cached=cached)
        else:
            self._put_first_writes(task_id, writes, cached)
        self._streamed.pop(task_id, None)

    def _put_first_writes(self, task_id: str, writes: Any, cached: bool) -> None:
        with self.lock:
            # LangGraph looks through all that is pending for what the task has written before: nothing.
            self._wrote.add(task_id)
            pending, self.checkpoint_pending_writes = self.checkpoint_pending_writes, []
            try:
                super().put_writes(task_id, writes, cached=cached)
            finally:
                pending += self.checkpoint_pending_writes
                self.checkpoint_pending_writes = pending
            if self._put_futures is not None:
                self.saved[task_id] = self._put_futures.last

    def output_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        if cached and (task := self.tasks.get(task_id)) is not None:
            run = getattr(self.manager, "run_id", None)
            for handler in node_handlers(self.manager):
                handler.on_node_cached(namespace_of(task.config), run, dict(writes))
        if self.shows_parts or writes[0][0] == INTERRUPT:
            super().output_writes(task_id, writes, cached=cached)

    def take_saved(self) -> list[Any]:
        """The futures of the saver that keep writes of tasks that have ended; empty where nothing waits for them."""
        with self.lock:
            saved, self.saved = self.saved, {}
        return list(saved.values())

    def take_given_up(self) -> list[str]:
        """The ids of the tasks that were cancelled since the last look."""
        with self.lock:
            given_up, self.given_up = self.given_up, []
        return given_up

    def is_given_up(self, task: Task) -> bool:
        """Whether a task was cancelled: what it writes does not count, and what it raises neither."""
        return task.id in self._given_up

    def take_started(self) -> list[Task] | None:
        """The tasks that have become ready since the last look, but for those that are held back.

        Called by the runner, in its own thread. None if meanwhile another task has ended whose writes are to be saved
        first.
        """
        with self.lock:
            if self.saved:
                return None
            accepted, self._accepted = self._accepted, []
            for task in accepted:
                self.tasks.pop(task.id, None)
            if accepted and self._is_live_values and self.shows_parts:
                writes = [write for task in accepted for write in task.writes]
                if self.schedule.barriers:
                    self._level_writes += writes
                else:
                    self._emit_values(writes)
            return self._start_ready()

    @property
    def _outputs(self) -> Sequence[str]:
        return (self.output_keys,) if isinstance(self.output_keys, str) else self.output_keys

    def _show_replayed(self) -> None:
        """Stream what lay beside the checkpoint when the run began, as LangGraph does: no task of this run will."""
        if (step := self.open_step) is None or not step.replayed:
            return
        replayed, step.replayed = step.replayed, []
        if not self.shows_parts:
            return
        for task, writes in replayed:
            self.tasks[task.id] = task
            self.output_writes(task.id, writes, cached=True)
            del self.tasks[task.id]
        if self._is_live_values and not self.schedule.barriers:
            self._emit_values([write for _, writes in replayed for write in writes])

    def _emit_values(self, writes: Sequence[Write]) -> None:
        assert self.open_step is not None
        if any(key in self._outputs for key, _ in writes):
            final = {**self.channels, **self.open_step.scheduler.state.final()}
            self._emit("values", output_values, self.output_keys, final)

    def _start_ready(self) -> list[Task]:
        step = self.open_step
        assert step is not None
        drains = self.control is not None and self.control.drain_requested
        may_hold = self.schedule.barriers or self._breaks or drains or self.step + step.scheduler.levels > self.stop
        tasks = step.start_ready(self._holds if may_hold else None)
        self.tasks.update((task.id, task) for task in tasks)
        self._emit("tasks", map_debug_tasks, tasks)
        return tasks

    def _holds(self, activation: ScheduledActivation) -> bool:
        """Whether an activation waits for the end of the step: behind a barrier, a breakpoint, a drain or the last."""
        assert self.open_step is not None
        before, after = self.interrupt_before, self.interrupt_after
        return (
            self.schedule.barriers
            or before == "*"
            or activation.node in before
            or any(after == "*" or node in after for node in activation.after)
            or (self.control is not None and self.control.drain_requested)
            or self.step + self.open_step.scheduler.level(activation) > self.stop
        )

    def _push(self, task: Task, write_idx: int, call: Any = None) -> Task | None:
        """LangGraph's `accept_push`: the task that another task calls."""
        step = self.open_step
        if step is None:
            return PregelLoop.accept_push(self, task, write_idx, call)
        with self.lock:
            pushed = step.call(task, write_idx, call)
            if pushed is None:
                return None
            self._emit("tasks", map_debug_tasks, [pushed])
            self.tasks[pushed.id] = pushed
            if self._reapplies_pending_writes:
                self._reapply_writes_to_succeeded_nodes({pushed.id: pushed})
            return pushed

    def _handle_error(self, failed: Task, error: BaseException) -> Task | None:
        """LangGraph's `schedule_error_handler`, for an activation."""
        step = self.open_step
        assert step is not None
        with self.lock:
            handler = step.error_handler(failed, error)
            if handler is not None:
                self.tasks.pop(failed.id, None)
                self.tasks[handler.id] = handler
                if self._reapplies_pending_writes:
                    self._reapply_writes_to_succeeded_nodes({handler.id: handler})
            return handler

    def cache_keys_of_calls(self) -> dict[Any, Task]:
        """By cache key, the tasks that other tasks have called: the runner asks the cache for all others."""
        activations = self.open_step.activations if self.open_step else {}
        tasks = [task for task in list(self.tasks.values()) if task.id not in activations and not task.writes]
        return {(task.cache_key.ns, task.cache_key.key): task for task in tasks if task.cache_key}

    @staticmethod
    def fill_calls(keys: Mapping[Any, Task], found: Mapping[Any, Any]) -> list[Task]:
        """The tasks that the cache has results of, with these."""
        for key, writes in found.items():
            keys[key].writes.extend(writes)
        return [keys[key] for key in found]


class FutureRecorder:
    """Remembers the last future that an executor has given.

    Args:
        submit: that of the executor.
    """

    def __init__(self, submit: Any) -> None:
        self._submit = submit
        self.last: Any = None

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Submit to the executor."""
        self.last = self._submit(function, *args, **options)
        return self.last
