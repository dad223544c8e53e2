"""What a member of a chat group costs, beside LangGraph's own `Send` fan-out over as many tasks, in one run.

    python tests/bench/bench_groups.py [members ...]

The fan-out is what one writes with LangGraph: a node that asks the member's own model, sync or async as the group is,
a `Send` to it for each member, and `add_messages`. Each member is a scripted chat model that says one thing and then
keeps silent. In a broadcast each is asked once, as in the fan-out; in free conversation twice or more, since each hears
what the others have said, so its time is given of the one fan-out and, by asks, of as many fan-outs. What has a
checkpointer is compared with a fan-out that has one. The kinds take turns; times are of the processor, medians, without
compiling. Memory is what the run's result and its members keep. Trust the ratios.
"""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
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
THREAD: Any = {"configurable": {"thread_id": "1"}}
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


def saved(make: Callable[[Models, bool], Any]) -> Callable[[Models, bool], Any]:
    return lambda members, is_async: make(members, is_async).copy({"checkpointer": InMemorySaver()})


def run(graph: Any, is_async: bool) -> Any:
    result = asyncio.run(graph.ainvoke(INPUT, THREAD)) if is_async else graph.invoke(INPUT, THREAD)
    return result


def seconds_of(make: Callable[[Models, bool], Any], count: int, is_async: bool) -> float:
    """Seconds of the processor for one run."""
    graph = make(models(count), is_async)
    gc.collect()
    began = time.process_time()
    result = run(graph, is_async)
    seconds = time.process_time() - began
    assert len(result["messages"]) == count + 1
    return seconds


def kept_by(make: Callable[[Models, bool], Any], count: int, is_async: bool) -> tuple[float, float]:
    """KiB a member, and how often a member was asked."""
    members = models(count)
    graph = make(members, is_async)
    tracemalloc.start()
    kept = run(graph, is_async)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept
    return size / count / 1024, sum(model.calls for model in members.values()) / count


FAN_OUT, SAVED_FAN_OUT = "Send fan-out", "Send fan-out, saved"
KINDS = {
    FAN_OUT: fan_out,
    "broadcast": round_of,
    "free": free_chat,
    "broadcast, hosted": hosted(round_of),
    "free, hosted": hosted(free_chat),
    SAVED_FAN_OUT: saved(fan_out),
    "broadcast, saved": saved(round_of),
    "free, saved": saved(free_chat),
}


def table(count: int, is_async: bool) -> dict[str, float]:
    """Print a line for each kind. Returns their seconds."""
    rounds = [{kind: seconds_of(make, count, is_async) for kind, make in KINDS.items()} for _ in range(REPEATS)]
    seconds = {kind: statistics.median(times[kind] for times in rounds) for kind in KINDS}
    for kind, make in KINDS.items():
        size, asked = kept_by(make, count, is_async)
        base = SAVED_FAN_OUT if kind.endswith("saved") else FAN_OUT
        ratio = statistics.median(times[kind] / times[base] for times in rounds)
        each = seconds[kind] / count * 1e6
        print(
            f"  {count:5} {kind:19} {seconds[kind] * 1000:7.1f} ms  {each:4.0f} us and {size:5.1f} KiB a member  "
            f"asked {asked:.1f} times  {ratio:5.2f} of a fan-out  {ratio / asked:5.2f} by asks"
        )
    return seconds


def main() -> None:
    counts = [int(count) for count in sys.argv[1:]] or [100, 1000]
    gc.freeze()  # the collections between two runs are to look at what the runs have made, not at every module
    for is_async in (True, False):
        print("async" if is_async else "sync")
        tables = [table(count, is_async) for count in counts]
        if len(counts) > 1:
            for kind in KINDS:
                grown = math.log(tables[-1][kind] / tables[0][kind])
                print(f"  exponent {kind:19} {grown / math.log(counts[-1] / counts[0]):.2f}")
    gc.unfreeze()


if __name__ == "__main__":
    main()
