"""Every prompt that a member is given can be sent to every provider, whatever has been said, by whom and how."""

from __future__ import annotations

import asyncio
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from agentmatrix import ChatGroup
from agentmatrix.speakers import broadcast, free, handoff, human, mention, random, round_robin, selector
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
from tests.chat.provider_rules import why_refused

EXAMPLES = 2000
THREAD: Any = {"configurable": {"thread_id": "1"}}
PNG = "iVBORw0KGgo="
WORDS = ["Hello.", "@bob, your turn.", "ann", "", "  \n", "<think>Hm.</think>Yes.", "<think>Only.</think>", "zoë 李"]
NAMES = ["ann", "bob", "Ann Smith", "x/y z", "zoë"]

PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "A part."},
    {"type": "text", "text": ""},
    {"type": "text", "text": " "},
    {"type": "text", "text": "Cited.", "citations": [{"type": "char_location", "cited_text": "x"}], "index": 0},
    {"type": "text", "text": "Annotated.", "annotations": [], "id": "msg_1"},
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "reasoning", "reasoning": "hm"},
    {"type": "refusal", "refusal": "No."},
    {"type": "tool_use", "id": "t1", "name": "w", "input": {}},
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "function_call", "name": "w", "arguments": "{}", "call_id": "c1", "id": "fc_1"},
    {"type": "executable_code", "language": "PYTHON", "executable_code": "1"},
    {"type": "code_execution_result", "code_execution_result": "1", "outcome": 1},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PNG},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    {"type": "image", "base64": PNG, "mime_type": "image/png"},
    {"type": "tool_call", "id": "c1", "name": "w", "args": {}},
    {"type": "server_tool_call", "id": "c1", "name": "w", "args": {}},
    {"type": "non_standard", "value": {"type": "odd"}},
]
SOUND = {"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"}
USER_PARTS = [part for part in PARTS if part["type"] in ("text", "image_url", "image")] + [
    {"type": "tool_result", "tool_use_id": "t9", "content": "x"},
    {"type": "thinking", "thinking": "hm", "signature": "s"},
]


def an_answer(draw: Random) -> AIMessage:
    """What a model answers."""
    content: Any = draw.choice(WORDS)
    if draw.random() < 0.4:
        content = draw.sample(PARTS, draw.randint(0, 3))
    options: dict[str, Any] = {}
    if draw.random() < 0.25:
        options["tool_calls"] = [{"name": "look", "args": {}, "id": f"c{n}"} for n in range(draw.randint(1, 2))]
    spoken = {"audio": {"id": "a", "data": "UklGRg==", "transcript": "Said."}}
    provider = draw.choice(["", "openai", "anthropic", "google_genai"])
    return AIMessage(
        content,
        additional_kwargs=draw.choice([{}, {}, {}, {"refusal": "No."}, spoken]),
        response_metadata={"model_provider": provider} if provider else {},
        id=draw.choice([None, None, "same", "msg_1"]),
        **options,
    )


def a_transcript(draw: Random) -> list[BaseMessage]:
    """What has been said before the group begins."""
    messages: list[BaseMessage] = []
    for number in range(draw.randint(0, 5)):
        kind = draw.choice(["user", "user", "named", "system", "ai", "member", "tools", "parts", "for ann"])
        if kind == "tools":
            calls = [{"name": "ann", "args": {}, "id": f"t{number}-{n}"} for n in range(draw.randint(1, 2))]
            name = draw.choice([None, "scout", "ann"])
            messages.append(AIMessage(draw.choice(WORDS), tool_calls=calls, name=name))
            messages += [ToolMessage("42", tool_call_id=call["id"], name="ann") for call in calls]
        elif kind == "ai":
            messages.append(an_answer(draw))
        elif kind == "member":
            messages.append(an_answer(draw).model_copy(update={"name": draw.choice([*NAMES, "scout"])}))
        elif kind == "system":
            messages.append(SystemMessage(draw.choice(WORDS)))
        elif kind == "parts":
            messages.append(HumanMessage(draw.sample(USER_PARTS, draw.randint(0, 3))))
        else:
            name = draw.choice([*NAMES, "Joe Doe"]) if kind == "named" else None
            extra = {"visible_to": ["ann"]} if kind == "for ann" else {}
            messages.append(HumanMessage(draw.choice(WORDS), name=name, additional_kwargs=extra))
    # `add_messages` takes canned messages of one id for one message.
    return [message.model_copy(update={"id": None}) for message in messages]


