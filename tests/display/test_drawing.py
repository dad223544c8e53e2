"""What is read of a graph: each level's nodes and edges, under ids that nothing else has."""

from __future__ import annotations

from typing import Any

from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph

from agentmatrix.display import Drawing, Edge, Node, drawing_of
from agentmatrix.display.drawing import back_edges
from tests.display.conftest import State, chain, chat, report, work


def find(drawing: Drawing, path: str) -> Node:
    return next(node for node in drawing.walk() if node.id == path)


def test_a_nested_graph_is_read_to_its_last_level() -> None:
    graph = chain("a", "b", name="level0")
    for level in range(1, 7):
        graph = chain("a", "b", name=f"level{level}", agents={"a": graph})
    drawing = drawing_of(graph)
    ids = [node.id for node in drawing.walk()]
    assert len(ids) == len(set(ids)) == 28
    assert find(drawing, "a|a|a|a|a|a|b").kind == "node"
    assert find(drawing, "a|a|a|a|a|a").kind == "group"


def test_edges_say_whether_they_are_conditional_and_why() -> None:
    edges = set(drawing_of(report(chain("think", name="expert"))).edges)
    assert Edge("__start__", "plan") in edges
    assert Edge("write", "plan", "revise", conditional=True) in edges
    assert Edge("write", "__end__", "done", conditional=True) in edges


def test_xray_opens_as_many_levels_as_asked() -> None:
    graph = report(chain("think", name="expert"))
    assert find(drawing_of(graph, xray=False), "panel").inner is None
    assert find(drawing_of(graph, xray=1), "panel|expert").inner is None
    assert find(drawing_of(graph, xray=2), "panel|expert").inner is not None


def test_one_graph_used_twice_is_drawn_twice() -> None:
    duo = chat({"a": work, "b": work})
    drawing = drawing_of(chain("x", "y", name="both", agents={"x": duo, "y": duo}))
    assert {"x|a", "y|a"} <= {node.id for node in drawing.walk()}


def test_graphs_without_checkpoints_are_opened_too() -> None:
    inner = StateGraph(State).add_node("deep", work).add_edge(START, "deep").compile(checkpointer=False)
    drawing = drawing_of(chain("outer", name="graph", agents={"outer": inner}))
    assert find(drawing, "outer|deep").label == "deep"


def test_a_functional_graph_draws_what_it_calls() -> None:
    expert = chain("think", name="expert")

    @entrypoint()
    def flow(question: Any) -> Any:
        return expert.invoke(question)

    drawing = drawing_of(flow)
    assert [node.kind for node in drawing.nodes] == ["start", "group", "end"]
    assert find(drawing, "flow|think").label == "think"


def test_static_breakpoints_are_noted() -> None:
    graph = StateGraph(State).add_node("ask", work).add_edge(START, "ask").compile(interrupt_before=["ask"])
    assert find(drawing_of(graph), "ask").note == "pauses before"


def test_an_edge_leads_back_when_it_closes_a_loop_and_not_otherwise() -> None:
    graph = StateGraph(State)
    for name in "abcd":
        graph.add_node(name, work)
    graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").add_edge("c", "d")
    graph.add_conditional_edges("a", lambda state: "b", ["b", "d"])
    graph.add_conditional_edges("d", lambda state: END, ["a", "d", END])
    back = {(edge.source, edge.target) for edge in back_edges(drawing_of(graph.compile()))}
    assert back == {("d", "a"), ("d", "d")}
