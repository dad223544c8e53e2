"""Words into a running group: heard from the next turn on, acknowledged when they are saved, never lost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, MessagesState
from langgraph.types import Command

from agentmatrix.chat import ChatGroup, live_messages
from agentmatrix.chat.authorship import without_inline_name
from agentmatrix.compose import Dag
from agentmatrix.errors import SignalError
from agentmatrix.speakers import broadcast, free, handoff, mention, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a group has a signal, also a group on the host of a loopback."""
    event, receive = threading.Event(), live_messages._Receiver.receive

    def receive_and_say_so(self: Any, signal: Any) -> None:
        receive(self, signal)
        event.set()

    monkeypatch.setattr(live_messages._Receiver, "receive", receive_and_say_so)
    return event


class Pauses:
    """A member that waits in its first turn until it is let go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.heard: list[list[str]] = []

    def __call__(self, messages: list[BaseMessage]) -> str:
        self.heard.append([message.text for message in messages])
        self.begun.set()
        assert self.go_on.wait(60)
        return f"turn {len(self.heard)}" if len(self.heard) < 3 else ""


def talk(result: Any) -> list[str]:
    return [message.text for message in result["messages"]]


SHAPES = ["group", "in a dag", "in a group", "hosted", "hosted in a dag"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["bare", "saved"])
async def test_words_are_heard_from_the_next_turn_on(
    shape: str, sync: bool, saver: Any, arrived: threading.Event
) -> None:
    ann = Pauses()
    bob = ScriptedChatModel(["b1", "b2"], cycle=True)
    group: Any = ChatGroup(
        {"ann": ann, "bob": bob}, include_agent_name=None, stop=max_turns(4), reply="transcript"
    ).compile()
    address = "messages"
    with loopback(group) as remote:
        if shape.startswith("hosted"):
            group = remote
        if shape.endswith("dag"):
            group, address = Dag().add_node("panel", group).compile(), "panel/messages"
        if shape == "in a group":
            outer = ChatGroup({"panel": group}, stop=max_turns(1), reply="transcript")
            group, address = outer.compile(), "panel/messages"
        graph = group.copy({"checkpointer": saver()}) if saver else group
        if sync:
            await asyncio.to_thread(in_a_sync_run, graph, ann, address, arrived)
        else:
            async with graph.live({"messages": "Find a day."}, THREAD) as run:
                await asyncio.to_thread(ann.begun.wait, 60)
                sent = asyncio.create_task(run.signal(address, "Not Monday!"))
                await asyncio.to_thread(arrived.wait, 60)
                ann.go_on.set()
                await sent
            await run.result()
    assert [without_inline_name(m.text) for m in bob.prompts[0]] == ["Find a day.", "turn 1", "Not Monday!"]
    assert isinstance(bob.prompts[0][-1], HumanMessage)
    assert ann.heard[1] == ["Find a day.", "turn 1", "Not Monday!", "b1"]


def in_a_sync_run(graph: Any, ann: Pauses, address: str, arrived: threading.Event) -> None:
    with graph.live({"messages": "Find a day."}, THREAD) as run:
        assert ann.begun.wait(60)
        future = run._send(address, "Not Monday!", "one")
        assert arrived.wait(60)
        ann.go_on.set()
        future.result(60)
    run.result()


@pytest.mark.parametrize("last", ["", "Fine.", "@ann?"], ids=["silent", "words", "mention"])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
async def test_a_member_that_they_mention_is_next(last: str, several: bool, arrived: threading.Event) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def ann(messages: list[AnyMessage]) -> str:
        begun.set()
        assert go_on.wait(60)
        return last

    members = {"ann": ann, "bob": ScriptedChatModel("b", cycle=True), "eve": ScriptedChatModel("e", cycle=True)}
    group = ChatGroup(members, speaker=mention(lambda state: "ann"), stop=max_turns(2), reply="transcript").compile()
    said = ["@eve, what do you think?", "And you, @Bob?"] if several else "What does @bob think?"
    async with group.live({"messages": "Find a day."}) as run:
        await asyncio.to_thread(begun.wait, 60)
        sent = asyncio.create_task(run.signal("messages", said))
        await asyncio.to_thread(arrived.wait, 60)
        go_on.set()
        await sent
    speakers = [message.name for message in (await run.result())["messages"] if message.name]
    named = ["bob", "eve"] if several else ["bob"]
    assert speakers == [*(["ann"] if last else []), *(["ann"] if "@" in last else []), *named]


def test_a_member_that_an_edit_mentions_is_next() -> None:
    bob = ScriptedChatModel("b", cycle=True)
    members = {"ann": ScriptedChatModel("a", cycle=True), "bob": bob}
    group = ChatGroup(members, speaker=mention(lambda state: "ann"), stop=max_turns(2))
    graph = group.compile(InMemorySaver(), interrupt_after=["ann"])
    graph.invoke({"messages": "Find a day."}, THREAD)
    graph.update_state(THREAD, {"messages": [HumanMessage("@bob?")]})
    assert graph.invoke(None, THREAD)["last_speaker"] == "bob"


def test_words_are_in_the_state_that_is_saved_when_they_are_acknowledged() -> None:
    ann, saver = Pauses(), InMemorySaver()
    group = ChatGroup({"ann": ann}, stop=max_turns(2), reply="transcript").compile(saver)
    with group.live({"messages": "Find a day."}, THREAD, durability="sync") as run:
        assert ann.begun.wait(60)
        seen: list[bool] = []
        future = run._send("messages", HumanMessage("Not Monday!", name="joe", id="j"), "one")
        future.add_done_callback(lambda done: seen.append("j" in str(saver.get_tuple(THREAD))))
        ann.go_on.set()
    assert seen == [True]
    said = run.result()["messages"]
    assert [(m.name, m.text) for m in said] == [
        (None, "Find a day."),
        ("ann", "turn 1"),
        ("joe", "Not Monday!"),
        ("ann", "turn 2"),
    ]


def test_a_signal_that_is_sent_again_counts_once() -> None:
    ann = Pauses()
    group = ChatGroup({"ann": ann}, stop=max_turns(2), reply="transcript").compile()
    with group.live({"messages": "Find a day."}) as run:
        assert ann.begun.wait(60)
        futures = [run._send("messages", "Not Monday!", "same") for _ in range(2)]
        ann.go_on.set()
        for future in futures:
            future.result(60)
    assert talk(run.result()) == ["Find a day.", "turn 1", "Not Monday!", "turn 2"]


@pytest.mark.parametrize("value", [3, None, "", [], AIMessage("x"), {"x": 1}, [AIMessage("x")], object()])
def test_what_is_no_word_of_a_person_is_refused(value: Any) -> None:
    ann = Pauses()
    with ChatGroup({"ann": ann}, stop=max_turns(1)).compile().live({"messages": "?"}) as run:
        assert ann.begun.wait(60)
        try:
            with pytest.raises(SignalError, match="takes a text, a human message or a list of them, not"):
                run.signal("messages", value)
        finally:
            ann.go_on.set()


def test_after_the_end_words_are_refused() -> None:
    group = ChatGroup({"ann": ScriptedChatModel("x")}, stop=max_turns(1)).compile()
    with group.live({"messages": "?"}) as run:
        run.result()
        with pytest.raises(SignalError, match="the run has ended"):
            run.signal("messages", "Too late.")
    with pytest.raises(SignalError, match="no graph declares the signal 'massages' .did you mean 'messages'"):
        with group.live({"messages": "?"}) as run:
            run.signal("massages", "x")


def test_other_states_and_forms_of_words() -> None:
    class Minutes(MessagesState):
        topic: str

    ann = Pauses()
    group = ChatGroup({"ann": ann}, stop=max_turns(2), state_schema=Minutes, reply="transcript").compile()
    with group.live({"messages": "?", "topic": "bees"}) as run:
        assert ann.begun.wait(60)
        first = run._send("messages", ["One.", HumanMessage("Two.")], "1")
        second = run._send("messages", {"role": "user", "content": "Three."}, "2")
        ann.go_on.set()
        first.result(60), second.result(60)
    assert talk(run.result()) == ["?", "turn 1", "One.", "Two.", "Three.", "turn 2"]


@pytest.mark.parametrize("speaker", [round_robin(), broadcast()], ids=lambda speaker: speaker.label)
async def test_many_words_of_several_senders_all_arrive_in_order(speaker: Any) -> None:
    ann = Pauses()
    members = {"ann": ann, "bob": ScriptedChatModel("b", cycle=True)}
    group = ChatGroup(members, speaker=speaker, stop=max_turns(5), reply="transcript").compile(InMemorySaver())
    async with group.live({"messages": "?"}, THREAD) as run:
        await asyncio.to_thread(ann.begun.wait, 60)

        async def send(sender: int) -> None:
            for number in range(5):
                await run.signal("messages", HumanMessage(f"{number}", name=f"s{sender}"))

        senders = [asyncio.create_task(send(sender)) for sender in range(3)]
        ann.go_on.set()
        results = await asyncio.gather(*senders, return_exceptions=True)
        result = await run.result()
    heard = [(m.name, m.text) for m in result["messages"] if (m.name or "").startswith("s")]
    for sender in range(3):
        own = [text for name, text in heard if name == f"s{sender}"]
        assert own == [str(number) for number in range(len(own))]
    assert all(error is None or isinstance(error, SignalError) for error in results)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["bare", "saved"])
async def test_in_free_conversation_words_wake_whoever_is_idle(sync: bool, saver: Any) -> None:
    ann = Pauses()
    answered = threading.Event()

    def bob(messages: list[BaseMessage]) -> str:
        if messages[-1].text != "Not Monday!":
            return ""
        answered.set()
        return "Then Tuesday."

    members = {"ann": ann, "bob": bob}
    group = ChatGroup(members, speaker=free(), reply="transcript").compile(saver and saver())

    def speaks_up(run: Any) -> None:
        # Ann is at work all the time: bob is woken by the words alone.
        assert ann.begun.wait(60)
        future = run._send("messages", "Not Monday!", "one")
        assert answered.wait(60)
        ann.go_on.set()
        future.result(60)

    if sync:
        with group.live({"messages": "?"}, THREAD) as run:
            await asyncio.to_thread(speaks_up, run)
        result = run.result()
    else:
        async with group.live({"messages": "?"}, THREAD) as arun:
            await asyncio.to_thread(speaks_up, arun)
        result = await arun.result()
    # Ann may have ended, and have spoken again, before what bob has said is in the transcript.
    assert talk(result)[:2] == ["?", "Not Monday!"] and "Then Tuesday." in talk(result)[2:]
    assert result["stop_reason"] == "silence"


def test_words_to_a_swarm_go_to_who_has_the_floor() -> None:
    ann, bob = Pauses(), ScriptedChatModel("never", cycle=True)
    group = ChatGroup({"bob": bob, "ann": ann}, speaker=handoff("ann"), reply="transcript").compile()
    with group.live({"messages": "?"}) as run:
        assert ann.begun.wait(60)
        future = run._send("messages", "Not Monday!", "one")
        ann.go_on.set()
        future.result(60)
    assert talk(run.result()) == ["?", "turn 1", "Not Monday!", "turn 2"] and bob.calls == 0


def test_words_before_the_end_is_taken_go_on_with_the_conversation() -> None:
    sent: list[Any] = []
    entered = threading.Event()

    def ann(messages: list[BaseMessage]) -> Any:
        assert entered.wait(60)
        if len(messages) == 1:
            sent.append(run._send("messages", "Wait!", "one"))
        return Command(goto=END, update={"messages": [AIMessage(f"Bye {len(messages)}.")]})

    group = ChatGroup({"ann": ann}, reply="transcript").compile()
    with group.live({"messages": "?"}) as run:
        entered.set()
        result = run.result()
    assert talk(result) == ["?", "Bye 1.", "Wait!", "Bye 3."] and result["stop_reason"] == "ann ended it"
    assert sent[0].result(60) is None
