"""Graphs whose supersteps stay open: LangGraph's `stream` and `astream` over our loop and runner."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentmatrix.engine.branches import afind_forks, find_forks
from agentmatrix.engine.loop import RESULT_ONLY
from agentmatrix.engine.pauses import PausingLoop
from agentmatrix.engine.runner import Runner
from agentmatrix.engine.snapshot import arecord_snapshot, asnapshot, for_snapshot, record_snapshot, snapshot
from agentmatrix.engine.staff_checkpoints import forks_in
from agentmatrix.interrupts import cancelled_interrupts, remaining_interrupts
from agentmatrix.pregel.execution import (
    CONF,
    AsyncBackgroundExecutor,
    AsyncPregelLoop,
    BackgroundExecutor,
    SyncPregelLoop,
    Task,
    id_among,
    with_globals,
)

__all__ = ["ScheduledPregel"]


class SyncLoop(PausingLoop, SyncPregelLoop):
    """The loop under `stream`."""

    def __enter__(self) -> Any:
        limit = self.config.get("max_concurrency")
        # `max_concurrency` bounds agents at work, never the saver and the stream: these have an executor of their own.
        unlimited = self.stack.enter_context(BackgroundExecutor(RunnableConfig())) if limit else None
        calls = self.stack.enter_context(BackgroundExecutor(self.config)) if limit else None
        super().__enter__()
        self._set_executors(unlimited, calls)
        if names := self._staff_to_read:
            saver: Any = self.checkpointer
            listed = {name: list(saver.list(self._staff_config(name))) for name in names}
            self._know_staff(listed, find_forks(saver, self._began_at, forks_in(listed)))
        return self

    def _checkpointer_put_after_previous(self, *given: Any) -> Any:
        if self.schedule.topology.actors:
            self.put_staff(id_among(given))
        with self.explained_put(given[3]):
            super()._checkpointer_put_after_previous(*given)

    def match_cached_writes(self) -> Sequence[Task]:
        if self.open_step is None or self.cache is None:
            return super().match_cached_writes()
        keys = self.cache_keys_of_calls()
        found = self.cache.get(tuple(keys)) if keys else {}
        return self.fill_calls(keys, found)

    def accept_push(self, task: Task, write_idx: int, call: Any = None) -> Task | None:
        pushed = self._push(task, write_idx, call)
        for cached in self.match_cached_writes() if pushed else ():
            self.put_writes(cached.id, cached.writes, cached=True)
        return pushed

    def schedule_error_handler(self, failed_task: Task, error: BaseException) -> Task | None:
        if self.open_step is None:
            return super().schedule_error_handler(failed_task, error)
        futures, self._error_handler_write_futs = self._error_handler_write_futs or [], []
        concurrent.futures.wait(futures)
        return self._handle_error(failed_task, error)


class AsyncLoop(PausingLoop, AsyncPregelLoop):
    """The loop under `astream`."""

    async def __aenter__(self) -> Any:
        limit = self.config.get("max_concurrency")
        unlimited = await self.stack.enter_async_context(AsyncBackgroundExecutor(RunnableConfig())) if limit else None
        calls = await self.stack.enter_async_context(AsyncBackgroundExecutor(self.config)) if limit else None
        await super().__aenter__()
        self._set_executors(unlimited, calls)
        if names := self._staff_to_read:
            saver: Any = self.checkpointer
            listed = {name: [saved async for saved in saver.alist(self._staff_config(name))] for name in names}
            self._know_staff(listed, await afind_forks(saver, self._began_at, forks_in(listed)))
        return self

    async def _checkpointer_put_after_previous(self, *given: Any) -> Any:
        if self.schedule.topology.actors:
            await self.aput_staff(id_among(given))
        with self.explained_put(given[3]):
            await super()._checkpointer_put_after_previous(*given)

    async def amatch_cached_writes(self) -> Sequence[Task]:
        if self.open_step is None or self.cache is None:
            return await super().amatch_cached_writes()
        keys = self.cache_keys_of_calls()
        found = await self.cache.aget(tuple(keys)) if keys else {}
        return self.fill_calls(keys, found)

    async def aaccept_push(self, task: Task, write_idx: int, call: Any = None) -> Task | None:
        pushed = self._push(task, write_idx, call)
        for cached in await self.amatch_cached_writes() if pushed else ():
            self.put_writes(cached.id, cached.writes, cached=True)
        return pushed

    async def aschedule_error_handler(self, failed_task: Task, error: BaseException) -> Task | None:
        if self.open_step is None:
            return await super().aschedule_error_handler(failed_task, error)
        futures, self._error_handler_write_futs = self._error_handler_write_futs or [], []
        await asyncio.gather(*futures)
        return self._handle_error(failed_task, error)


class ScheduledPregel(Pregel[Any, Any, Any, Any]):
    """A compiled graph whose nodes start the moment that they may. One of its channels is a `RunChannel`."""

    reports_written_keys = True

    stream: Any = with_globals(Pregel.stream, SyncPregelLoop=SyncLoop, PregelRunner=Runner)
    astream: Any = with_globals(Pregel.astream, AsyncPregelLoop=AsyncLoop, PregelRunner=Runner)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the graph, as in LangGraph. Interrupts of nodes that were cancelled are not in the result."""
        cancelled: set[str] = set()
        token = cancelled_interrupts.set(cancelled)
        try:
            return remaining_interrupts(super().invoke(input, self._of_invoke(config, kwargs), **kwargs), cancelled)
        finally:
            cancelled_interrupts.reset(token)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the graph, as in LangGraph. Interrupts of nodes that were cancelled are not in the result."""
        cancelled: set[str] = set()
        token = cancelled_interrupts.set(cancelled)
        try:
            return remaining_interrupts(
                await super().ainvoke(input, self._of_invoke(config, kwargs), **kwargs), cancelled
            )
        finally:
            cancelled_interrupts.reset(token)

    def _of_invoke(self, config: RunnableConfig | None, options: Mapping[str, Any]) -> RunnableConfig | None:
        """The config of a run of which only the result is read, unless all of it is printed."""
        configurable = (config or {}).get(CONF) or {}
        if self.checkpointer and not configurable:
            return config  # without a thread, which LangGraph refuses
        prints = options.get("print_mode") or options.get("debug", self.debug)
        if prints or options.get("stream_mode", "values") != "values":
            return config
        return {**(config or {}), CONF: {**configurable, RESULT_ONLY: True}}

    def _prepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        make = snapshot if options.get("live") else record_snapshot
        return cast(StateSnapshot, make(self, config, for_snapshot(saved), **options))

    async def _aprepare_state_snapshot(self, config: RunnableConfig, saved: Any, **options: Any) -> StateSnapshot:
        make = asnapshot if options.get("live") else arecord_snapshot
        return cast(StateSnapshot, await make(self, config, for_snapshot(saved), **options))
