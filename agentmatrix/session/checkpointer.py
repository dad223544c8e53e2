"""A checkpointer on two machines: the caller's saver, and its proxy on the host.

The same proxy serves the other way round, for a checkpointer that the host's graph was compiled with (see
`HostCheckpointerRpc`).

Order: the caller runs the writes of one run in the order of their requests. Pipelined ones are sent and not waited for;
the run does not end before all have been answered.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentmatrix.errors import HostError
from agentmatrix.live.signal_router import SIGNAL_TASK_PATH
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.checkpoint_order import is_write_awaited
from agentmatrix.session.proxies import RpcClient
from agentmatrix.session.saver_scope import IS_OF_RUN, OF_RUN
from agentmatrix.session.sent_checkpoint import SentCheckpoint

__all__ = [
    "CheckpointerProxy",
    "HostCheckpointerRpc",
    "checkpointer_proxy",
    "describe_saver",
    "acall_own_saver",
    "call_own_saver",
    "plain_config",
    "with_listed_types",
]

_OPTIONAL: Final = ("delete_for_runs", "copy_thread", "prune", "get_delta_channel_history")
"""Methods that LangGraph looks for on a saver's class: a proxy has those that the caller's saver has."""


def describe_saver(saver: BaseCheckpointSaver[Any]) -> dict[str, Any]:
    """A description from which the host makes a proxy: how the saver counts versions, its optional methods."""
    return {"scheme": _version_scheme(saver), "supports": [*_optional_methods(cast(Hashable, type(saver)))]}


@lru_cache(maxsize=64)
def _optional_methods(cls: Hashable) -> tuple[str, ...]:
    names = [name for method in _OPTIONAL for name in (method, f"a{method}")]
    return tuple(name for name in names if getattr(cls, name, None) is not getattr(BaseCheckpointSaver, name, None))


def with_listed_types(saver: BaseCheckpointSaver[Any], names: Collection[tuple[str, ...]]) -> BaseCheckpointSaver[Any]:
    """The saver, or a copy whose serializer rebuilds these classes too where it rebuilds listed ones only.

    LangGraph does so for the schemas of a local graph (`LANGGRAPH_STRICT_MSGPACK`).

    Args:
        saver: the caller's checkpointer.
        names: modules and names of classes.
    """
    serializer = getattr(saver.serde, "serde", saver.serde)  # without its encryption
    return saver.with_allowlist(names) if isinstance(serializer, JsonPlusSerializer) else saver


def checkpointer_proxy(rpc: RpcClient, description: Mapping[str, Any], **options: Any) -> CheckpointerProxy:
    """The proxy for a saver that `describe_saver` has described; `options` as of `CheckpointerProxy`."""
    supports = frozenset(description["supports"]) & {*_OPTIONAL_METHODS}
    return _class_with(supports)(rpc, description, **options)


@cache
def _class_with(supports: frozenset[str]) -> type[CheckpointerProxy]:
    return type("CheckpointerProxy", (CheckpointerProxy,), {name: _OPTIONAL_METHODS[name] for name in supports})


def _version_scheme(saver: BaseCheckpointSaver[Any]) -> str:
    """How a saver counts channel versions: "int", "str" (langgraph's padded counter) or "ask".

    LangGraph asks for versions synchronously, many times a step and on event loops, so the host counts by itself
    wherever the scheme is one of LangGraph's own.
    """
    if type(saver).get_next_version is BaseCheckpointSaver.get_next_version:
        return "int"
    if isinstance(saver, CheckpointerProxy):
        return saver.scheme
    try:
        first = saver.get_next_version(None, None)
    except Exception:  # the host asks again, and it fails where LangGraph calls it, as it does locally
        return "ask"
    if isinstance(first, int):
        return "int"
    padded = isinstance(first, str) and len(first.split(".")[0]) == 32 and first.split(".")[0].isdigit()
    return "str" if padded else "ask"


def plain_config(config: RunnableConfig | None) -> Any:
    """A config for a saver: the keys that identify the checkpoint, without the machinery of the run."""
    if config is None:
        return None
    plain: dict[str, Any] = {key: value for key, value in config.items() if key in ("tags", "metadata", "run_id")}
    plain["metadata"] = dict(plain.get("metadata") or {})
    if not plain["metadata"]:
        del plain["metadata"]
    configurable: Mapping[str, Any] = config.get("configurable", {})
    plain["configurable"] = {k: value for k, value in configurable.items() if not k.startswith(config_keys.HIDDEN)}
    return plain


def _saved_as(config: RunnableConfig, checkpoint: Checkpoint) -> RunnableConfig:
    """The config that a saver returns from `put`."""
    configurable = config["configurable"]
    return {
        "configurable": {
            "thread_id": configurable["thread_id"],
            "checkpoint_ns": configurable.get("checkpoint_ns", ""),
            "checkpoint_id": checkpoint["id"],
        }
    }


class CheckpointerProxy(BaseCheckpointSaver[Any]):
    """The proxy of a checkpointer.

    Args:
        rpc: reaches the process that has the checkpointer.
        description: see `describe_saver`.
        pipelined: checkpoints and writes of tasks are not waited for: the caller carries them out in order, and before
            the run ends. Otherwise `put` returns after the real saver has returned, but for the run's last checkpoint.
        is_async: the run is one of the async verbs: its caller has no order among sync methods, so they are waited for.
        in_run: the checkpoint of a run's input is not waited for, nor are writes of which LangGraph does not wait
            for any.
        sent: a checkpoint that need not be asked for.
        of_run: tags and metadata of the run's config; None outside of a run.
    """

    def __init__(
        self,
        rpc: RpcClient,
        description: Mapping[str, Any],
        *,
        pipelined: bool = False,
        in_run: bool = False,
        is_async: bool = False,
        sent: SentCheckpoint | None = None,
        of_run: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._of_run = of_run
        self.rpc = rpc
        self.pipelined, self._in_run, self._is_async = pipelined, in_run, is_async
        self.scheme: str = description["scheme"]
        self._sent = sent
        self._ends: Callable[[RunnableConfig, Checkpoint], bool] | None = None

    def ends_with(self, is_last: Callable[[RunnableConfig, Checkpoint], bool]) -> None:
        """Has the run's last checkpoint go with the run's end, which its caller tells nobody before it is kept.

        Args:
            is_last: of a checkpoint, whether it is that.
        """
        self._ends = is_last

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> CheckpointerProxy:
        return self

    def get_next_version(self, current: Any, channel: None) -> Any:
        if self.scheme == "int":
            return super().get_next_version(current, channel)
        if self.scheme == "str":
            count = 0 if current is None else current if isinstance(current, int) else int(current.split(".")[0])
            return f"{count + 1:032}.{random.random():016}"
        return self.rpc.request("saver", "get_next_version", current, channel)

    def _plain(self, config: RunnableConfig | None) -> Any:
        """A config as it crosses: the caller has the tags and the metadata of the run."""
        plain = plain_config(config)
        if self._of_run is not None and plain and all(plain.get(key) == self._of_run.get(key) for key in OF_RUN):
            return {IS_OF_RUN: True, "configurable": plain["configurable"]}
        return plain

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        if self._is_sent(config):
            return self._take_sent()
        found: CheckpointTuple | None = self.rpc.request("saver", "get_tuple", self._plain(config))
        return found

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        if self._is_sent(config):
            return self._take_sent()
        found: CheckpointTuple | None = await self.rpc.arequest("saver", "aget_tuple", self._plain(config))
        return found

    def _is_sent(self, config: RunnableConfig) -> bool:
        return self._sent is not None and self._sent.place == SentCheckpoint.place_of(config)

    def _take_sent(self) -> CheckpointTuple | None:
        """The checkpoint that was sent, once: what comes after it has changed it."""
        sent, self._sent = self._sent, None
        return None if sent is None else sent.found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        options = {"filter": filter, "before": self._plain(before), "limit": limit}
        yield from self.rpc.request("saver", "list", self._plain(config), **options)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        options = {"filter": filter, "before": self._plain(before), "limit": limit}
        for found in await self.rpc.arequest("saver", "alist", self._plain(config), **options):
            yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if not self._is_async and self._may_put_on(config, checkpoint, metadata):
            self.rpc.request_nowait("saver", "put", self._plain(config), checkpoint, metadata, new_versions)
            return _saved_as(config, checkpoint)
        saved: RunnableConfig = self.rpc.request(
            "saver", "put", self._plain(config), checkpoint, metadata, new_versions
        )
        return saved

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if self._may_put_on(config, checkpoint, metadata):
            self.rpc.request_nowait("saver", "aput", self._plain(config), checkpoint, metadata, new_versions)
            return _saved_as(config, checkpoint)
        saved: RunnableConfig = await self.rpc.arequest(
            "saver", "aput", self._plain(config), checkpoint, metadata, new_versions
        )
        return saved

    def _may_put_on(self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> bool:
        """Whether a checkpoint need not be waited for. That of a run's input never: nor does LangGraph's loop wait for
        it before the one that follows, whose answer brings a failure of this one."""
        if self.pipelined or (self._in_run and metadata.get("source") == "input"):
            return True
        if (is_awaited := is_write_awaited.get()) is not None:
            return self._in_run and not is_awaited
        return self._ends is not None and self._ends(config, checkpoint)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        pipelines = self._may_pipeline(writes, task_path) and not self._is_async
        write = self.rpc.request_nowait if pipelines else self.rpc.request
        write("saver", "put_writes", self._plain(config), self._listed(writes), task_id, task_path)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        if self._may_pipeline(writes, task_path):
            self.rpc.request_nowait(
                "saver", "aput_writes", self._plain(config), self._listed(writes), task_id, task_path
            )
        else:
            await self.rpc.arequest(
                "saver", "aput_writes", self._plain(config), self._listed(writes), task_id, task_path
            )

    def _listed(self, writes: Sequence[tuple[str, Any]]) -> Any:
        """Writes as lists, of which a caller makes tuples: those would be looked at one by one on both sides."""
        return [*writes] if self._of_run is None else [[*write] for write in writes]

    def _may_pipeline(self, writes: Sequence[tuple[str, Any]], task_path: str) -> bool:
        """Whether writes need not be waited for: nothing is started or answered once they are saved.

        Under durability "sync" a graph without barriers starts the next node then, and waits.
        """
        # LangGraph runs a node's error handler after the mark of the failure is saved; signals are acknowledged then.
        failed = any(channel == config_keys.ERROR_SOURCE_NODE for channel, _ in writes)
        goes_on = self.pipelined or (self._in_run and not is_write_awaited.get())
        return goes_on and not failed and not task_path.startswith(SIGNAL_TASK_PATH)

    def delete_thread(self, thread_id: str) -> None:
        self.rpc.request("saver", "delete_thread", thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.rpc.arequest("saver", "adelete_thread", thread_id)


_OWN_METHODS: Final = frozenset(
    twin
    for method in ("get_tuple", "list", "put", "put_writes", "delete_thread", *_OPTIONAL)
    for twin in (method, f"a{method}")
) | {"get_next_version"}
"""The methods of its own checkpointer that a host offers to callers."""


def call_own_saver(graph: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a method of the checkpointer that a graph on this host was compiled with.

    Raises:
        HostError: there is none, or the method is not offered.
    """
    value = _own_saver_method(graph.checkpointer, method)(*args, **kwargs)
    return list(value) if method == "list" else value


async def acall_own_saver(graph: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same, awaited."""
    value = _own_saver_method(graph.checkpointer, method)(*args, **kwargs)
    return [item async for item in value] if method == "alist" else await value


def _own_saver_method(saver: Any, method: str) -> Any:
    if not isinstance(saver, BaseCheckpointSaver) or method not in _OWN_METHODS:
        raise HostError(f"the agent has no checkpointer of its own to ask for {method}")
    return getattr(saver, method)


class HostCheckpointerRpc:
    """Reaches the checkpointer that a graph on a host was compiled with: each method is a call of the verb "saver".

    Args:
        call: starts a sync verb, as `call("saver", method, args, kwargs)`.
        acall: starts an async verb.
    """

    def __init__(self, call: Callable[..., Any], acall: Callable[..., Any]) -> None:
        self._call, self._acall = call, acall

    def request(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._call("saver", method, args, kwargs).result()

    async def arequest(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return await self._acall("asaver", method, args, kwargs).result()

    def request_nowait(self, target: str, method: str, *args: Any, **kwargs: Any) -> None:
        """Outside of a run there is no pipeline."""
        raise NotImplementedError

    def notify(self, kind: str, *args: Any) -> None:
        """A checkpointer sends no notifications."""


def _delete_for_runs(self: CheckpointerProxy, run_ids: Sequence[str]) -> None:
    self.rpc.request("saver", "delete_for_runs", [*run_ids])


async def _adelete_for_runs(self: CheckpointerProxy, run_ids: Sequence[str]) -> None:
    await self.rpc.arequest("saver", "adelete_for_runs", [*run_ids])


def _copy_thread(self: CheckpointerProxy, source_thread_id: str, target_thread_id: str) -> None:
    self.rpc.request("saver", "copy_thread", source_thread_id, target_thread_id)


async def _acopy_thread(self: CheckpointerProxy, source_thread_id: str, target_thread_id: str) -> None:
    await self.rpc.arequest("saver", "acopy_thread", source_thread_id, target_thread_id)


def _prune(self: CheckpointerProxy, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
    self.rpc.request("saver", "prune", [*thread_ids], strategy=strategy)


async def _aprune(self: CheckpointerProxy, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
    await self.rpc.arequest("saver", "aprune", [*thread_ids], strategy=strategy)


def _delta_history(self: CheckpointerProxy, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
    return self.rpc.request("saver", "get_delta_channel_history", config=plain_config(config), channels=[*channels])


async def _adelta_history(self: CheckpointerProxy, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
    return await self.rpc.arequest(
        "saver", "aget_delta_channel_history", config=plain_config(config), channels=[*channels]
    )


_OPTIONAL_METHODS: Final[Mapping[str, Any]] = {
    "delete_for_runs": _delete_for_runs,
    "adelete_for_runs": _adelete_for_runs,
    "copy_thread": _copy_thread,
    "acopy_thread": _acopy_thread,
    "prune": _prune,
    "aprune": _aprune,
    "get_delta_channel_history": _delta_history,
    "aget_delta_channel_history": _adelta_history,
}
