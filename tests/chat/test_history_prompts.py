"""Whatever is left out of a history, the prompt can be sent to every provider."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, BaseMessage

from agentmatrix import ChatGroup, as_agent
from agentmatrix.speakers import broadcast, create_handoff_tool, free, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
from tests.chat.provider_rules import why_refused
from tests.chat.test_prompts import answers, transcripts


def rules() -> st.SearchStrategy[Any]:
    """Limits, summaries, and functions that keep any of the messages."""
    writer = ScriptedChatModel("A summary.", cycle=True)
    kept = st.lists(st.booleans(), min_size=30, max_size=30).map(
        lambda keep: lambda messages: [message for message, is_kept in zip(messages, keep, strict=False) if is_kept]
    )
    summaries = st.tuples(st.integers(1, 4), st.integers(1, 3)).map(
        lambda n: SummarizationMiddleware(writer, trigger=("messages", n[0]), keep=("messages", n[1]))
    )
    limits = st.tuples(st.sampled_from(["messages", "tokens"]), st.integers(1, 60))
    return st.one_of(limits, kept, summaries)


@settings(max_examples=150, deadline=None)
@given(
    transcripts(),
    st.lists(answers(), min_size=1, max_size=3),
    rules(),
    rules(),
    st.sampled_from([round_robin(), broadcast(), free()]),
)
def test_a_shortened_prompt_can_be_sent(
    said: list[BaseMessage], answered: list[AIMessage], of_group: Any, of_member: Any, speaker: Any
) -> None:
    models = [ScriptedChatModel(answered, cycle=True) for _ in range(3)]
    group = ChatGroup({"ann": models[0], "bob": models[1]}, speaker=speaker, stop=max_turns(5), history=of_group)
    group.add_node("eve", models[2], history=of_member, reply="last").compile().invoke({"messages": said})
    for model in models:
        for prompt in model.prompts:
            assert why_refused(prompt) == []


@settings(max_examples=60, deadline=None)
@given(
    transcripts(), st.lists(answers(), min_size=1, max_size=3), rules().filter(lambda rule: not hasattr(rule, "keep"))
)
def test_a_prompt_that_a_handoff_has_chosen_can_be_sent(
    said: list[BaseMessage], answered: list[AIMessage], rule: Any
) -> None:
    call = AIMessage("Over to bob.", tool_calls=[{"name": "transfer_to_bob", "args": {}, "id": "1"}])
    tool = create_handoff_tool(agent_name="bob", history=rule)
    ann = as_agent(ScriptedChatModel([call], cycle=True), tools=[tool], name="ann")
    bob = ScriptedChatModel(answered, cycle=True)
    ChatGroup({"ann": ann, "bob": bob}, stop=max_turns(5)).compile().invoke({"messages": said})
    for prompt in bob.prompts:
        assert why_refused(prompt) == []
