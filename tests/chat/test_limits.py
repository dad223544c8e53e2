"""Who hears what in a chat group, and what ends it: audiences, budgets, silence, mentions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from agentmatrix import Host, RemoteAgent
from agentmatrix.chat import ChatGroup
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.speakers import broadcast, free, handoff, mention, round_robin, selector
from agentmatrix.stops import budget, max_turns, says, silence, when
from agentmatrix.testing.scripted import ScriptedChatModel

THREAD: Any = {"configurable": {"thread_id": "1"}}
SECRET = "the vault is in the cellar"


def model(*answers: Any, **options: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True, **options)


def whole(members: Any, **options: Any) -> Any:
    return ChatGroup(members, reply="transcript", **options).compile()


def talk(result: Any) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]]


def whisper(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage(SECRET, additional_kwargs={"visible_to": ["bob"]})


@pytest.mark.parametrize("rule", [None, {"ann": "bob"}, lambda message: ["bob"] if message.name == "ann" else None])
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()])
async def test_what_is_for_one_is_in_nobody_elses_prompt(rule: Any, speaker: Any) -> None:
    bob, eve = model("I am bob"), model("I am eve")
    ann: Any = whisper if rule is None else model(SECRET)
    group = whole({"ann": ann, "bob": bob, "eve": eve}, speaker=speaker, stop=max_turns(6), visible_to=rule)
    result = await group.ainvoke({"messages": "go"})
    assert SECRET in str(bob.prompts) and SECRET not in str(eve.prompts)
    assert "visible_to" not in str(bob.prompts) and "I am bob" in str(eve.prompts)
    assert SECRET not in str(result["messages"])


def test_a_selector_hears_what_everybody_hears() -> None:
    chooser = model("bob")
    members = {"ann": whisper, "bob": model("here")}
    ann_first = selector(chooser, fallback=round_robin())
    group = whole(members, speaker=lambda state: "ann" if len(state["messages"]) == 1 else "bob", stop=max_turns(2))
    group.invoke({"messages": "go"})
    whole({"ann": whisper, "bob": whisper}, speaker=ann_first, stop=max_turns(3)).invoke({"messages": "go"})
    assert SECRET not in str(chooser.prompts)


class Tap:
    """A TCP proxy that keeps every byte that passes it, both ways."""

    def __init__(self, port: int) -> None:
        self.bytes = b""
        self._target = port
        self._server: asyncio.Server

    async def __aenter__(self) -> Tap:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._copy(reader, there_writer), self._copy(there_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.bytes += data
            writer.write(data)
        writer.close()


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()])
@pytest.mark.parametrize("saver", [None, True])
async def test_what_is_for_others_is_in_no_byte_on_the_wire(speaker: Any, saver: Any) -> None:
    def once(text: str) -> ScriptedChatModel:
        return ScriptedChatModel([text] + [""] * 20)

    with Host({"eve": once("I am eve")}) as host:
        async with Tap(int(host.address.rpartition(":")[2])) as tap:
            async with RemoteAgent(f"127.0.0.1:{tap.port}/eve") as eve:
                members = {"ann": once(SECRET), "bob": once("I am bob"), "eve": eve}
                group = ChatGroup(members, speaker=speaker, stop=max_turns(6), visible_to={"ann": "bob"})
                compiled = group.compile(checkpointer=InMemorySaver() if saver else None)
                await compiled.ainvoke({"messages": "a public word"}, THREAD)
                assert SECRET in str(members["bob"].prompts)
    assert b"a public word" in tap.bytes and b"I am bob" in tap.bytes
    assert SECRET.encode() not in tap.bytes


def test_a_whisper_to_nobody_is_said() -> None:
    def lost(messages: list[BaseMessage]) -> AIMessage:
        return AIMessage("psst", additional_kwargs={"visible_to": ["ghost"]})

    with pytest.raises(SpeakerError, match="'ann'.*'ghost'.*not in the group.*ann, bob"):
        whole({"ann": lost, "bob": model("x")}).invoke({"messages": "go"})


def test_budgets_of_tokens_and_calls_count_members_and_selectors() -> None:
    members = {"ann": model("one two three", usage=True), "bob": model("one two three", usage=True)}
    result = whole(members, stop=budget(tokens=20)).invoke({"messages": "go"})
    assert (len(result["messages"]), result["stop_reason"]) == (4, "budget(tokens=20)")
    result = whole(members, stop=budget(calls=3)).invoke({"messages": "go"})
    assert (len(result["messages"]), result["stop_reason"]) == (4, "budget(calls=3)")
    result = whole(members, speaker=selector(model("bob")), stop=budget(calls=4)).invoke({"messages": "go"})
    assert len(result["messages"]) == 3


@pytest.mark.parametrize("speaker", [broadcast(), free()])
async def test_a_model_that_reports_no_usage_is_estimated(speaker: Any) -> None:
    members = {"ann": model("a" * 40), "bob": model("b" * 40)}
    result = await whole(members, speaker=speaker, stop=budget(tokens=20)).ainvoke({"messages": "go"})
    assert (len(result["messages"]), result["stop_reason"]) == (3, "budget(tokens=20)")


def test_a_budget_of_seconds_leaves_out_the_time_of_a_pause() -> None:
    def person(state: Any) -> Any:
        return interrupt("?")

    group = ChatGroup({"ann": model("x"), "person": person}, stop=budget(seconds=3600) | max_turns(2))
    compiled = group.compile(checkpointer=InMemorySaver())
    compiled.invoke({"messages": "go"}, THREAD)
    assert compiled.invoke(Command(resume="y"), THREAD)["stop_reason"] == "max_turns(2)"


@pytest.mark.parametrize("wrong", [{}, {"dollars": 3}, {"tokens": 0}, {"calls": "many"}, {"seconds": -1.0}])
def test_a_wrong_budget_is_said(wrong: Any) -> None:
    with pytest.raises(BuildError, match="budget"):
        budget(**wrong)


@pytest.mark.parametrize("speaker", [round_robin(), broadcast()])
def test_silence_ends_it(speaker: Any) -> None:
    members = {"ann": ScriptedChatModel(["x", "", ""]), "bob": ScriptedChatModel(["", "", ""])}
    result = whole(members, speaker=speaker, stop=silence()).invoke({"messages": "go"})
    assert (talk(result)[1:], result["stop_reason"], result["last_speaker"]) == ([("ann", "x")], "silence", "ann")
    result = whole({"ann": model("")}, stop=silence(3)).invoke({"messages": "go"})
    assert result["stop_reason"] == "silence(3)"


def test_an_override_of_one_turn_is_used_up_by_it() -> None:
    bob = ScriptedChatModel(["", "", ""])
    members = {"ann": ScriptedChatModel(["ask @bob", "again", "end"]), "bob": bob, "eve": model("eve")}
    result = whole(members, speaker=mention(round_robin()), stop=max_turns(4)).invoke({"messages": "go"})
    assert [name for name, _ in talk(result)[1:]] == ["ann", "eve", "ann"] and bob.calls == 1

    def hands_over(state: Any) -> Command[Any]:
        return Command(goto="eve", update={"messages": [AIMessage("to eve")]})

    silent = {"ann": hands_over, "bob": model("bob"), "eve": model("")}
    result = whole(silent, stop=max_turns(4)).invoke({"messages": "go"})
    assert [name for name, _ in talk(result)[1:]] == ["ann", "ann"]


def test_mentions_find_the_longest_name_and_leave_strangers_alone() -> None:
    members = {"ann": model("@ghost and @bob-2!"), "bob": model("never"), "bob-2": model("me")}
    result = whole(members, speaker=mention()).invoke({"messages": "@ann"})
    assert (talk(result)[1:], result["stop_reason"]) == (
        [("ann", "@ghost and @bob-2!"), ("bob-2", "me")],
        "mention chose nobody",
    )


@pytest.mark.parametrize(
    "options",
    [
        {"speaker": handoff("ghost")},
        {"speaker": selector(model("x"), descriptions={"ghost": "?"})},
        {"stop": says("x", by="ghost") | max_turns(3)},
        {"visible_to": {"ann": ["ghost"]}},
        {"visible_to": {"ghost": "ann"}},
    ],
)
def test_a_name_that_is_not_in_the_group_is_said_at_build_time(options: Any) -> None:
    with pytest.raises(BuildError, match="'ghost'.*not in the group"):
        whole({"ann": model("x")}, **options)


def test_a_message_of_a_person_may_have_an_audience() -> None:
    ann, bob = model("a"), model("b")
    only_bob = HumanMessage(SECRET, additional_kwargs={"visible_to": "bob"})
    whole({"ann": ann, "bob": bob}, stop=max_turns(2)).invoke({"messages": [only_bob]})
    assert SECRET in str(bob.prompts) and SECRET not in str(ann.prompts)


@pytest.mark.parametrize(
    ("make", "says_what"),
    [
        (lambda members: ChatGroup(members, stop=max_turns("3")), "max_turns"),
        (lambda members: ChatGroup(members, max_turns="3"), "max_turns"),
        (lambda members: ChatGroup(members, stop=when(5)), "when"),
        (lambda members: ChatGroup(members, stop=says(5)), "says"),
        (lambda members: ChatGroup(members, stop=silence("x")), "silence"),
        (lambda members: ChatGroup(members, speaker=selector("gpt")), "chat model"),
        (lambda members: ChatGroup(members, speaker=selector(members["ann"], retries=-1)), "retries"),
        (lambda members: ChatGroup(members, speaker=round_robin), "call it"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(make: Any, says_what: str) -> None:
    with pytest.raises(BuildError, match=says_what):
        make({"ann": ScriptedChatModel("hi", cycle=True), "bob": ScriptedChatModel("ho", cycle=True)})


def test_an_audience_that_is_none_is_said() -> None:
    members = {"ann": ScriptedChatModel("hi", cycle=True), "bob": ScriptedChatModel("ho", cycle=True)}
    with pytest.raises(SpeakerError, match="visible_to gives 5"):
        ChatGroup(members, visible_to=lambda message: 5).compile().invoke({"messages": "go"})
