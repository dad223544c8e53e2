"""The same drawing as Mermaid, as text and in a notebook."""

from __future__ import annotations

import importlib
import re
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agentmatrix import ChatGroup, Dag
from agentmatrix.display import (
    Drawing,
    Node,
    draw_mermaid,
    draw_svg,
    draw_text,
    drawing_of,
    install_display,
    mimebundle,
)
from agentmatrix.display.mermaid import mermaid_of
from agentmatrix.display.notebook import NotebookRepr
from agentmatrix.display.svg import svg_of
from agentmatrix.display.text import text_of
from agentmatrix.stops import max_turns
from agentmatrix.testing import loopback
from tests.display.conftest import Graph, State, chain, report, work

AWKWARD = (
    'say "hi"', "a[0](b){c}", "数据检索", "🚀 <b>launch</b>", "end", "subgraph", "1. first", "__x__ *y* `z`", "- item",
    "#35; & %%{init}%%", "x" * 200, "two\nlines",
)  # fmt: skip


@pytest.fixture
def graph(no_network: None) -> Graph:
    return report(chain("retrieve", "rank", name="expert"))


@pytest.fixture
def awkward() -> Graph:
    return chain(*AWKWARD, name='the "<worst>"')


def declared(mermaid: str) -> list[str]:
    return re.findall(r"^ +(?:subgraph )?(n\w+)[(\[]", mermaid, re.MULTILINE)


def test_mermaid_has_every_node_once_and_only_edges_between_them(graph: Graph) -> None:
    mermaid = draw_mermaid(graph)
    ids = declared(mermaid)
    assert len(ids) == len(set(ids)) == 15
    ends = re.findall(r"^ +(n\w+) (-->|-\.->)(?:\|\".*\"\|)? (n\w+)$", mermaid, re.MULTILINE)
    assert {end for source, _, target in ends for end in (source, target)} <= set(ids)
    assert len(ends) == 16
    assert '    n_write -.->|"revise"| n_plan\n' in mermaid
    assert mermaid.count("subgraph ") == mermaid.count("    end\n") == 2


def test_mermaid_labels_hold_nothing_that_mermaid_reads(awkward: Graph) -> None:
    mermaid = draw_mermaid(awkward)
    assert len(declared(mermaid)) == len(AWKWARD) + 2
    for label in re.findall(r'^ +n\w*\["(.*)"\]$', mermaid, re.MULTILINE):
        assert not re.search(r'["<>`*&]|#(?!\d+;)|^\d\.|^- |\b__', label)
    assert "数据检索" in mermaid
    assert "#60;b#62;launch" in mermaid


def test_paths_that_spell_alike_keep_ids_of_their_own() -> None:
    mermaid = mermaid_of(Drawing("g", (Node("a b", "a b"), Node("a_b", "a_b"), Node("é", "é"), Node("ü", "ü"))))
    assert len(set(declared(mermaid))) == 4


def test_text_shows_each_node_with_its_successors(graph: Graph) -> None:
    assert draw_text(graph) == (
        "report\n"
        "├─ START → plan\n"
        "├─ plan → search, panel\n"
        "├─ search → write\n"
        "├─ panel → write\n"
        "│  ├─ START → speaker\n"
        "│  ├─ speaker ⇢ optimist, expert, END\n"
        "│  ├─ optimist → speaker ↺\n"
        "│  └─ expert → speaker ↺\n"
        "│     ├─ START → retrieve\n"
        "│     ├─ retrieve → rank\n"
        "│     └─ rank → END\n"
        "└─ write ⇢ plan [revise] ↺, END [done]\n"
    )


def test_ascii_is_ascii(awkward: Graph, graph: Graph) -> None:
    assert draw_text(awkward, ascii=True).isascii()
    assert "`- write ..> plan [revise] (loop), END [done]\n" in draw_text(graph, ascii=True)


def test_an_empty_drawing_is_still_one() -> None:
    empty = Drawing("nothing")
    assert text_of(empty) == "nothing\n└─ (empty)\n"
    assert mermaid_of(empty).startswith("flowchart TD\n")
    assert ElementTree.fromstring(svg_of(empty)).tag.endswith("svg")


def test_an_outline_of_sixty_nodes_is_drawn_by_all() -> None:
    names = [f"worker {number}" for number in range(60)]
    graph = StateGraph(State)
    for name in names:
        graph.add_node(name, work).add_edge(START, name)
    fan = graph.compile(name="fan")
    assert all(name in text for text in (draw_text(fan), draw_mermaid(fan), draw_svg(fan)) for name in names)


def test_the_mimebundle_has_what_front_ends_show(graph: Graph) -> None:
    bundle = mimebundle(graph)
    assert list(bundle) == ["image/svg+xml", "text/plain"]
    assert bundle["text/plain"] == draw_text(graph)


def test_a_graph_of_ours_shows_itself_in_a_notebook() -> None:
    class OwnGraph(NotebookRepr, CompiledStateGraph[Any, Any, Any, Any]):
        pass

    plain = chain("a", name="own")
    own = OwnGraph(**{name: value for name, value in vars(plain).items() if name != "__orig_class__"})
    assert own._repr_mimebundle_() == mimebundle(plain)
    assert list(own._repr_mimebundle_(include={"text/plain"})) == ["text/plain"]
    assert list(own._repr_mimebundle_(exclude={"text/plain"})) == ["image/svg+xml"]


def test_plain_graphs_show_themselves_once_it_is_installed(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    getter = importlib.import_module("IPython.core.getipython")
    assert not install_display()
    shell = SimpleNamespace(display_formatter=formatters.DisplayFormatter())
    monkeypatch.setattr(getter, "get_ipython", lambda: shell)
    assert install_display()
    shown, _ = shell.display_formatter.format(graph)
    assert shown["image/svg+xml"] == draw_svg(graph)


def test_a_node_that_no_stream_shows_is_drawn_as_a_junction() -> None:
    panel = ChatGroup({"ann": lambda messages: "a", "bob": lambda messages: "b"}, stop=max_turns(2)).compile()
    streamed = {part["name"] for part in panel.stream({"messages": "hi"}, stream_mode="tasks")}
    drawing = drawing_of(panel)
    assert {node.label for node in drawing.nodes if node.kind == "node"} == streamed == {"ann", "bob"}
    assert [node.label for node in drawing.nodes if node.kind == "junction"] == ["next_turn"]
    svg = draw_svg(panel)
    assert 'data-node="next_turn"' in svg and ">next_turn</text>" not in svg
    assert "(next_turn)" in draw_text(panel) and "((" in draw_mermaid(panel)
    remote = loopback(panel)
    assert remote.card
    (box,) = drawing_of(remote).nodes
    assert box.inner is not None
    assert [node.kind for node in box.inner.nodes] == [node.kind for node in drawing.nodes]


def test_a_graph_without_a_name_says_so() -> None:
    nameless = StateGraph(MessagesState).add_node("a", lambda state: {}).add_edge(START, "a").compile()
    assert drawing_of(nameless).label == "(a graph without a name)"


def test_a_builder_shows_what_it_compiles_to() -> None:
    builder = Dag(name="report")
    assert "has no nodes" in builder._repr_mimebundle_()["text/plain"]
    builder.add_node("plan", lambda messages: "plan")
    assert builder._repr_mimebundle_() == mimebundle(builder.compile())
