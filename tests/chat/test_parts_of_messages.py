"""Parts of messages that not each converter of LangChain takes: what they say is kept, in a form that can be sent."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from agentmatrix.chat import ChatGroup
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
from tests.chat.provider_rules import why_refused


@pytest.mark.parametrize(
    "said",
    [
        HumanMessage(["Words.", {"type": "text", "text": "More."}]),
        AIMessage(["Words.", {"type": "text", "text": "More."}]),
        AIMessage([{"type": "output_text", "text": "Words."}]),
        AIMessage([{"type": "text-plain", "text": "Words.", "mime_type": "text/plain"}]),
        AIMessage([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Words."}}]),
    ],
    ids=["texts of a user", "texts", "output_text", "text-plain", "document"],
)
def test_words_in_any_part_are_heard(said: Any) -> None:
    bob = ScriptedChatModel("ok")
    of_a_user = isinstance(said, HumanMessage)
    group = ChatGroup({"ann": ScriptedChatModel("" if of_a_user else said), "bob": bob}, stop=max_turns(2))
    group.compile().invoke({"messages": [said if of_a_user else HumanMessage("Go.")]})
    assert "Words." in str(bob.prompts[0]) and why_refused(bob.prompts[0]) == []
