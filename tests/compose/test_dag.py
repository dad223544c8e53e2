"""What a Dag means where it means more than supersteps: joins, skips, views, one final state, updates at a pause."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Overwrite, Send, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from agentmatrix.compose import Dag
from agentmatrix.errors import BuildError, CycleError, NotAnAgentError

THREAD: Any = {"configurable": {"thread_id": "1"}}


def extend(left: list[str], right: list[str]) -> list[str]:
    left.extend(right)
    return left


class Mutable(TypedDict):
    log: Annotated[list[str], extend]


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    x: str
    y: str


def says(name: str, **update: Any) -> Any:
    def node(state: State) -> Any:
        return {"log": [name], **update}

    return node


def dag_of(*edges: tuple[str, str], **nodes: Any) -> Dag:
    dag = Dag(State, name="dag")
    for name, node in nodes.items():
        dag.add_node(name, node)
    for start, end in edges:
        dag.add_edge(start, end)
    return dag


def test_branches_of_different_length_join_once() -> None:
    runs: list[int] = []

    def last(state: State) -> State:
        runs.append(len(state["log"]))
        return {"log": ["last"]}

    dag = dag_of(("a", "b"), ("b", "c"), ("c", "last"), ("a", "last"), a=says("a"), b=says("b"), c=says("c"), last=last)
    assert dag.compile().invoke({"log": []})["log"] == ["a", "b", "c", "last"]
    assert runs == [3]


def test_a_join_waits_only_for_branches_that_were_taken() -> None:
    dag = dag_of(("a", "c"), ("b", "c"), ("skipped", "c"), ("skipped", "after"), **{n: says(n) for n in "abc"})
    dag.add_node("skipped", says("skipped"))
    dag.add_node("after", says("after"))
    dag.add_conditional_edges("a", lambda state: END, ["skipped", END])
    assert dag.compile().invoke({"log": []})["log"] == ["a", "b", "c"]


def test_a_node_sees_its_ancestors_and_not_who_merely_finished() -> None:
    seen: dict[str, list[str]] = {}

    def reads(name: str) -> Any:
        def node(state: State) -> State:
            seen[name] = list(state["log"])
            return {"log": [name]}

        return node

    dag = dag_of(("a", "b"), ("b", "c"), ("quick", "d"), ("c", "d"), **{n: reads(n) for n in ["quick", *"abcd"]})
    dag.compile().invoke({"log": ["in"]})
    assert seen["c"] == ["in", "a", "b"]
    assert seen["d"] == ["in", "a", "quick", "b", "c"]


def test_a_router_sees_what_its_node_saw_and_wrote() -> None:
    routed: list[State] = []

    def route(state: State) -> str:
        routed.append(state)
        return "c"

    dag = dag_of(("a", "b"), a=says("a", x="1"), b=says("b", y="2"), c=says("c"), other=says("other"))
    dag.add_edge(START, "other")
    dag.add_conditional_edges("b", route, ["c", END])
    dag.compile().invoke({"log": ["in"]})
    assert routed == [{"log": ["in", "a", "b"], "x": "1", "y": "2"}]


def test_unrelated_writers_of_a_plain_key_are_named() -> None:
    dag = dag_of(("a", "b"), a=says("a"), b=says("b", x="b"), c=says("c", x="c"))
    with pytest.raises(InvalidUpdateError, match="'x'.*'b' and 'c'.*reducer"):
        dag.compile().invoke({"log": []})


def test_the_later_of_two_related_writers_wins_even_if_it_is_recorded_in_the_same_step() -> None:
    dag = dag_of(("a", "b"), a=says("a", x="a"), b=says("b", x="b"))
    assert dag.compile().invoke({"log": []})["x"] == "b"


def test_two_graphs_in_parallel_that_hand_back_their_whole_state_do_not_collide() -> None:
    inner = StateGraph(State)
    inner.add_node("n", lambda state: {"y": state["x"] + "!"} if state["x"] == "given" else {})
    inner.add_edge(START, "n")
    graph = inner.compile()
    dag = Dag(State)
    dag.add_node("one", graph)
    dag.add_node("two", lambda state: {"x": state["x"]})
    dag.add_node("end", lambda state: {"log": [state["x"], state["y"]]})
    dag.add_edge(["one", "two"], "end")
    assert dag.compile().invoke({"log": [], "x": "given"})["log"] == ["given", "given!"]


def test_a_reducer_key_handed_back_is_an_update_all_the_same() -> None:
    class Count(TypedDict):
        n: Annotated[int, operator.add]

    dag = Dag(Count)
    dag.add_node("one_more", lambda state: {"n": 1})
    assert dag.compile().invoke({"n": 1}) == {"n": 2}


def test_reducers_that_change_their_left_argument_do_no_harm() -> None:
    dag = Dag(Mutable)
    for name in "abcd":
        dag.add_node(name, lambda state, name=name: {"log": [name]})
    dag.add_edge("a", "b")
    dag.add_edge("a", "c")
    dag.add_edge(["b", "c"], "d")
    assert dag.compile().invoke({"log": []})["log"] == ["a", "b", "c", "d"]


def test_an_overwrite_replaces_what_came_before_it() -> None:
    dag = dag_of(("a", "b"), ("b", "c"), a=says("a"), b=lambda state: {"log": Overwrite(["fresh"])}, c=says("c"))
    assert dag.compile().invoke({"log": []})["log"] == ["fresh", "c"]


def test_messages_have_the_same_ids_before_and_after_a_pause() -> None:
    def asks(state: MessagesState) -> Any:
        return {"messages": [RemoveMessage(id=str(state["messages"][-1].id)), ("ai", interrupt("?"))]}

    dag = Dag()
    dag.add_node("draft", lambda state: {"messages": [("ai", "draft"), AIMessage("second")]})
    dag.add_node("asks", asks)
    dag.add_edge("draft", "asks")
    graph = dag.compile(checkpointer=InMemorySaver())
    graph.invoke({"messages": [("human", "hi")]}, THREAD)
    before = [m.id for m in graph.get_state(THREAD).values["messages"]]
    assert before == [m.id for m in graph.get_state(THREAD).values["messages"]] and all(before)
    result = graph.invoke(Command(resume="final"), THREAD)
    assert [m.content for m in result["messages"]] == ["hi", "draft", "final"]
    assert [m.id for m in result["messages"][:2]] == before[:2]


def paused() -> tuple[Any, list[str]]:
    """b and c have run, ask waits for an answer, end comes after all."""
    calls: list[str] = []

    def counts(name: str, **update: Any) -> Any:
        def node(state: State) -> Any:
            calls.append(name)
            return {"log": [name], **update}

        return node

    def ask(state: State) -> Any:
        answer = interrupt("?")
        calls.append("ask")
        return {"log": [f"{answer} {state.get('x')}"]}

    nodes = {"a": counts("a", x="a"), "b": counts("b"), "ask": ask, "end": counts("end")}
    dag = dag_of(("a", "b"), ("a", "ask"), ("b", "end"), ("ask", "end"), **nodes)
    graph = dag.compile(checkpointer=InMemorySaver())
    graph.invoke({"log": []}, THREAD)
    return graph, calls


@pytest.mark.parametrize("as_node", ["a", "b", None])
def test_an_update_at_a_pause_runs_no_finished_node_again(as_node: str | None) -> None:
    graph, calls = paused()
    graph.update_state(THREAD, {"x": "edited", "log": ["note"]}, as_node=as_node)
    assert graph.get_state(THREAD).next == ("ask",)
    assert graph.get_state(THREAD).values == {"log": ["a", "b", "note"], "x": "edited"}
    result = graph.invoke(Command(resume="yes"), THREAD)
    assert result["log"] == ["a", "b", "note", "yes edited", "end"]
    assert calls == ["a", "b", "ask", "end"]


async def test_an_async_update_at_a_pause_too() -> None:
    graph, calls = paused()
    await graph.aupdate_state(THREAD, {"x": "edited"}, as_node="b")
    result = await graph.ainvoke(Command(resume="yes"), THREAD)
    assert result["log"] == ["a", "yes edited", "b", "end"]
    assert calls == ["a", "b", "ask", "end"]


def test_an_update_can_stand_for_the_node_that_waits() -> None:
    graph, calls = paused()
    graph.update_state(THREAD, {"log": ["instead"]}, as_node="ask")
    assert graph.get_state(THREAD).next == ("end",)
    assert graph.invoke(None, THREAD)["log"] == ["a", "b", "instead", "end"]
    assert calls == ["a", "b", "end"]


def test_an_update_can_end_the_run() -> None:
    graph, calls = paused()
    graph.update_state(THREAD, None, as_node=END)
    assert graph.get_state(THREAD).next == ()
    assert graph.get_state(THREAD).values["log"] == ["a", "b"]
    assert calls == ["a", "b"]


def test_a_resume_can_bring_an_update() -> None:
    graph, calls = paused()
    result = graph.invoke(Command(resume="yes", update={"x": "brought"}), THREAD)
    assert result["log"] == ["a", "yes brought", "b", "end"]
    assert calls == ["a", "b", "ask", "end"]


def test_what_a_command_brings_at_a_pause_survives_an_update() -> None:
    graph, calls = paused()
    graph.invoke(Command(update={"log": ["brought"]}), THREAD)
    before = graph.get_state(THREAD).values["log"]
    assert "brought" in before
    graph.update_state(THREAD, {"log": ["edited"]}, as_node="a")
    assert graph.get_state(THREAD).values["log"] == [*before, "edited"]
    assert graph.invoke(Command(resume="yes"), THREAD)["log"][: len(before) + 1] == [*before, "edited"]
    assert calls == ["a", "b", "ask", "end"]


def test_a_node_that_a_command_calls_once_more_comes_after_all_that_it_sees() -> None:
    seen: list[str] = []

    def a(state: Any) -> Any:
        seen.append(state.get("x", ""))
        return {"x": f"a{len(seen)}"}

    dag = dag_of(("a", "b"), ("b", "ask"), a=a, b=lambda s: {"x": "b"}, ask=lambda s: {"log": [interrupt("?")]})
    graph = dag.compile(checkpointer=InMemorySaver())
    graph.invoke({"log": []}, THREAD)
    assert graph.invoke(Command(goto="a"), THREAD)["x"] == "a2"
    graph.update_state(THREAD, {"log": ["edited"]}, as_node="b")
    graph.invoke(None, THREAD)
    result = graph.invoke(Command(resume="go"), THREAD)
    assert (result["x"], result["log"]) == ("a2", ["edited", "go"])
    assert seen == ["", "b"]


def test_an_update_of_a_finished_run_goes_on_behind_its_node() -> None:
    graph, calls = paused()
    graph.invoke(Command(resume="yes"), THREAD)
    graph.update_state(THREAD, {"log": ["again"]}, as_node="ask")
    assert graph.get_state(THREAD).next == ("end",)
    assert graph.invoke(None, THREAD)["log"][-2:] == ["again", "end"]
    assert calls == ["a", "b", "ask", "end", "end"]


@pytest.mark.parametrize(
    ("edit", "log"),
    [
        # Only the keys that an update writes are divided into what came before it and what came after it.
        ({"x": "edited"}, ["plan", "item 0", "item 1", "item 2", "end"]),
        ({"log": ["edited"]}, ["plan", "item 0", "item 2", "edited", "item 1", "end"]),
    ],
)
def test_packets_that_wait_survive_an_update(edit: Any, log: list[str]) -> None:
    done: list[int] = []

    def work(packet: Any) -> Any:
        if packet["item"] == 1 and not done.count(1):
            interrupt("?")
        done.append(packet["item"])
        return {"log": [f"item {packet['item']}"]}

    dag = dag_of(("work", "end"), plan=says("plan"), work=work, end=says("end"))
    dag.add_conditional_edges("plan", lambda state: [Send("work", {"item": i}) for i in range(3)], ["work"])
    graph = dag.compile(checkpointer=InMemorySaver())
    graph.invoke({"log": []}, THREAD)
    assert graph.get_state(THREAD).next == ("work",)
    graph.update_state(THREAD, edit, as_node="plan")
    assert graph.get_state(THREAD).next == ("work",)
    result = graph.invoke(Command(resume="go"), THREAD)
    assert result["log"] == log
    assert sorted(done) == [0, 1, 2]


def test_a_fan_out_of_nothing_is_a_skipped_branch() -> None:
    dag = dag_of(("work", "end"), plan=says("plan"), work=says("work"), end=says("end"))
    dag.add_conditional_edges("plan", lambda state: [], ["work"])
    assert dag.compile().invoke({"log": []})["log"] == ["plan"]


def test_a_deferred_node_comes_last() -> None:
    dag = Dag(State)
    dag.add_node("report", says("report"), defer=True)
    dag.add_node("a", says("a"))
    dag.add_node("b", says("b"))
    dag.add_edge("a", "b")
    order: list[str] = [next(iter(part)) for part in dag.compile().stream({"log": []}, stream_mode="updates")]
    assert order == ["a", "b", "report"]


def test_a_router_that_declares_nothing_may_lead_anywhere_behind_it() -> None:
    dag = dag_of(("b", "c"), a=says("a"), b=says("b"), c=says("c"))
    dag.add_conditional_edges("a", lambda state: "c")
    assert dag.compile().invoke({"log": []})["log"] == ["a", "c"]


def test_a_target_that_was_not_declared_is_an_error_with_a_mend() -> None:
    dag = dag_of(("a", "b"), a=lambda state: Command(goto="c"), b=says("b"), c=says("c"))
    with pytest.raises(InvalidUpdateError, match="'a' leads to 'c'.*destinations="):
        dag.compile().invoke({"log": []})


@dataclass
class Record:
    log: Annotated[list[str], operator.add] = field(default_factory=list)
    x: str = "none"


class Model(BaseModel):
    log: Annotated[list[str], operator.add] = []
    x: str = "none"


@pytest.mark.parametrize("schema", [Record, Model])
async def test_states_of_dataclasses_and_pydantic_models(schema: Any) -> None:
    def node(state: Any) -> Any:
        assert isinstance(state, schema)
        return {"log": [state.x], "x": state.x + "+"}

    dag = Dag(schema)
    dag.add_node("a", node)
    dag.add_node("b", node)
    dag.add_edge("a", "b")
    dag.add_conditional_edges("b", lambda state: END if isinstance(state, schema) else "a", [END])
    assert await dag.compile().ainvoke({"log": [], "x": "1"}) == {"log": ["1", "1+"], "x": "1++"}


def test_a_state_that_is_a_dict() -> None:
    dag = Dag(dict)
    dag.add_node("a", lambda state: {**state, "a": 1})
    dag.add_node("b", lambda state: {**state, "b": 2})
    dag.add_edge("a", "b")
    assert dag.compile().invoke({"in": 0}) == {"in": 0, "a": 1, "b": 2}


def test_adapters_bridge_schemas_and_keep_the_inner_graph_visible() -> None:
    class Inner(TypedDict):
        question: str
        answer: str

    inner = Dag(Inner, name="inner")
    inner.add_node("think", lambda state: {"answer": state["question"].upper()})
    dag = Dag(State)
    graph = inner.compile()
    dag.add_node("ask", graph, input_map=lambda s: {"question": s["x"]}, output_map=lambda r: {"y": r["answer"]})
    compiled = dag.compile()
    assert compiled.invoke({"log": [], "x": "why"})["y"] == "WHY"
    assert dict(compiled.get_subgraphs()) == {"ask": graph}
    spaces = [ns for ns, _ in compiled.stream({"log": [], "x": "why"}, subgraphs=True)]
    assert [len(ns) for ns in spaces] == [1, 0]


async def test_graphs_nested_five_deep_stream_pause_and_resume() -> None:
    graph: Any = says("bottom")
    for depth in range(6):
        inner, graph = graph, Dag(State, name=f"level{depth}")
        graph.add_node("inner", inner if depth else _asks)
        graph.add_node("after", says(f"after{depth}"))
        graph.add_edge("inner", "after")
        if depth < 5:
            graph = graph.compile()
    top = graph.compile(checkpointer=InMemorySaver())
    parts = [part async for part in top.astream({"x": "in"}, THREAD, subgraphs=True)]
    assert max(len(namespace) for namespace, _ in parts) == 5
    state = await top.aget_state(THREAD, subgraphs=True)
    depth = 0
    while state.tasks and state.tasks[0].state:
        state, depth = state.tasks[0].state, depth + 1
    assert (depth, state.next) == (5, ("inner",))
    result = await top.ainvoke(Command(resume="yes"), THREAD)
    assert result["y"] == "yes"
    assert result["log"][-1] == "after5"


def _asks(state: State) -> Any:
    return {"y": interrupt("?")}


def test_a_run_can_begin_with_a_command() -> None:
    dag = dag_of(("a", "b"), ("b", "c"), a=says("a"), b=says("b"), c=says("c"))
    command: Any = Command(goto="c", update={"log": ["in"]})
    parts = dag.compile(barriers=True).stream(command, stream_mode="updates")
    assert [sorted(part) for part in parts] == [["a"], ["c"], ["b"]]
    # Without barriers c, which is sent for, and b after a end in any order.
    parts = dag.compile().stream(command, stream_mode="updates")
    assert sorted(sorted(part) for part in parts) == [["a"], ["b"], ["c"]]


def test_a_cycle_is_drawn() -> None:
    dag = dag_of(("a", "b"), ("b", "c"), ("c", "a"), a=says("a"), b=says("b"), c=says("c"))
    with pytest.raises(CycleError, match="a -> b -> c -> a.*CyclicGraph"):
        dag.compile()


def test_what_cannot_work_is_said_at_build_time() -> None:
    with pytest.raises(BuildError, match="no nodes"):
        Dag().compile()
    with pytest.raises(BuildError, match="unknown node 'serch'.*did you mean 'search'"):
        dag_of(("plan", "serch"), plan=says("p"), search=says("s")).compile()
    with pytest.raises(BuildError, match="already a node 'a'"):
        dag_of(a=says("a")).add_node("a", says("a"))
    with pytest.raises(BuildError, match="reserves"):
        dag_of(**{START: says("a")})
    with pytest.raises(BuildError, match="reserves"):
        dag_of(**{"a:b": says("a")})
    with pytest.raises(NotAnAgentError, match="is no agent"):
        dag_of(a=42)
    with pytest.raises(BuildError, match="breakpoint.*'bb'.*'b'"):
        dag_of(b=says("b")).compile(interrupt_before=["bb"])
    unreachable = dag_of(a=says("a"), b=says("b"))
    unreachable.add_edge("b", "b")
    with pytest.raises(CycleError, match="b -> b"):
        unreachable.compile()


def test_a_builder_goes_on_after_it_was_compiled() -> None:
    dag = dag_of(a=says("a"), b=says("b"))
    assert sorted(dag.compile().invoke({"log": []})["log"]) == ["a", "b"]
    dag.add_edge("b", "a")
    assert dag.compile().invoke({"log": []})["log"] == ["b", "a"]
