"""What members are asked with must be something that the providers take.

The payloads are those that LangChain's own converters make (langchain-openai, langchain-anthropic); nothing is sent.
The rules are those that the providers' public documentation and error messages state.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import create_react_agent

from agentmatrix import ChatGroup
from agentmatrix.speakers import mention, round_robin, selector
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent")

THREAD: Any = {"configurable": {"thread_id": "1"}}


def says(*answers: Any, cycle: bool = False) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=cycle)


def chat_payload(prompt: list[Any]) -> list[dict[str, Any]]:
    model = ChatOpenAI(model="gpt-5", api_key="none")
    return model._get_request_payload(prompt)["messages"]


def responses_payload(prompt: list[Any]) -> list[dict[str, Any]]:
    model = ChatOpenAI(model="gpt-5", api_key="none", use_responses_api=True)
    return model._get_request_payload(prompt)["input"]


def claude_payload(prompt: list[Any]) -> list[dict[str, Any]]:
    model = ChatAnthropic(model="claude-sonnet-4-6", api_key="none")
    return model._get_request_payload(prompt)["messages"]


def broken_in_chat(messages: list[dict[str, Any]]) -> list[str]:
    """What the chat completions API would refuse."""
    broken, asked = [] if messages else ["no messages"], set()
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in asked:
                broken.append(f"{index}: role 'tool' without a preceding call {message['tool_call_id']}")
            asked.discard(message["tool_call_id"])
            continue
        broken += [f"{index}: the call {call} has no answer" for call in sorted(asked)]
        asked = {call["id"] for call in message.get("tool_calls") or ()}
        if (name := message.get("name")) and not re.fullmatch(r"[^\s<|\\/>]{1,64}", name):
            broken.append(f"{index}: the name {name!r} does not match the pattern")
        if isinstance(message.get("content"), list):
            known = (
                {"text", "refusal"} if message["role"] == "assistant" else {"text", "image_url", "input_audio", "file"}
            )
            types = [part["type"] for part in message["content"]]
            broken += [f"{index}: {message['role']} content of type {kind!r}" for kind in types if kind not in known]
            broken += [] if types else [f"{index}: empty content"]
    return broken


def broken_in_responses(items: list[dict[str, Any]]) -> list[str]:
    """What the responses API would refuse."""
    calls = [item["call_id"] for item in items if item["type"] == "function_call"]
    outputs = [item["call_id"] for item in items if item["type"] == "function_call_output"]
    broken = [f"no tool output found for function call {call}" for call in calls if call not in outputs]
    return broken + [f"no tool call found for function call output {call}" for call in outputs if call not in calls]


def broken_at_claude(messages: list[dict[str, Any]], *, prefill: bool = True) -> list[str]:
    """What the messages API would refuse."""
    broken, uses = [] if messages else ["no messages"], set()
    for index, message in enumerate(messages):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        kinds = {block["type"] for block in blocks}
        known = {"text", "image", "document", "tool_result", "search_result"}
        if message["role"] == "user" and kinds - known:
            broken.append(f"{index}: blocks {sorted(kinds - known)} in a user message")
        broken += [f"{index}: empty text" for b in blocks if b["type"] == "text" and not b["text"].strip()]
        broken += [
            f"{index}: tool_result {b['tool_use_id']} without its tool_use"
            for b in blocks
            if b["type"] == "tool_result" and b["tool_use_id"] not in uses
        ]
        uses = {b["id"] for b in blocks if b["type"] == "tool_use"}
    if not prefill and messages and messages[-1]["role"] == "assistant":
        broken.append("the conversation must end with a user message")
    return broken


def valid(prompt: list[Any]) -> None:
    assert broken_in_chat(chat_payload(prompt)) == []
    assert broken_in_responses(responses_payload(prompt)) == []
    assert broken_at_claude(claude_payload(prompt)) == []


# tool messages


def looked_up(author: str = "scout", tool: str = "weather") -> list[AnyMessage]:
    call = {"name": tool, "args": {}, "id": "c1", "type": "tool_call"}
    return [
        HumanMessage("Will it rain?"),
        AIMessage("", tool_calls=[call], name=author),
        ToolMessage("sunny", tool_call_id="c1", name=tool),
        AIMessage("It stays dry.", name=author),
    ]


def test_a_transcript_with_tool_calls_of_somebody_else() -> None:
    """microsoft/agent-framework#3105, camel-ai/camel#3339: what an earlier agent's tools left behind reaches the next
    agent as a tool message without its call."""
    bob = says("So I can leave the umbrella.")
    ChatGroup({"bob": bob}, stop=max_turns(1)).compile().invoke({"messages": looked_up()})
    valid(bob.prompts[0])


def test_a_tool_message_is_nobodys_words() -> None:
    """VRSEN/agency-swarm#341: the result of a tool that is named as a member is given to that member as its own
    words."""
    search = says("Yes.")
    group = ChatGroup({"search": search, "bob": says("Well.")}, stop=max_turns(1))
    group.compile().invoke({"messages": looked_up(tool="search")})
    assert not any(isinstance(m, AIMessage) and m.text == "sunny" for m in search.prompts[0])


@pytest.mark.parametrize("place", [lambda graph: graph, loopback], ids=["here", "remote"])
def test_a_member_that_keeps_its_own_memory(place: Any) -> None:
    """microsoft/agent-framework#4411: an agent with a history of its own is given the group's as well, and the two
    together have a tool result without its call."""

    @tool
    def lookup() -> str:
        """Look it up."""
        return "42"

    model = says(
        AIMessage("Let me look.", tool_calls=[{"name": "lookup", "args": {}, "id": "c1"}]), "It is 42.", "Still 42."
    )
    ann = place(create_react_agent(model, [lookup], checkpointer=True))
    group = ChatGroup({"ann": ann, "bob": says("Sure?", cycle=True)}, stop=max_turns(3))
    group.compile(checkpointer=InMemorySaver()).invoke({"messages": "How many?"}, THREAD)
    assert len(model.prompts) == 3
    valid(model.prompts[-1])


def test_the_transcript_has_no_calls_after_a_handoff() -> None:
    """openai/openai-agents-python#972, microsoft/agent-framework#3046: what the next agent sees has neither the call of
    the handoff tool nor its answer."""
    ann = says(AIMessage("I look it up.", tool_calls=[{"name": "w", "args": {}, "id": "c1"}]))
    bob = says("Well.")
    ChatGroup({"ann": ann, "bob": bob}, stop=max_turns(2)).compile().invoke({"messages": "Go."})
    valid(bob.prompts[0])


# blocks


def as_heard(content: Any, **kwargs: Any) -> list[Any]:
    ann, bob = says(AIMessage(content, **kwargs)), says("Well.")
    ChatGroup({"ann": ann, "bob": bob}, stop=max_turns(2)).compile().invoke({"messages": "Go."})
    return bob.prompts[0]


TEXT = {"type": "text", "text": "Hello."}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "name": "w", "arguments": "{}", "call_id": "c1", "id": "fc_1"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "executable_code", "language": "PYTHON", "executable_code": "1"},
        {"type": "refusal", "refusal": "No."},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "tool_use", "id": "t1", "name": "w", "input": {}},
    ],
    ids=lambda block: block["type"],
)
def test_what_others_thought_is_not_sent_as_a_persons_words(block: dict[str, Any]) -> None:
    """openai/openai-agents-python#569, #2885 (pull request): blocks that only an assistant may have, of a model that
    thinks or has tools at its provider, are sent on to the next agent, whose provider refuses them."""
    valid(as_heard([block, TEXT]))


@pytest.mark.parametrize(
    "content", [[{**TEXT, "text": ""}], [{"type": "thinking", "thinking": "hm", "signature": "s"}]]
)
def test_an_answer_of_blocks_without_words_is_silence(content: Any) -> None:
    """microsoft/agent-framework#7573: a response that cleans to nothing. Here: no empty message goes on."""
    assert [m.text for m in as_heard(content)] == ["Go."]


