"""Types that must survive a wire and a checkpoint, caches, retries."""

import enum
import operator
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, interrupt
from pydantic import BaseModel


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Level(enum.IntEnum):
    LOW = 1


class Artifact(BaseModel):
    class Phase(enum.StrEnum):
        QUERY = "query"
        READY = "ready"

    phase: Phase
    note: str | None = None


@dataclass
class Leaf:
    number: int


@dataclass
class Tree:
    leaves: list[Leaf] = field(default_factory=list)
    mood: Mood = Mood.GOOD


class Things(TypedDict, total=False):
    mood: Mood
    level: Level
    artifact: Artifact
    tree: Tree
    default: Any
    counter: Any
    ordered: Any
    queue: Any
    seen: Annotated[list[str], operator.add]


def things():
    default = defaultdict(list)
    default["a"].append(1)
    return {
        "mood": Mood.BAD,
        "level": Level.LOW,
        "artifact": Artifact(phase=Artifact.Phase.READY),
        "tree": Tree([Leaf(1)], Mood.BAD),
        "default": default,
        "counter": Counter("aab"),
        "ordered": OrderedDict(b=1, a=2),
        "queue": deque([1, 2, 3], maxlen=3),
    }


def types_of(state):
    return {k: type(v).__name__ for k, v in state.items() if k != "seen"} | {
        "phase": type(state["artifact"].phase).__name__,
        "leaf": type(state["tree"].leaves[0]).__name__,
        "maxlen": state["queue"].maxlen,
    }


EXPECTED = {
    "mood": "Mood",
    "level": "Level",
    "artifact": "Artifact",
    "tree": "Tree",
    "default": "defaultdict",
    "counter": "Counter",
    "ordered": "OrderedDict",
    "queue": "deque",
    "phase": "Phase",
    "leaf": "Leaf",
    "maxlen": 3,
}


def test_types_over_a_pause_are_those_of_langgraph(way, thread):
    """langgraph#6718. The same over a pause inside the nested graph, with a checkpointer: what LangGraph's serializer
    loses may be lost, but nothing else, and no other error."""
    seen = []

    def build(parent, child_of):
        inner = StateGraph(Things)

        def look(state):
            interrupt("?")
            seen.append(types_of(state))
            return {"seen": ["look"]}

        inner.add_node("look", look)
        inner.add_edge(START, "look")
        parent.add_node("child", child_of(inner.compile()))
        parent.add_edge(START, "child")
        graph = parent.compile(checkpointer=InMemorySaver())
        graph.invoke(things(), thread)
        return types_of(graph.invoke(Command(resume=1), thread))

    expected = build(StateGraph(Things), lambda g: g)
    assert build(way.parent(Things), lambda g: way.child(g, allow=[Mood, Level, Artifact, Tree, Leaf])) == expected
    assert seen[0] == seen[1]


class Text(TypedDict, total=False):
    text: str
    out: str


def saying(word, runs):
    inner = StateGraph(Text)

    def say(state):
        runs.append(word)
        return {"out": f"{word} {state['text']}"}

    inner.add_node("say", say)
    inner.add_edge(START, "say")
    return inner.compile(name=word)


# Of a StateGraph in a StateGraph LangGraph tells no more in the key than the node's name.
@pytest.mark.ways("state-remote", "dag-local", "dag-remote", "cyclic-local", "cyclic-remote")
def test_two_graphs_share_a_cache(way):
    """langgraph#8753. Two parents, each with another nested graph in a node of the same name and a cache policy, share
    one cache. Neither may be given the other's result."""
    runs = []
    cache = InMemoryCache()

    def build(word):
        graph = way.parent(Text)
        graph.add_node("child", way.child(saying(word, runs)), cache_policy=CachePolicy())
        graph.add_edge(START, "child")
        return graph.compile(cache=cache)

    ann, bob = build("ann"), build("bob")
    assert ann.invoke({"text": "hi"})["out"] == "ann hi"
    assert bob.invoke({"text": "hi"})["out"] == "bob hi"


def test_cached_subgraph_is_not_run_again(way):
    """langgraph#8753, the other side: the same graph with the same input is answered by the cache, with another input
    it is not."""
    runs = []
    graph = way.parent(Text)
    graph.add_node("child", way.child(saying("ann", runs)), cache_policy=CachePolicy())
    graph.add_edge(START, "child")
    graph = graph.compile(cache=InMemoryCache())
    assert graph.invoke({"text": "hi"})["out"] == "ann hi"
    assert graph.invoke({"text": "hi"})["out"] == "ann hi"
    assert runs == ["ann"]
    assert graph.invoke({"text": "ho"})["out"] == "ann ho"
    assert runs == ["ann", "ann"]


def test_two_nodes_of_one_graph_share_its_cache(way):
    """langgraph#8753. In one graph two nodes hold different nested graphs, both cached, with the same input."""

    class Both(TypedDict, total=False):
        text: str
        outs: Annotated[list[str], operator.add]

    class Out(TypedDict):
        outs: list[str]

    def inner(word):
        graph = StateGraph(Both, output_schema=Out)
        graph.add_node("say", lambda s: {"outs": [f"{word} {s['text']}"]})
        graph.add_edge(START, "say")
        return graph.compile(name="same")

    graph = way.parent(Both)
    for word in ("ann", "bob"):
        graph.add_node(word, way.child(inner(word)), cache_policy=CachePolicy())
        graph.add_edge(START, word)
    graph = graph.compile(cache=InMemoryCache())
    for _ in range(2):
        assert sorted(graph.invoke({"text": "hi", "outs": []})["outs"]) == ["ann hi", "bob hi"]


@pytest.mark.builders("dag", "cyclic")
def test_two_functions_of_one_name_share_a_cache(builder):
    """langgraph#8753. Two callables which are no plain functions (instances, partials) in one cached graph."""

    class Sayer:
        def __init__(self, word):
            self.word = word

        def __call__(self, state: Text) -> Text:
            return {"out": self.word}

    cache = InMemoryCache()

    def build(word):
        graph = builder(Text)
        graph.add_node("say", Sayer(word), cache_policy=CachePolicy())
        graph.add_edge(START, "say")
        return graph.compile(cache=cache)

    ann, bob = build("ann"), build("bob")
    assert ann.invoke({"text": "hi"})["out"] == "ann"
    assert bob.invoke({"text": "hi"})["out"] == "bob"
