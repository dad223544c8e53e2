"""Every prompt that a member is given can be sent to every provider, whatever has been said, by whom and how."""

from __future__ import annotations

from typing import Any

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

EXAMPLES = 100
THREAD: Any = {"configurable": {"thread_id": "1"}}
PNG = "iVBORw0KGgo="
WORDS = [
    "Hello.",
    "@bob, your turn.",
    "ann",
    "",
    "  \n",
    "<think>Hm.</think>Yes.",
    "<think>only thoughts</think>",
    "zoë 李",
]
NAMES = ["ann", "bob", "Ann Smith", "x/y z", "zoë"]

texts = st.sampled_from(WORDS)
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


@st.composite
def answers(draw: st.DrawFn) -> AIMessage:
    """What a model answers."""
    content: Any = draw(st.one_of(texts, texts, st.lists(st.sampled_from(PARTS), max_size=3)))
    options: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        calls = [{"name": "look", "args": {}, "id": f"c{n}"} for n in range(draw(st.integers(1, 2)))]
        options["tool_calls"] = calls
    extra = draw(
        st.sampled_from(
            [{}, {}, {}, {"refusal": "No."}, {"audio": {"id": "a", "data": "UklGRg==", "transcript": "Said."}}]
        )
    )
    provider = draw(st.sampled_from(["", "openai", "anthropic", "google_genai"]))
    return AIMessage(
        content,
        additional_kwargs=extra,
        response_metadata={"model_provider": provider} if provider else {},
        id=draw(st.sampled_from([None, None, "same", "msg_1"])),
        **options,
    )


@st.composite
def transcripts(draw: st.DrawFn) -> list[BaseMessage]:
    """What has been said before the group begins."""
    messages: list[BaseMessage] = []
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["user", "user", "named", "system", "ai", "member", "tools", "parts", "for ann"]))
        if kind == "tools":
            calls = [{"name": "ann", "args": {}, "id": f"t{number}-{n}"} for n in range(draw(st.integers(1, 2)))]
            messages.append(
                AIMessage(draw(texts), tool_calls=calls, name=draw(st.sampled_from([None, "scout", "ann"])))
            )
            messages += [ToolMessage("42", tool_call_id=call["id"], name="ann") for call in calls]
        elif kind == "ai":
            messages.append(draw(answers()))
        elif kind == "member":
            messages.append(draw(answers()).model_copy(update={"name": draw(st.sampled_from([*NAMES, "scout"]))}))
        elif kind == "system":
            messages.append(SystemMessage(draw(texts)))
        elif kind == "parts":
            messages.append(HumanMessage(draw(st.lists(st.sampled_from(USER_PARTS), max_size=3))))
        else:
            name = draw(st.sampled_from([*NAMES, "Joe Doe"])) if kind == "named" else None
            extra = {"visible_to": ["ann"]} if kind == "for ann" else {}
            messages.append(HumanMessage(draw(texts), name=name, additional_kwargs=extra))
    # Some canned messages have one id, which `add_messages` would take for one message.
    return [
        m.model_copy(update={"id": None}) if m.id in [o.id for o in messages[:n]] else m for n, m in enumerate(messages)
    ]


def agent(model: ScriptedChatModel, **options: Any) -> Any:
    """An agent that calls its model again after the results of its tools, at most twice."""

    def ask(state: MessagesState) -> Any:
        answer = model.invoke(state["messages"])
        names = [call["id"] for call in answer.tool_calls]
        # An agent loop of one's own is only as good as its model: calls of one id twice could not be sent.
        return {"messages": [answer.model_copy(update={"id": None})]} if names else {"messages": [answer]}

    def tools(state: MessagesState) -> Any:
        calls = state["messages"][-1].tool_calls  # type: ignore[union-attr]
        return {"messages": [ToolMessage("42", tool_call_id=str(call["id"])) for call in calls]}

    def after(state: MessagesState) -> str:
        last = state["messages"][-1]
        results = sum(isinstance(m, ToolMessage) for m in state["messages"])
        return "tools" if isinstance(last, AIMessage) and last.tool_calls and results < 4 else END

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", tools)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", after, ["tools", END])
    graph.add_edge("tools", "ask")
    return graph.compile(**options)


class Heard:
    """The prompts that members were given."""

    def __init__(self) -> None:
        self.prompts: list[list[BaseMessage]] = []

    def function(self, said: list[AIMessage]) -> Any:
        def speak(messages: list[BaseMessage]) -> AIMessage:
            self.prompts.append(list(messages))
            return said[len(self.prompts) % len(said)]

        return speak


SPEAKERS = ["turns", "turns", "broadcast", "free", "random", "selector", "mention", "handoff"]


def speaker_of(kind: str, names: list[str]) -> Any:
    chooser = ScriptedChatModel([*names, "nobody", ""], cycle=True)
    return {
        "turns": round_robin(),
        "broadcast": broadcast(),
        "free": free(),
        "random": random(1),
        "selector": selector(chooser, retries=1),
        "mention": mention(round_robin()),
        "handoff": handoff(),
    }[kind]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Any, list[Any], Heard, bool]:
    """A group, what it is told run by run, and what its members hear."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    heard, members, models = Heard(), dict[str, Any](), list[ScriptedChatModel]()
    for name in names:
        said = draw(st.lists(answers(), min_size=1, max_size=3))
        kind = draw(st.sampled_from(["model", "model", "function", "group", "person"]))
        model = ScriptedChatModel(said, cycle=True)
        models.append(model)
        if kind == "function":
            members[name] = heard.function(said)
        elif kind == "group":
            members[name] = ChatGroup({"x": model}, stop=max_turns(draw(st.integers(1, 2))))
        else:
            members[name] = human() if kind == "person" and len(names) > 1 else model
    kind = draw(st.sampled_from(SPEAKERS))
    visible_to = draw(st.sampled_from([None, None, {names[0]: names[-1]}]))
    group = ChatGroup(
        members,
        speaker=speaker_of(kind, names),
        stop=max_turns(draw(st.integers(1, 4))),
        visible_to=visible_to,
        reply=draw(st.sampled_from(["last", "transcript"])),
        include_agent_name=draw(st.sampled_from(["auto", "auto", "inline", None])),
        history=draw(st.sampled_from([None, None, None, 1, 2])),
    )
    heard.models = models  # type: ignore[attr-defined]
    inputs = [{"messages": draw(transcripts())} for _ in range(draw(st.integers(1, 2)))]
    return group.compile(InMemorySaver()), inputs, heard, kind == "free"


@settings(max_examples=EXAMPLES)
@given(conversations(), texts)
def test_every_prompt_can_be_sent(conversation: Any, person: str) -> None:
    graph, inputs, heard, _ = conversation
    for given_input in inputs:
        result = graph.invoke(given_input, THREAD)
        for _ in range(4):
            if not result.get("__interrupt__"):
                break
            graph.update_state(THREAD, {"messages": [HumanMessage("A hint.")]})
            answers_to_all = {question.id: person for question in result["__interrupt__"]}
            result = graph.invoke(Command(resume=answers_to_all), THREAD)
    prompts = [*heard.prompts, *(prompt for model in heard.models for prompt in model.prompts)]
    for prompt in prompts:
        assert why_refused(prompt) == []