def an_agent(model: ScriptedChatModel, **options: Any) -> Any:
    """An agent that calls its model again after the results of its tools, a few times."""

    async def ask(state: MessagesState) -> Any:
        answer = await model.ainvoke(state["messages"])
        # What its own model gets back from its own state is the agent's: nothing empty, no call of one id twice.
        words = "" if answer.text.isspace() else answer.text
        calls = [{**call, "id": f"{call['id']}-{len(state['messages'])}"} for call in answer.tool_calls]
        return {"messages": [AIMessage(words or ("" if calls else "Well."), tool_calls=calls)]}

    async def tools(state: MessagesState) -> Any:
        calls = state["messages"][-1].tool_calls  # type: ignore[union-attr]
        return {"messages": [ToolMessage("42", tool_call_id=str(call["id"]), name="look") for call in calls]}

    async def after(state: MessagesState) -> str:
        last = state["messages"][-1]
        return "tools" if isinstance(last, AIMessage) and last.tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", tools)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", after, ["tools", END])
    graph.add_edge("tools", "ask")
    return graph.compile(**options)


class Heard:
    """What is heard in a conversation: the prompts of its models and functions."""

    def __init__(self) -> None:
        self.functions: list[list[BaseMessage]] = []
        self.models: list[ScriptedChatModel] = []

    def function(self, said: list[AIMessage]) -> Any:
        async def speak(messages: list[BaseMessage]) -> AIMessage:
            self.functions.append(list(messages))
            return said[len(self.functions) % len(said)]

        return speak

    def model(self, said: list[AIMessage]) -> ScriptedChatModel:
        self.models.append(ScriptedChatModel(said, cycle=True))
        return self.models[-1]

    @property
    def prompts(self) -> list[list[BaseMessage]]:
        return [*self.functions, *(prompt for model in self.models for prompt in model.prompts)]


def a_speaker(draw: Random, names: list[str], heard: Heard) -> Any:
    chooser = heard.model([AIMessage(word) for word in (*names, "nobody", "")])
    return draw.choice(
        [
            round_robin(),
            round_robin(),
            broadcast(),
            free(),
            random(1),
            selector(chooser, retries=1),
            mention(round_robin()),
            handoff(),
        ]
    )


def a_member(draw: Random, kind: str, heard: Heard) -> Any:
    said = [an_answer(draw) for _ in range(draw.randint(1, 3))]
    if kind == "person":
        return human()
    if kind == "function":
        return heard.function(said)
    if kind == "group":
        return ChatGroup({"x": heard.model(said)}, stop=max_turns(draw.randint(1, 2)))
    if kind in ("agent", "remembers"):
        # It ends: its last answer has no calls.
        return an_agent(heard.model([*said, AIMessage("Done.")]), checkpointer=True if kind == "remembers" else None)
    return heard.model(said)


KINDS = ["model", "model", "model", "function", "group", "agent", "remembers", "person"]


# About a minute of the processor, which a busy machine makes more of.
@pytest.mark.timeout(1500)
@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2**48))
def test_every_prompt_can_be_sent(seed: int) -> None:
    # One event loop for all examples: starting one takes as long as an example.
    for prompt in _loop().run_until_complete(prompts_of_a_conversation(seed)):
        assert why_refused(prompt) == [], (seed, prompt)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def prompts_of_a_conversation(seed: int) -> list[list[BaseMessage]]:
    draw, heard = Random(seed), Heard()
    names = draw.sample(NAMES, draw.randint(1, 3))
    kinds = [draw.choice(KINDS) for _ in names]
    inputs = [{"messages": a_transcript(draw)} for _ in range(draw.choice([1, 1, 2]))]
    saved = len(inputs) > 1 or "person" in kinds or "remembers" in kinds
    speaker = a_speaker(draw, names, heard)
    if speaker.is_free:
        # Who is cut off may have called a tool whose result its memory never gets.
        kinds = ["agent" if kind == "remembers" else kind for kind in kinds]
    group = ChatGroup(
        {name: a_member(draw, kind, heard) for name, kind in zip(names, kinds, strict=True)},
        speaker=speaker,
        stop=max_turns(draw.randint(1, 4)),
        # A canned id that the reply has dropped may come back: an agent with a memory takes it for the old message.
        visible_to=None if "remembers" in kinds else draw.choice([None, None, {names[0]: names[-1]}]),
        reply="transcript" if "remembers" in kinds else draw.choice(["last", "transcript"]),
        include_agent_name=draw.choice(["auto", "auto", "inline", None]),
        history=draw.choice([None, None, None, 1, 2]),
    )
    graph = group.compile(InMemorySaver() if saved else None)
    for given_input in inputs:
        if any(m.additional_kwargs.get("visible_to") for m in given_input["messages"]) and "ann" not in names:
            continue
        result = await graph.ainvoke(given_input, THREAD)
        # New words instead of an answer give a turn up, whose words an agent with a memory has and nobody else.
        for _ in range(20 if "remembers" in kinds else 2):
            if not result.get("__interrupt__"):
                break
            if draw.random() < 0.5:
                await graph.aupdate_state(THREAD, {"messages": [HumanMessage("A hint.")]})
            answers = {question.id: draw.choice(WORDS) for question in result["__interrupt__"]}
            result = await graph.ainvoke(Command(resume=answers), THREAD)
    return heard.prompts
