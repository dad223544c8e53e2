"""What it costs to watch a run: the same run, plain and watched, in turn.

    python tests/bench/bench_watch.py [nodes [members [rounds]]]

A chain of nodes that do nothing, sync and async, and a broadcast to scripted models, which say one thing. Times are of
the processor and of all threads; of the rounds the least counts, which a busy machine disturbs least. The plain run is
told twice, with and without the module imported: watching costs nothing where nobody does.

`tokens=True` makes models stream. What that costs by itself is told twice: `streamed` is the plain run, read with
`stream_mode="messages"`; `models alone` are those of the broadcast in no graph, with a handler that does nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.graph import MessagesState

sys.path.insert(0, str(Path(__file__).parents[2]))
from agentmatrix import ChatGroup, Dag
from agentmatrix.speakers import broadcast
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel

INPUT: dict[str, Any] = {"messages": "What do you say?"}
WATCHED: dict[str, dict[str, bool]] = {
    "watched": {},
    "values": {"values": True},
    "tokens": {"tokens": True},
    "tokens and values": {"tokens": True, "values": True},
}


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


class Silent(BaseCallbackHandler):
    """Has models stream, and does nothing with it."""

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        return output

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        return output


def models_alone(count: int, is_async: bool) -> float:
    """The seconds of the processor that so many models take to say what they say in a broadcast."""
    models = [ScriptedChatModel("hello there") for _ in range(count)]
    handler: Any = {"callbacks": [Silent()]}

    async def ask() -> None:
        await asyncio.gather(*(model.ainvoke("What do you say?", handler) for model in models))

    began = time.process_time()
    if is_async:
        asyncio.run(ask())
    else:
        for model in models:
            model.invoke("What do you say?", handler)
    return time.process_time() - began


def run_graph(graph: Any, is_async: bool, is_streamed: bool) -> float:
    """The seconds of the processor that a run takes."""

    async def arun() -> float:
        began = time.process_time()
        if is_streamed:
            async for _ in graph.astream(INPUT, stream_mode="messages"):
                pass
        else:
            await graph.ainvoke(INPUT)
        return time.process_time() - began

    if is_async:
        return asyncio.run(arun())
    began = time.process_time()
    if is_streamed:
        for _ in graph.stream(INPUT, stream_mode="messages"):
            pass
    else:
        graph.invoke(INPUT)
    return time.process_time() - began


def seconds(make: Callable[[int, bool], Any], count: int, is_async: bool, way: str) -> float:
    if way == "models alone":
        return models_alone(count, is_async)
    graph = make(count, is_async)
    if way not in WATCHED:
        return run_graph(graph, is_async, way == "streamed")
    from agentmatrix import watching

    with watching(**WATCHED[way]) as run:
        took = run_graph(graph, is_async, False)
    assert sum(node.count for node in run.nodes.values()) >= count
    return took


def main() -> None:
    nodes, members, rounds = [*map(int, sys.argv[1:]), *(100, 1000, 9)[len(sys.argv) - 1 :]]
    kinds = [("a node of a chain", chain, nodes), ("a member of a broadcast", crowd, members)]
    for is_async in (False, True):
        verb = "async" if is_async else "sync"
        for name, make, count in kinds:
            before = min(seconds(make, count, is_async, "plain") for _ in range(rounds))
            ways = ["plain", "streamed", *(["models alone"] if make is crowd else []), *WATCHED]
            took = [[seconds(make, count, is_async, way) for way in ways] for _ in range(rounds)]
            least = {way: min(column) / count * 1e6 for way, column in zip(ways, zip(*took, strict=True), strict=True)}
            print(f"{name}, {verb}: plain {before / count * 1e6:.0f} and {least['plain']:.0f} us")
            for way in ways[1:]:
                of_plain, of_watched = least[way] / least["plain"], least[way] / least["watched"]
                of_streamed = least[way] / least["streamed"]
                print(
                    f"  {way} {least[way]:.0f} us, of plain {of_plain:.2f}, of watched {of_watched:.2f}, "
                    f"of streamed {of_streamed:.2f}"
                )


main()
