"""Pauses of a superstep that stays open, each a checkpoint of its own.

All that happens in an open step is kept beside the checkpoint that it began with. So that a pause can be gone back to,
it is put as a checkpoint with the same values, and beside it, in one write, all that had happened until then. The run
goes on from there; the ids of its tasks remain those of the step, because questions, answers and nested graphs are kept
under them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from langgraph._internal._config import patch_configurable
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_REPLAY_STATE,
    ERROR_SOURCE_NODE,
    INPUT,
    INTERRUPT,
    NULL_TASK_ID,
    RESUME,
)
from langgraph.checkpoint.base import CheckpointMetadata, CheckpointTuple
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.pregel._algo import PregelTaskWrites, apply_writes
from langgraph.pregel._checkpoint import create_checkpoint
from langgraph.pregel._loop import PregelLoop
from langgraph.pregel._task_status import CONTROL_WRITES, read_task_statuses
from langgraph.types import Command

__all__ = ["Era", "Pausing", "asked", "commanded", "eras", "is_pause", "set_aside", "unfolded"]

PAUSE = "dag:pause"
"""The channel, and the task, under which what had happened until a pause is kept."""
ASKED = "dag:asked"
"""The channel, and the task, under which is kept who had asked when an answer came. LangGraph drops an answer at the
end of the step; in an open step those that ask later are not to have it."""
COMMANDED = "dag:commanded"
"""The task under which a snapshot finds what commands at a pause have written."""

Pending = tuple[str, str, Any]


def _pause(pending: Iterable[Pending]) -> Mapping[str, Any] | None:
    return next((value for _, channel, value in pending if channel == PAUSE), None)


def is_pause(saved: CheckpointTuple | None) -> bool:
    """Whether a checkpoint is that of a pause."""
    return saved is not None and _pause(saved.pending_writes or ()) is not None


class Era(NamedTuple):
    """What the ids of tasks depend on, from a checkpoint until somebody goes back and a branch begins.

    Attributes:
        checkpoint: the id of the checkpoint.
        step: the number of the step.
        finished: the tasks that had finished when it ended; None for the era that goes on.
    """

    checkpoint: str
    step: int
    finished: frozenset[str] | None = None


def eras(pending: Iterable[Pending], checkpoint: str, step: int) -> list[Era]:
    """The eras of a step, the one that goes on last.

    Args:
        pending: the writes beside a checkpoint.
        checkpoint: its id.
        step: the number of the step that follows it.
    """
    pause = _pause(pending)
    if pause is None:
        return [Era(checkpoint, step)]
    return [
        Era(began or checkpoint, step if number is None else number, None if ids is None else frozenset(ids))
        for began, number, ids in pause["eras"]
    ]


def unfolded(pending: Sequence[Pending], *, alone: bool) -> list[Pending]:
    """The writes beside a checkpoint, with those that a pause has brought along.

    Args:
        pending: the writes as they are saved.
        alone: whether only what had happened until the pause counts, and nothing since.
    """
    pause = _pause(pending)
    if pause is None:
        return list(pending)
    since = [] if alone else [write for write in pending if write[1] != PAUSE]
    renewed = {write[:2] for write in since if write[1] in CONTROL_WRITES}
    before = [(str(id), channel, value) for id, channel, value in pause["writes"] if (id, channel) not in renewed]
    return [(PAUSE, PAUSE, {**pause, "writes": []}), *before, *since]


def set_aside(pending: Iterable[Pending]) -> list[Pending]:
    """The writes beside a checkpoint for a snapshot, with those of commands under a name that LangGraph passes over.

    It would apply them after it has made the tasks, while a run that goes on applies them before.
    """
    return [(COMMANDED, c, v) if id == NULL_TASK_ID and c not in CONTROL_WRITES else (id, c, v) for id, c, v in pending]


def commanded(pending: Iterable[Pending]) -> list[tuple[str, Any]]:
    """The writes that were set aside."""
    return [(channel, value) for id, channel, value in pending if id == COMMANDED]


def asked(pending: Iterable[Pending]) -> frozenset[str] | None:
    """The tasks that the answer among these writes is for; None where nobody had asked, as behind a breakpoint."""
    ids = next((value for _, channel, value in pending if channel == ASKED), None)
    return None if ids is None else frozenset(ids)


def _answers(pending: Iterable[Pending]) -> dict[str, int]:
    """How many answers each task has taken."""
    taken = {id: value for id, channel, value in pending if channel == RESUME and id != NULL_TASK_ID}
    return {id: len(value) if isinstance(value, list) else 1 for id, value in taken.items()}


def _questions(pending: Iterable[Pending]) -> dict[str, list[str]]:
    """The ids of the questions that tasks ask, which may be those of graphs inside them."""
    statuses = read_task_statuses(pending).items()
    return {id: sorted(i.id for i in status.pending_interrupts) for id, status in statuses if status.pending_interrupts}


def _is_spent(pending: Sequence[Pending]) -> bool:
    """Whether the answer among these writes has been taken, or was for the tasks at hand of a run that is over."""
    had = next((value for _, channel, value in pending if channel == ASKED), None)
    taken, questions = _answers(pending), _questions(pending)
    return had is None or any(taken.get(id, 0) > n or questions.get(id, ids) != ids for id, (n, ids) in had.items())


class Pausing(PregelLoop):
    """What a loop whose steps stay open does about pauses."""

    _opened: Any
    _lock: Any

    @property
    def _agenda_key(self) -> str:
        """The channel under which everything is reported that happens in an open step."""
        raise NotImplementedError

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._to_keep: Mapping[str, Any] | None = None
        self._goes_on = self._at_pause = False
        self._already = 0

    # going on

    def _first(self, **given: Any) -> set[str] | None:
        superseded, pending = self._addressed_checkpoint_superseded, self.checkpoint_pending_writes
        # So it is for a nested graph whose parent goes back.
        superseded = superseded or (self.is_nested and bool(self.config[CONF].get(CONFIG_KEY_REPLAY_STATE)))
        pause = _pause(pending)
        self._already = self._events(pause["writes"]) if pause else 0
        if pause is not None:
            self.checkpoint_pending_writes = unfolded(pending, alone=superseded)
        elif superseded:
            # All that was kept here has come after what somebody goes back to.
            self.checkpoint_pending_writes = [write for write in pending if write[0] == NULL_TASK_ID]
        self._goes_on = pause is not None or (not superseded and self._events(pending) > 0)
        if superseded and isinstance(self.input, Command) and self.input.resume is not None:
            # An answer to a question of the past: LangGraph puts no checkpoint there, so the branch needs a name.
            self._branch_off([create_checkpoint(self.checkpoint, None, self.step)["id"], self.step, None])
            self._goes_on = True
        if _is_spent(self.checkpoint_pending_writes):
            pending = self.checkpoint_pending_writes
            self.checkpoint_pending_writes = [w for w in pending if w[:2] != (NULL_TASK_ID, RESUME)]
        return super()._first(**given)

    def put_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        if task_id == NULL_TASK_ID and any(channel == RESUME for channel, _ in writes):
            had = _answers(self.checkpoint_pending_writes)
            questions = _questions(self.checkpoint_pending_writes)
            super().put_writes(
                ASKED, [(ASKED, {id: [had.get(id, 0), asked] for id, asked in questions.items()} or None)]
            )
        super().put_writes(task_id, writes, cached=cached)

    @property
    def _reapplies_pending_writes(self) -> bool:
        # What had finished before a pause stays so, also where somebody goes back to it.
        return self._goes_on or not self.is_replaying

    def _put_checkpoint(self, metadata: CheckpointMetadata) -> None:
        source = None if metadata is self.checkpoint_metadata else metadata["source"]
        if source == "input":
            self._begin_anew()
        elif source == "fork" and self._goes_on:
            self._to_keep = self._branch_off([None, None, None])  # that of the checkpoint which is about to be put
        if source == "fork":
            # What a command has brought is in the ledger, under the name of another channel.
            self._renew(self._agenda_key)
        elif source == "loop":
            self._to_keep = self._kept() if self._at_pause else None
        super()._put_checkpoint(metadata)
        if source == "fork" and self._goes_on:
            self._set_eras(eras(self.checkpoint_pending_writes, self.checkpoint["id"], self.step))

    def _renew(self, channel: str) -> None:
        """Lets the next checkpoint keep a channel anew."""
        versions, next_version = self.checkpoint["channel_versions"], self.checkpointer_get_next_version
        if channel in versions and next_version is not None:
            versions[channel] = next_version(max(versions.values()), None)
            self.checkpoint["versions_seen"].setdefault(INTERRUPT, {})[channel] = versions[channel]

    def _set_eras(self, known: Iterable[Era]) -> None:
        pending = self.checkpoint_pending_writes
        listed = [[era.checkpoint, era.step, era.finished] for era in known]
        self.checkpoint_pending_writes = [(id, c, {**v, "eras": listed} if c == PAUSE else v) for id, c, v in pending]

    def _begin_anew(self) -> None:
        """Another run begins: what the one before has finished counts, and what it has left unfinished does not."""
        pending, self.checkpoint_pending_writes = self.checkpoint_pending_writes, []
        self._goes_on, self._already = False, 0
        happened = [(channel, value) for _, channel, value in pending if channel == self._agenda_key]
        if happened:
            writes = [PregelTaskWrites((), INPUT, happened, [])]
            next_version = self.checkpointer_get_next_version
            updated = apply_writes(self.checkpoint, self.channels, writes, next_version, self.trigger_to_nodes)
            self.updated_channels = {*(self.updated_channels or ()), *updated}

    def _branch_off(self, era: list[Any]) -> Mapping[str, Any]:
        """Going back to a pause: what had finished is finished, and what had not begins anew, in an era of its own."""
        kept = self._kept()
        finished = {id for id, channel, _ in kept["writes"] if channel in (self._agenda_key, ERROR_SOURCE_NODE)}
        kept["writes"][:] = [write for write in kept["writes"] if write[0] in finished]
        kept["eras"][-1][2] = sorted(finished)
        kept["eras"].append(era)
        before: list[Pending] = [(id, channel, value) for id, channel, value in kept["writes"]]
        self.checkpoint_pending_writes = [(PAUSE, PAUSE, {**kept, "writes": []}), *before]
        self._already = self._events(before)
        return kept

    def _kept(self) -> Mapping[str, Any]:
        pending = self.checkpoint_pending_writes
        so_far = eras(pending, self.checkpoint["id"], self.step)
        return {
            "eras": [
                [era.checkpoint, era.step, None if era.finished is None else sorted(era.finished)] for era in so_far
            ],
            "writes": [list(write) for write in pending if write[1] != PAUSE],
        }

    def _pushed(self, task: Any, write_idx: int, call: Any) -> Any:
        """The task that a node calls."""
        # The results of tasks that a node has called are kept under ids that the step's own checkpoint and number give.
        opened = self._opened
        if opened is None:
            return PregelLoop.accept_push(self, task, write_idx, call)
        with self._lock, self._as_at(opened.eras[-1], answers=opened.answers(task)):
            return PregelLoop.accept_push(self, task, write_idx, call)

    @contextlib.contextmanager
    def _as_at(self, era: Era, *, answers: bool) -> Any:
        own = self.checkpoint, self.step, self.checkpoint_pending_writes
        self.checkpoint, self.step = {**self.checkpoint, "id": era.checkpoint}, era.step
        if not answers:
            self.checkpoint_pending_writes = [w for w in own[2] if w[:2] != (NULL_TASK_ID, RESUME)]
        try:
            yield
        finally:
            self.checkpoint, self.step, self.checkpoint_pending_writes = own

    # pausing

    def _suppress_interrupt(self, *exit: Any) -> bool | None:
        if self._pauses(exit[1]):
            self._put_pause()
        elif self.durability == "exit" and self.is_nested and self.status == "draining" and exit[1] is None:
            # LangGraph, which saves a nested graph at an error only, would begin it anew.
            self._put_checkpoint(self.checkpoint_metadata)
            self._put_pending_writes()
        return super()._suppress_interrupt(*exit)

    def _pauses(self, error: BaseException | None) -> bool:
        """Whether the run ends here unfinished, and something has happened since its last checkpoint."""
        leaves = isinstance(error, GraphBubbleUp) and not isinstance(error, GraphInterrupt)
        if (
            self._opened is None
            or not isinstance(error, Exception)
            or leaves
            or not self._checkpointer_put_after_previous
        ):
            return False
        again = self._goes_on and bool(self._written_task_ids)
        return again or self._events(self.checkpoint_pending_writes) > self._already

    def _events(self, pending: Iterable[Sequence[Any]]) -> int:
        return sum(write[1] == self._agenda_key for write in pending)

    def _put_pause(self) -> None:
        self._at_pause = True
        if self.durability != "exit":
            self._put_checkpoint({"source": "loop"})
            return
        # It is put at the exit, under this id, and nothing else with it.
        self._to_keep = self._kept()
        self.checkpoint = create_checkpoint(self.checkpoint, None, self.step)
        self._written_task_ids.clear()

    def _beside(self, checkpoint: Any) -> Any:
        """Where writes beside that checkpoint go."""
        namespace = self.config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, "")
        here = {CONFIG_KEY_CHECKPOINT_NS: namespace, CONFIG_KEY_CHECKPOINT_ID: checkpoint["id"]}
        return patch_configurable(self.checkpoint_config, here)
