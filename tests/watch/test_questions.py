"""Questions of several nodes: some answered and others not, by whom, again under the same id, and by two at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import Dag, watching
from agentmatrix.errors import AnswerError
from agentmatrix.testing import loopback
from agentmatrix.watch import WatchedRun
from tests.watch.watched_graphs import INPUT, THREAD, one


def desk(*, is_hosted: bool = False) -> Any:
    """Two nodes ask at once, one of them in a nested graph."""
    dag = Dag(name="desk")
    inner = one("clerk", lambda messages: f"clerk: {interrupt('how much?')}")
    dag.add_node("office", loopback(inner) if is_hosted else inner)
    dag.add_node("boss", lambda messages: f"boss: {interrupt('really?')}")
    return dag.compile(checkpointer=InMemorySaver())


def asked(run: WatchedRun) -> dict[str, str]:
    return {question.path: question.value for question in run.questions}


@pytest.mark.parametrize("is_hosted", [False, True])
def test_several_are_answered_at_once(is_hosted: bool) -> None:
    with watching() as run:
        desk(is_hosted=is_hosted).invoke(INPUT, THREAD)
        assert asked(run) == {"office/clerk": "how much?", "boss": "really?"}
        answers = {question.id: f"to {question.path}" for question in run.questions}
        run.answer(answers, by="ann")
    assert run.state == "done"
    assert {(one.question.path, one.by) for one in run.answered} == {("office/clerk", "ann"), ("boss", "ann")}
    assert {line.text for line in run.transcript} >= {"clerk: to office/clerk", "boss: to boss"}


@pytest.mark.parametrize("is_hosted", [False, True])
def test_one_is_answered_and_the_other_stays_open(is_hosted: bool) -> None:
    with watching() as run:
        desk(is_hosted=is_hosted).invoke(INPUT, THREAD)
        first, second = sorted(run.questions, key=lambda question: question.path)
        run.answer({first.id: "yes"}, by="ann")
        # It is the question that was asked before, not another one.
        assert run.questions == [second]
        assert [(one.question, one.by) for one in run.answered] == [(first, "ann")]
        assert run.state == "asking"
        run.answer("ten", by="bob")
    assert [one.by for one in run.answered] == ["ann", "bob"]
    assert run.state == "done"


def test_an_answer_of_code_is_one_of_nobody() -> None:
    graph = desk()
    with watching() as run:
        graph.invoke(INPUT, THREAD)
        graph.invoke(Command(resume={question.id: "yes" for question in run.questions}), THREAD)
    assert [one.by for one in run.answered] == ["", ""]


@pytest.mark.parametrize("builder", [Dag, StateGraph])
def test_a_node_that_asks_again_asks_another_question(builder: Any) -> None:
    def ask(state: MessagesState) -> Any:
        while not (answer := interrupt("a number?")).isdigit():
            pass
        return {"messages": answer}

    made = builder(MessagesState)
    made.add_node("ask", ask)
    made.add_edge(START, "ask")
    graph = made.compile(checkpointer=InMemorySaver())
    with watching() as run:
        graph.invoke(INPUT, THREAD)
        (first,) = run.questions
        run.answer("many", by="ann")
        (second,) = run.questions
        assert (second.value, second.at > first.at) == (first.value, True)
        run.answer("7", by="ann")
    assert [one.question for one in run.answered] == [first, second]


def test_who_comes_second_is_told() -> None:
    begun, rest = threading.Event(), threading.Event()

    def ask(messages: Any) -> str:
        answer: str = interrupt("why?")
        begun.set()
        assert rest.wait(60)
        return answer

    graph = one("ask", ask, checkpointer=InMemorySaver())
    with watching() as run:
        graph.invoke(INPUT, THREAD)
        (question,) = run.questions
        first = threading.Thread(target=lambda: run.answer({question.id: "because"}, by="ann"))
        first.start()
        assert begun.wait(60)
        with pytest.raises(AnswerError, match="no question is open"):
            run.answer("no")
        rest.set()
        first.join()
    assert run.transcript[-1].text == "because"


def test_two_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes after the first was accepted, and before its node goes on."""
    graph = one("ask", lambda messages: interrupt("why?"), checkpointer=InMemorySaver())
    with watching() as run:
        graph.invoke(INPUT, THREAD)
        invoke = type(graph).invoke

        def late(self: Any, *args: Any, **kwargs: Any) -> Any:
            with pytest.raises(AnswerError, match="ann is answering the question of ask already"):
                run.answer("no", by="bob")
            return invoke(self, *args, **kwargs)

        monkeypatch.setattr(type(graph), "invoke", late)
        run.answer("because", by="ann")
    assert run.transcript[-1].text == "because"


def test_a_resumption_that_fails_before_it_begins_leaves_the_question_open(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = one("ask", lambda messages: interrupt("why?"), checkpointer=InMemorySaver())
    with watching() as run:
        graph.invoke(INPUT, THREAD)
        with monkeypatch.context() as patch:

            def lost(self: Any, *args: Any, **kwargs: Any) -> Any:
                raise ConnectionError("no line")

            patch.setattr(type(graph), "invoke", lost)
            with pytest.raises(ConnectionError):
                run.answer("because")
        assert asked(run) == {"ask": "why?"}
        run.answer("because", by="bob")
    assert [one.by for one in run.answered] == ["bob"]
