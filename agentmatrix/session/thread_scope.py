"""The threads of one identity in a host's own checkpointer: each caller has ids of its own.

A thread `"1"` of alice is stored as `"alice/1"`. Everything that a caller and its graph see shows the caller's own id:
configs, snapshots, metadata and errors. The graph runs on a copy that has this checkpointer.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, cast
from urllib.parse import quote

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.pregel import Pregel

from agentmatrix.transport.identity import Identity

__all__ = ["ThreadScopedSaver", "scoped_graph", "scoped_saver"]

_RUNS_OF_ALL: Final = "the runs of a host belong to all of its callers: delete threads, which are your own"


def scoped_graph(graph: Pregel[Any, Any, Any, Any], user: Identity | None) -> Pregel[Any, Any, Any, Any]:
    """The graph for a caller: where it has a checkpointer of its own, a copy whose threads are the caller's.

    A remote agent that this host offers in turn is itself: its threads are told apart where they are kept.
    """
    if user is None or getattr(type(graph), "is_remote", False):
        return graph
    saver = graph.checkpointer
    if not isinstance(saver, BaseCheckpointSaver):
        return graph
    scoped = copy.copy(graph)
    scoped.checkpointer = scoped_saver(saver, user.name)
    return scoped


def scoped_saver(saver: BaseCheckpointSaver[Any], name: str) -> ThreadScopedSaver:
    """The threads of the identity of that name in a checkpointer."""
    return _class_for(cast(Any, type(saver)))(saver, name)


class ThreadScopedSaver(BaseCheckpointSaver[Any]):
    """A checkpointer whose threads are those of one identity.

    Args:
        saver: the host's checkpointer.
        name: the identity's.
    """

    def __init__(self, saver: BaseCheckpointSaver[Any], name: str) -> None:
        super().__init__(serde=saver.serde)
        self._saver, self._name = saver, name
        # Quoted, so that no name begins with another one and a slash.
        self._prefix = f"{quote(name, safe='@')}/"

    @property
    def config_specs(self) -> list[Any]:
        return self._saver.config_specs

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> ThreadScopedSaver:
        return scoped_saver(self._saver.with_allowlist(extra_allowlist), self._name)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._saver.get_next_version(current, channel)

    # Reading.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        with self._own_words():
            found = self._saver.get_tuple(self._stored(config))
        return None if found is None else self._shown(found, config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        with self._own_words():
            found = await self._saver.aget_tuple(self._stored(config))
        return None if found is None else self._shown(found, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        options = _ListOptions(self, config, filter, before, limit)
        with self._own_words():
            for found in self._saver.list(options.config, **options.named):
                if self._is_own(found):
                    if options.is_full():
                        return
                    yield self._shown(found, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        options = _ListOptions(self, config, filter, before, limit)
        with self._own_words():
            async for found in self._saver.alist(options.config, **options.named):
                if self._is_own(found):
                    if options.is_full():
                        return
                    yield self._shown(found, config)

    # Writing.

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        with self._own_words():
            saved = self._saver.put(self._stored(config), checkpoint, metadata, new_versions)
        return self._shown_config(saved, config)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        with self._own_words():
            saved = await self._saver.aput(self._stored(config), checkpoint, metadata, new_versions)
        return self._shown_config(saved, config)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        with self._own_words():
            self._saver.put_writes(self._stored(config), writes, task_id, task_path)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        with self._own_words():
            await self._saver.aput_writes(self._stored(config), writes, task_id, task_path)

    # Whole threads.

    def delete_thread(self, thread_id: str) -> None:
        with self._own_words():
            self._saver.delete_thread(self._id(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        with self._own_words():
            await self._saver.adelete_thread(self._id(thread_id))

    # Ids, there and back.

    def _id(self, thread: object) -> str:
        return f"{self._prefix}{thread}"

    def _stored(self, config: RunnableConfig) -> RunnableConfig:
        """The config by which the saver finds the thread."""
        configurable = config["configurable"]
        if configurable.get("thread_id") is None:
            return config  # the saver says that it wants one
        return {**config, "configurable": {**configurable, "thread_id": self._id(configurable["thread_id"])}}

    def _is_own(self, found: CheckpointTuple) -> bool:
        return str(found.config["configurable"].get("thread_id")).startswith(self._prefix)

    def _shown(self, found: CheckpointTuple, asked: RunnableConfig | None) -> CheckpointTuple:
        parent = found.parent_config
        return found._replace(
            config=self._shown_config(found.config, asked),
            parent_config=None if parent is None else self._shown_config(parent, asked),
        )

    def _shown_config(self, config: RunnableConfig, asked: RunnableConfig | None) -> RunnableConfig:
        """The config with the id as the caller has written it."""
        thread = str(config["configurable"].get("thread_id")).removeprefix(self._prefix)
        own = None if asked is None else asked["configurable"].get("thread_id")
        shown = own if own is not None and str(own) == thread else thread
        return {**config, "configurable": {**config["configurable"], "thread_id": shown}}

    @contextmanager
    def _own_words(self) -> Iterator[None]:
        """Errors of the saver in terms of the caller's own ids."""
        try:
            yield
        except Exception as error:
            error.args = tuple(arg.replace(self._prefix, "") if isinstance(arg, str) else arg for arg in error.args)
            raise


class _OptionalMethods(ThreadScopedSaver):
    """What not every checkpointer can do. LangGraph asks a saver's class whether it can."""

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        with self._own_words():
            return self._saver.get_delta_channel_history(config=self._stored(config), channels=channels)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        with self._own_words():
            return await self._saver.aget_delta_channel_history(config=self._stored(config), channels=channels)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        with self._own_words():
            self._saver.copy_thread(self._id(source_thread_id), self._id(target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        with self._own_words():
            await self._saver.acopy_thread(self._id(source_thread_id), self._id(target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        with self._own_words():
            self._saver.prune([self._id(thread) for thread in thread_ids], strategy=strategy)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        with self._own_words():
            await self._saver.aprune([self._id(thread) for thread in thread_ids], strategy=strategy)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        raise PermissionError(_RUNS_OF_ALL)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        raise PermissionError(_RUNS_OF_ALL)


@cache
def _class_for(saver: Any) -> type[ThreadScopedSaver]:
    """The class with those of the optional methods that a class of savers has of its own."""
    names = [name for name in vars(_OptionalMethods) if not name.startswith("_")]
    own = {name for name in names if getattr(saver, name, None) is not getattr(BaseCheckpointSaver, name)}
    return type("ThreadScopedSaver", (ThreadScopedSaver,), {name: vars(_OptionalMethods)[name] for name in own})


class _ListOptions:
    """What the saver is asked for, and how many of its answers are wanted: without a thread, those of others are left
    out of what it gives, so that it cannot count."""

    def __init__(
        self,
        saver: ThreadScopedSaver,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        of_one_thread = config is not None and config["configurable"].get("thread_id") is not None
        self.config = saver._stored(config) if config is not None and of_one_thread else config
        stored_before = saver._stored(before) if before is not None else None
        self.named: Mapping[str, Any] = {
            "filter": filter,
            "before": stored_before,
            "limit": limit if of_one_thread else None,
        }
        self._left = limit

    def is_full(self) -> bool:
        """Whether the one that has come is one too many."""
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0
