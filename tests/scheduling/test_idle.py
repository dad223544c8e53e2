"""idle(): a source that fires once each time that a graph comes to rest."""

from __future__ import annotations

import operator
import os
import signal as signals
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START
from langgraph.types import Command, Send, interrupt

from agentmatrix import CyclicGraph, Dag, after, all_of, every, get_activation, idle, signal
from agentmatrix.errors import BoundError, BuildError, TriggerError
from tests.conftest import Verbs
from tests.forked import Forked

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def works(state: State) -> State:
    return {"log": ["work"]}


def watched(watch: Callable[[State], Any], work: Any = works, **options: Any) -> CyclicGraph:
    """A graph whose node `watch` starts when it comes to rest."""
    graph = CyclicGraph(State, **options)
    graph.add_node("work", work)
    graph.add_node("watch", watch, destinations=("work", END))
    graph.add_edge(START, "work")
    graph.add_trigger("watch", idle())
    return graph


async def test_it_fires_once_where_nothing_follows(place: Callable[..., Any], verbs: Verbs) -> None:
    graph = place(watched(lambda state: {"log": [f"idle {get_activation().items}"]}).compile())
    assert (await verbs.call(graph, "invoke", {"log": []}))["log"] == ["work", "idle {'idle()': 1}"]


async def test_it_fires_again_after_what_it_has_led_to(verbs: Verbs) -> None:
    def watch(state: State) -> Any:
        number = get_activation().number
        return Command(update={"log": [f"idle {number}"]}, goto=[Send("work", {})] * (number < 3))

    result = await verbs.call(watched(watch).compile(), "invoke", {"log": []})
    assert result["log"] == ["work", "idle 1", "work", "idle 2", "work", "idle 3"]


async def test_what_it_starts_counts_towards_the_bound(verbs: Verbs) -> None:
    graph = watched(lambda state: Command(goto=Send("work", {})), max_rounds=4).compile()
    with pytest.raises(BoundError, match="4 times"):
        await verbs.call(graph, "invoke", {"log": []})


async def test_not_while_somebody_is_asked(verbs: Verbs) -> None:
    graph = watched(lambda state: {"log": ["idle"]}, lambda state: {"log": [interrupt("well?")]})
    compiled = graph.compile(checkpointer=InMemorySaver())
    assert (await verbs.call(compiled, "invoke", {"log": []}, THREAD))["log"] == []
    assert compiled.get_state(THREAD).next == ("work",)
    assert (await verbs.call(compiled, "invoke", Command(resume="yes"), THREAD))["log"] == ["yes", "idle"]


async def test_not_after_the_end(verbs: Verbs) -> None:
    graph = watched(lambda state: Command(update={"log": ["idle"]}, goto=[Send("work", {}), END]))
    assert (await verbs.call(graph.compile(), "invoke", {"log": []}))["log"] == ["work", "idle", "work"]


async def test_a_timer_is_no_work(verbs: Verbs) -> None:
    graph = watched(lambda state: Command(update={"log": ["idle"]}, goto=END))
    graph.add_node("late", lambda state: {"log": ["late"]})
    graph.add_trigger("late", after(30.0))
    assert (await verbs.call(graph.compile(), "invoke", {"log": []}))["log"] == ["work", "idle"]


def test_an_open_input_is_no_work() -> None:
    graph = watched(lambda state: {"log": ["idle"]})
    graph.add_node("hear", lambda state: {"log": [get_activation().items["audio"]]})
    graph.add_trigger("hear", signal("audio"))
    with graph.compile(checkpointer=InMemorySaver()).live({"log": []}, THREAD, stream_mode="updates") as run:
        names = []
        for part in run:
            names += part
            if names == ["work", "watch"]:
                run.signal("audio", "hello")
            if names == ["work", "watch", "hear", "watch"]:
                run.close_input()
        assert run.result()["log"] == ["work", "idle", "hello", "idle"]


async def test_with_other_sources_in_a_group(verbs: Verbs) -> None:
    graph = CyclicGraph(State)
    graph.add_node("a", works)
    graph.add_node("both", lambda state: {"log": [sorted(get_activation().items)]})
    graph.add_edge(START, "a")
    graph.add_trigger("both", all_of("a", idle()))
    assert (await verbs.call(graph.compile(), "invoke", {"log": []}))["log"] == ["work", ["a", "idle()"]]


async def test_who_waits_in_vain_hears_so_after_it_has_fired(verbs: Verbs) -> None:
    graph = watched(lambda state: {"log": ["idle"]})
    graph.add_node("never", works).add_node("waits", works)
    graph.add_trigger("never", signal("audio")).add_trigger("waits", all_of("work", "never"))
    compiled = graph.compile(checkpointer=InMemorySaver())
    with pytest.raises(TriggerError, match="never"):
        await verbs.call(compiled, "invoke", {"log": []}, THREAD)
    assert compiled.get_state(THREAD).values["log"] == ["work", "idle"]


def test_ticks_are_no_end_of_rest() -> None:
    graph = watched(lambda state: {"log": ["idle"]})
    graph.add_node("tick", lambda state: {"log": ["tick"]})
    graph.add_trigger("tick", every(30.0))
    assert graph.compile().invoke({"log": []})["log"] == ["work", "idle"]


def test_a_dag_has_deferred_nodes_instead() -> None:
    dag = Dag(State).add_node("work", works).add_node("watch", works)
    with pytest.raises(BuildError, match="defer=True"):
        dag.add_trigger("watch", idle()).compile()


def killed(folder: Path, kill: bool) -> None:
    """To be run in a process of its own: is killed in the node that starts at the second rest; or goes on."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    def watch(state: State) -> Any:
        number = get_activation().number
        with (folder / "idle").open("a") as file:
            file.write(f"{number} ")
        if kill and number == 2:
            os.kill(os.getpid(), signals.SIGKILL)
        return Command(update={"log": [f"idle {number}"]}, goto=[Send("work", {})] * (number < 3))

    with SqliteSaver.from_conn_string(str(folder / "db")) as saver:
        graph = watched(watch).compile(checkpointer=saver)
        print(graph.invoke({"log": []} if kill else None, THREAD, durability="sync")["log"])


def test_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("langgraph.checkpoint.sqlite")
    with Forked(killed, tmp_path, True) as process:
        assert process.wait(60) == -signals.SIGKILL
    with Forked(killed, tmp_path, False) as process:
        said, errors = process.communicate(60)
    assert said.strip() == str(["work", "idle 1", "work", "idle 2", "work", "idle 3"]), errors
    assert (tmp_path / "idle").read_text().split() == ["1", "2", "2", "3"]