def test_own_calls_of_the_responses_api_do_not_come_back() -> None:
    """microsoft/agent-framework#3105: "No tool output found for function call", when the agent has its next turn."""
    call = {"type": "function_call", "name": "w", "arguments": "{}", "call_id": "c1", "id": "fc_1"}
    ann = says(
        AIMessage(
            [TEXT, call],
            tool_calls=[{"name": "w", "args": {}, "id": "c1"}],
            response_metadata={"model_provider": "openai"},
        ),
        "Again.",
    )
    ChatGroup({"ann": ann, "bob": says("Well.")}, stop=max_turns(3)).compile().invoke({"messages": "Go."})
    valid(ann.prompts[1])


def test_pictures_reach_the_others() -> None:
    """microsoft/autogen#1142, #628: multi-modal messages between agents keep their parts."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    prompt = as_heard([TEXT, picture])
    valid(prompt)
    assert claude_payload(prompt)[-1]["content"][-1]["type"] == "image"


# names


@pytest.mark.parametrize(
    "name", ["Ann Smith", "ann/critic", "Ann\nSmith", "x" * 10_000], ids=["space", "slash", "line", "10,000 letters"]
)
def test_a_name_that_the_provider_refuses(name: str) -> None:
    """microsoft/autogen#668, #4157: a name with a space is accepted here, and refused by the provider in the middle of
    the conversation, by an error that does not name the agent. Said at build time, or made harmless, it would hold."""
    bob = says("Well.")
    try:
        ChatGroup({name: says("Hello."), "bob": bob}, stop=max_turns(2)).compile().invoke({"messages": "Go."})
    except ValueError as error:
        assert repr(name)[:20] in str(error)
        return
    assert broken_in_chat(chat_payload(bob.prompts[0])) == []


@pytest.mark.parametrize("payload", [chat_payload, responses_payload, claude_payload])
def test_who_said_what_reaches_the_model(payload: Any) -> None:
    """microsoft/autogen#2989, #5401: most providers drop the name of a message, so that nobody can tell who spoke."""
    bob = says("Well.")
    group = ChatGroup({"ann": says("Monday."), "eve": says("Tuesday."), "bob": bob}, stop=max_turns(3))
    group.compile().invoke({"messages": "Which day?"})
    sent = str(payload(bob.prompts[0]))
    assert "ann" in sent and "eve" in sent


