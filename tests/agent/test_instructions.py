"""Chat models with instructions: a system prompt, tools, a schema; the same as data; and what is refused."""

from __future__ import annotations

import json
import sys
from typing import Any, cast

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState
from pydantic import BaseModel, ValidationError

from agentmatrix import AgentSpec, ChatGroup, CyclicGraph, Dag, as_agent
from agentmatrix.errors import BuildError, MissingExtra, NotAnAgentError
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

LOOK = {"name": "look", "args": {"what": "bees"}}


class Verdict(BaseModel):
    """The verdict."""

    winner: str
    votes: int


class Judged(MessagesState):
    structured_response: Verdict


def look(what: str) -> str:
    """Look something up."""
    return f"{what} have six legs"


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


def talk(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]]


@pytest.mark.parametrize("prompt", ["Be short.", SystemMessage("Be short.")])
async def test_a_system_prompt_stands_in_front_of_each_call(prompt: Any) -> None:
    ann = model("one", "two")
    graph = Dag().add_node("ann", as_agent(ann, system_prompt=prompt)).compile()
    assert talk(graph.invoke({"messages": "hi"})) == [(None, "hi"), (None, "one")]
    assert talk(await graph.ainvoke({"messages": "hi"})) == [(None, "hi"), (None, "two")]
    assert [[(m.type, m.text) for m in p] for p in ann.prompts] == [[("system", "Be short."), ("human", "hi")]] * 2


def test_an_instructed_member_streams_and_has_its_name() -> None:
    ann = as_agent(model("a b"), system_prompt="Be short.", name="ann")
    group = ChatGroup([ann], stop=max_turns(1)).compile()
    parts = [
        (meta["langgraph_node"], chunk.text)
        for chunk, meta in group.stream({"messages": "hi"}, stream_mode="messages")
        if chunk.text
    ]
    assert parts == [("ann", "a "), ("ann", "b")]
    assert not isinstance(group.invoke({"messages": "hi"})["messages"][0], SystemMessage)


async def test_tools_run_in_a_loop_here_and_on_a_host() -> None:
    ann = model(LOOK, "They have six legs.")
    agent = as_agent(ann, system_prompt="Look things up.", tools=[look], name="ann")
    with loopback(agent) as remote:
        for member in (agent, remote):
            result = (
                ChatGroup({"ann": member}, stop=max_turns(1), reply="transcript").compile().invoke({"messages": "?"})
            )
            assert talk(result) == [(None, "?"), ("ann", "They have six legs.")]
            assert [m.text for m in ann.prompts[-1]] == ["Look things up.", "?", "", "bees have six legs"]


@pytest.mark.parametrize("id", [None, ""])
async def test_tool_calls_without_ids_get_some(id: str | None) -> None:
    calls = AIMessage("", tool_calls=[{**LOOK, "id": id, "type": "tool_call"}] * 2)
    agent = as_agent(model(calls, "They have six legs."), tools=[look], name="ann")
    for result in (agent.invoke({"messages": "?"}), await agent.ainvoke({"messages": "?"})):
        _, asked, one, two, _ = result["messages"]
        assert [call["id"] for call in asked.tool_calls] == [one.tool_call_id, two.tool_call_id]
        assert one.tool_call_id and one.tool_call_id != two.tool_call_id


