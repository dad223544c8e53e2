"""Dags without barriers: a node starts the moment that its in-edges are settled, and timing changes no result."""

from __future__ import annotations

import asyncio
import operator
import random
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained, GraphRecursionError
from langgraph.func import task
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, Send, interrupt

from agentmatrix.compose import Dag
from tests.compose.test_dag_rules import Plot, build, interpret, plots, says


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    x: str


def thread() -> Any:
    return {"configurable": {"thread_id": "1"}}


class Gates:
    """Nodes that wait until the test lets them go, and tell when they have started."""

    def __init__(self) -> None:
        self.opened: dict[str, asyncio.Event] = {}
        self.started: dict[str, asyncio.Event] = {}
        self.ran: list[str] = []

    def _of(self, events: dict[str, asyncio.Event], name: str) -> asyncio.Event:
        return events.setdefault(name, asyncio.Event())

    def node(self, name: str, asks: bool = False) -> Any:
        async def run(state: State) -> State:
            self._of(self.started, name).set()
            await self._of(self.opened, name).wait()
            answer = f"={interrupt(name)}" if asks else ""
            self.ran.append(name)
            return {"log": [f"{name}{answer}({','.join(word.split('(')[0] for word in state.get('log', []))})"]}

        return run

    def open(self, *names: str) -> None:
        for name in names:
            self._of(self.opened, name).set()

    async def start_of(self, *names: str) -> None:
        for name in names:
            await asyncio.wait_for(self._of(self.started, name).wait(), 100)


def dag_of(gates: Gates, *edges: tuple[str, str], asks: tuple[str, ...] = (), **options: Any) -> Any:
    dag = Dag(State)
    for name in dict.fromkeys(name for edge in edges for name in edge):
        dag.add_node(name, gates.node(name, name in asks))
    for edge in edges:
        dag.add_edge(*edge)
    return dag.compile(barriers=False, **options)


FORK = (("a", "slow"), ("a", "b"), ("b", "c"), ("c", "end"), ("slow", "end"))


async def test_a_node_starts_while_a_sibling_of_its_source_still_runs() -> None:
    gates = Gates()
    run = asyncio.ensure_future(dag_of(gates, *FORK).ainvoke({"log": []}))
    gates.open("a", "b", "c", "end")
    await gates.start_of("slow", "c")
    assert not run.done()
    gates.open("slow")
    assert (await run)["log"] == ["a()", "b(a)", "slow(a)", "c(a,b)", "end(a,b,slow,c)"]


def test_sync_nodes_start_while_a_sibling_still_runs() -> None:
    c_ran = threading.Event()

    def slow(state: State) -> State:
        assert c_ran.wait(100)
        return {"log": ["slow"]}

    def c(state: State) -> State:
        c_ran.set()
        return {"log": ["c"]}

    dag = Dag(State)
    for name, node in {"a": lambda s: {"log": ["a"]}, "slow": slow, "b": lambda s: {"log": ["b"]}, "c": c}.items():
        dag.add_node(name, node)
    for edge in (("a", "slow"), ("a", "b"), ("b", "c")):
        dag.add_edge(*edge)
    assert dag.compile(barriers=False).invoke({"log": []})["log"] == ["a", "b", "slow", "c"]


async def test_streams_show_each_node_when_it_ends() -> None:
    gates = Gates()
    graph = dag_of(gates, *FORK)
    gates.open("a", "b", "c", "end")
    shown: list[Any] = []
    async for mode, part in graph.astream({"log": []}, stream_mode=["updates", "values", "tasks"]):
        shown.append((mode, part))
        if mode == "updates" and "c" in part:
            gates.open("slow")
    updates = [next(iter(part)) for mode, part in shown if mode == "updates"]
    assert updates == ["a", "b", "c", "slow", "end"]
    values = [len(part["log"]) for mode, part in shown if mode == "values"]
    assert values == [0, 1, 2, 3, 4, 5]
    begun = [part["name"] for mode, part in shown if mode == "tasks" and "input" in part]
    assert begun.index("c") < updates.index("slow") + 2
    assert sorted(begun) == sorted(updates)


