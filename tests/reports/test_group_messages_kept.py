"""Nothing that was said is lost, doubled, or said by somebody else: ids, streams, threads, errors, pauses,
processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import MessagesState
from langgraph.types import Command

from agentmatrix import ChatGroup
from agentmatrix.speakers import broadcast, free, human, round_robin
from agentmatrix.stops import max_turns, says, silence
from agentmatrix.testing import ScriptedChatModel, loopback

PLACES = pytest.mark.parametrize("place", [lambda graph: graph, loopback], ids=["here", "remote"])


def thread(name: str = "1") -> Any:
    return {"configurable": {"thread_id": name}}


def model(*answers: Any, cycle: bool = False) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=cycle)


def said(result: dict[str, Any]) -> list[tuple[str | None, str]]:
    return [(message.name, message.text) for message in result["messages"]]


# ids


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_one_message_object_of_two_members(speaker: Any) -> None:
    """assistant-ui/assistant-ui#1261: two agents answer with a message of one id."""
    sorry = AIMessage("I cannot help.", id="sorry")
    told: list[str] = []

    def ann(messages: list[AnyMessage]) -> list[AIMessage]:
        told.append("ann")
        return [sorry] if told.count("ann") == 1 else []

    def bob(messages: list[AnyMessage]) -> list[AIMessage]:
        told.append("bob")
        return [sorry] if told.count("bob") == 1 else []

    stop = max_turns(1) if speaker.label == "broadcast" else max_turns(2)
    group = ChatGroup({"ann": ann, "bob": bob}, speaker=speaker, stop=stop, reply="transcript")
    # Who speaks freely speaks in any order.
    assert sorted(str(name) for name, _ in said(group.compile().invoke({"messages": "Help."}))) == [
        "None",
        "ann",
        "bob",
    ]


def test_the_same_answer_to_the_users_next_question() -> None:
    """assistant-ui/assistant-ui#1261: the sibling over two turns of a user: the second question gets no answer."""
    sorry = AIMessage("I cannot help.", id="sorry")
    group = ChatGroup({"ann": lambda state: {"messages": [sorry]}}, stop=max_turns(1)).compile(InMemorySaver())
    group.invoke({"messages": "Help."}, thread())
    assert [text for _, text in said(group.invoke({"messages": "Please."}, thread()))] == [
        "Help.", "I cannot help.", "Please.", "I cannot help.",
    ]  # fmt: skip


def test_a_member_that_returns_the_whole_transcript() -> None:
    """microsoft/semantic-kernel#12675: messages that multiply with each turn, when an agent answers with all it
    knows."""

    def ann(state: MessagesState) -> Any:
        return {"messages": [*state["messages"], AIMessage("a")]}

    def bob(state: MessagesState) -> Any:
        return {"messages": [*state["messages"], ("ai", "b")]}

    group = ChatGroup({"ann": ann, "bob": bob}, stop=max_turns(4), reply="transcript")
    assert [text for _, text in said(group.compile().invoke({"messages": "Go."}))] == ["Go.", "a", "b", "a", "b"]


# streams


@PLACES
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_words_are_streamed_once_under_their_author(place: Any, speaker: Any) -> None:
    """microsoft/agent-framework#2711, microsoft/autogen#6150: who streams a team sees each word once, and whose it
    is."""
    members = {
        "ann": place(ChatGroup({"x": model("from ann", "")}, stop=max_turns(1)).compile()),
        "bob": model("from bob", ""),
    }
    graph = ChatGroup(
        members, speaker=speaker, stop=max_turns(1) if speaker.label == "broadcast" else max_turns(2)
    ).compile()
    heard: dict[str, str] = {}
    for namespace, (chunk, meta) in graph.stream({"messages": "Go."}, stream_mode="messages", subgraphs=True):
        author = (*(part.split(":")[0] for part in namespace), meta["langgraph_node"])[0]
        heard[author] = heard.get(author, "") + chunk.text
    assert heard == {"ann": "from ann", "bob": "from bob"}


