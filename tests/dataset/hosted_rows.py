"""A host for rows in a process of its own, which is killed, and a row that kills it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TypedDict

from agentmatrix import Dag, Host

__all__ = ["serve_rows"]


class State(TypedDict, total=False):
    id: int
    kills: bool
    answer: int


def serve_rows(folder: Path, name: str, port: int = 0) -> None:
    """Serve an agent, print the address, and note each run in a file."""
    calls = os.open(folder / f"{name}.calls", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def answer(state: State) -> State:
        os.write(calls, f"{state['id']}\n".encode())
        await asyncio.sleep(0.02)
        if state.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"answer": state["id"] * 2}

    graph = Dag(State).add_node("answer", answer).compile()
    with Host({"answer": graph}, address=f"127.0.0.1:{port}") as host:
        print(host.address, flush=True)
        host.wait()
