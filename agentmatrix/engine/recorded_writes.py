"""What is recorded of a task, and kept: its writes, in which each message has an id.

A message without one would get another id each time that it is folded, as after a crash. LangGraph streams what a node
has returned, and caches it, as it is: those see no message that was made of a tuple or a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.graph.message import add_messages

from agentmatrix.engine.saver_errors import SaverErrorNote, checkpoint_not_kept, explained_put_writes
from agentmatrix.pregel.written_keys import WrittenKeysLoop
from agentmatrix.scheduling.log import ActivationLog
from agentmatrix.scheduling.scheduled_activation import Write

__all__ = ["RecordedWritesLoop", "with_message_ids"]


class RecordedWritesLoop(WrittenKeysLoop):
    """A loop whose saver gets what is recorded of a task, and tells of what it cannot keep."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By id of a task that has ended, what is recorded of it, until it is put; and what is streamed of it meanwhile.
        self._recorded: dict[str, list[Write]] = {}
        self._streamed: dict[str, Any] = {}
        # For errors of the saver: by id of a task its node, and what had run when a step ended.
        self._names: dict[str, str] = {}
        self._log: ActivationLog | None = None
        if self.checkpointer is not None:
            put_writes = self.checkpointer_put_writes
            self.checkpointer_put_writes = explained_put_writes(self.checkpointer, put_writes, self._names)

    def explained_put(self, checkpoint: Any) -> SaverErrorNote:
        """What a checkpointer raises inside names the keys that it cannot keep."""

        def note() -> str:
            writers = self._log.nodes_by_key() if self._log is not None else {}
            return checkpoint_not_kept(self.checkpointer, checkpoint, writers)

        return SaverErrorNote(note)

    def output_writes(self, task_id: str, writes: Any, *, cached: bool = False) -> None:
        # Other threads may put the writes of other tasks meanwhile.
        super().output_writes(task_id, self._streamed.get(task_id, writes), cached=cached)


def with_message_ids(
    writes: Sequence[Write], reducers: Mapping[str, Callable[[Any, Any], Any]], *, copies: bool = False
) -> list[Write] | None:
    """Writes in which each message has an id.

    Args:
        writes: the writes of a task. Messages in them get their ids in place, as LangGraph's reducer does it.
        reducers: by key of the state, its reducer; what `add_messages` would make a message of becomes one.
        copies: leave the messages in `writes` as they are.

    Returns:
        The writes, or None where they are as they were.
    """
    found: dict[int, Any] = {}
    for place, (key, value) in enumerate(writes):
        makes = reducers.get(key) is add_messages
        if isinstance(value, list):
            if value and (makes or isinstance(value[0], BaseMessage)):
                messages = [_with_id(one, makes=makes, copies=copies) for one in value]
                if any(new is not old for new, old in zip(messages, value, strict=True)):
                    found[place] = messages
        elif makes or (value is not None and isinstance(value, BaseMessage)):
            if (message := _with_id(value, makes=makes, copies=copies)) is not value:
                found[place] = message
    return [(key, found.get(place, value)) for place, (key, value) in enumerate(writes)] if found else None


def _with_id(value: Any, *, makes: bool, copies: bool) -> Any:
    if isinstance(value, BaseMessage):
        if value.id is None:
            if copies:
                return value.model_copy(update={"id": str(uuid4())})
            value.id = str(uuid4())
        return value
    if not makes or not isinstance(value, str | tuple | dict):
        return value
    try:
        [message] = convert_to_messages([value])
    except Exception:
        # The reducer refuses it, or takes it for something else.
        return value
    if message.id is None:
        message.id = str(uuid4())
    return message
