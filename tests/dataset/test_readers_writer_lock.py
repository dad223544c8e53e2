"""The readers-writer lock: many share it, one has it alone, and a waiter that gives up holds nobody up."""

from __future__ import annotations

import asyncio

from agentmatrix.dataset.readers_writer_lock import ReadersWriterLock


async def test_many_share_it_and_one_has_it_alone() -> None:
    lock, seen = ReadersWriterLock(), list[str]()
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def share(name: str) -> None:
        async with lock.shared():
            seen.append(f"{name} in")
            begun.set()
            await may_end.wait()
            seen.append(f"{name} out")

    async def alone() -> None:
        async with lock.exclusive():
            seen.append("alone in")
            await asyncio.sleep(0)
            seen.append("alone out")

    first = [asyncio.create_task(share(name)) for name in "ab"]
    await begun.wait()
    given_up = asyncio.create_task(alone())
    waiting = asyncio.create_task(alone())
    later = asyncio.create_task(share("c"))
    await asyncio.sleep(0)
    given_up.cancel()
    may_end.set()
    await asyncio.gather(*first, waiting, later)
    assert seen == ["a in", "b in", "a out", "b out", "alone in", "alone out", "c in", "c out"]
    assert given_up.cancelled()
