"""Rows that end the process that runs them, beside rows that do not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

from agentmatrix import refine

__all__ = ["CRASHING", "run_rows"]

CRASHING = {9: "exit", 10: "kill", 41: "abort"}
"""How rows end their process, by their numbers."""


def run_rows(folder: Path, order: str = "done", options: dict[str, Any] | None = None) -> None:
    """In a process of its own: run all rows that are left, and say what became of them."""
    calls = os.open(folder / "calls", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        os.write(calls, f"{columns['id']}\n".encode())
        await asyncio.sleep(0.01)
        crash = CRASHING.get(columns["id"])
        if crash == "exit":
            os._exit(0)
        if crash:
            os.kill(os.getpid(), signal.SIGKILL if crash == "kill" else signal.SIGABRT)
        return {"answer": columns["id"] * 2}

    given: dict[str, Any] = {"max_concurrency": 8, **(options or {})}
    report = refine(answer, folder / "in.jsonl", folder / "out.jsonl", order=order, **given)
    failures = [[row.id, row.status, row.attempts, row.error_type] for row in report.failures]
    print(json.dumps({"done": report.done, "left": report.left, "failures": failures}))


def interrupt_and_fail(folder: Path, in_notebook: bool = False) -> None:
    """In a process of its own: two rows are at work when it is interrupted twice.

    Args:
        folder: of the rows.
        in_notebook: a loop is running where `refine` is called, as in a notebook.
    """
    begun: list[int] = []

    async def hang(columns: dict[str, Any]) -> dict[str, Any]:
        begun.append(columns["id"])
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            if in_notebook:  # The signals are for another thread: two at once would be one.
                await asyncio.sleep(1)
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(1000)
        return {}

    async def cell() -> None:
        refine(hang, folder / "in.jsonl", folder / "out.jsonl", max_concurrency=2)

    try:
        if in_notebook:
            asyncio.run(cell())
        else:
            refine(hang, folder / "in.jsonl", folder / "out.jsonl", max_concurrency=2)
    except KeyboardInterrupt:
        print("interrupted", [thread.name for thread in threading.enumerate() if "refine" in thread.name])
