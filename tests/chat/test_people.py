"""A person at the table: what is asked, and what may be answered."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix.chat import ChatGroup
from agentmatrix.speakers import human
from agentmatrix.stops import max_turns
from tests.chat.scripted_groups import THREAD, once, talk, whole


def test_a_person_is_a_member_of_any_group() -> None:
    ann = once("What do you think?")
    group = ChatGroup([human("joe")], reply="transcript", stop=max_turns(2)).add_node("ann", ann)
    compiled = group.compile(checkpointer=InMemorySaver())
    paused = compiled.invoke({"messages": "go"}, THREAD)
    assert paused["__interrupt__"][0].value == "user: go"
    result = compiled.invoke(Command(resume="I think so"), THREAD)
    assert talk(result)[1:] == [("joe", "I think so"), ("ann", "What do you think?")]
    assert isinstance(result["messages"][1], HumanMessage)
    assert [m.text for m in ann.prompts[0]] == ["go", "<name>joe</name><content>I think so</content>"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HumanMessage("Tuesday"), "Tuesday"),
        ({"role": "user", "content": "Tuesday"}, "Tuesday"),
        ({"role": "user", "content": [{"type": "text", "text": "Tuesday"}]}, "Tuesday"),
        ([{"type": "text", "text": "Tuesday"}], "Tuesday"),
        (2, "2"),
        ([1, 2], "[1, 2]"),
        ({"day": 2}, "{'day': 2}"),
    ],
)
def test_a_person_answers_in_any_form(answer: Any, words: str) -> None:
    group = whole({"joe": human()}, stop=max_turns(1)).compile(checkpointer=InMemorySaver())
    group.invoke({"messages": "Which day?"}, THREAD)
    result = group.invoke(Command(resume=answer), THREAD)
    assert talk(result)[1:] == [("joe", words)] and isinstance(result["messages"][1], HumanMessage)


@pytest.mark.parametrize("answer", ["", None, []])
def test_a_person_may_keep_silent(answer: Any) -> None:
    def quiet(state: Any) -> bool:
        return len(state["messages"]) > 3

    prompt = human(prompt=lambda messages: {"asked": len(messages)})
    group = whole({"joe": prompt}, stop=max_turns(1)).compile(checkpointer=InMemorySaver())
    assert group.invoke({"messages": "go"}, THREAD)["__interrupt__"][0].value == {"asked": 1}
    given: Any = {group.get_state(THREAD).interrupts[0].id: answer}
    result = group.invoke(Command(resume=given), THREAD)
    assert (talk(result)[1:], result["last_speaker"]) == ([], None)
