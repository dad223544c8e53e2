"""What a remote call costs over a local one: a hand-written LangGraph parent, its child here and in another process.

Prints medians in milliseconds and the difference, side by side in one run. Trust the order, not the digits: machines
are shared. Run it as `make bench`, or as a file: `python tests/bench/bench_remote.py [calls per figure]`.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent

ROUNDS = 200
WARM_UP = 20


class State(TypedDict, total=False):
    text: str


def echo(state: State) -> State:
    return {"text": state["text"]}


async def aecho(state: State) -> State:
    return {"text": state["text"]}


def child(node: Any) -> Any:
    return StateGraph(State).add_node("echo", node).add_edge(START, "echo").compile()


def parent(nested: Any, saver: Any) -> Any:
    return StateGraph(State).add_node("nested", nested).add_edge(START, "nested").compile(checkpointer=saver)


async def median(call: Callable[[], Any]) -> float:
    """Milliseconds of one call, in the median, after a warm-up."""
    taken = []
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    for number in range(rounds + WARM_UP):
        began = time.perf_counter()
        result = call()
        if isinstance(result, Awaitable):
            await result
        if number >= WARM_UP:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


async def main() -> None:
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        state = {"text": "x" * 1500}
        print(f"{'1.5 KB through a one-node graph':44} {'local':>8} {'remote':>8} {'more':>8}")
        for kind, node, verb in (("sync", echo, "invoke"), ("async", aecho, "ainvoke")):
            remote = RemoteAgent(f"{address}/{kind}")
            await row(f"{verb}, alone", child(node), remote, verb, state)
            for durability in (None, "exit", "async", "sync"):
                savers = [InMemorySaver() if durability else None for _ in range(2)]
                local, far = parent(child(node), savers[0]), parent(remote, savers[1])
                label = f"{verb}, in a parent, " + (f"checkpoints {durability}" if durability else "no checkpointer")
                await row(label, local, far, verb, state, durability)
        process.kill()


async def row(label: str, local: Any, remote: Any, verb: str, state: Any, durability: str | None = None) -> None:
    threads = iter(range(10**6))

    def call(graph: Any) -> Callable[[], Any]:
        if durability is None:
            return lambda: getattr(graph, verb)(state)
        return lambda: getattr(graph, verb)(
            state, {"configurable": {"thread_id": str(next(threads))}}, durability=durability
        )

    here, there = await median(call(local)), await median(call(remote))
    print(f"{label:44} {here:8.2f} {there:8.2f} {there - here:+8.2f}", flush=True)


if __name__ == "__main__":
    if "serve" in sys.argv:
        with Host({"sync": child(echo), "async": child(aecho)}) as host:
            print(host.address, flush=True)
            host.wait()
    else:
        asyncio.run(main())
