"""LangGraph's safe mode for checkpoints, LANGGRAPH_STRICT_MSGPACK=true: only the types of a graph's schemas are
rebuilt."""

import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = textwrap.dedent("""
    import operator, sys
    from dataclasses import dataclass
    from typing import Annotated, TypedDict
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, StateGraph
    from langgraph.types import Command, interrupt
    from pydantic import BaseModel
    from agentmatrix import CyclicGraph, Dag
    from agentmatrix.testing import loopback

    class Plan(BaseModel):
        steps: int = 1

    @dataclass
    class Note:
        text: str = ""

    class State(TypedDict, total=False):
        plan: Plan
        note: Note
        plans: Annotated[list[Plan], operator.add]
        log: Annotated[list[str], operator.add]

    class Log(TypedDict, total=False):
        log: Annotated[list[str], operator.add]

    builder, place = sys.argv[1:]
    inner = {"state": StateGraph, "dag": Dag, "cyclic": CyclicGraph}[builder](State)
    inner.add_node("make", lambda s: {"plan": Plan(), "note": Note("n"), "plans": [Plan()], "log": ["made"]})
    names = lambda s: [type(v).__name__ for v in (s["plan"], s["note"], s["plans"][0])]
    inner.add_node("ask", lambda s: {"log": [interrupt("?"), *names(s)]})
    inner.add_edge(START, "make")
    inner.add_edge("make", "ask")
    inner = inner.compile()
    outer = StateGraph(Log)
    outer.add_node("child", inner if place == "local" else loopback(inner))
    outer.add_edge(START, "child")
    outer = outer.compile(checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    outer.invoke({"log": []}, thread)
    print(" ".join(outer.invoke(Command(resume="yes"), thread)["log"]))
""")


@pytest.mark.parametrize("strict", ["false", "true"])
@pytest.mark.parametrize("builder_name", ["state", "dag", "cyclic"])
@pytest.mark.parametrize("place", ["local", "remote"])
def test_types_after_a_pause(builder_name, place, strict, tmp_path):
    """langgraph#7695, #7066, #7533. A nested graph has a pydantic model and a dataclass in its state. It pauses and
    goes on. In LangGraph's strict mode a local nested graph is given its own types back, since its schema names
    them. A remote one must be given them too, and not dicts."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": strict}
    done = subprocess.run(
        [sys.executable, str(program), builder_name, place], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "made yes Plan Note Plan", done.stderr[-500:]
