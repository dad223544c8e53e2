"""What a member of a chat group costs, beside LangGraph's own `Send` fan-out over as many tasks, in one run.

    python tests/bench/bench_groups.py [members ...]

The fan-out is what one writes with LangGraph: a node that asks the member's own model, sync or async as the group is,
a `Send` to it for each member, and `add_messages`. Each member is a scripted chat model that says one thing and then
keeps silent. In a broadcast each is asked once, as in one fan-out. In free conversation each is asked again, as it
hears what the others have said: so it is also compared with two fan-outs, one after the other, the second of which
gives each the whole transcript. What has a checkpointer is compared with a fan-out that has one. What is hosted runs
behind a server of this process, both ends are measured, and the fan-out beside it is a local one.

The kinds take turns; each ratio is the median of those of the rounds. Times are of the processor and of all threads,
without compiling, connecting or starting an event loop. Memory is what the run's result and its members keep, and what
there was at the peak; a scripted model keeps its prompts, which is 8 KiB for a second one of 1,000 messages.
"""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

sys.path.insert(0, str(Path(__file__).parents[2]))
from agentmatrix import ChatGroup, Host, RemoteAgent
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import max_turns
from agentmatrix.testing.scripted import ScriptedChatModel

REPEATS = 7
INPUT: dict[str, Any] = {"messages": "What do you say?"}
THREAD: Any = {"configurable": {"thread_id": "1"}}
Models = dict[str, ScriptedChatModel]
Maker = Callable[[Models, bool], Any]


def models(count: int) -> Models:
    return {f"m{index}": ScriptedChatModel(["hello there", *[""] * 60]) for index in range(count)}


def fan_out(members: Models, is_async: bool, rounds: int = 1) -> Any:
    def said(answer: Any) -> dict[str, Any]:
        return {"messages": [answer] if answer.content else []}

    async def aspeak(state: dict[str, Any]) -> dict[str, Any]:
        return said(await members[state["member"]].ainvoke(state["messages"]))

    def speak(state: dict[str, Any]) -> dict[str, Any]:
        return said(members[state["member"]].invoke(state["messages"]))

    def to_all(node: str) -> Callable[[MessagesState], list[Send]]:
        return lambda state: [Send(node, {"member": name, "messages": state["messages"]}) for name in members]

    graph, before = StateGraph(MessagesState), START
    for number in range(rounds):
        graph.add_node(f"speak{number}", aspeak if is_async else speak)
        graph.add_conditional_edges(before, to_all(f"speak{number}"), [f"speak{number}"])
        if number < rounds - 1:
            before = f"all{number}"
            graph.add_node(before, lambda state: {})
            graph.add_edge(f"speak{number}", before)
    return graph.compile()


def two_fan_outs(members: Models, is_async: bool) -> Any:
    return fan_out(members, is_async, rounds=2)


def round_of(members: Models, is_async: bool) -> Any:
    return ChatGroup(members, speaker=broadcast(), stop=max_turns(1), reply="transcript").compile()


def free_chat(members: Models, is_async: bool) -> Any:
    return ChatGroup(members, speaker=free(), reply="transcript").compile()


def saved(make: Maker) -> Maker:
    return lambda members, is_async: make(members, is_async).copy({"checkpointer": InMemorySaver()})


class Kind(NamedTuple):
    """What is measured: how the graph is made, whether it is hosted, and the names of what it is compared with: as it
    stands, and by as many calls of the models."""

    make: Maker
    hosted: bool = False
    beside: str = "Send fan-out"
    by_calls: str = "Send fan-out"

    @contextmanager
    def graph(self, members: Models, is_async: bool) -> Iterator[Any]:
        made = self.make(members, is_async)
        if not self.hosted:
            yield made
            return
        with Host({"group": made}) as host:
            agent = RemoteAgent(f"{host.address}/group")
            assert agent.card
            yield agent


