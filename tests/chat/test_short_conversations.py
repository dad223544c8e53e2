"""A conversation takes as many steps as it has turns: START goes to the first member, the last turn ends it. What comes
of it is what comes of one that is streamed, where the hidden node begins and ends it."""

from __future__ import annotations

from itertools import count
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState
from langgraph.types import Command, Overwrite

from agentmatrix import ChatGroup, Dag, members
from agentmatrix.chat.conversation import EVENT_LOG
from agentmatrix.engine.checkpoint import schedule_of
from agentmatrix.speakers import handoff, human, mention, random, round_robin
from agentmatrix.stops import budget, max_turns, says, silence, when
from agentmatrix.testing import ScriptedChatModel
from tests.conftest import Verbs

THREAD: Any = {"configurable": {"thread_id": "1"}}


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


def made(**options: Any) -> ChatGroup:
    options.setdefault("stop", max_turns(2))
    return ChatGroup({"ann": model("a1 @bob", "a2"), "bob": model("b1", "b2 DONE")}, **options)


def told(state: Any) -> Any:
    ends = ("stop_reason", "last_speaker")
    said = [(m.name, m.text, {key: m.response_metadata.get(key) for key in ends}) for m in state["messages"]]
    return said, {key: state.get(key) for key in ends}


async def streamed(verbs: Verbs, graph: Any, given: Any) -> Any:
    return (await verbs.listed(graph, "stream", given, THREAD, stream_mode="values"))[-1]


def next_of(graph: Any) -> list[tuple[str, ...]]:
    return [snapshot.next for snapshot in graph.get_state_history(THREAD)][::-1]


SPEAKERS: dict[str, Any] = {
    "round_robin": round_robin,
    "keeps the floor": lambda: round_robin(keep_floor=True),
    "random": lambda: random("x"),
    "mention": lambda: mention(round_robin()),
    "mention of nobody": mention,
    "handoff": handoff,
    "function": lambda: lambda state: ["ann", "bob", None][(len(state["messages"]) - 1) % 3],
    "nobody": lambda: lambda state: None,
}
STOPS: dict[str, Any] = {
    "one turn": lambda: max_turns(1),
    "no turn": lambda: max_turns(0),
    "words": lambda: says("DONE") | max_turns(5),
    "a budget": lambda: budget(calls=2),
    "silence": lambda: silence() | max_turns(3),
    "a function": lambda: when(lambda state: len(state["messages"]) > 2 and "long") | max_turns(4),
    "the bound": lambda: None,
}


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["", "saved"])
@pytest.mark.parametrize("reply", ["last", "transcript", lambda messages: f"{len(messages)} said"])
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("speaker", SPEAKERS)
async def test_whoever_reads_it_it_is_the_same_conversation(
    verbs: Verbs, speaker: str, stop: str, reply: Any, saver: Any
) -> None:
    found = []
    for read in (False, True):
        graph = made(speaker=SPEAKERS[speaker](), stop=STOPS[stop](), reply=reply, max_turns=6).compile(
            saver and saver()
        )
        results = []
        for words in ("Go.", "Once more, @bob."):
            given: Any = {"messages": words}
            results.append(
                told(await streamed(verbs, graph, given) if read else await verbs.invoke(graph, given, THREAD))
            )
        found.append((results, saver and told(graph.get_state(THREAD).values)))
    assert found[0] == found[1]


async def test_the_steps_of_a_conversation(verbs: Verbs) -> None:
    graph = made(stop=max_turns(1)).compile(InMemorySaver())
    await verbs.invoke(graph, {"messages": "Go."}, THREAD)
    assert next_of(graph) == [("__start__",), ("ann",), ()]


async def test_the_history_keeps_what_the_reply_leaves_out(verbs: Verbs) -> None:
    def talk(state: Any) -> Any:
        return {"messages": [("ai", "first"), ("ai", "second")]}

    graph = ChatGroup({"ann": talk}, stop=max_turns(1)).compile(InMemorySaver())
    result = await verbs.invoke(graph, {"messages": "Go."}, THREAD)
    assert [message.text for message in result["messages"]] == ["Go.", "second"]
    said = [[message.text for message in one.values["messages"]] for one in graph.get_state_history(THREAD)]
    assert ["Go.", "first", "second"] in said