def test_inner_words_stay_inside() -> None:
    """microsoft/autogen#6123: messages of an inner team leak into the stream of the outer one."""
    team = ChatGroup({"ann": model("inner a"), "bob": model("inner b TERMINATE")}, stop=says("TERMINATE"))
    group = ChatGroup(
        {"team": team, "zoe": model("z", cycle=True)}, stop=says("DONE") | max_turns(2), reply="transcript"
    )
    graph = group.compile()
    parts = list(graph.stream({"messages": "Go."}, stream_mode="updates"))
    assert [m.text for part in parts for u in part.values() for m in u["messages"]] == ["inner b TERMINATE", "z"]


# ends


def test_the_users_words_end_nothing() -> None:
    """microsoft/autogen#6826, #4807: the task itself tells the agents which word to end with."""
    group = ChatGroup({"ann": model("a"), "bob": model("b DONE")}, stop=says("DONE", by="bob"), reply="transcript")
    result = group.compile().invoke({"messages": "Say DONE when you agree."})
    assert (len(result["messages"]), result["stop_reason"]) == (3, "says('DONE')")


def test_a_second_run_begins_anew_and_remembers() -> None:
    """microsoft/autogen#4126 (pull request), #3859: stops are reset between runs, and what was said is not."""
    ann = model("a1 DONE", "a2", "a3 DONE")
    group = ChatGroup({"ann": ann}, stop=says("DONE") | max_turns(2)).compile(InMemorySaver())
    assert group.invoke({"messages": "one"}, thread())["stop_reason"] == "says('DONE')"
    assert group.invoke({"messages": "two"}, thread())["stop_reason"] == "says('DONE')"
    assert [m.text for m in ann.prompts[1]] == ["one", "a1 DONE", "two"]


def test_turns_are_counted_over_pauses() -> None:
    """openai/openai-agents-python#844, OpenHands/OpenHands#3323: a pause for a person does not reset the bound, and a
    new question of the user does."""
    ann = model("a", "b", "c", "d")
    graph = ChatGroup({"ann": ann, "joe": human()}, stop=max_turns(4)).compile(InMemorySaver())
    graph.invoke({"messages": "one"}, thread())
    graph.invoke(Command(resume="x"), thread())
    assert graph.invoke(Command(resume="y"), thread())["stop_reason"] == "max_turns(4)"
    assert "__interrupt__" in graph.invoke({"messages": "two"}, thread())


def test_everybody_is_idle() -> None:
    """FoundationAgents/MetaGPT#1406 (pull request): everybody is silent, and the team goes on asking."""
    ann, bob = model("", cycle=True), model("", cycle=True)
    result = ChatGroup({"ann": ann, "bob": bob}, stop=silence()).compile().invoke({"messages": "Go."})
    assert (result["stop_reason"], ann.calls + bob.calls) == ("silence", 2)


# users


# errors


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_an_error_names_the_member(speaker: Any) -> None:
    """langgenius/dify#39151, griptape-ai/griptape-nodes-engine#4197: one of several at work fails, and nothing tells
    which."""

    def bad(messages: list[AnyMessage]) -> str:
        raise ConnectionError("rate limit")

    group = ChatGroup({"ann": model("a", ""), "bad": bad, "zoe": model("z", "")}, speaker=speaker).compile()
    with pytest.raises(ConnectionError) as caught:
        group.invoke({"messages": "Go."})
    assert "'bad'" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


# people


@pytest.mark.parametrize("speaker", [broadcast(), free()], ids=["broadcast", "free"])
def test_two_people_are_asked_at_once(speaker: Any) -> None:
    """langchain-ai/langgraph#8579, #4028: one answer for two questions is refused, and each answer finds its person."""
    saver, stop = InMemorySaver(), max_turns(1 if speaker.label == "broadcast" else 2)
    graph = ChatGroup({"joe": human(), "sue": human()}, speaker=speaker, stop=stop, reply="transcript").compile(saver)
    graph.invoke({"messages": "Go."}, thread())
    with pytest.raises(RuntimeError, match="multiple pending interrupts"):
        graph.invoke(Command(resume="yes"), thread())
    asked = {task.name: task.interrupts[0].id for task in graph.get_state(thread()).tasks if task.interrupts}
    result = graph.invoke(Command(resume={asked["joe"]: "j", asked["sue"]: "s"}), thread())
    assert {("joe", "j"), ("sue", "s")} <= {*said(result)}


