"""A checkpointer on two machines: the caller's saver, and what stands for it on the host."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from agentmatrix.live.signal_router import SIGNAL_TASK_PATH
from agentmatrix.pregel import config_keys
from agentmatrix.session.proxies import Lender

__all__ = ["BorrowedSaver", "OwnSaver", "borrow_saver", "describe_saver", "plain_config"]

_OPTIONAL: Final = ("delete_for_runs", "copy_thread", "prune", "get_delta_channel_history")
"""Methods that langgraph looks for on a saver's class: a stand-in has those that the caller's saver has."""


def describe_saver(saver: BaseCheckpointSaver[Any]) -> dict[str, Any]:
    """What the host must know of a saver to stand in for it: how it counts versions, which optional methods it has."""
    names = [name for method in _OPTIONAL for name in (method, f"a{method}")]
    own = [name for name in names if getattr(type(saver), name, None) is not getattr(BaseCheckpointSaver, name, None)]
    return {"scheme": _version_scheme(saver), "supports": own}


def borrow_saver(lender: Lender, description: Mapping[str, Any], *, pipelined: bool = False) -> BorrowedSaver:
    """The stand-in for the saver that `describe_saver` described; `pipelined` as in `BorrowedSaver`."""
    supports = frozenset(description["supports"]) & {*_WITH_OPTIONS}
    return _class_with(supports)(lender, description, pipelined=pipelined)


@cache
def _class_with(supports: frozenset[str]) -> type[BorrowedSaver]:
    return type("BorrowedSaver", (BorrowedSaver,), {name: _WITH_OPTIONS[name] for name in supports})


def _version_scheme(saver: BaseCheckpointSaver[Any]) -> str:
    """How a saver counts channel versions: "int", "str" (langgraph's padded counter) or "ask".

    langgraph asks for versions synchronously, many times a step and from event loops, so the host counts by itself
    wherever the scheme is one of langgraph's own.
    """
    if type(saver).get_next_version is BaseCheckpointSaver.get_next_version:
        return "int"
    if isinstance(saver, BorrowedSaver):
        return saver.scheme
    try:
        first = saver.get_next_version(None, None)
    except Exception:  # it fails where langgraph calls it, as it does locally
        return "ask"
    if isinstance(first, int):
        return "int"
    padded = isinstance(first, str) and len(first.split(".")[0]) == 32 and first.split(".")[0].isdigit()
    return "str" if padded else "ask"


def plain_config(config: RunnableConfig | None) -> Any:
    """A config for a saver: what identifies the checkpoint, none of the machinery of the run."""
    if config is None:
        return None
    plain: dict[str, Any] = {key: value for key, value in config.items() if key in ("tags", "metadata", "run_id")}
    plain["metadata"] = dict(plain.get("metadata") or {})
    if not plain["metadata"]:
        del plain["metadata"]
    configurable: Mapping[str, Any] = config.get("configurable", {})
    plain["configurable"] = {key: value for key, value in configurable.items() if not config_keys.is_reserved(key)}
    return plain


def _saved_as(config: RunnableConfig, checkpoint: Checkpoint) -> RunnableConfig:
    """What savers return of a `put`."""
    configurable = config["configurable"]
    return {
        "configurable": {
            "thread_id": configurable["thread_id"],
            "checkpoint_ns": configurable.get("checkpoint_ns", ""),
            "checkpoint_id": checkpoint["id"],
        }
    }


class BorrowedSaver(BaseCheckpointSaver[Any]):
    """Stands on the host for the caller's checkpointer.

    Args:
        lender: the caller.
        description: see `describe_saver`.
        pipelined: a write is sent and not waited for: the caller makes them in order, and the run does not end before
            all have been acknowledged. Otherwise a write returns after the caller's saver has returned.
    """

    def __init__(self, lender: Lender, description: Mapping[str, Any], *, pipelined: bool = False) -> None:
        super().__init__()
        self.lender = lender
        self.pipelined = pipelined
        self.scheme: str = description["scheme"]

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> BorrowedSaver:
        return self

    def get_next_version(self, current: Any, channel: None) -> Any:
        if self.scheme == "int":
            return super().get_next_version(current, channel)
        if self.scheme == "str":
            count = 0 if current is None else current if isinstance(current, int) else int(current.split(".")[0])
            return f"{count + 1:032}.{random.random():016}"
        return self.lender.ask("saver", "get_next_version", current, channel)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found: CheckpointTuple | None = self.lender.ask("saver", "get_tuple", plain_config(config))
        return found

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found: CheckpointTuple | None = await self.lender.aask("saver", "aget_tuple", plain_config(config))
        return found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        options = {"filter": filter, "before": plain_config(before), "limit": limit}
        yield from self.lender.ask("saver", "list", plain_config(config), **options)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        options = {"filter": filter, "before": plain_config(before), "limit": limit}
        for found in await self.lender.aask("saver", "alist", plain_config(config), **options):
            yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if self.pipelined:
            self.lender.post("saver", "put", plain_config(config), checkpoint, metadata, new_versions)
            return _saved_as(config, checkpoint)
        saved: RunnableConfig = self.lender.ask(
            "saver", "put", plain_config(config), checkpoint, metadata, new_versions
        )
        return saved

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if self.pipelined:
            self.lender.post("saver", "aput", plain_config(config), checkpoint, metadata, new_versions)
            return _saved_as(config, checkpoint)
        saved: RunnableConfig = await self.lender.aask(
            "saver", "aput", plain_config(config), checkpoint, metadata, new_versions
        )
        return saved

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        write = self.lender.post if self._may_post(writes, task_path) else self.lender.ask
        write("saver", "put_writes", plain_config(config), [*writes], task_id, task_path)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        if self._may_post(writes, task_path):
            self.lender.post("saver", "aput_writes", plain_config(config), [*writes], task_id, task_path)
        else:
            await self.lender.aask("saver", "aput_writes", plain_config(config), [*writes], task_id, task_path)

    def _may_post(self, writes: Sequence[tuple[str, Any]], task_path: str) -> bool:
        """langgraph waits for the mark of a failed node to be saved before it runs the node's error handler. A signal
        is acknowledged when it is saved."""
        failed = any(channel == config_keys.ERROR_SOURCE_NODE for channel, _ in writes)
        return self.pipelined and not failed and not task_path.startswith(SIGNAL_TASK_PATH)

    def delete_thread(self, thread_id: str) -> None:
        self.lender.ask("saver", "delete_thread", thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.lender.aask("saver", "adelete_thread", thread_id)


class OwnSaver:
    """Asks a host for the checkpointer that a remote graph was compiled with, one call of a verb a method.

    Args:
        call: starts a sync verb, as `call("saver", method, args, kwargs)`.
        acall: starts an async verb.
    """

    def __init__(self, call: Callable[..., Any], acall: Callable[..., Any]) -> None:
        self._call, self._acall = call, acall

    def ask(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._call("saver", method, args, kwargs).result()

    async def aask(self, target: str, method: str, *args: Any, **kwargs: Any) -> Any:
        return await self._acall("asaver", method, args, kwargs).result()

    def post(self, target: str, method: str, *args: Any, **kwargs: Any) -> None:
        """A checkpointer that is asked by itself is always waited for."""
        raise NotImplementedError

    def tell(self, kind: str, *args: Any) -> None:
        """A checkpointer tells nothing."""


def _delete_for_runs(self: BorrowedSaver, run_ids: Sequence[str]) -> None:
    self.lender.ask("saver", "delete_for_runs", [*run_ids])


async def _adelete_for_runs(self: BorrowedSaver, run_ids: Sequence[str]) -> None:
    await self.lender.aask("saver", "adelete_for_runs", [*run_ids])


def _copy_thread(self: BorrowedSaver, source_thread_id: str, target_thread_id: str) -> None:
    self.lender.ask("saver", "copy_thread", source_thread_id, target_thread_id)


async def _acopy_thread(self: BorrowedSaver, source_thread_id: str, target_thread_id: str) -> None:
    await self.lender.aask("saver", "acopy_thread", source_thread_id, target_thread_id)


def _prune(self: BorrowedSaver, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
    self.lender.ask("saver", "prune", [*thread_ids], strategy=strategy)


async def _aprune(self: BorrowedSaver, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
    await self.lender.aask("saver", "aprune", [*thread_ids], strategy=strategy)


def _delta_history(self: BorrowedSaver, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
    return self.lender.ask("saver", "get_delta_channel_history", config=plain_config(config), channels=[*channels])


async def _adelta_history(self: BorrowedSaver, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
    return await self.lender.aask(
        "saver", "aget_delta_channel_history", config=plain_config(config), channels=[*channels]
    )


_WITH_OPTIONS: Final[Mapping[str, Any]] = {
    "delete_for_runs": _delete_for_runs,
    "adelete_for_runs": _adelete_for_runs,
    "copy_thread": _copy_thread,
    "acopy_thread": _acopy_thread,
    "prune": _prune,
    "aprune": _aprune,
    "get_delta_channel_history": _delta_history,
    "aget_delta_channel_history": _adelta_history,
}