@pytest.mark.parametrize(("reply", "dropped"), [("transcript", []), ("last", ["a1 @bob"])])
async def test_the_last_task_has_written_its_own_words(verbs: Verbs, reply: Any, dropped: list[str]) -> None:
    graph = made(reply=reply).compile(InMemorySaver())
    await verbs.invoke(graph, {"messages": "Go."}, THREAD)
    before = next(one for one in graph.get_state_history(THREAD) if one.next == ("bob",))
    *removed, words = before.tasks[0].result["messages"]
    assert (words.name, words.text) == ("bob", "b1")
    assert [one.id for one in removed] == [one.id for one in before.values["messages"] if one.text in dropped]


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["", "saved"])
async def test_a_reply_is_made_once(verbs: Verbs, saver: Any) -> None:
    asked = count()

    def reply(messages: Any) -> str:
        return f"reply {next(asked)}"

    result = await verbs.invoke(made(reply=reply).compile(saver and saver()), {"messages": "Go."}, THREAD)
    assert result["messages"][-1].text == "reply 0" and next(asked) == 1


async def test_a_reply_that_fails_loses_no_turn(verbs: Verbs) -> None:
    failures = iter([ConnectionError("no line")])

    def reply(messages: Any) -> str:
        if error := next(failures, None):
            raise error
        return " ".join(message.text for message in messages)

    ann = model("a1", "a2")
    graph = ChatGroup({"ann": ann}, stop=max_turns(1), reply=reply).compile(InMemorySaver())
    with pytest.raises(ConnectionError, match="no line"):
        await verbs.invoke(graph, {"messages": "Go."}, THREAD)
    result = await verbs.invoke(graph, None, THREAD)
    assert (result["messages"][-1].text, ann.calls) == ("a1", 1)


class Loses(InMemorySaver):
    """Keeps what the last turn has written, and fails at the checkpoint behind it."""

    step: int | None = 2

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] == self.step:
            self.step = None
            raise ConnectionError("the disk is gone")
        return super().put(config, checkpoint, metadata, new_versions)


@pytest.mark.parametrize("reply", ["last", "transcript"])
async def test_an_end_whose_checkpoint_was_lost_is_kept(verbs: Verbs, reply: Any) -> None:
    ann, bob = model("a1", "a2"), model("b1", "b2")
    graph = ChatGroup({"ann": ann, "bob": bob}, stop=max_turns(2), reply=reply).compile(Loses())
    with pytest.raises(ConnectionError, match="the disk is gone"):
        await verbs.invoke(graph, {"messages": "Go."}, THREAD)
    result = await verbs.invoke(graph, None, THREAD)
    assert (result["messages"][-1].text, result["stop_reason"]) == ("b1", "max_turns(2)")
    assert (ann.calls, bob.calls) == (1, 1)


@pytest.mark.parametrize("lost", [0, 1])
async def test_whoever_was_to_speak_first_keeps_the_floor_over_an_edit(verbs: Verbs, lost: int) -> None:
    failures = iter([ConnectionError("no line")])

    def ann(state: Any) -> Any:
        if error := next(failures, None):
            raise error
        return {"messages": [("ai", f"I heard {len(state['messages'])}")]}

    graph = ChatGroup({"ann": ann, "bob": model("b1")}, stop=max_turns(2), reply="transcript").compile(InMemorySaver())
    with pytest.raises(ConnectionError):
        await verbs.invoke(graph, {"messages": "Go."}, THREAD)
    assert graph.get_state(THREAD).next == ("ann",)
    if lost:
        graph.update_state(THREAD, {"messages": [("human", "Wait.")]})
        assert graph.get_state(THREAD).next == ("ann",)
    result = await verbs.invoke(graph, None, THREAD)
    assert [message.text for message in result["messages"]][-2:] == [f"I heard {1 + lost}", "b1"]