KINDS = {
    "Send fan-out": Kind(fan_out),
    "two fan-outs": Kind(two_fan_outs, by_calls="two fan-outs"),
    "broadcast": Kind(round_of),
    "free": Kind(free_chat, by_calls="two fan-outs"),
    "broadcast, hosted": Kind(round_of, hosted=True),
    "free, hosted": Kind(free_chat, hosted=True, by_calls="two fan-outs"),
    "fan-out, saved": Kind(saved(fan_out), beside="fan-out, saved", by_calls="fan-out, saved"),
    "broadcast, saved": Kind(saved(round_of), beside="fan-out, saved", by_calls="fan-out, saved"),
    "free, saved": Kind(saved(free_chat), beside="fan-out, saved", by_calls="two fan-outs"),
}


def run(graph: Any, is_async: bool) -> tuple[float, Any]:
    """Seconds of the processor for one run, and its result."""

    async def arun() -> tuple[float, Any]:
        began = time.process_time()
        result = await graph.ainvoke(INPUT, THREAD)
        return time.process_time() - began, result

    if is_async:
        return asyncio.run(arun())
    began = time.process_time()
    result = graph.invoke(INPUT, THREAD)
    return time.process_time() - began, result


def seconds_of(kind: Kind, count: int, is_async: bool) -> float:
    with kind.graph(models(count), is_async) as graph:
        gc.collect()
        seconds, result = run(graph, is_async)
    assert len(result["messages"]) == count + 1
    return seconds


class Kept(NamedTuple):
    """KiB a member after a run and at its peak, and how often a member was asked."""

    after: float
    peak: float
    asked: float


def kept_by(kind: Kind, count: int, is_async: bool) -> Kept:
    members = models(count)
    with kind.graph(members, is_async) as graph:
        gc.collect()
        tracemalloc.start()
        kept = run(graph, is_async)
        after, peak = (size / count / 1024 for size in tracemalloc.get_traced_memory())
        tracemalloc.stop()
    assert kept
    return Kept(after, peak, sum(model.calls for model in members.values()) / count)


def warm_up() -> None:
    """What is made at the first call of all, by any of them, is nobody's."""
    for is_async in (True, False):
        for kind in KINDS.values():
            with kind.graph(models(2), is_async) as graph:
                run(graph, is_async)


def table(count: int, is_async: bool) -> dict[str, float]:
    """Print a line for each kind. Returns their seconds."""
    rounds = [{name: seconds_of(kind, count, is_async) for name, kind in KINDS.items()} for _ in range(REPEATS)]
    seconds = {name: statistics.median(times[name] for times in rounds) for name in KINDS}
    print(f"\n{count} members, {'async' if is_async else 'sync'}")
    print("                         ms  us each  KiB each  at peak  asked  of the reference        by as many calls")
    for name, kind in KINDS.items():
        kept = kept_by(kind, count, is_async)
        ratio, by_calls = (
            f"{statistics.median(times[name] / times[base] for times in rounds):.2f} of {base}"
            for base in (kind.beside, kind.by_calls)
        )
        print(
            f"  {name:17} {seconds[name] * 1000:8.1f} {seconds[name] / count * 1e6:8.0f} {kept.after:9.1f} "
            f"{kept.peak:8.1f} {kept.asked:6.1f}  {ratio:22}  {by_calls}"
        )
    return seconds


def main() -> None:
    counts = [int(count) for count in sys.argv[1:]] or [100, 1000]
    warm_up()
    gc.freeze()  # the collections between two runs are to look at what the runs have made, not at every module
    for is_async in (True, False):
        tables = [table(count, is_async) for count in counts]
        if len(counts) > 1:
            print(f"exponents from {counts[0]} to {counts[-1]} members, {'async' if is_async else 'sync'}")
            for name in KINDS:
                grown = math.log(tables[-1][name] / tables[0][name])
                print(f"  {name:17} {grown / math.log(counts[-1] / counts[0]):.2f}")
    gc.unfreeze()


if __name__ == "__main__":
    main()
