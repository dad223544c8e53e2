"""The options of a node: each is named, as `StateGraph` names them, for completion and type checkers."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langgraph.graph import StateGraph
from langgraph.types import CachePolicy, RetryPolicy

from agentmatrix import CyclicGraph, Dag

BUILDERS = pytest.mark.parametrize("builder", [Dag, CyclicGraph])
OLD = {"input", "retry"}
"""LangGraph's old names, which it takes with a warning."""


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters.values()
    return {parameter.name: parameter for parameter in found if "VAR" not in parameter.kind.name}


@BUILDERS
def test_all_options_of_langgraph_are_named_and_no_others_are_taken(builder: type[Dag]) -> None:
    own, theirs = parameters(builder.add_node), parameters(StateGraph.add_node)
    assert own.keys() - theirs.keys() == {"input_map", "output_map", *OLD}
    assert not theirs.keys() - own.keys(), "a new option of LangGraph: name it in Builder.add_node"
    assert {name: own[name].default for name in theirs} == {name: theirs[name].default for name in theirs}
    with pytest.raises(TypeError, match="retry_polcy"):
        builder().add_node("a", lambda state: {}, retry_polcy=RetryPolicy())  # type: ignore[call-arg]


@BUILDERS
def test_options_reach_the_node(builder: type[Dag]) -> None:
    retry, cache = RetryPolicy(max_attempts=7), CachePolicy()
    options: dict[str, Any] = {"metadata": {"k": 1}, "retry_policy": retry, "cache_policy": cache, "defer": True}
    node = builder().add_node("a", lambda state: {}, timeout=3, destinations=("b",), **options).nodes["a"]
    assert {name: getattr(node, name) for name in options} == options
    assert node.timeout is not None and node.timeout.run_timeout == 3
    assert node.ends == ("b",)
    assert builder().add_node("a", lambda state: {}, retry=retry).nodes["a"].retry_policy == retry
