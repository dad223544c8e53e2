"""What starts a node: joins, loops, skips, failures, races and clocks, as users of workflow engines met them."""

from __future__ import annotations

import asyncio
import operator
import threading
import time
import types
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import langgraph.pregel._retry
import pytest
from langgraph.graph import END, START
from langgraph.types import Command, RetryPolicy, Send

from agentmatrix import CyclicGraph, Dag, all_of, any_of, at_least, every, get_activation, signal
from agentmatrix.errors import TriggerError


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    n: int


def does(name: str, seconds: float = 0, error: Exception | None = None) -> Callable[[State], State]:
    def run(state: State) -> State:
        time.sleep(seconds)
        if error:
            raise error
        return {"log": [name]}

    return run


def count(state: State, name: str) -> int:
    return state["log"].count(name)


def logged(graph: Any) -> list[str]:
    result: list[str] = graph.compile().invoke({"log": []})["log"]
    return result


# loops


def test_two_loops_through_one_node() -> None:
    """microsoft/autogen#6710, #6643: a node in two loops goes on, whichever came back."""
    graph = CyclicGraph(State)

    def choose(state: State) -> Command[Any]:
        return Command(update={"log": ["o"]}, goto=["b", "c", "b", "e"][count(state, "o")])

    for name in ("a", "b", "c", "e"):
        graph.add_node(name, does(name))
    graph.add_node("o", choose, destinations=("b", "c", "e"))
    graph.add_edge(START, "a")
    graph.add_trigger("o", any_of("a", "b", "c"))
    assert logged(graph) == ["a", "o", "b", "o", "c", "o", "b", "o", "e"]


@pytest.mark.parametrize("taken", [["b", "c"], ["b"]], ids=["both branches", "one branch skipped"])
def test_a_join_inside_of_a_loop(taken: list[str]) -> None:
    """microsoft/autogen#6710, crewAIInc/crewAI#5972: a join of two branches fires once in each round, also when the
    second round takes only one of them."""
    graph = CyclicGraph(State)

    def fork(state: State) -> Command[Any]:
        return Command(update={"log": ["fork"]}, goto=["b", "c"] if count(state, "fork") == 0 else taken)

    def join(state: State) -> Command[Any]:
        return Command(
            update={"log": [f"join {sorted(get_activation().items)}"]}, goto="fork" if count(state, "fork") < 2 else END
        )

    graph.add_node("fork", fork, destinations=("b", "c"))
    graph.add_node("b", does("b", 0.02))
    graph.add_node("c", does("c"))
    graph.add_node("join", join, destinations=("fork", END))
    graph.add_edge(START, "fork")
    graph.add_trigger("join", all_of("b", "c", skipped="ok"))
    assert [entry for entry in logged(graph) if "join" in entry] == ["join ['b', 'c']", f"join {taken}"]


def test_a_loop_in_a_loop() -> None:
    """google/adk-python#2808, #526: the end of the inner loop is not the end of the outer one."""
    inner = CyclicGraph(State)

    def step(state: State) -> Command[Any]:
        return Command(update={"log": ["in"]}, goto="step" if count(state, "in") < 4 else END)

    inner.add_node("step", step, destinations=("step", END))
    inner.add_edge(START, "step")
    outer = CyclicGraph(State)

    def again(state: State) -> Command[Any]:
        return Command(update={"log": ["out"]}, goto="inner" if count(state, "out") < 4 else END)

    outer.add_node("inner", inner, input_map=lambda state: {"log": []})
    outer.add_node("again", again, destinations=("inner", END))
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "again")
    log = logged(outer)
    assert (log.count("in"), log.count("out")) == (25, 5)


# branches


