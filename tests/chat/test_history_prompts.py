"""Whatever is left out of a history, the prompt can be sent to every provider."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage

from agentmatrix import ChatGroup, as_agent
from agentmatrix.speakers import broadcast, create_handoff_tool, free, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
from tests.chat.provider_rules import why_refused
from tests.chat.test_prompts import a_transcript, an_answer

seeds = st.integers(0, 2**32)


def a_rule(draw: Random, *, may_sum_up: bool = True) -> Any:
    """A limit, a summary, or a function that keeps any of the messages."""
    kind = draw.choice(["limit", "function", "summary" if may_sum_up else "limit"])
    if kind == "limit":
        return draw.choice(["messages", "tokens"]), draw.randint(1, 60)
    if kind == "summary":
        trigger, keep = ("messages", draw.randint(1, 4)), ("messages", draw.randint(1, 3))
        return SummarizationMiddleware(ScriptedChatModel("A summary.", cycle=True), trigger=trigger, keep=keep)
    kept = [draw.random() < 0.6 for _ in range(40)]
    return lambda messages: [message for message, is_kept in zip(messages, kept, strict=False) if is_kept]


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_a_shortened_prompt_can_be_sent(seed: int) -> None:
    draw = Random(seed)
    said = [an_answer(draw) for _ in range(draw.randint(1, 3))]
    models = [ScriptedChatModel(said, cycle=True) for _ in range(3)]
    speaker = draw.choice([round_robin(), broadcast(), free()])
    group = ChatGroup({"ann": models[0], "bob": models[1]}, speaker=speaker, stop=max_turns(5), history=a_rule(draw))
    group.add_node("eve", models[2], history=a_rule(draw), reply="last")
    group.compile().invoke({"messages": a_transcript(draw)})
    for model in models:
        for prompt in model.prompts:
            assert why_refused(prompt) == []


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_prompt_that_a_handoff_has_chosen_can_be_sent(seed: int) -> None:
    draw = Random(seed)
    call = AIMessage("Over to bob.", tool_calls=[{"name": "transfer_to_bob", "args": {}, "id": "1"}])
    tool = create_handoff_tool(agent_name="bob", history=a_rule(draw, may_sum_up=False))
    ann = as_agent(ScriptedChatModel([call], cycle=True), tools=[tool], name="ann")
    bob = ScriptedChatModel([an_answer(draw) for _ in range(draw.randint(1, 3))], cycle=True)
    ChatGroup({"ann": ann, "bob": bob}, stop=max_turns(5)).compile().invoke({"messages": a_transcript(draw)})
    for prompt in bob.prompts:
        assert why_refused(prompt) == []