def test_an_assistants_earlier_answer_is_not_the_users() -> None:
    """microsoft/autogen#86, #2989: the sibling: what an assistant without a name has said before is shown to every
    member as words of the user."""
    bob = says("Well.")
    before = [HumanMessage("Which day?"), AIMessage("Monday is free."), HumanMessage("Are you sure?")]
    ChatGroup({"bob": bob}, stop=max_turns(1)).compile().invoke({"messages": before})
    shown = bob.prompts[0][1]
    assert shown.text == "Monday is free." and (isinstance(shown, AIMessage) or shown.name)


# the last message


def twice_in_a_row(case: str) -> ScriptedChatModel:
    ann, bob = says("a @ann", cycle=True), says("", cycle=True)
    speaker = {
        "silent": round_robin(),
        "selector": selector(says("ann", cycle=True)),
        "mention": mention(fallback=round_robin()),
    }.get(case, round_robin())
    members = {"ann": ann} if case == "alone" else {"ann": ann, "bob": bob}
    ChatGroup(members, speaker=speaker, stop=max_turns(4)).compile().invoke({"messages": "Go."})
    return ann


@pytest.mark.parametrize("case", ["silent", "selector", "mention", "alone"])
def test_a_member_that_speaks_again_is_not_asked_with_its_own_last_words(case: str) -> None:
    """microsoft/autogen#7471, #6172 (repeated speakers), jikig-ai/soleur#3250: the prompt ends with the model's own
    words, which current Claude models refuse ("the conversation must end with a user message"), and so does
    Mistral."""
    ann = twice_in_a_row(case)
    assert len(ann.prompts) > 1
    assert [why for p in ann.prompts for why in broken_at_claude(claude_payload(p), prefill=False)] == []


def test_nobody_is_asked_with_nothing() -> None:
    """microsoft/agent-framework#7573: a participant is invoked with no messages at all, which providers refuse. Here:
    all that was said is for others' ears."""
    bob = says("Well.")
    told = HumanMessage("For ann only.", additional_kwargs={"visible_to": ["ann"]})
    try:
        ChatGroup({"bob": bob, "ann": says("Yes.")}, stop=max_turns(1)).compile().invoke({"messages": [told]})
    except ValueError as error:
        assert "bob" in str(error)
        return
    assert all(bob.prompts)
