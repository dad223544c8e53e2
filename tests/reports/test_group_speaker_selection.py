"""Who speaks next: what a model answers when it is asked for a name, and names in the text."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from agentmatrix import ChatGroup
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.speakers import mention, random, selector
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel

MEMBERS = ("planner", "Senior_Engineer", "critic", "ann", "Ann Marie")


def says(*answers: Any, cycle: bool = True) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=cycle)


def chosen(*answers: Any, names: tuple[str, ...] = MEMBERS) -> tuple[str, int]:
    """Who speaks, and after how many questions to the model."""
    model = says(*answers)
    speaker = selector(model, fallback=lambda state: "planner")
    group = ChatGroup({name: says("Well.") for name in names}, speaker=speaker, stop=max_turns(1))
    return group.compile().invoke({"messages": "Go."})["last_speaker"], model.calls


@pytest.mark.parametrize("answer", ["", "nobody", AIMessage("", tool_calls=[{"name": "x", "args": {}, "id": "1"}])])
def test_no_name_at_all_ends_in_the_fallback(answer: Any) -> None:
    """microsoft/agent-framework#877, microsoft/autogen#6944: an empty answer of the manager."""
    assert chosen(answer) == ("planner", 3)


def test_random_does_not_repeat() -> None:
    """microsoft/autogen#688 (pull request): nobody twice in a row, if it is not allowed."""
    group = ChatGroup({n: says(n) for n in "abc"}, speaker=random(7), stop=max_turns(20), reply="transcript")
    said = [m.text for m in group.compile().invoke({"messages": "Go."})["messages"]]
    assert all(one != two for one, two in zip(said, said[1:], strict=False))


@pytest.mark.parametrize("choice", ["Ann", "", 3, True, ["ann", "zed"]])
def test_a_function_that_names_nobody_in_the_group(choice: Any) -> None:
    """microsoft/autogen#4289, google/adk-python#3736: a wrong name is an error that says who chose what."""
    group = ChatGroup({"ann": says("a")}, speaker=lambda state: choice, stop=max_turns(1)).compile()
    with pytest.raises(SpeakerError, match="lambda.* chose "):
        group.invoke({"messages": "Go."})


def test_two_members_of_one_name() -> None:
    """google/adk-python#7110: the second of a name could not be reached."""

    def ann(messages: list[Any]) -> str:
        return "a"

    with pytest.raises(BuildError, match="'ann'"):
        ChatGroup([ann, ann])


def mentioned(text: str) -> str | None:
    members = {name: says("Well.") for name in ("ann", "bob", "Ann Marie")}
    return ChatGroup(members, speaker=mention(), stop=max_turns(1)).compile().invoke({"messages": text})["last_speaker"]


@pytest.mark.parametrize("text", ["Write to hello@bob.example.", "git clone git@bob:repo"])
def test_an_address_is_no_mention(text: str) -> None:
    """gradion-ai/hybrid-groups#54 (pull request): a mail address calls an agent."""
    assert mentioned(text) is None


def test_a_person_who_has_a_members_name_is_no_member() -> None:
    """microsoft/autogen#86 (roles mixed up): the user's message under the name of a member is not that member's own."""
    ann = says("Hello.")
    ChatGroup({"ann": ann}, stop=max_turns(1)).compile().invoke({"messages": [HumanMessage("I am Ann.", name="ann")]})
    assert isinstance(ann.prompts[0][0], HumanMessage)
