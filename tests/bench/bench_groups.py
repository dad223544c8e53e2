"""What a member of a chat group costs, beside LangGraph's own `Send` fan-out over as many tasks, in one run.

    python tests/bench/bench_groups.py [members ...]

Each member is a scripted chat model that says one thing and then keeps silent. In a broadcast each is asked once, as in
the fan-out; in free conversation at least twice, since each hears what the others have said. Times are the best of
several runs without compiling. Memory is what the run's result and its members keep. Trust the ratios.
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

sys.path.insert(0, str(Path(__file__).parents[2]))
from agentmatrix import ChatGroup
from agentmatrix.scripted import ScriptedChatModel
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import max_turns
from agentmatrix.testing import loopback

REPEATS = 5
INPUT: dict[str, Any] = {"messages": "What do you say?"}
Models = dict[str, ScriptedChatModel]


def models(count: int) -> Models:
    return {f"m{index}": ScriptedChatModel(["hello there", *[""] * 60]) for index in range(count)}


def fan_out(members: Models, is_async: bool) -> Any:
    async def aspeak(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [await members[state["member"]].ainvoke(state["messages"])]}

    def speak(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [members[state["member"]].invoke(state["messages"])]}

    def all_of_them(state: MessagesState) -> list[Send]:
        return [Send("speak", {"member": name, "messages": state["messages"]}) for name in members]

    graph = StateGraph(MessagesState)
    graph.add_node("speak", aspeak if is_async else speak)
    graph.add_conditional_edges(START, all_of_them, ["speak"])
    return graph.compile()


def round_of(members: Models, is_async: bool) -> Any:
    return ChatGroup(members, speaker=broadcast(), stop=max_turns(1), reply="transcript").compile()


def free_chat(members: Models, is_async: bool) -> Any:
    return ChatGroup(members, speaker=free(), reply="transcript").compile()


def hosted(make: Callable[[Models, bool], Any]) -> Callable[[Models, bool], Any]:
    return lambda members, is_async: loopback(make(members, is_async))


def run(graph: Any, is_async: bool) -> Any:
    result = asyncio.run(graph.ainvoke(INPUT)) if is_async else graph.invoke(INPUT)
    return result


def measured(make: Callable[[Models, bool], Any], count: int, is_async: bool) -> tuple[float, float, float]:
    """Seconds, KiB a member, and how often a member was asked."""
    best = math.inf
    for _ in range(REPEATS):
        members = models(count)
        graph = make(members, is_async)
        gc.collect()
        began = time.perf_counter()
        result = run(graph, is_async)
        best = min(best, time.perf_counter() - began)
        assert len(result["messages"]) == count + 1
    members = models(count)
    graph = make(members, is_async)
    tracemalloc.start()
    kept = run(graph, is_async)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept
    return best, size / count / 1024, sum(model.calls for model in members.values()) / count


KINDS = {
    "Send fan-out": fan_out,
    "broadcast": round_of,
    "free": free_chat,
    "broadcast, hosted": hosted(round_of),
    "free, hosted": hosted(free_chat),
}


def main() -> None:
    counts = [int(count) for count in sys.argv[1:]] or [100, 1000]
    for is_async in (True, False):
        print("async" if is_async else "sync")
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for count in counts:
            for kind, make in KINDS.items():
                seconds, size, asked = measured(make, count, is_async)
                times[kind].append(seconds)
                ratio = seconds / times["Send fan-out"][-1]
                print(
                    f"  {count:5} {kind:18} {seconds * 1000:8.1f} ms  {seconds / count * 1e6:6.0f} us a member  "
                    f"{size:6.1f} KiB a member  asked {asked:.1f} times  {ratio:5.2f} of the fan-out"
                )
        if len(counts) > 1:
            for kind, seconds_of in times.items():
                steps = math.log(counts[-1] / counts[0])
                print(f"  exponent {kind:18} {math.log(seconds_of[-1] / seconds_of[0]) / steps:.2f}")


if __name__ == "__main__":
    main()
