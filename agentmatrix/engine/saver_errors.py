"""Failures of a checkpointer, told with what it was to keep: the node, the keys, and the value that it cannot keep.

A graph without barriers waits for its saver before it starts what follows, where LangGraph would not: a saver that is
far away hears so (`is_write_awaited`).

The exception stays what the checkpointer has raised, with a note. LangGraph calls a checkpointer in threads, or in
asyncio tasks, of its own: what is here runs there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.engine.channels import RUN
from agentmatrix.pregel.checkpoint_order import is_write_awaited
from agentmatrix.pregel.compiled_graph import branch_target
from agentmatrix.pregel.execution import CONTROL_WRITES
from agentmatrix.scheduling.scheduled_activation import Write

__all__ = ["SaverErrorNote", "checkpoint_not_kept", "explained_put_writes"]

_GO_ON = "The thread stands as it was last kept: once that is mended, invoke(None, config) goes on from there"


class SaverErrorNote(AbstractContextManager[None]):
    """Inside, a saver is given something, and what it raises is told with what that was.

    Args:
        note: says it; called when something has failed.
    """

    __slots__ = ("_note", "_token")

    def __init__(self, note: Callable[[], str]) -> None:
        self._note = note

    def __enter__(self) -> None:
        self._token = is_write_awaited.set(True)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        is_write_awaited.reset(self._token)
        # A checkpoint waits for the one before, which may have been told of.
        if isinstance(error, Exception) and not any(_GO_ON in note for note in getattr(error, "__notes__", ())):
            error.add_note(f"{self._note()}. {_GO_ON}")


def explained_put_writes(saver: Any, put_writes: Any, names: Mapping[str, str]) -> Any:
    """A saver's `put_writes` or `aput_writes` whose failures name node and keys.

    Args:
        saver: the checkpointer.
        put_writes: its method.
        names: by id of a task, its node; read when something has failed.
    """

    def note(writes: Sequence[Write], task_id: str) -> SaverErrorNote:
        return SaverErrorNote(lambda: _writes_not_kept(saver, names.get(task_id), writes))

    def put(config: Any, writes: Sequence[Write], task_id: str, *path: str) -> Any:
        with note(writes, task_id):
            unused = _unused_keys(saver, config, len(writes), task_id)
            try:
                return put_writes(config, writes, task_id, *path)
            except Exception:
                _remove_writes(saver, config, unused)
                raise

    async def aput(config: Any, writes: Sequence[Write], task_id: str, *path: str) -> None:
        with note(writes, task_id):
            unused = _unused_keys(saver, config, len(writes), task_id)
            try:
                await put_writes(config, writes, task_id, *path)
            except Exception:
                _remove_writes(saver, config, unused)
                raise

    return aput if inspect.iscoroutinefunction(put_writes) else put


def _unused_keys(saver: Any, config: Any, count: int, task_id: str) -> list[tuple[str, int]]:
    """Where LangGraph's saver in memory, which takes the writes of a task one by one, will keep so many. What is
    kept there is left alone: the writes of a command are given again with those of each further command."""
    if not isinstance(saver, InMemorySaver):
        return []
    kept = saver.writes.get(_checkpoint_key(config), {})
    return [(task_id, number) for number in range(count) if (task_id, number) not in kept]


def _remove_writes(saver: Any, config: Any, keys: Iterable[tuple[str, int]]) -> None:
    """Where one of the writes of a task fails, those before it go."""
    for key in keys:
        saver.writes[_checkpoint_key(config)].pop(key, None)


def _checkpoint_key(config: Any) -> tuple[str, str, str]:
    thread = config["configurable"]
    return thread["thread_id"], thread.get("checkpoint_ns", ""), thread["checkpoint_id"]


def _writes_not_kept(saver: Any, node: str | None, writes: Sequence[Write]) -> str:
    who = f"the node {node!r}" if node is not None else "a command or an event from outside"
    if unkept := _unkept(saver, writes):
        return f"The checkpointer cannot keep what {who} wrote: {unkept}"
    keys = ", ".join(dict.fromkeys(repr(key) for key, _ in writes if _is_key(key)))
    return f"The checkpointer failed to keep what {who} wrote" + (f" ({keys})" if keys else "")


def checkpoint_not_kept(saver: Any, checkpoint: Any, writers: Mapping[str, Sequence[str]]) -> str:
    """What is told of a checkpoint that a saver has not kept.

    Args:
        saver: the checkpointer.
        checkpoint: the checkpoint.
        writers: by key of the state, the nodes that have written it.
    """
    values = [(key, value) for key, value in checkpoint["channel_values"].items() if _is_key(key)]
    if unkept := _unkept(saver, values, writers):
        return f"The checkpointer cannot keep the state: {unkept}"
    return "The checkpointer failed to keep the state"


def _unkept(saver: Any, writes: Iterable[Write], writers: Mapping[str, Sequence[str]] | None = None) -> str:
    """The writes whose values the saver's serializer refuses, and what to do; "" where there is none."""
    serde: Any = getattr(saver, "serde", None)
    found: list[str] = []
    for key, value in writes if serde is not None else ():
        try:
            serde.dumps_typed(value)
        except Exception as error:
            nodes = (writers or {}).get(key, ())
            by = f", written by {' and '.join(map(repr, nodes))}," if nodes else ""
            found.append(f"the key {key!r}{by} holds a value of type {type(value).__name__} ({error})")
    mend = "; write data that can be serialized, or annotate the key with UntrackedValue, whose values are not kept"
    return " and ".join(found) + mend if found else ""


def _is_key(channel: str) -> bool:
    """Whether a channel is a key of the state, or LangGraph's list of Sends, and none that only the engine reads."""
    return channel != RUN and channel not in CONTROL_WRITES and branch_target(channel) is None