async def test_namespaces_and_metadata_are_those_of_langgraph() -> None:
    async def inner(state: State, config: RunnableConfig) -> State:
        return {"log": [config["metadata"]["langgraph_node"], str(config["metadata"]["langgraph_step"])]}

    sub = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()

    def graph(kind: Any, **options: Any) -> Any:
        builder = kind(State)
        builder.add_node("a", lambda state, config: {"log": [str(config["metadata"]["langgraph_step"])]})
        builder.add_node("team", sub)
        builder.add_edge(START, "a")
        builder.add_edge("a", "team")
        return builder.compile(**options)

    async def parts(graph: Any) -> list[Any]:
        stream: AsyncIterator[Any] = graph.astream({"log": []}, stream_mode=["updates", "values"], subgraphs=True)
        return [([p.split(":")[0] for p in ns], mode, part) async for ns, mode, part in stream]

    assert await parts(graph(Dag, barriers=False)) == await parts(graph(StateGraph))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plot=plots(conflicts=False), seed=st.integers(0, 2**32))
def test_the_order_of_completion_changes_nothing(plot: Plot, seed: int) -> None:
    """The test itself says which of the running nodes ends next.

    Chosen by a seed and not drawn one by one: how many are at work at a moment depends on threads.
    """
    chance = random.Random(seed)
    seen: dict[str, list[list[str]]] = {}
    expected, _ = interpret(plot)
    waiting: dict[str, asyncio.Event] = {}
    at_work: set[str] = set()

    def held(name: str, agent: Any) -> Any:
        async def run(state: Any, config: RunnableConfig) -> Any:
            turn = f"{name} {sorted(state['log'])}"
            waiting[turn] = asyncio.Event()
            await waiting[turn].wait()
            # A function that is not async takes its time in a thread.
            at_work.add(turn)
            try:
                return await agent.ainvoke(state, config)
            finally:
                at_work.discard(turn)

        return RunnableLambda(run)

    async def main() -> Any:
        dag = build(plot, seen, {})
        for name, spec in dag.nodes.items():
            spec.runnable = held(name, spec.runnable)
        graph = dag.compile(barriers=False)
        run = asyncio.ensure_future(graph.ainvoke({"log": ["in"]}))
        while not run.done():
            while at_work:
                await asyncio.sleep(0)
            for _ in range(30):
                await asyncio.sleep(0)
            if waiting and not at_work:
                waiting.pop(chance.choice(sorted(waiting))).set()
        return await run

    result = asyncio.run(main())
    assert result["log"] == says(["in"], expected)
    for name in plot.names:
        assert sorted(seen.get(name, [])) == sorted(r.sees for r in expected if plot.names[r.node] == name)


async def test_interrupts_are_streamed_as_they_happen_and_the_pause_is_a_state() -> None:
    gates = Gates()
    graph = dag_of(gates, *FORK, asks=("b",), checkpointer=InMemorySaver())
    gates.open("a", "b", "c", "end")
    parts: list[Any] = []
    async for part in graph.astream({"log": []}, thread(), stream_mode="updates"):
        parts.append(next(iter(part)))
        if parts[-1] == "__interrupt__":
            gates.open("slow")
    assert parts == ["a", "__interrupt__", "slow"]
    state = await graph.aget_state(thread())
    assert (state.values["log"], state.next) == (["a()", "slow(a)"], ("b",))
    assert [(t.name, t.interrupts[0].value) for t in state.tasks] == [("b", "b")]
    await graph.aupdate_state(thread(), {"x": "edited"})
    state = await graph.aget_state(thread())
    assert (state.values, state.next) == ({"log": ["a()", "slow(a)"], "x": "edited"}, ("b",))
    await graph.ainvoke(None, thread())
    stream = graph.astream(Command(resume="yes"), thread(), stream_mode=["updates", "values"])
    shown = [(mode, len(part["log"]) if mode == "values" else next(iter(part))) async for mode, part in stream]
    assert shown[:3] == [("values", 2), ("updates", "b"), ("values", 3)]
    assert shown[3:] == [("updates", "c"), ("values", 4), ("updates", "end"), ("values", 5)]
    result = (await graph.aget_state(thread())).values
    assert result["log"] == ["a()", "b=yes(a)", "slow(a)", "c(a,b=yes)", "end(a,b=yes,slow,c)"]
    assert sorted(gates.ran) == ["a", "b", "c", "end", "slow"]


