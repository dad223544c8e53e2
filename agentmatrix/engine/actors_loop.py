"""What a loop does about actors: their states, who there is, and what is sent to nodes and actors from inside a run.

Who was hired since the last checkpoint is put just before the next one, into a namespace of the actors' name: so no
checkpoint has the whole staff, and each run reads all of it once.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphBubbleUp
from langgraph.types import Send

from agentmatrix.engine.actor_middleware import BLOCKED, passed_message
from agentmatrix.engine.actor_states import ActorStates
from agentmatrix.engine.branches import ALL, Fork, Span, spans_of
from agentmatrix.engine.channels import HELD, dismissal
from agentmatrix.engine.checkpoint import schedule_of
from agentmatrix.engine.listener import ListeningLoop
from agentmatrix.engine.staff_checkpoints import forks_in, staff_checkpoint, staff_config, staff_in, staff_version
from agentmatrix.engine.step import OpenStep
from agentmatrix.errors import SendError
from agentmatrix.live.send_scope import Sender, SendScope, current_send_scope
from agentmatrix.middleware import Mailbox
from agentmatrix.pregel.checkpoint_order import SaverFuture, loops_of
from agentmatrix.pregel.execution import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_REPLAY_STATE,
    TASKS,
    Task,
    with_configurable,
)
from agentmatrix.pregel.pending_sends import sends_known_by
from agentmatrix.pregel.task_config import attempt_of, namespace_of
from agentmatrix.scheduling.actors import Actor, Actors, address_of, split_path
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation, Write
from agentmatrix.scheduling.topology import Topology

__all__ = ["LARGEST_MESSAGE", "ActorsLoop"]

LARGEST_MESSAGE = 4 * 2**20
"""How many bytes a message has at most, as the checkpointer keeps it."""

_log = logging.getLogger("agentmatrix")


class _Breakpoints(tuple[str, ...]):
    """The nodes that a run pauses at: that of actors, or of members, stands for each of them."""

    _topology: Topology

    def __new__(cls, names: Any, topology: Topology) -> Any:
        if isinstance(names, str):
            return names
        found = super().__new__(cls, names)
        found._topology = topology
        return found

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or super().__contains__(self._topology.node_of(str(name)))


class ActorsLoop(ListeningLoop):
    """A loop whose nodes send, and whose nodes may be actors."""

    _spans: Sequence[Span] = ALL
    _began_at: CheckpointTuple | None = None
    _held_count = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._states: dict[str, ActorStates] = {}
        self._staff_versions: dict[str, Any] = {}
        self._unsaved_staff: list[list[Any]] = []
        self._unsaved_forks: list[Fork] = []
        # By id of a task and namespace of the sender, what was written in its name by what runs inside of it.
        self.held: dict[str, dict[str, list[Write]]] = {}
        # By id of a task, what it has sent by itself, which has passed the middleware of actors.
        self.passed: dict[str, list[Send]] = {}
        self.skipped: set[str] = set()
        self._shown: dict[str, Sequence[Write]] = {}
        topology = schedule_of(self.specs).topology
        if (topology.actors or topology.members) and self._breaks:
            self.interrupt_before = _Breakpoints(self.interrupt_before, topology)
            self.interrupt_after = _Breakpoints(self.interrupt_after, topology)
        if topology.actors:
            self._emit = self._emit_shown  # type: ignore[method-assign]

    # who there is

    def _staff_config(self, name: str) -> RunnableConfig:
        return staff_config(self.checkpoint_config, name)

    @property
    def _staff_to_read(self) -> Sequence[str]:
        """The actors of which a checkpointer may know some."""
        if self.checkpointer is None or not self.checkpoint["channel_versions"]:
            return ()
        return tuple(self._topology.actors)

    def _know_staff(self, listed: Mapping[str, Sequence[CheckpointTuple]], forks: list[Fork]) -> None:
        """What a checkpointer knows of actors.

        Args:
            listed: by their name, checkpoints that keep who was hired, newest first.
            forks: those that led here, of which these checkpoints know nothing.
        """
        here, began = self.checkpoint["id"], self._began_at
        replays = self.is_replaying or self.config[CONF].get(CONFIG_KEY_REPLAY_STATE)
        if replays and began is not None and here != began.checkpoint["id"]:
            forks = [*forks, Fork(began.checkpoint["id"], here)]
        self._unsaved_forks = forks
        self._spans = spans_of([*forks_in(listed), *forks], here, is_open=True)
        for name, found in listed.items():
            self.known_actors += staff_in(found, self._spans)
            if found:
                self._staff_versions[name] = max(map(staff_version, found))

    def _close(self, step: OpenStep, *args: Any, **kwargs: Any) -> set[str]:
        updated = super()._close(step, *args, **kwargs)
        if (staff := step.scheduler.rules.staff) is not None:
            changed = staff.take_changed()
            self._unsaved_staff += changed
            # The next step of this run may begin anew.
            self.known_actors += changed
        return updated

    def put_staff(self, id: str) -> None:
        """Put who was hired since the last checkpoint, and the states of actors.

        Args:
            id: of the checkpoint that is put next.
        """
        saver: Any = self.checkpointer
        for one in self._take_staff(id):
            saver.put(*one)
        for states in self._states.values():
            states.put_all()

    async def aput_staff(self, id: str) -> None:
        """The same as `put_staff`, async."""
        saver: Any = self.checkpointer
        for one in self._take_staff(id):
            await saver.aput(*one)
        for states in self._states.values():
            await states.aput_all()

    def _take_staff(self, id: str) -> Iterator[tuple[RunnableConfig, Any, dict[str, Any], Any]]:
        """What is to be put just before a checkpoint of the graph, under the same id: it belongs to the same branch."""
        with self.lock:
            changed, self._unsaved_staff = self._unsaved_staff, []
            forks, self._unsaved_forks = self._unsaved_forks, []
        by_name: dict[str, list[list[Any]]] = {name: [] for name in self._actors if forks}
        for plain in changed:
            by_name.setdefault(split_path(plain[0])[0], []).append(plain)
        for name, found in by_name.items():
            version = self.checkpointer_get_next_version(self._staff_versions.get(name), None)
            self._staff_versions[name] = version
            checkpoint = staff_checkpoint(id, found, forks, version)
            metadata = {"source": "loop", "step": 0, "parents": {}}
            yield self._staff_config(name), checkpoint, metadata, checkpoint["channel_versions"]

    def actor_states(self, name: str, specs: Any) -> ActorStates:
        """The states of the actors of one name.

        Args:
            name: the node that stands for them.
            specs: the channels of their state, empty.
        """
        with self.lock:
            if name not in self._states:
                config = with_configurable(self.checkpoint_config, {})
                durable = self.durability != "exit"
                self._states[name] = ActorStates(specs, self.checkpointer, config, durable=durable, spans=self._spans)
            return self._states[name]

    def actor_of(self, address: str) -> Actor:
        """The actor that LangGraph calls by this name."""
        assert self.open_step is not None
        staff = self.open_step.scheduler.rules.staff
        with self.lock:
            found = staff.get(address) if staff is not None else None
        assert found is not None, address
        return found

    def show(self, task_id: str, writes: Sequence[Write]) -> None:
        """Let streams show what an actor has written to its own state."""
        if self.stream is not None and "updates" in self.stream.modes and self.shows_parts:
            self._shown[task_id] = writes

    def _emit_shown(self, mode: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        if mode == "updates" and self._shown and len(args) == 3:
            [(task, _)] = args[1]
            if (shown := self._shown.pop(task.id, None)) is not None:
                name, update = task.name, dict(shown) or None
                super()._emit(mode, lambda: iter([{name: update}]))
                return
        super()._emit(mode, values, *args, **kwargs)

    # what is sent from inside

    def takes(self, path: str) -> bool:
        """Whether a node or an actor of this graph has that path."""
        return self._topology.takes(path) or path in self._topology.actors

    def check_send(self, task: Task, path: str, value: Any) -> None:
        """Whether a node or an actor takes what a task sends.

        Raises:
            SendError: it does not.
            BoundError: it would hire one too many.
        """
        topology = self._topology
        if not self.takes(path):
            names = [*topology.nodes, *(f"{name}/<key>" for name in topology.actors)]
            close = difflib.get_close_matches(path, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
            raise SendError(f"no node and no actor has the path {path!r}, in this graph and those around it ({hint})")
        with self.lock:
            self._check_message(self._activation_of(task), path, value)

    def pass_message(self, task: Task, path: str, value: Any) -> Any:
        """A message as it is kept, once it has passed the middleware of its actor; `BLOCKED` for none."""
        actors = self._topology.actors.get(split_path(path)[0])
        if actors is None or actors.middleware is None:
            return value
        with self.lock:
            sender = self._activation_of(task)
            mailboxes = self.open_step.scheduler.rules.mailboxes if self.open_step is not None else None
            unread = mailboxes.unread(address_of(path)) if mailboxes is not None else ()
        waits = Mailbox(path, tuple(message.value for message in unread))
        return passed_message(actors.middleware, value, sender.path, waits)

    def note_passed(self, task: Task, send: Send) -> None:
        """A node has sent this by itself, and it has passed: it does not pass again when the node has ended."""
        actors = self._topology.actors.get(split_path(send.node)[0])
        if actors is not None and actors.middleware is not None:
            self.passed.setdefault(task.id, []).append(send)

    def _pass_commands(self, task: Task) -> None:
        """Let what a command or a router of a node sends to actors pass; what it has sent itself has passed."""
        sent, writes = self.passed.pop(task.id, []), list[Any]()
        for channel, value in task.writes:
            if channel == TASKS and isinstance(value, Send) and not any(value is one for one in sent):
                if (kept := self.pass_message(task, value.node, value.arg)) is BLOCKED:
                    continue
                value = value if kept is value.arg else Send(value.node, kept)
            writes.append((channel, value))
        task.writes.clear()
        task.writes.extend(writes)

    def check_dismissal(self, path: str) -> None:
        """Whether there is an actor to dismiss.

        Raises:
            SendError: there is none.
        """
        if not self._topology.is_actor(path):
            raise SendError(f"{path!r} is no actor and cannot be dismissed: name one, as in 'staff/ann'")
        with self.lock:
            staff = self.open_step.scheduler.rules.staff if self.open_step is not None else None
            known = staff.get(address_of(path)) if staff is not None else None
        if known is None:
            raise SendError(f"{path!r} was not hired and cannot be dismissed: see graph.actors(config) for who was")

    def _activation_of(self, task: Task) -> ScheduledActivation:
        step = self.open_step
        if step is None or (activation := step.activations.get(task.id)) is None:
            raise SendError(f"the node {task.name!r} has ended and sends no more: send while it is at work", "ended")
        return activation

    def _check_message(self, activation: ScheduledActivation, path: str, value: Any) -> None:
        assert self.open_step is not None
        if (serde := getattr(self.checkpointer, "serde", None)) is not None:
            try:
                _, kept = serde.dumps_typed(value)
            except Exception as error:
                why = f"the checkpointer cannot keep it, {type(value).__name__!r}: {error}"
                raise SendError(f"the message for {path!r} was not taken: {why}", "kept") from error
            if len(kept) > LARGEST_MESSAGE:
                raise SendError(
                    f"the message for {path!r} has {len(kept):,} bytes and {LARGEST_MESSAGE:,} are the most: put what "
                    "is large into the store or a file, and send its name",
                    "kept",
                )
        staff = self.open_step.scheduler.rules.staff
        if staff is not None and split_path(path)[0] in self._topology.actors:
            staff.check(activation.key, activation.path, path, value)

    def hold(
        self, task: Task, sender: str, place: int, write: Write, after: Sequence[SaverFuture]
    ) -> Sequence[SaverFuture]:
        """Keep what was sent in the name of a task, or whom it has dismissed, until that has ended.

        Args:
            task: the task.
            sender: the namespace of the task inside that sends.
            place: how often that has sent before in this attempt.
            write: what.
            after: what has to be kept before it.

        Returns:
            What must be done before it is kept: it stands beside the checkpoint of this graph.
        """
        with self.lock:
            self._held_count += 1
            channel, value = write
            sent = [value.node, value.arg] if isinstance(value, Send) else [channel, value, True]
            record = [self._held_count, task.id, sender, place, *sent]
            self._hold(*record[1:])
            id = str(uuid5(NAMESPACE_OID, f"{task.id}:{sender}:{self._held_count}"))
            self.checkpoint_pending_writes.append((id, HELD, record))
            return self._futures_of(self._put_beside_now(id, [(HELD, record)], after))

    def _hold(self, task_id: str, sender: str, place: int, path: str, value: Any, is_write: bool = False) -> None:
        held = self.held.setdefault(task_id, {})
        # Whoever begins anew takes back what an attempt that was broken off has sent.
        before = held.get(sender, ()) if place else ()
        held[sender] = [*before, (path, value) if is_write else (TASKS, Send(path, value))]

    def _forward(self, task: Task) -> None:
        """Hand Sends that no node of this graph takes to the graphs around."""
        outer: SendScope | None = getattr(current_send_scope.get(), "outer", None)
        if outer is None:
            return
        loops = (self, *loops_of(self.config))
        sender = Sender(namespace_of(task.config), attempt_of(task.config), loops)
        for channel, value in list(task.writes):
            sends = channel == TASKS and isinstance(value, Send)
            if sends and not self.takes(value.node) and outer.takes(value.node):
                outer.send(value.node, value.arg, sender)
                task.writes.remove((channel, value))

    def accept_sends(self, task: Task) -> None:
        """`accept`, of a task that has sent something."""
        self._forward(task)
        if any(actors.middleware for actors in self._actors.values()) and self._activation_of(task).message is None:
            # An actor's have passed before its state was kept.
            self._pass_commands(task)
        held = self.held.pop(task.id, None)
        if held:
            task.writes.extend(write for writes in held.values() for write in writes)
        try:
            if self._actors and (activation := self._activation_of(task)).message is None:
                # An actor's were checked before its state was kept.
                for channel, value in task.writes:
                    if channel == TASKS and isinstance(value, Send) and self._topology.is_actor(value.node):
                        self._check_message(activation, value.node, value.arg)
            self.accept(task)
        except Exception:
            if held:
                self.held[task.id] = held
            raise

    def _first(self, **given: Any) -> set[str] | None:
        if self._actors and self.checkpoint["channel_versions"]:
            config = with_configurable(self.checkpoint_config, {CONFIG_KEY_CHECKPOINT_ID: self.checkpoint["id"]})
            # As it is now: the input of the run changes its versions.
            saved: Any = {**self.checkpoint, "channel_versions": dict(self.checkpoint["channel_versions"])}
            self._began_at = CheckpointTuple(config, saved, self.checkpoint_metadata, self.prev_checkpoint_config)
        with self._known_sends():
            return super()._first(**given)

    def _prepare_tasks_and_emit_checkpoint(self) -> None:
        with self._known_sends():
            super()._prepare_tasks_and_emit_checkpoint()

    def _known_sends(self) -> AbstractContextManager[None]:
        return sends_known_by(self._topology.is_actor) if self._actors else nullcontext()

    def _open_step(self) -> None:
        self.held = {}
        records = [value for _, channel, value in self.checkpoint_pending_writes if channel == HELD]
        for count, *held in sorted(records, key=lambda record: record[0]):
            self._held_count = max(self._held_count, count)
            self._hold(*held)
        super()._open_step()

    @property
    def _topology(self) -> Topology:
        return self.schedule.topology

    @property
    def _actors(self) -> Mapping[str, Actors]:
        return self._topology.actors

    # actors that raise

    def skips(self, task: Task, error: BaseException) -> bool:
        """Whether what an actor raises ends the run, or only what it does with this message."""
        step = self.open_step
        activation = step.activations.get(task.id) if step is not None else None
        if activation is None or activation.message is None or activation.error is not None:
            return False
        if isinstance(error, GraphBubbleUp) or not isinstance(error, Exception):
            return False
        return bool(self._actors[split_path(task.name)[0]].on_error != "error")

    def skip(self, task: Task, error: BaseException) -> None:
        """The actor has read its message and has done nothing."""
        assert self.open_step is not None
        path = self.open_step.activations[task.id].message.path
        dismisses = self._actors[split_path(path)[0]].on_error == "dismiss"
        _log.warning("the actor %r has failed and %s", path, "is dismissed" if dismisses else "goes on", exc_info=error)
        self.held.pop(task.id, None)
        if (staff := self.open_step.scheduler.rules.staff) is not None:
            staff.release(self.open_step.activations[task.id].key)
        task.writes.clear()
        if dismisses:
            task.writes.append(dismissal(path))
        self.skipped.add(task.id)
