"""What a turn of a chat group costs beside a loop written by hand, and a broadcast beside asyncio alone, in one run.

    python tests/bench/bench_chat.py [turns] [members ...]

The loop is what one writes with LangGraph: a node for each of two models, which signs the answer, and an edge that
counts the turns, so that a turn is one step. It tells nobody who spoke, in what form a provider takes it. Where a
function chooses, the loop is that of langgraph-supervisor: a node of its own chooses, so that a turn is two steps, and
a choice that fails loses no turn. What a broadcast stands beside is no
graph: a task of asyncio for each member, which makes a message, and `add_messages` of all of them. Models are scripted
and answer at once.

Ours and the reference take turns. Times are of the processor, without compiling; each ratio is that of the least ones.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command

sys.path.insert(0, str(Path(__file__).parents[2]))
from agentmatrix import ChatGroup, members
from agentmatrix.speakers import broadcast, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing.scripted import ScriptedChatModel

REPEATS = 7
INPUT: dict[str, Any] = {"messages": "What do you say?"}
CONFIG: Any = {"recursion_limit": 1_000_000, "configurable": {"thread_id": "1"}}


def models(count: int) -> dict[str, ScriptedChatModel]:
    return {f"m{index}": ScriptedChatModel("hello there", cycle=True) for index in range(count)}


def loop(turns: int, is_async: bool, saver: Any) -> Any:
    voices = models(2)
    names = list(voices)

    def signed(answer: AIMessage, name: str) -> dict[str, Any]:
        return {"messages": [answer.model_copy(update={"name": name})]}

    def node(name: str) -> Callable[..., Any]:
        async def aspeak(state: dict[str, Any]) -> dict[str, Any]:
            return signed(await voices[name].ainvoke(state["messages"]), name)

        def speak(state: dict[str, Any]) -> dict[str, Any]:
            return signed(voices[name].invoke(state["messages"]), name)

        return aspeak if is_async else speak

    def next_one(state: dict[str, Any]) -> str:
        taken = len(state["messages"]) - 1
        return END if taken >= turns else names[taken % len(names)]

    async def anext_one(state: dict[str, Any]) -> str:
        return next_one(state)

    graph = StateGraph(MessagesState)
    for source in (START, *names):
        if source != START:
            graph.add_node(source, node(source))
        graph.add_conditional_edges(source, anext_one if is_async else next_one, [*names, END])
    return graph.compile(saver)


def routed(turns: int, is_async: bool, saver: Any) -> Any:
    """The same with a node that chooses."""
    inner = loop(turns, is_async, None).builder
    graph = StateGraph(MessagesState)

    def next_one(state: dict[str, Any]) -> Command[Any]:
        taken = len(state["messages"]) - 1
        return Command(goto=END if taken >= turns else f"m{taken % 2}")

    async def anext_one(state: dict[str, Any]) -> Command[Any]:
        return next_one(state)

    graph.add_node("router", anext_one if is_async else next_one)
    graph.add_edge(START, "router")
    for name, spec in inner.nodes.items():
        graph.add_node(name, spec.runnable)
        graph.add_edge(name, "router")
    return graph.compile(saver)


def group_by_function(turns: int, is_async: bool, saver: Any) -> Any:
    def next_one(state: dict[str, Any]) -> str | None:
        taken = len(state["messages"]) - 1
        return None if taken >= turns else f"m{taken % 2}"

    return ChatGroup(models(2), speaker=next_one, max_turns=turns + 1, reply="transcript").compile(saver)


def group(turns: int, is_async: bool, saver: Any) -> Any:
    made = ChatGroup(models(2), speaker=round_robin(), stop=max_turns(turns), max_turns=turns + 1, reply="transcript")
    return made.compile(saver)


def seconds_of(graph: Any, messages: int, is_async: bool) -> float:
    async def arun() -> tuple[float, Any]:
        began = time.process_time()
        result = await graph.ainvoke(INPUT, CONFIG)
        return time.process_time() - began, result

    gc.collect()
    if is_async:
        seconds, result = asyncio.run(arun())
    else:
        began = time.process_time()
        result = graph.invoke(INPUT, CONFIG)
        seconds = time.process_time() - began
    assert len(result["messages"]) == messages
    return seconds


def least(measures: list[Callable[[], float]]) -> list[float]:
    """The least seconds of each, which take turns."""
    rounds = [[measure() for measure in measures] for _ in range(REPEATS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def turn(turns: int, is_async: bool, is_saved: bool, *, by_function: bool = False) -> None:
    def measured(make: Callable[[int, bool, Any], Any]) -> Callable[[], float]:
        return lambda: seconds_of(make(turns, is_async, InMemorySaver() if is_saved else None), turns + 1, is_async)

    pair = (routed, group_by_function) if by_function else (loop, group)
    by_hand, ours = least([measured(make) for make in pair])
    where = "async" if is_async else "sync"
    where += (", saved" if is_saved else "") + (", a function chooses" if by_function else "")
    print(f"a turn of {turns}, {where}: {ours / turns * 1e6:.0f} us, by hand {by_hand / turns * 1e6:.0f}", end=" ")
    print(f"({ours / by_hand:.2f})")


async def floor(count: int) -> float:
    async def speak(name: str) -> AIMessage:
        return AIMessage("hello there", name=name)

    began = time.process_time()
    tasks = [asyncio.create_task(speak(f"m{index}")) for index in range(count)]
    said: list[Any] = [await task for task in tasks]
    add_messages([HumanMessage("What do you say?")], said)
    return time.process_time() - began


def round_of(count: int) -> None:
    def build() -> Any:
        return ChatGroup(models(count), speaker=broadcast(), stop=max_turns(1), reply="transcript").compile()

    began = time.process_time()
    graph = build()
    built = time.process_time() - began
    gc.freeze()  # A collection is to look at what the runs have made, not at the graph.
    bare, ours = least([lambda: asyncio.run(floor(count)), lambda: seconds_of(graph, count + 1, True)])
    print(f"a broadcast to {count}: {ours * 1e3:.1f} ms, asyncio alone {bare * 1e3:.1f} ({ours / bare:.2f});", end=" ")
    print(f"built in {built:.2f} s")


def members_of(count: int) -> None:
    voices = list(models(count).values())

    def build() -> Any:
        crowd = members(count, lambda key: voices[int(key) - 1])
        return ChatGroup(crowd, speaker=broadcast(), stop=max_turns(1), reply="transcript").compile()

    build()
    began = time.process_time()
    graph = build()
    built = time.process_time() - began
    seconds = min(seconds_of(graph, count + 1, True) for _ in range(REPEATS))
    tracemalloc.start()
    graph = build()
    seconds_of(graph, count + 1, True)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"the same by members({count}, make): {seconds * 1e3:.1f} ms; built in {built:.3f} s,", end=" ")
    print(f"{kept / count:.0f} bytes kept a member")


def main() -> None:
    turns, *counts = [int(number) for number in sys.argv[1:]] or [100, 590, 10_000]
    gc.collect()
    gc.freeze()
    for is_async in (True, False):
        turn(2, is_async, False)
        for is_saved in (False, True):
            turn(turns, is_async, is_saved)
            turn(turns, is_async, is_saved, by_function=True)
    for count in counts:
        round_of(count)
        members_of(count)
    gc.unfreeze()


if __name__ == "__main__":
    main()
