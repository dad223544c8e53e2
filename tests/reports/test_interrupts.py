"""Interrupts and resumes."""

import operator
from typing import Annotated, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt


class Answers(TypedDict, total=False):
    answers: Annotated[list[str], operator.add]


def asking(name):
    def node(state):
        return {"answers": [f"{name}={interrupt(name)}"]}

    return node


def pair_of_questions(builder=StateGraph):
    """A graph whose two nodes ask at the same time."""
    graph = builder(Answers)
    for name in ("left", "right"):
        graph.add_node(name, asking(name))
        graph.add_edge(START, name)
    return graph


def parent_of(way, child, state=Answers, **compile_options):
    parent = way.parent(state)
    parent.add_node("child", way.child(child))
    parent.add_edge(START, "child")
    return parent.compile(checkpointer=InMemorySaver(), **compile_options)


def test_scalar_for_two_questions_of_one_subgraph(way, thread):
    """langgraph#8579. Two people are asked inside one nested graph; the caller answers with one bare value.

    At the top level that is refused, since nobody can tell who is meant. It must be refused here too, in place of
    handing the value to whoever comes first.
    """
    graph = parent_of(way, pair_of_questions().compile())
    paused = graph.invoke({"answers": []}, thread)
    assert sorted(i.value for i in paused["__interrupt__"]) == ["left", "right"]
    with pytest.raises(RuntimeError, match="(?i)interrupt"):
        graph.invoke(Command(resume="yes"), thread)


@pytest.mark.builders("dag", "cyclic")
def test_scalar_for_two_questions_of_one_graph(builder, thread):
    """langgraph#8579. The same without nesting: two nodes of the graph itself."""
    graph = pair_of_questions(builder).compile(checkpointer=InMemorySaver())
    paused = graph.invoke({"answers": []}, thread)
    assert sorted(i.value for i in paused["__interrupt__"]) == ["left", "right"]
    with pytest.raises(RuntimeError, match="(?i)interrupt"):
        graph.invoke(Command(resume="yes"), thread)


def test_one_of_two_answers_then_the_other(way, thread):
    """langgraph#5952. One of two parallel branches of a nested graph is answered; the answered one must not ask again,
    and its node must not run again."""
    runs = []

    def counting(name):
        def node(state):
            answer = interrupt(name)
            runs.append((name, answer))
            return {"answers": [f"{name}={answer}"]}

        return node

    inner = StateGraph(Answers)
    for name in ("left", "right"):
        inner.add_node(name, counting(name))
        inner.add_edge(START, name)
    graph = parent_of(way, inner.compile())
    paused = graph.invoke({"answers": []}, thread)
    ids = {i.value: i.id for i in paused["__interrupt__"]}
    paused = graph.invoke(Command(resume={ids["left"]: "L"}), thread)
    assert [i.value for i in paused["__interrupt__"]] == ["right"]
    shown = graph.get_state(thread, subgraphs=True)
    assert [i.value for i in shown.interrupts] == ["right"]
    result = graph.invoke(Command(resume={ids["right"]: "R"}), thread)
    assert sorted(result["answers"]) == ["left=L", "right=R"]
    assert sorted(runs) == [("left", "L"), ("right", "R")]


@pytest.mark.builders("state", "dag", "cyclic")
def test_sequential_questions_beside_a_parallel_one(builder, thread):
    """langgraph#5952. One node asks twice, its neighbour once. Answered one by one, each question is put once."""

    def twice(state):
        return {"answers": [interrupt("a1"), interrupt("a2")]}

    graph = builder(Answers)
    graph.add_node("twice", twice)
    graph.add_node("once", asking("b"))
    graph.add_edge(START, "twice")
    graph.add_edge(START, "once")
    graph = graph.compile(checkpointer=InMemorySaver())
    paused = graph.invoke({"answers": []}, thread)
    asked = []
    for _ in range(5):
        questions = paused.get("__interrupt__", [])
        if not questions:
            break
        asked.append(sorted(i.value for i in questions))
        first = min(questions, key=lambda i: i.value)
        paused = graph.invoke(Command(resume={first.id: first.value.upper()}), thread)
    assert asked == [["a1", "b"], ["a2", "b"], ["b"]]
    assert sorted(paused["answers"]) == ["A1", "A2", "b=B"]