async def test_members_who_share_a_node(verbs: Verbs) -> None:
    staff = members(3, lambda key: model(f"I am {key}"))
    group = ChatGroup({"staff": staff}, stop=max_turns(2), reply="transcript").compile(InMemorySaver())
    result = await verbs.invoke(group, {"messages": "Go."}, THREAD)
    assert [message.name for message in result["messages"][1:]] == list(group._settings.members[:2])


async def test_a_person_who_is_asked_first(verbs: Verbs) -> None:
    group = ChatGroup({"joe": human(), "ann": model("a1")}, stop=max_turns(2)).compile(InMemorySaver())
    paused = await verbs.invoke(group, {"messages": "Go."}, THREAD)
    assert len(paused["__interrupt__"]) == 1
    result = await verbs.invoke(group, Command(resume="Tuesday."), THREAD)
    assert (result["messages"][-1].text, result["last_speaker"]) == ("a1", "ann")


def merged(notes: dict[str, list[str]], more: dict[str, list[str]]) -> dict[str, list[str]]:
    """A reducer that changes what it is given."""
    for key, value in more.items():
        notes.setdefault(key, []).extend(value)
    return notes


class WithNotes(MessagesState):
    notes: Annotated[dict[str, list[str]], merged]


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["", "saved"])
async def test_a_reducer_that_changes_what_it_is_given_takes_the_input_once(verbs: Verbs, saver: Any) -> None:
    graph = made(state_schema=WithNotes).compile(saver and saver())
    for text in ("one", "two"):
        result = await verbs.invoke(graph, {"messages": "Go.", "notes": {"said": [text]}}, THREAD)
    assert result["notes"] == {"said": ["one", "two"] if saver else ["two"]}


@pytest.mark.parametrize(
    "words",
    [
        ["Hi.", "Go."],
        [("user", "Hi."), ("user", "Go.")],
        [{"role": "user", "content": text} for text in ("Hi.", "Go.")],
    ],
)
@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["", "saved"])
@pytest.mark.parametrize("turns", [1, 2])
async def test_words_that_replace_the_transcript_have_any_form(
    verbs: Verbs, turns: int, saver: Any, words: Any
) -> None:
    graph = made(stop=max_turns(turns), reply="transcript").compile(saver and saver())
    result = await verbs.invoke(graph, {"messages": Overwrite(words)}, THREAD)
    assert [message.text for message in result["messages"]] == ["Hi.", "Go.", "a1 @bob", "b1"][: 2 + turns]


@pytest.mark.parametrize("speaker", SPEAKERS)
async def test_an_edit_of_a_conversation_that_is_over_does_not_open_it_again(verbs: Verbs, speaker: str) -> None:
    graph = made(speaker=SPEAKERS[speaker](), reply="transcript").compile(InMemorySaver())
    said = (await verbs.invoke(graph, {"messages": "Go."}, THREAD))["messages"]
    graph.update_state(THREAD, {"messages": [("human", "Thanks.")]})
    assert graph.get_state(THREAD).next == ()
    await graph.aupdate_state(THREAD, {"messages": [("human", "Bye.")]})
    assert graph.get_state(THREAD).next == ()
    result = await verbs.invoke(graph, None, THREAD)
    assert [message.text for message in result["messages"]] == [*(message.text for message in said), "Thanks.", "Bye."]


def test_the_log_is_not_checked_as_keys_of_users_are() -> None:
    assert schedule_of(made().compile().channels).keys.trusted == {EVENT_LOG}


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["", "saved"])
async def test_a_conversation_in_a_node(verbs: Verbs, saver: Any) -> None:
    panel = made().compile()
    dag: Any = Dag(MessagesState).add_node("panel", panel).add_node("after", lambda state: {"messages": "seen"})
    dag.add_edge("__start__", "panel").add_edge("panel", "after")
    result = await verbs.invoke(dag.compile(saver and saver()), {"messages": "Go."}, THREAD)
    assert [(message.name, message.text) for message in result["messages"]] == [
        (None, "Go."),
        ("panel", "b1"),
        (None, "seen"),
    ]