async def test_an_update_can_stand_for_a_node_that_waits() -> None:
    gates = Gates()
    graph = dag_of(gates, *FORK, asks=("b",), checkpointer=InMemorySaver())
    gates.open("a", "b", "c", "end", "slow")
    await graph.ainvoke({"log": []}, thread())
    await graph.aupdate_state(thread(), {"log": ["instead"]}, as_node="b")
    assert (await graph.ainvoke(None, thread()))["log"][-2:] == ["c(a,slow,instead)", "end(a,slow,instead,c)"]
    assert sorted(gates.ran) == ["a", "c", "end", "slow"]


async def test_a_graph_inside_keeps_its_state_at_a_pause() -> None:
    class Inner(TypedDict, total=False):
        log: Annotated[list[str], operator.add]

    runs: list[str] = []

    def first(state: Inner) -> Inner:
        runs.append("first")
        return {"log": ["first"]}

    def ask(state: Inner) -> Inner:
        return {"log": [interrupt("inner?")]}

    sub = StateGraph(Inner).add_node("first", first).add_node("ask", ask)
    team = sub.add_edge(START, "first").add_edge("first", "ask").compile()
    gates = Gates()
    dag = Dag(State)
    dag.add_node("a", gates.node("a"))
    dag.add_node("other", gates.node("other"))
    dag.add_node("team", team, input_map=lambda state: {"log": []}, output_map=lambda out: {"log": out["log"]})
    dag.add_edge("a", "team")
    dag.add_edge("a", "other")
    graph = dag.compile(checkpointer=InMemorySaver(), barriers=False)
    gates.open("a", "other")
    await graph.ainvoke({"log": []}, thread())
    state = await graph.aget_state(thread(), subgraphs=True)
    assert [(task.name, task.state.next) for task in state.tasks if task.state] == [("team", ("ask",))]
    result = await graph.ainvoke(Command(resume="yes"), thread())
    assert (result["log"][-2:], runs) == (["first", "yes"], ["first"])


@pytest.mark.parametrize("breakpoints", [{"interrupt_before": ["c"]}, {"interrupt_after": ["b"]}])
async def test_breakpoints_let_the_others_end(breakpoints: Any) -> None:
    gates = Gates()
    graph = dag_of(gates, *FORK, checkpointer=InMemorySaver(), **breakpoints)
    gates.open("a", "b", "c", "end", "slow")
    await graph.ainvoke({"log": []}, thread())
    assert (await graph.aget_state(thread())).next == ("c",)
    assert gates.ran == ["a", "slow", "b"] or gates.ran == ["a", "b", "slow"]
    assert len((await graph.ainvoke(None, thread()))["log"]) == 5
    assert len(gates.ran) == 5


async def test_a_drain_lets_running_nodes_end_and_the_next_run_goes_on() -> None:
    gates, control = Gates(), RunControl()
    graph = dag_of(gates, *FORK, checkpointer=InMemorySaver())
    gates.open("a", "b", "end")
    run = asyncio.ensure_future(graph.ainvoke({"log": []}, thread(), control=control))
    await gates.start_of("c", "slow")
    control.request_drain("deploy")
    gates.open("c", "slow")
    with pytest.raises(GraphDrained):
        await run
    assert (await graph.aget_state(thread())).next == ("end",)
    assert len((await graph.ainvoke(None, thread()))["log"]) == 5
    assert len(gates.ran) == 5


def chain(count: int, **options: Any) -> Any:
    dag = Dag(State)
    for i in range(count):
        dag.add_node(f"n{i}", lambda state, config: {"log": [str(config["metadata"]["langgraph_step"])]})
    for i in range(count - 1):
        dag.add_edge(f"n{i}", f"n{i + 1}")
    return dag.compile(barriers=False, **options)


def test_the_recursion_limit_bounds_the_longest_chain() -> None:
    assert chain(5).invoke({"log": []}, {"recursion_limit": 6})["log"] == ["1", "2", "3", "4", "5"]
    with pytest.raises(GraphRecursionError):
        chain(5).invoke({"log": []}, {"recursion_limit": 3})


@pytest.mark.parametrize("mode", ["updates", "messages", "custom"])
async def test_a_concurrency_of_one_ends(mode: Any) -> None:
    gates = Gates()
    gates.open("a", "b", "c", "slow", "end")
    graph = dag_of(gates, *FORK, checkpointer=InMemorySaver())
    config = {**thread(), "max_concurrency": 1}
    stream = graph.astream({"log": []}, config, stream_mode=mode, durability="sync")
    await asyncio.wait_for(_drained(stream), 100)
    assert len(gates.ran) == 5


