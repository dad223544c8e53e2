"""The caller's checkpointer as a host of one run may use it: the run's thread, at or below the node's namespace.

A host calls the methods of `LentSaver`, and no others; each checks what the host sent before the saver sees it. A
refusal is a `PermissionError` with a sentence, raised on the host where its graph has made the call. Each hop confines
again, since a proxy of a checkpointer is lent as any checkpointer is.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from agentmatrix.live.signal_router import SIGNAL_TASK_PATH
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.checkpoint_order import await_checkpoints, wait_for_checkpoints
from agentmatrix.session.namespace_scope import NamespaceScope

__all__ = ["LentSaver", "check_filter"]

MAX_SKEW_SECONDS: Final = 60.0
"""How far ahead of the caller's clock a host may date a checkpoint."""
_UUID_EPOCH: Final = 0x01B21DD213814000
"""The Unix epoch in the ticks of a UUID, 100 ns each, since 15 October 1582."""
_PLACE: Final = ("thread_id", "checkpoint_ns", "checkpoint_id")
OF_RUN: Final = ("tags", "metadata")
"""What a config for a checkpointer mostly has as the run has it: then the host says so with `IS_OF_RUN` instead."""
IS_OF_RUN: Final = "is_of_run"


class LentSaver:
    """A checkpointer that a host may use for one run. Its methods are those that are lent.

    Args:
        saver: the caller's checkpointer.
        config: the caller's, of the run.
        configurable: its own.
        scope: the namespaces that are granted.
        forward: the keys of `configurable` that the host gets; None for all.
    """

    def __init__(
        self,
        saver: BaseCheckpointSaver[Any],
        config: RunnableConfig,
        configurable: Mapping[str, Any],
        scope: NamespaceScope,
        forward: Collection[str] | None = None,
    ) -> None:
        self._saver, self._scope, self._configurable = saver, scope, dict(configurable)
        self._thread = configurable.get("thread_id")
        self._of_run = {key: config[key] for key in OF_RUN if key in config}
        own = {key: value for key, value in configurable.items() if not config_keys.is_reserved(key)}
        self._own = {key: value for key, value in own.items() if key not in config_keys.IDENTITY}
        self._hidden = frozenset() if forward is None else frozenset(self._own) - frozenset(forward)

    # What LangGraph reads.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = self._saver.get_tuple(self._confined(config))
        return None if found is None else self._shown(found, config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self._saver.aget_tuple(self._confined(config))
        return None if found is None else self._shown(found, config)

    def list(
        self, config: RunnableConfig | None, *, filter: Any = None, before: Any = None, limit: Any = None
    ) -> Iterator[CheckpointTuple]:
        options = self._list_options(filter, before, limit)
        for found in self._saver.list(self._listed(config), **options):
            yield self._shown(found, config)

    async def alist(
        self, config: RunnableConfig | None, *, filter: Any = None, before: Any = None, limit: Any = None
    ) -> AsyncIterator[CheckpointTuple]:
        options = self._list_options(filter, before, limit)
        async for found in self._saver.alist(self._listed(config), **options):
            yield self._shown(found, config)

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        return self._saver.get_delta_channel_history(config=self._confined(config), channels=channels)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        return await self._saver.aget_delta_channel_history(config=self._confined(config), channels=channels)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._saver.get_next_version(current, channel)

    # What it writes.

    def put(self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        confined = self._confined(config)
        _check_id(checkpoint, confined)
        return self._shown_config(self._saver.put(confined, checkpoint, metadata, new_versions), config)

    async def aput(self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        confined = self._confined(config)
        _check_id(checkpoint, confined)
        return self._shown_config(await self._saver.aput(confined, checkpoint, metadata, new_versions), config)

    def put_writes(self, config: RunnableConfig, writes: Any, task_id: str, task_path: str = "") -> None:
        if task_path.startswith(SIGNAL_TASK_PATH):
            wait_for_checkpoints({"configurable": self._configurable})
        self._saver.put_writes(self._confined(config), _tuples(writes), task_id, task_path)

    async def aput_writes(self, config: RunnableConfig, writes: Any, task_id: str, task_path: str = "") -> None:
        if task_path.startswith(SIGNAL_TASK_PATH):
            await await_checkpoints({"configurable": self._configurable})
        await self._saver.aput_writes(self._confined(config), _tuples(writes), task_id, task_path)

    # Checks.

    def _confined(self, config: Any) -> Any:
        """The config that the saver gets: the place is the host's where it is granted, all else the caller's own.

        Savers may look at any key of `configurable` (a tenant, a user), so what the caller says there holds.
        """
        said = _configurable(config)
        self._check_thread(said)
        namespace = said.get("checkpoint_ns", "")
        if not isinstance(namespace, str) or not self._scope.covers(namespace):
            raise PermissionError(
                f"the remote agent may use checkpoints at or below {self._scope.namespace!r}, those of its node, not "
                f"at {namespace!r}"
            )
        if not isinstance(said.get("checkpoint_id"), str | None):
            raise PermissionError("the remote agent named a checkpoint by something that is no text")
        place = {key: said[key] for key in _PLACE if key in said}
        more = {key: value for key, value in said.items() if not config_keys.is_reserved(key)}
        rest = self._of_run if config.get(IS_OF_RUN) else config
        return {**rest, "configurable": {**more, **self._own, **place}}

    def _check_thread(self, said: Mapping[str, Any]) -> None:
        thread, own = said.get("thread_id"), self._thread
        # LangGraph writes a thread id as text in some places, and leaves it as it is in others.
        if own is None and thread is None:
            return
        if own is None or thread is None or (type(thread), thread) not in ((type(own), own), (str, str(own))):
            raise PermissionError(
                f"the remote agent may use checkpoints of the thread of its run, {own!r}, not of {thread!r}"
            )

    def _listed(self, config: Any) -> Any:
        if config is None:
            raise PermissionError("the remote agent may list checkpoints of the thread of its run, not of all")
        if "checkpoint_ns" not in _configurable(config) and not self._scope.covers(""):
            raise PermissionError(
                f"the remote agent may list checkpoints at or below {self._scope.namespace!r}, not of a whole thread"
            )
        return self._confined(config)

    def _list_options(self, filter: Any, before: Any, limit: Any) -> dict[str, Any]:
        check_filter(filter, self._own)
        if not (limit is None or type(limit) is int):
            raise PermissionError(f"the remote agent asked for {limit!r} checkpoints, which is no number")
        if before is not None:
            said = _configurable(before)
            if not isinstance(said.get("checkpoint_id"), str):
                raise PermissionError("the remote agent asked for checkpoints before one that it did not name")
            before = {"configurable": {"thread_id": self._thread, "checkpoint_id": said["checkpoint_id"]}}
        return {"filter": filter, "before": before, "limit": limit}

    # What the host gets to see: nothing of the caller's own keys that was not forwarded.

    def _shown(self, found: CheckpointTuple, asked: Any) -> CheckpointTuple:
        metadata: Any = {key: value for key, value in (found.metadata or {}).items() if key not in self._hidden}
        parent = found.parent_config
        return found._replace(
            config=self._shown_config(found.config, asked),
            metadata=metadata,
            parent_config=None if parent is None else self._shown_config(parent, asked),
        )

    def _shown_config(self, config: RunnableConfig, asked: Any) -> RunnableConfig:
        known = {*_PLACE, *_configurable(asked)}
        configurable = {key: value for key, value in config["configurable"].items() if key in known}
        return {**config, "configurable": configurable}


def check_filter(filter: Any, own: Collection[str] = ()) -> None:
    """Refuses a filter whose keys are not plain names: some savers and stores write them into SQL.

    Args:
        filter: from a host.
        own: keys that the caller uses itself.

    Raises:
        PermissionError: names the key.
    """
    if filter is None:
        return
    if not isinstance(filter, dict):
        raise PermissionError("the remote agent sent a filter that is no dict")
    for key in filter:
        if not isinstance(key, str) or not (key in own or (key.isascii() and key.isidentifier())):
            raise PermissionError(f"the remote agent may not filter by {key!r}, which is no plain name")


def _tuples(writes: Any) -> list[tuple[str, Any]]:
    """The writes of a task, which come as lists."""
    return [(channel, value) for channel, value in writes]


def _configurable(config: Any) -> Mapping[str, Any]:
    configurable = config.get("configurable") if isinstance(config, dict) else None
    if not isinstance(configurable, dict):
        raise PermissionError("the remote agent named no thread")
    return configurable


def _check_id(checkpoint: Any, config: RunnableConfig) -> None:
    """Refuses a checkpoint that would be in the wrong place in its history, which is in the order of the ids."""
    number = checkpoint.get("id") if isinstance(checkpoint, dict) else None
    dated = _seconds(number)
    if dated is None:
        raise PermissionError(f"the remote agent gave a checkpoint the id {number!r}, which is none of LangGraph's")
    ahead = dated - time.time()
    if ahead > MAX_SKEW_SECONDS:
        raise PermissionError(
            f"the host has dated a checkpoint {ahead:.0f} s ahead of the caller's clock, and {MAX_SKEW_SECONDS:g} s "
            "are allowed, since the latest checkpoint of a thread counts: set the clocks of both machines"
        )
    before = config["configurable"].get("checkpoint_id")
    if before is not None and number <= before:
        behind = (_seconds(before) or dated) - dated
        raise PermissionError(
            f"the host has dated a checkpoint {behind:.3f} s before the one that it follows, and the latest of a "
            "thread counts: the host's clock is behind; set the clocks of both machines"
        )


def _seconds(number: Any) -> float | None:
    """When a checkpoint was made, in seconds since the Unix epoch; None for what is no id as LangGraph writes it."""
    try:
        parsed = uuid.UUID(number)
    except (ValueError, AttributeError, TypeError):
        return None
    if parsed.version != 6 or str(parsed) != number:
        return None
    ticks = (parsed.int >> 80) << 12 | (parsed.int >> 64) & 0x0FFF
    return (ticks - _UUID_EPOCH) / 1e7