class NamesNoCall(BaseChatModel):
    """A model of LangChain's usual kind that answers by the tools that it is given, and gives its calls no ids."""

    @property
    def _llm_type(self) -> str:
        return "names-no-call"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=tools)

    def _calls(self, messages: list[Any]) -> list[dict[str, Any]]:
        verdict = {"name": "Verdict", "args": {"winner": "bees", "votes": 3 if len(messages) > 2 else "many"}}
        return [{**verdict, "id": None, "type": "tool_call"}]

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage("", tool_calls=cast(Any, self._calls(messages))))]
        )

    def _stream(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        for call in self._calls(messages):
            for part in ({**call, "args": json.dumps(call["args"])[:9]}, {"args": json.dumps(call["args"])[9:]}):
                chunk = {"name": part.get("name"), "args": part["args"], "id": None, "index": 0}
                message = AIMessageChunk("", tool_call_chunks=[cast(Any, chunk)])
                yield ChatGenerationChunk(message=message)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_structured_answer_may_be_a_call_without_an_id(streams: bool) -> None:
    """The first one has a wrong number of votes: LangChain's agent says so, and asks again."""
    agent = as_agent(NamesNoCall(), response_format=Verdict, name="judge")
    given: Any = {"messages": "Who wins?"}
    if streams:
        results = [[*agent.stream(given, stream_mode=["messages", "values"])][-1][1]]
        results += [[part async for part in agent.astream(given, stream_mode=["messages", "values"])][-1][1]]
    else:
        results = [agent.invoke(given), await agent.ainvoke(given)]
    for result in results:
        assert result["structured_response"] == Verdict(winner="bees", votes=3)
        calls = [call["id"] for message in result["messages"] for call in getattr(message, "tool_calls", ())]
        answered = [message.tool_call_id for message in result["messages"] if isinstance(message, ToolMessage)]
        assert calls == answered and len({*calls}) == 2 and all(calls)


@pytest.mark.parametrize("tools", [None, [look]])
async def test_a_structured_answer_is_state_and_words_here_and_on_a_host(tools: Any) -> None:
    answers = [*([LOOK] if tools else []), {"name": "Verdict", "args": {"winner": "bees", "votes": 3}}]
    agent = as_agent(model(*answers), tools=tools, response_format=Verdict, name="judge")
    with loopback(agent, allow=[Verdict]) as remote:
        for judge in (agent, remote):
            result = Dag(Judged).add_node("judge", judge).compile().invoke({"messages": "Who wins?"})
            assert result["structured_response"] == Verdict(winner="bees", votes=3)
            assert (result["messages"][-1].name, result["messages"][-1].text) == (
                "judge",
                '{"winner":"bees","votes":3}',
            )
            group = ChatGroup({"judge": judge}, stop=max_turns(1)).compile()
            assert (await group.ainvoke({"messages": "?"}))["messages"][-1].text == '{"winner":"bees","votes":3}'


def test_instructions_are_for_chat_models() -> None:
    with pytest.raises(BuildError, match="are for a chat model, not for function: a graph or a function has"):
        as_agent(lambda state: "x", system_prompt="Be short.")
    with pytest.raises(BuildError, match="with tools bound to it: give the model, and its tools as tools="):
        as_agent(model("x").bind_tools([look]), tools=[look])
    with pytest.raises(BuildError, match="key=None"):
        as_agent(model("x"), key=None, system_prompt="Be short.")


def test_a_spec_alone_is_no_agent_yet() -> None:
    with pytest.raises(NotAnAgentError, match=r"AgentSpec.*is not compiled yet: .*call its compile"):
        as_agent(AgentSpec(name="ann"))


def test_without_langchain_tools_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.agents", None)
    with pytest.raises(MissingExtra, match="pip install 'langchain"):
        as_agent(model("x"), tools=[look])
    assert as_agent(model("x"), system_prompt="Be short.")


def test_a_member_with_bound_tools_is_refused() -> None:
    bound = model("x").bind_tools([look])
    for member in (bound, bound.with_config(tags=["x"]), model("x").with_fallbacks([model("y")]).bind(tools=[look])):
        with pytest.raises(BuildError, match=r"the member 'ann'.*'look'.*as_agent\(model, tools="):
            ChatGroup({"ann": member}).compile()
    searching = model("x").bind(tools=[{"type": "web_search"}])
    structured = model("x").with_structured_output(Verdict)
    ChatGroup({"ann": searching, "bob": structured}).compile()


# agents as data

SPEC = AgentSpec(name="ann", model="small", system_prompt="Look things up.", tools=["look"], max_model_calls=3)


def test_a_spec_is_data() -> None:
    assert AgentSpec.model_validate_json(SPEC.model_dump_json()) == SPEC
    with pytest.raises(ValidationError):
        AgentSpec(name="ann", tool=["look"])  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        AgentSpec(name="ann", max_model_calls=0)


@pytest.mark.parametrize("tools", [[look], {"look": look}])
def test_each_builder_resolves_specs(tools: Any) -> None:
    builders: list[Any] = [
        ChatGroup([SPEC], stop=max_turns(1)),
        Dag().add_node(SPEC),
        CyclicGraph().add_node("ann", SPEC).add_edge(START, "ann"),
        Dag().add_node("ann", SPEC, input_map=lambda state: state, output_map=lambda update: update),
    ]
    for builder in builders:
        ann = model(LOOK, "They have six legs.")
        result = builder.compile(models={"small": ann}, tools=tools).invoke({"messages": "?"})
        assert result["messages"][-1].text == "They have six legs."
        assert ann.prompts[0][0] == SystemMessage("Look things up.")
        with pytest.raises(BuildError, match="names the model 'small', which is unknown.*did you mean 'smal'"):
            builder.compile(models={"smal": ann}, tools=tools)
        with pytest.raises(BuildError, match=r"names the tool 'look', which is unknown.*compile\(tools="):
            builder.compile(models={"small": ann})
        assert builder.compile(models={"small": model("again")}, tools=tools).invoke({"messages": "?"})


def test_a_spec_without_tools_needs_no_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.agents", None)
    ann = model("hello")
    spec = AgentSpec(name="ann", system_prompt="Be short.")
    result = ChatGroup([spec], stop=max_turns(1)).compile(models={"default": ann}).invoke({"messages": "hi"})
    assert result["messages"][-1].text == "hello"
    assert ann.prompts == [[SystemMessage("Be short."), HumanMessage("hi", id=ann.prompts[0][1].id)]]


def test_a_spec_limits_the_calls_of_a_turn() -> None:
    spec = AgentSpec(name="ann", tools=["look"], max_model_calls=2)
    restless = model(LOOK)
    result = (
        ChatGroup([spec], stop=max_turns(1))
        .compile(models={"default": restless}, tools=[look])
        .invoke({"messages": "?"})
    )
    assert restless.calls == 2 and "limit" in result["messages"][-1].text
    spec = AgentSpec(name="ann", tools=["look"], max_tool_calls=1)
    eager = model(LOOK, LOOK, "enough")
    graph = Dag().add_node("ann", spec).compile(models={"default": eager}, tools=[look])
    result = graph.invoke({"messages": "?"})
    assert [m.status for m in result["messages"] if isinstance(m, ToolMessage)] == ["success", "error"]
    assert isinstance(result["messages"][-1], AIMessage) and result["messages"][-1].text == "enough"
