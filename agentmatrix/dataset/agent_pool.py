"""The agents that rows are given to: one, or several hosts of the same one.

A run goes to the host with the fewest runs under way. A host that is lost gets none for half a second, then twice as
long, up to half a minute.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import Runnable

from agentmatrix.errors import HostLost, HostUnreachable

__all__ = ["AgentPool"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


@dataclass(eq=False)
class _PooledAgent:
    agent: Runnable[Any, Any]
    running: int = 0
    is_reserved: bool = False
    away_until: float = 0.0
    pause: float = _FIRST_PAUSE


class AgentPool:
    """Agents that stand for one another.

    Args:
        agents: the agents.
        renew: asked for the agent of a host that went away, by its number, where hosts come back at another address.
    """

    def __init__(
        self,
        agents: Sequence[Runnable[Any, Any]],
        renew: Callable[[int], Awaitable[Runnable[Any, Any]]] | None = None,
    ) -> None:
        self._agents = [_PooledAgent(agent) for agent in agents]
        self._renew = renew
        self._changed = asyncio.Event()
        self._renewals: set[asyncio.Task[None]] = set()

    @property
    def waiting_for(self) -> int:
        """How many hosts are away; 0 while one of them takes runs."""
        now = asyncio.get_running_loop().time()
        away = [pooled for pooled in self._agents if pooled.away_until > now]
        return len(away) if len(away) == len(self._agents) else 0

    @asynccontextmanager
    async def agent(self, *, alone: bool = False) -> AsyncIterator[Runnable[Any, Any]]:
        """An agent for one run.

        Args:
            alone: no other row is at its host meanwhile.
        """
        pooled = await self._take(alone)
        try:
            yield pooled.agent
            pooled.pause, pooled.away_until = _FIRST_PAUSE, 0.0
        except (HostLost, HostUnreachable):
            self._went_away(pooled)
            raise
        finally:
            pooled.running -= 1
            if alone:
                pooled.is_reserved = False
            self._tell()

    async def _take(self, alone: bool) -> _PooledAgent:
        loop = asyncio.get_running_loop()
        reserved: _PooledAgent | None = None
        try:
            while True:
                now = loop.time()
                open_agents = [p for p in self._agents if p.away_until <= now and (p is reserved or not p.is_reserved)]
                if alone and reserved is None and open_agents:
                    reserved = min(open_agents, key=lambda pooled: pooled.running)
                    reserved.is_reserved = True
                if alone:
                    open_agents = [p for p in open_agents if p is reserved and not p.running]
                if open_agents:
                    pooled = min(open_agents, key=lambda pooled: pooled.running)
                    pooled.running += 1
                    reserved = None
                    return pooled
                until = [p.away_until - now for p in self._agents if now < p.away_until < math.inf]
                await self._wait(min(until, default=None))
        finally:
            if reserved is not None:
                reserved.is_reserved = False
                self._tell()

    async def _wait(self, seconds: float | None) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _went_away(self, pooled: _PooledAgent) -> None:
        now = asyncio.get_running_loop().time()
        if pooled.away_until > now:
            return
        if self._renew is None:
            pooled.away_until = now + pooled.pause
            pooled.pause = min(pooled.pause * 2, _LONGEST_PAUSE)
            return
        pooled.away_until = math.inf
        task = asyncio.create_task(self._renewed(pooled, self._renew(self._agents.index(pooled))))
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    async def _renewed(self, pooled: _PooledAgent, coming: Awaitable[Runnable[Any, Any]]) -> None:
        try:
            pooled.agent = await coming
        except Exception:
            # As a host that has no other address: it may come back.
            _log.warning("a host cannot be started again", exc_info=True)
        pooled.away_until = asyncio.get_running_loop().time() + pooled.pause
        self._tell()