def test_a_question_asked_names_its_person() -> None:
    """langchain-ai/langgraph#3875, #4028: two are asked the same at once; what a user interface is given, the
    interrupts of the result, says who is meant."""
    graph = ChatGroup({"joe": human(), "sue": human()}, speaker=broadcast(), stop=max_turns(1)).compile(InMemorySaver())
    asked = sorted(str(interrupt.value) for interrupt in graph.invoke({"messages": "Go."}, thread())["__interrupt__"])
    assert len(asked) == 2 and "joe" in asked[0] and "sue" in asked[1]


def test_new_words_instead_of_an_answer() -> None:
    """microsoft/agent-framework#3255: a question that is pending is given up for the user's new words, and not asked
    twice."""
    ann = model("a", "b")
    graph = ChatGroup({"ann": ann, "joe": human()}, stop=max_turns(4)).compile(InMemorySaver())
    graph.invoke({"messages": "one"}, thread())
    paused = graph.invoke({"messages": "two"}, thread())
    assert [i.value for i in paused["__interrupt__"]] == ["ann: b"]
    assert [m.text for m in ann.prompts[1]] == ["one", "a", "two"]


PROGRAM = """
import sys
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from agentmatrix import ChatGroup
from agentmatrix.speakers import human
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel

team = ChatGroup({"ann": ScriptedChatModel(lambda m: f"heard {len(m)}", cycle=True), "joe": human()}, stop=max_turns(3))
group = ChatGroup({"team": team, "zoe": ScriptedChatModel("z", cycle=True)}, stop=max_turns(2), reply="transcript")
config = {"configurable": {"thread_id": "1"}}
with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
    graph = group.compile(saver)
    result = graph.invoke({"messages": "Go."} if sys.argv[2] == "begin" else Command(resume=sys.argv[2]), config)
    asked = [question.value for question in result.get("__interrupt__", ())]
    print(asked, [message.text for message in result["messages"]], result.get("stop_reason"))
"""


def test_a_team_goes_on_in_another_process(tmp_path: Path) -> None:
    """microsoft/autogen#5034, #7092: a team that is saved and loaded goes on where it was, nested teams included."""
    pytest.importorskip("langgraph.checkpoint.sqlite")
    program = tmp_path / "team.py"
    program.write_text(textwrap.dedent(PROGRAM))

    def run(word: str) -> str:
        command = [sys.executable, str(program), str(tmp_path / "saved.db"), word]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    assert run("begin") == "['ann: heard 1'] ['Go.'] None"
    assert run("Tuesday") == "[] ['Go.', 'heard 3', 'z'] max_turns(2)"


class Poll(MessagesState):
    vote: str


def test_a_key_that_two_members_write_in_free_conversation() -> None:
    """langchain-ai/langgraph#2336, google/adk-go#1137: whether two members who speak freely may write one key must not
    depend on whether they happen to end at the same moment."""
    outcomes = set()
    for seconds in (0, 0.15):

        def voter(name: str, wait: float) -> Any:
            told: list[str] = []

            def vote(state: Poll) -> Any:
                told.append(name)
                if len(told) > 1:
                    return {}
                time.sleep(wait)
                return {"vote": name, "messages": [AIMessage(f"{name} votes")]}

            return vote

        for _ in range(4):
            members = {"ann": voter("ann", 0), "bob": voter("bob", seconds)}
            graph = ChatGroup(members, speaker=free(), state_schema=Poll).compile()
            try:
                graph.invoke({"messages": "Go."})
                outcomes.add("wrote")
            except InvalidUpdateError:
                outcomes.add("refused")
    assert len(outcomes) == 1
