"""A message has one id: the parts of a stream say the same as the state, also where models answer with ids that stand
for others already."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix.agent import as_agent
from agentmatrix.chat import ChatGroup
from agentmatrix.compose import Dag
from agentmatrix.speakers import broadcast, free, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
CANNED = AIMessage("the same words", id="canned")


def model() -> ScriptedChatModel:
    return ScriptedChatModel(CANNED, cycle=True)


def function() -> Any:
    speaks = model()

    def ask(messages: list[AnyMessage]) -> Any:
        return speaks.invoke(messages)

    return ask


def graph() -> Any:
    speaks = model()

    def ask(state: Any) -> Any:
        return {"messages": [speaks.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()


def team() -> Any:
    return ChatGroup({"x": model(), "y": model()}, stop=max_turns(2)).compile()


MEMBERS: dict[str, Any] = {
    "model": model,
    "instructed": lambda: as_agent(model(), system_prompt="Be brief."),
    "at once": lambda: FakeMessagesListChatModel(responses=[CANNED]),
    "cached": lambda: FakeMessagesListChatModel(responses=[CANNED], cache=InMemoryCache()),
    "function": function,
    "graph": graph,
    "team": team,
}


async def streamed(group: Any, sync: bool) -> tuple[dict[Any, str], list[AIMessage]]:
    """By namespace and id, the words that were streamed, and the messages in the state at the end."""
    words: dict[Any, str] = defaultdict(str)
    values: dict[str, Any] = {}
    options: Any = {"stream_mode": ["messages", "values"], "subgraphs": True}

    def take(part: Any) -> None:
        namespace, mode, payload = part
        if mode == "values":
            values.update(payload if not namespace else {})
        elif isinstance(payload[0], AIMessage | AIMessageChunk):
            words[namespace, payload[0].id] += payload[0].text

    if sync:
        for part in group.stream({"messages": "Go."}, THREAD, **options):
            take(part)
    else:
        async for part in group.astream({"messages": "Go."}, THREAD, **options):
            take(part)
    return dict(words), [message for message in values["messages"] if isinstance(message, AIMessage)]


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("saved", [False, True], ids=["", "saved"])
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=lambda speaker: speaker.label)
@pytest.mark.parametrize("kind", [kind for kind in MEMBERS if kind != "team"])
async def test_each_message_is_streamed_under_its_id(kind: str, speaker: Any, saved: bool, sync: bool) -> None:
    members = {name: MEMBERS[kind]() for name in ("ann", "bob")}
    group = ChatGroup(members, speaker=speaker, stop=max_turns(2), reply="transcript").compile(
        InMemorySaver() if saved else None
    )
    words, said = await streamed(group, sync)
    assert len(said) > 1
    ids = sorted(str(message.id) for message in said)
    if speaker.is_free:  # The stop cuts off who is still speaking.
        words = {key: text for key, text in words.items() if key[1] in ids}
    assert sorted(id for _, id in words) == ids
    assert set(words.values()) == {"the same words"}


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=lambda speaker: speaker.label)
@pytest.mark.parametrize("kind", [kind for kind in MEMBERS if kind != "team"])
async def test_an_event_stream_has_each_message_once(kind: str, speaker: Any, sync: bool) -> None:
    members = {name: MEMBERS[kind]() for name in ("ann", "bob")}
    group = ChatGroup(members, speaker=speaker, stop=max_turns(2), reply="transcript").compile()
    if sync:
        run = group.stream_events({"messages": "Go."}, version="v3")
        events, values = list(run), run.output
    else:
        arun = await group.astream_events({"messages": "Go."}, version="v3")
        events = [event async for event in arun]
        values = await arun.output()
    parts = [event["params"]["data"][0] for event in events if event["method"] == "messages"]
    begun = [part if isinstance(part, dict) else part.model_dump() for part in parts]
    ids = [
        part.get("id") or part["message_id"] for part in begun if part.get("event", "message-start") == "message-start"
    ]
    kept = [message.id for message in (values or {})["messages"][1:]]
    if speaker.is_free:  # The stop cuts off who is still speaking.
        ids = [id for id in ids if id in kept]
    assert sorted(ids) == sorted(kept)


@pytest.mark.parametrize("kind", MEMBERS)
async def test_a_team_says_its_reply_under_the_id_it_has_inside(kind: str) -> None:
    inner = ChatGroup({"x": MEMBERS[kind](), "y": MEMBERS[kind]()}, stop=max_turns(2), reply="transcript")
    group = ChatGroup({"team": inner, "ann": model()}, stop=max_turns(2), reply="transcript").compile()
    words, said = await streamed(group, sync=False)
    assert len(said) == 3
    ids = {message.id for message in said}
    assert ids <= {id for _, id in words}
    assert {text for (_, id), text in words.items() if id in ids} == {"the same words"}


@pytest.mark.parametrize("kind", ["graph", "team"])
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=lambda speaker: speaker.label)
async def test_a_member_on_a_host_is_streamed_alike(speaker: Any, kind: str) -> None:
    with loopback(MEMBERS[kind]()) as remote:
        group = ChatGroup({"ann": remote, "bob": model()}, speaker=speaker, stop=max_turns(2), reply="transcript")
        for outer in (group.compile(), Dag().add_node("panel", group).compile()):
            words, said = await streamed(outer, sync=False)
            ids = {message.id for message in said} & {id for _, id in words}
            assert ids and {text for (_, id), text in words.items() if id in ids} == {"the same words"}
