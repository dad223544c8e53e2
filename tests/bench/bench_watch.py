"""What it costs to watch a run: the same run, watched and not, in turn.

    python tests/bench/bench_watch.py [nodes [members [rounds]]]

A chain of nodes that do nothing, sync and async, and a broadcast to scripted models, which say one thing. Times are of
the processor and of all threads; of the rounds the least counts, which a busy machine disturbs least. `not watched` is
told twice, with and without the module imported: watching costs nothing where nobody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.graph import MessagesState

sys.path.insert(0, str(Path(__file__).parents[2]))
from agentmatrix import ChatGroup, Dag
from agentmatrix.speakers import broadcast
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel

INPUT: dict[str, Any] = {"messages": "What do you say?"}


def chain(count: int, is_async: bool) -> Any:
    async def anode(state: MessagesState) -> dict[str, Any]:
        return {}

    def node(state: MessagesState) -> dict[str, Any]:
        return {}

    dag = Dag(MessagesState, name="chain")
    dag.add_sequence([(f"n{number}", anode if is_async else node) for number in range(count)])
    return dag.compile()


def crowd(count: int, is_async: bool) -> Any:
    members = {f"m{number}": ScriptedChatModel("hello there") for number in range(count)}
    return ChatGroup(members, speaker=broadcast(), stop=max_turns(1), reply="transcript").compile()


def seconds(make: Callable[[int, bool], Any], count: int, is_async: bool, is_watched: bool) -> float:
    graph = make(count, is_async)

    async def arun() -> float:
        began = time.process_time()
        await graph.ainvoke(INPUT)
        return time.process_time() - began

    if is_watched:
        from agentmatrix import watching

        block: Any = watching()
    else:
        block = contextlib.nullcontext()
    with block as run:
        if is_async:
            took = asyncio.run(arun())
        else:
            began = time.process_time()
            graph.invoke(INPUT)
            took = time.process_time() - began
    if is_watched:
        assert sum(node.count for node in run.nodes.values()) >= count
    return took


def main() -> None:
    nodes, members, rounds = [*map(int, sys.argv[1:]), *(100, 1000, 9)[len(sys.argv) - 1 :]]
    kinds = [("a node of a chain", chain, nodes), ("a member of a broadcast", crowd, members)]
    for is_async in (False, True):
        verb = "async" if is_async else "sync"
        for name, make, count in kinds:
            before = min(seconds(make, count, is_async, False) for _ in range(rounds))
            took = [[seconds(make, count, is_async, watched) for watched in (False, True)] for _ in range(rounds)]
            off, on = (min(column) / count * 1e6 for column in zip(*took, strict=True))
            print(
                f"{name}, {verb}: not watched {before / count * 1e6:.0f} and {off:.0f} us, watched {on:.0f} us, "
                f"{on - off:+.0f} us, ratio {on / off:.2f}"
            )


main()
