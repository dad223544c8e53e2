"""Requests of LangChain's HumanInTheLoopMiddleware: shown whole, and answered by words, here and on a host."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix import watching
from agentmatrix.approvals import approval_request
from agentmatrix.errors import AnswerError
from agentmatrix.testing import ScriptedChatModel, loopback
from tests.watch.watched_graphs import INPUT, THREAD, one


@tool
def pay(amount: int, to: str) -> str:
    """Pay somebody."""
    return f"paid {amount} to {to}"


def clerk() -> Any:
    calls = [{"name": "pay", "args": {"amount": amount, "to": to}} for amount, to in ((5, "bob"), (7, "<b>eve</b>"))]
    rules: Any = {"pay": {"allowed_decisions": ["approve", "edit", "reject"]}}
    return create_agent(ScriptedChatModel([calls, "done"]), [pay], middleware=[HumanInTheLoopMiddleware(rules)])


@pytest.mark.parametrize("wrap", [lambda graph: graph, loopback], ids=["here", "on a host"])
def test_tool_calls_are_decided_by_words(wrap: Any) -> None:
    graph = one("clerk", wrap(clerk()), "desk", checkpointer=InMemorySaver())
    with watching() as run:
        graph.invoke(INPUT, THREAD)
    (question,) = run.questions
    assert question.path.startswith("clerk/")
    page = run._repr_html_()
    assert page is not None
    for words in ("pay", "bob", "&lt;b&gt;eve&lt;/b&gt;", "approve, edit", "run.answer([..., ...])"):
        assert words in page
    assert "<b>eve</b>" not in page, "what an agent says is text"
    with pytest.raises(AnswerError, match="'maybe' is no decision about 'pay'"):
        run.answer(["approve", "maybe"])
    with pytest.raises(AnswerError, match="2 tool calls wait for a decision each, and 3 were given"):
        run.answer(["approve"] * 3)
    result = run.answer(['edit {"amount": 3}', "reject: not to her"])
    said = [message.text for message in result["messages"] if message.type == "tool"]
    assert sorted(("paid 3 to bob" in text, "not to her" in text) for text in said) == [(False, True), (True, False)]
    assert run.state == "done" and run.nodes["clerk"].count == 1


def test_one_word_is_for_all_calls() -> None:
    graph = one("clerk", clerk(), "desk", checkpointer=InMemorySaver())
    with watching() as run:
        graph.invoke(INPUT, THREAD)
    result = run.answer("approve")
    assert [m.text for m in result["messages"] if m.type == "tool"] == ["paid 5 to bob", "paid 7 to <b>eve</b>"]


def test_a_request_for_one_call_is_answered_by_one_decision() -> None:
    request = approval_request({"type": "tool_approval", "name": "pay", "args": {"amount": 5}, "description": "?"})
    assert request is not None
    assert request.answer(["yes"]) == {"type": "approve"}
    assert request.answer(["respond: no money"]) == {"type": "respond", "message": "no money"}
    assert request.answer(['{"type": "reject"}']) == {"type": "reject"}


@pytest.mark.parametrize(
    "value", ["why?", None, {"action_requests": []}, {"action_requests": "pay"}, {"action_requests": [{"args": {}}]}]
)
def test_other_questions_are_none(value: Any) -> None:
    assert approval_request(value) is None


def test_what_is_not_allowed_is_refused() -> None:
    asked = {
        "action_requests": [{"name": "pay", "args": {"amount": 5}}],
        "review_configs": [{"action_name": "pay", "allowed_decisions": ["approve", "reject"]}],
    }
    request = approval_request(asked)
    assert request is not None
    with pytest.raises(AnswerError, match="'edit' is not allowed for 'pay': approve, reject: why"):
        request.answer(['edit {"amount": 1}'])
    with pytest.raises(AnswerError, match="say what changes"):
        request.answer(["edit less"])
