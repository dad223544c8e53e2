"""The ways a graph can stand: which builder makes the parent, and where the subgraph runs."""

import pytest
from langgraph.graph import StateGraph

from agentmatrix import CyclicGraph, Dag
from agentmatrix.testing import loopback

BUILDERS = {"state": StateGraph, "dag": Dag, "cyclic": CyclicGraph}


class Way:
    """One way: `way.parent(State)` is the parent's builder, `way.child(graph)` what stands in it."""

    def __init__(self, builder, place):
        self.builder, self.place = builder, place

    def parent(self, *args, **kwargs):
        return BUILDERS[self.builder](*args, **kwargs)

    def child(self, graph, **kwargs):
        return graph if self.place == "local" else loopback(graph, **kwargs)

    @property
    def reference(self):
        return (self.builder, self.place) == ("state", "local")

    def __repr__(self):
        return f"{self.builder}-{self.place}"


WAYS = [Way(b, p) for b in ("state", "dag", "cyclic") for p in ("local", "remote")]


def pytest_generate_tests(metafunc):
    if "way" in metafunc.fixturenames:
        wanted = metafunc.definition.get_closest_marker("ways")
        ways = [w for w in WAYS if not wanted or repr(w) in wanted.args]
        metafunc.parametrize("way", ways, ids=repr)
    if "builder" in metafunc.fixturenames:
        wanted = metafunc.definition.get_closest_marker("builders")
        names = wanted.args if wanted else tuple(BUILDERS)
        metafunc.parametrize("builder", [BUILDERS[n] for n in names], ids=names)


@pytest.fixture
def thread():
    return {"configurable": {"thread_id": "1"}}
