"""A remote agent in a drawing: marked, with its address, and never asked over the network."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from agentmatrix import RemoteAgent
from agentmatrix.card import AgentCard
from agentmatrix.display import draw_mermaid, draw_svg, draw_text, drawing_of, mimebundle
from agentmatrix.testing import loopback
from tests.display.conftest import chain, report


@pytest.fixture
def unreached() -> RemoteAgent:
    return RemoteAgent("gpu-box:50051/expert")


@pytest.fixture
def reached() -> Iterator[RemoteAgent]:
    inner = chain("look", "sort", name="retrieve")
    with loopback(chain("retrieve", "rank", name="expert", agents={"retrieve": inner})) as agent:
        assert agent.card.name == "expert"
        yield agent


def test_an_agent_that_was_not_reached_is_one_marked_node(unreached: RemoteAgent) -> None:
    graph = report(unreached)
    assert "expert @gpu-box:50051 (not reached) → speaker ↺\n" in draw_text(graph)
    assert 'n_panel_expert["expert<br/>@gpu-box:50051<br/>(not reached)"]' in draw_mermaid(graph)
    words = list(ElementTree.fromstring(draw_svg(graph)).itertext())
    assert "gpu-box:50051" in words and "not reached" in words


def test_drawing_opens_no_connection(unreached: RemoteAgent, no_network: None) -> None:
    mimebundle(report(unreached))
    assert not unreached.reached
    assert repr(unreached).endswith("idle)")


def test_an_agent_that_was_reached_is_opened(reached: RemoteAgent) -> None:
    graph = report(reached)
    address = reached.url.removeprefix("grpc://")
    mermaid = draw_mermaid(graph)
    assert f'subgraph n_panel_expert["expert @{address}' in mermaid
    assert "class n_panel_expert remote" in mermaid
    assert {"panel|expert|retrieve|look", "panel|expert|rank"} <= {node.id for node in drawing_of(graph).walk()}


def test_what_is_nested_on_the_host_is_not_marked_again(reached: RemoteAgent) -> None:
    kinds = {node.id: node.kind for node in drawing_of(report(reached)).walk()}
    assert kinds["panel|expert"] == "remote"
    assert kinds["panel|expert|retrieve"] == "group"


def test_a_host_that_tells_nonsense_does_not_break_the_drawing(unreached: RemoteAgent) -> None:
    nonsense = {0: {"nodes": [], "edges": [("no", "where", None, False)]}}
    unreached._connection._card = AgentCard("expert", drawings=nonsense)
    assert "expert @gpu-box:50051 (not drawn)" in draw_text(report(unreached))


def test_a_remote_agent_on_its_own_is_drawn_too(unreached: RemoteAgent) -> None:
    assert draw_text(unreached) == "expert\n└─ expert @gpu-box:50051 (not reached)\n"


def test_a_node_by_another_name_says_which_agent_runs_there(unreached: RemoteAgent) -> None:
    graph = chain("critic", name="graph", agents={"critic": unreached})
    assert "critic @gpu-box:50051/expert (not reached)" in draw_text(graph)


def test_a_remote_agent_shows_itself_in_a_notebook(unreached: RemoteAgent) -> None:
    assert unreached._repr_mimebundle_() == mimebundle(unreached)
