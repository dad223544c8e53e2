"""Agents in nodes of one name, in one cache."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy
from typing_extensions import TypedDict

from agentmatrix import CyclicGraph, Dag
from agentmatrix.compose.cache_identity import identity_of


class Text(TypedDict, total=False):
    text: str
    out: str


def say(state: Text, word: str = "") -> Text:
    return {"out": f"{word} {state['text']}"}


class Sayer:
    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, state: Text) -> Text:
        return say(state, self.word)

    def method(self, state: Text) -> Text:
        return say(state, self.word)


def closing_over(word: str) -> Any:
    def say_it(state: Text) -> Text:
        return say(state, word)

    return say_it


def graph_of(word: str) -> Any:
    return StateGraph(Text).add_node("say", closing_over(word)).add_edge(START, "say").compile(name="same")


def routed(word: str) -> Any:
    """Two graphs that differ by nothing but what a router has closed over."""
    builder = StateGraph(Text)
    for name in ("ann", "bob"):
        builder.add_node(name, functools.partial(say, word=name))
    builder.add_conditional_edges(START, lambda state: word, ["ann", "bob"])
    return builder.compile(name="same")


AGENTS: dict[str, Callable[[str], Any]] = {
    "closure": closing_over,
    "partial": lambda word: functools.partial(say, word=word),
    "object": Sayer,
    "method": lambda word: Sayer(word).method,
    "graph": graph_of,
    "nested": lambda word: StateGraph(Text).add_node("g", graph_of(word)).add_edge(START, "g").compile(name="same"),
    "router": routed,
}


@pytest.mark.parametrize("builder", [Dag, CyclicGraph])
@pytest.mark.parametrize("kind", AGENTS)
def test_each_is_answered_with_its_own_result(kind: str, builder: Any) -> None:
    cache = InMemoryCache[Any]()

    def build(word: str) -> Any:
        graph = builder(Text)
        graph.add_node("say", AGENTS[kind](word), cache_policy=CachePolicy(), input_schema=Text)
        graph.add_edge(START, "say")
        return graph.compile(cache=cache)

    for _ in range(2):
        for word in ("ann", "bob"):
            assert build(word).invoke({"text": "hi"})["out"] == f"{word} hi"
    assert sum(map(len, cache._cache.values())) == 2, "built again, it is found again"


@pytest.mark.parametrize("kind", AGENTS)
def test_an_agent_is_the_same_in_each_process(kind: str) -> None:
    program = f"from {__name__} import *; print(identity_of(AGENTS[{kind!r}]('ann')).hex())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=100
    )
    identity = identity_of(AGENTS[kind]("ann"))
    assert identity is not None and done.stdout.strip() == identity.hex(), done.stderr


def test_a_function_is_its_name() -> None:
    def plain(state: Text) -> Text:
        return {}

    assert identity_of(plain) is None


def test_what_contains_itself_ends() -> None:
    held: list[Any] = []
    held.append(held)
    assert identity_of(functools.partial(say, word=held))  # type: ignore[arg-type]