def test_routers_side_by_side() -> None:
    """crewAIInc/crewAI#2175, #7695: two routers of one node, and a router behind each: all branches are taken."""
    dag = Dag(State)
    for name in ("scan", "r1", "r2", "left", "right", "left2", "right2"):
        dag.add_node(name, does(name))
    dag.add_edge("scan", "r1")
    dag.add_edge("scan", "r2")
    for source, target in (("r1", "left"), ("r2", "right"), ("left", "left2"), ("right", "right2")):
        dag.add_conditional_edges(source, lambda state, target=target: target, [target, END])
    assert sorted(logged(dag)) == ["left", "left2", "r1", "r2", "right", "right2", "scan"]


def test_who_is_skipped_by_two_is_skipped() -> None:
    """apache/airflow#55187: a task behind a branch that was not taken, and behind one that was never reached, stays
    out."""
    dag = Dag(State)
    for name in ("one", "two", "dead", "dummy", "last"):
        dag.add_node(name, does(name))
    dag.add_conditional_edges("one", lambda state: "two", ["two", "last"])
    dag.add_conditional_edges("two", lambda state: "dead", ["dead", "dummy"])
    dag.add_edge("dummy", "last")
    assert logged(dag) == ["one", "two", "dead"]


@pytest.mark.parametrize("number", [0, 3])
def test_a_join_over_a_fan_out_and_a_plain_branch(number: int) -> None:
    """pydantic/pydantic-ai#7785, #6008: both count, and it fires once; also where the fan-out has nobody."""
    dag = Dag(State)
    dag.add_node("plan", does("plan"))
    dag.add_node("plain", does("plain"))
    dag.add_node("work", lambda state: {"log": [f"w{state['n']}"]})
    dag.add_node("join", lambda state: {"log": [f"join {len(get_activation().items.get('work', ()))}"]})
    dag.add_conditional_edges("plan", lambda state: [Send("work", {"n": i}) for i in range(number)], ["work"])
    dag.add_edge("plan", "plain")
    dag.add_trigger("join", all_of("work", "plain", skipped="ok"))
    log = logged(dag)
    assert [entry for entry in log if "join" in entry] == [f"join {number}"] and "plain" in log


# failures


def test_two_of_three_and_the_third_has_failed() -> None:
    """apache/airflow#15467 (pull request), google/adk-python#4584 (WAIT_N): what is enough is enough; a failure with a
    handler counts as one that does not come."""
    dag = Dag(State)
    for name in ("a", "b"):
        dag.add_node(name, does(name, 0.05))
    dag.add_node("c", does("c", error=ValueError("broken")), error_handler=lambda state: {"log": ["handled"]})
    dag.add_node("join", lambda state: {"log": [f"join {sorted(get_activation().items)}"]})
    dag.add_trigger("join", at_least(2, "a", "b", "c"))
    assert "join ['a', 'b']" in logged(dag)


def test_a_gate_that_is_skipped_is_said() -> None:
    """apache/airflow#17138: a task that waits for one that was skipped says for whom, and who skipped it."""
    dag = Dag(State)
    for name in ("a", "choose", "gate", "join"):
        dag.add_node(name, does(name))
    dag.add_conditional_edges("choose", lambda state: END, ["gate", END])
    dag.add_trigger("join", any_of("a", gate="gate"))
    with pytest.raises(TriggerError, match="'gate' can no longer come .*'choose'"):
        logged(dag)


def test_a_retry_counts_once() -> None:
    """kyegomez/swarms#1758: a node that is tried three times feeds its join once."""
    tries: list[int] = []

    def flaky(state: State) -> State:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return {"log": ["flaky"]}

    dag = Dag(State)
    dag.add_node("flaky", flaky, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False, max_attempts=3))
    dag.add_node("b", does("b"))
    dag.add_node("join", does("join"))
    dag.add_trigger("join", all_of("flaky", "b"))
    assert (logged(dag), len(tries)) == (["b", "flaky", "join"], 3)


# races