def two_steps():
    """A graph that asks in one node and then in the next."""
    graph = StateGraph(Answers)
    graph.add_sequence([("first", asking("first")), ("second", asking("second"))])
    graph.add_edge(START, "first")
    return graph.compile()


@pytest.mark.builders("state", "cyclic")
@pytest.mark.parametrize("place", ["local", "remote"])
def test_question_of_a_subgraph_in_a_loop_of_the_parent(builder, place, thread):
    """langgraph#2935. The loop is the parent's, the nested graph asks in each round."""
    from agentmatrix.testing import loopback

    inner = StateGraph(Answers)
    inner.add_node("ask", lambda s: {"answers": [interrupt("?")]})
    inner.add_edge(START, "ask")
    inner = inner.compile()

    class Total(TypedDict, total=False):
        answers: list[str]
        rounds: Annotated[int, operator.add]

    parent = builder(Total)
    parent.add_node("child", inner if place == "local" else loopback(inner))
    parent.add_node("count", lambda s: {"rounds": 1, "answers": s["answers"]})
    parent.add_edge(START, "child")
    parent.add_edge("child", "count")
    parent.add_conditional_edges("count", lambda s: END if s["rounds"] == 3 else "child", ["child", END])
    graph = parent.compile(checkpointer=InMemorySaver())
    paused = graph.invoke({"answers": [], "rounds": 0}, thread)
    for number in range(3):
        assert paused["__interrupt__"][0].value == "?", number
        paused = graph.invoke(Command(resume=str(number)), thread)
    assert paused["answers"] == ["0", "1", "2"]


def test_resume_with_the_head_checkpoint_named(way, thread):
    """langgraph#7561. A user interface resumes with the id of the newest checkpoint in the config. The nested graph
    goes on at its question, and does not begin again."""
    steps = []

    inner = StateGraph(Answers)
    inner.add_node("work", lambda s: steps.append("work"))
    inner.add_node("ask", asking("ok"))
    inner.add_edge(START, "work")
    inner.add_edge("work", "ask")
    graph = parent_of(way, inner.compile())
    graph.invoke({"answers": []}, thread)
    head = graph.get_state(thread).config
    result = graph.invoke(Command(resume="yes"), head)
    assert result["answers"] == ["ok=yes"]
    assert steps == ["work"]


def test_fan_out_of_asking_subgraphs(way, thread):
    """langgraph#4028. A fan-out starts the same nested graph three times, each asks its own question; one map answers
    all, and no answer goes to a neighbour."""

    class Part(TypedDict, total=False):
        topic: str
        answers: Annotated[list[str], operator.add]

    class Whole(TypedDict, total=False):
        topics: list[str]
        answers: Annotated[list[str], operator.add]

    inner = StateGraph(Part, output_schema=Answers)
    inner.add_node("ask", lambda s: {"answers": [f"{s['topic']}={interrupt(s['topic'])}"]})
    inner.add_edge(START, "ask")
    parent = way.parent(Whole)
    parent.add_node("plan", lambda s: {"topics": ["a", "b", "c"]})
    parent.add_node("part", way.child(inner.compile()))
    parent.add_edge(START, "plan")
    parent.add_conditional_edges("plan", lambda s: [Send("part", {"topic": t}) for t in s["topics"]], ["part"])
    graph = parent.compile(checkpointer=InMemorySaver())
    paused = graph.invoke({}, thread)
    assert sorted(i.value for i in paused["__interrupt__"]) == ["a", "b", "c"]
    assert len({i.id for i in paused["__interrupt__"]}) == 3
    two = {i.id: i.value.upper() for i in paused["__interrupt__"] if i.value != "b"}
    paused = graph.invoke(Command(resume=two), thread)
    assert [i.value for i in paused["__interrupt__"]] == ["b"]
    result = graph.invoke(Command(resume="B"), thread)
    assert result["answers"] == ["a=A", "b=B", "c=C"]