async def _drained(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("mode", ["updates", "messages", "custom"])
def test_a_concurrency_of_one_ends_for_sync_callers(mode: Any) -> None:
    graph = chain(4, checkpointer=InMemorySaver())
    config = {**thread(), "max_concurrency": 1}
    list(graph.stream({"log": []}, config, stream_mode=mode, durability="sync"))
    assert len(graph.get_state(thread()).values["log"]) == 4


async def test_an_error_ends_the_run_and_the_next_one_goes_on_there() -> None:
    gates, broken = Gates(), ["once"]

    async def fails(state: State) -> State:
        if broken:
            raise ValueError(broken.pop())
        return {"log": ["mended"]}

    dag = Dag(State)
    for name in ("a", "b", "end"):
        dag.add_node(name, gates.node(name))
    dag.add_node("fails", fails)
    for edge in (("a", "b"), ("b", "fails"), ("fails", "end")):
        dag.add_edge(*edge)
    gates.open("a", "b", "end")
    graph = dag.compile(checkpointer=InMemorySaver(), barriers=False)
    with pytest.raises(ValueError, match="once"):
        await graph.ainvoke({"log": []}, thread())
    state = await graph.aget_state(thread())
    assert (state.values["log"], state.next) == (["a()", "b(a)"], ("fails",))
    assert (await graph.ainvoke(None, thread()))["log"] == ["a()", "b(a)", "mended", "end(a,b,mended)"]
    assert gates.ran == ["a", "b", "end"]


def test_sends_of_a_branch_are_joined_in_their_order() -> None:
    def plan(state: State) -> Command[Literal["work"]]:
        return Command(goto=[Send("work", {"log": [str(i)]}) for i in range(20)])

    def work(state: State) -> State:
        return {"log": [f"did {state['log'][0]}"]}

    dag = Dag(State)
    dag.add_node("plan", plan)
    dag.add_node("work", work)
    dag.add_node("end", lambda state: {"log": [f"end {len(state['log'])}"]})
    dag.add_edge("work", "end")
    dag.add_edge("end", END)
    log = dag.compile(barriers=False).invoke({"log": []})["log"]
    assert log == [*(f"did {i}" for i in range(20)), "end 20"]


def test_random_failures_and_resumes_run_no_finished_node_again() -> None:
    rng = random.Random(5)
    for _ in range(20):
        ran: dict[str, int] = {}
        fail_at = rng.choice(["c", "end", "slow"])
        broken = {fail_at}

        def node(name: str, ran: dict[str, int] = ran, broken: set[str] = broken) -> Any:
            def run(state: State) -> State:
                if name in broken:
                    broken.discard(name)
                    raise RuntimeError(name)
                ran[name] = ran.get(name, 0) + 1
                return {"log": [name]}

            return run

        dag = Dag(State)
        for name in ("a", "slow", "b", "c", "end"):
            dag.add_node(name, node(name))
        for edge in FORK:
            dag.add_edge(*edge)
        graph = dag.compile(checkpointer=InMemorySaver(), barriers=False)
        with pytest.raises(RuntimeError):
            graph.invoke({"log": []}, thread())
        finished = set(graph.get_state(thread()).values["log"])
        assert graph.invoke(None, thread())["log"] == ["a", "b", "slow", "c", "end"]
        assert {name: ran[name] for name in finished} == dict.fromkeys(finished, 1)


@task
def double(number: int) -> int:
    return 2 * number


def test_a_concurrency_of_one_leaves_room_for_the_tasks_that_a_node_calls() -> None:
    builder = Dag(State).add_node("a", lambda state: {"log": [str(double(1).result())]})
    builder.add_node("b", lambda state: {"log": [str(double(2).result() + double(3).result())]})
    graph = builder.add_edge("a", "b").compile()
    assert graph.invoke({"log": []}, {"max_concurrency": 1})["log"] == ["2", "10"]


async def test_so_it_does_for_async_callers() -> None:
    async def node(state: State) -> State:
        return {"log": [str(await adouble(1))]}

    @task
    async def adouble(number: int) -> int:
        return 2 * number

    graph = Dag(State).add_node("a", node).add_node("b", node).add_edge("a", "b").compile()
    assert (await graph.ainvoke({"log": []}, {"max_concurrency": 1}))["log"] == ["2", "2"]