def raced(tries: list[str], *, wins: bool) -> tuple[Any, threading.Event]:
    """And what is set once the race is over."""
    tried, over = threading.Event(), threading.Event()

    def flaky(state: State) -> State:
        tries.append("flaky")
        tried.set()
        raise ConnectionError("no")

    def b(state: State) -> State:
        assert tried.wait(100)
        return {"log": ["b"]}

    def join(state: State) -> State:
        over.set()
        return {"log": ["join"]}

    dag = Dag(State)
    # Who waits for the next try waits for longer than a test may take.
    policy = RetryPolicy(initial_interval=1000, max_interval=1000, backoff_factor=1, jitter=False, max_attempts=4)
    dag.add_node("flaky", flaky, retry_policy=policy)
    dag.add_node("b", b)
    dag.add_node("join", join)
    group = any_of("flaky", "b", cancel_rest=True) if wins else at_least(1, "flaky", "b", cancel_rest=True)
    dag.add_trigger("join", group)
    return dag.compile(), over


@pytest.mark.parametrize("wins", [True, False], ids=["any_of", "at_least"])
def test_the_loser_of_a_race_is_not_tried_again(wins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """ray-project/ray#54260, rohanpm/more-executors#150: a source that has been cancelled while it waits for its next
    try is tried again, three times, with whatever it does, and the run does not return before it has given up."""
    tries: list[str] = []
    graph, over = raced(tries, wins=wins)

    def sleep(seconds: float) -> None:
        assert over.wait(100)

    clock = types.SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(langgraph.pregel._retry, "time", clock)
    assert graph.invoke({"log": []})["log"] == ["b", "join"]
    assert tries == ["flaky"]


@pytest.mark.asyncio
async def test_the_loser_of_a_race_is_not_tried_again_async() -> None:
    """ray-project/ray#54260: the same under ainvoke."""
    tries: list[str] = []
    graph, _ = raced(tries, wins=True)
    assert (await graph.ainvoke({"log": []}))["log"] == ["b", "join"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert tries == ["flaky"]


# clocks


def ends(run: Callable[[], Any], seconds: float = 100) -> bool:
    """Whether it is over within so many seconds. What goes on is left to a daemon."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def beats(work: float, follow: float = 0, *, aside: float = 0) -> tuple[Any, threading.Event]:
    """A node that is started every 0.05 seconds; `enough` lets it fail, so that no test leaves a run behind."""
    enough = threading.Event()

    def beat(state: State) -> State:
        if enough.is_set():
            raise RuntimeError("enough")
        time.sleep(work)
        return {"log": ["beat"]}

    graph = CyclicGraph(State)
    graph.add_node("beat", beat)
    graph.add_trigger("beat", every(0.05))
    if follow:
        graph.add_node("report", does("report", follow))
        graph.add_edge("beat", "report")
    if aside:
        graph.add_node("work", does("work", aside))
        graph.add_edge(START, "work")
    return graph.compile(), enough


@pytest.mark.parametrize(
    ("work", "follow"), [(0.01, 0), (0.15, 0), (0.01, 0.15)], ids=["short", "long", "long follower"]
)
def test_a_beat_does_not_keep_its_own_run_going(work: float, follow: float) -> None:
    """Yoric/timer.rs#14, juxt/tick#10: a periodic task that takes longer than its period cannot be stopped. `every`
    fires while something else keeps the run going; the block is left, and the run must end."""
    graph, enough = beats(work, follow)

    def run() -> None:
        with graph.live({"log": []}):
            time.sleep(0.3)

    try:
        assert ends(run)
    finally:
        enough.set()


def test_beats_keep_time() -> None:
    """slawlor/ractor#57, clockworklabs/SpacetimeDB#2882: the next beat is counted from when the last one was due, and
    not from when it was noticed, so that being late does not add up. Here the clock is read 0.01 seconds late each
    time."""
    from agentmatrix.engine import listener

    now = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    real, listener.time = listener.time, Clock  # type: ignore[assignment]
    try:
        clock = listener.SignalListener((), frozenset(), {"beat": (0.1, True)}, lambda: None)
        heard = 0
        for _ in range(100):
            now[0] += (clock.seconds() or 0) + 0.01
            heard += clock.next_tick() is not None
    finally:
        listener.time = real
    assert heard >= now[0] / 0.1 - 1


# signals


async def test_signals_that_come_before_their_graph_starts() -> None:
    """mercury/hs-temporal-sdk#280 (pull request): signals before anybody listens wait, in their order."""
    inner = CyclicGraph(State)
    inner.add_node("hear", lambda state: {"log": [get_activation().items["audio"]]})
    inner.add_trigger("hear", signal("audio"))
    dag = Dag(State)
    go_on = threading.Event()

    def slow(state: State) -> State:
        assert go_on.wait(100)
        return {"log": ["slow"]}

    dag.add_node("slow", slow)
    dag.add_node("panel", inner, input_map=lambda state: {"log": []})
    dag.add_edge("slow", "panel")
    async with dag.compile().live({"log": []}) as run:
        sent = [asyncio.create_task(run.signal("panel/audio", str(number))) for number in range(3)]
        done, _ = await asyncio.wait(sent, timeout=0.05)
        assert not done
        go_on.set()
        await asyncio.gather(*sent)
        run.close_input()
    assert (await run.result())["log"] == ["slow", "0", "1", "2"]


def test_a_burst_with_two_readers() -> None:
    """temporalio/temporal#4801: a burst of signals with several readers of the stream: each once, in order, none
    lost."""
    graph = CyclicGraph(State)
    graph.add_node("hear", lambda state: {"log": [get_activation().items["audio"]]})
    graph.add_trigger("hear", signal("audio"))
    parts: list[list[str]] = [[], []]
    with graph.compile().live({"log": []}, stream_mode="updates") as run:

        def read(number: int) -> None:
            parts[number] += [part["hear"]["log"][0] for part in run]

        readers = [threading.Thread(target=read, args=(number,)) for number in (0, 1)]
        for reader in readers:
            reader.start()
        for number in range(100):
            run.signal("audio", str(number))
        run.close_input()
        for reader in readers:
            reader.join(100)
    expected = [str(number) for number in range(100)]
    assert run.result()["log"] == expected and sorted(parts[0] + parts[1], key=int) == expected


def test_a_signal_is_taken_or_refused() -> None:
    """coinbase/temporal-ruby#258: a signal that comes while the run ends is never lost without a word."""
    graph = CyclicGraph(State)

    def hear(state: State) -> State:
        return {"log": [get_activation().items["audio"]]}

    graph.add_node("hear", hear)
    graph.add_trigger("hear", signal("audio"))
    for _ in range(20):
        taken: list[str] = []
        with graph.compile().live({"log": []}) as run:

            def send(run: Any = run, taken: list[str] = taken) -> None:
                for number in range(50):
                    try:
                        run.signal("audio", str(number))
                    except Exception:
                        return
                    taken.append(str(number))

            sender = threading.Thread(target=send)
            sender.start()
            time.sleep(0.003)
            run.close_input()
            sender.join(100)
        assert run.result()["log"] == taken


# who waits for whom


def test_an_or_calls_nobody_off_unless_told() -> None:
    """crewAIInc/crewAI#7183: a join of one of two must not stop the other one, which has work of its own to do."""
    dag = Dag(State)
    dag.add_node("fast", does("fast"))
    dag.add_node("slow", does("slow", 0.1))
    dag.add_node("join", does("join"))
    dag.add_trigger("join", any_of("fast", "slow"))
    assert sorted(logged(dag)) == ["fast", "join", "slow"]


def test_who_follows_one_that_did_not_run() -> None:
    """PrefectHQ/prefect#22918, #21117: a failed (and handled); what follows it alone stays out, and what follows that
    too."""
    dag = Dag(State)
    dag.add_node("a", does("a", error=ValueError("broken")), error_handler=lambda state: {"log": ["handled"]})
    for name in ("b", "c", "aside", "last"):
        dag.add_node(name, does(name))
    dag.add_edge("a", "b")
    dag.add_edge("b", "c")
    dag.add_edge("aside", "last")
    dag.add_edge("c", "last")
    assert sorted(logged(dag)) == ["aside", "handled", "last"]
