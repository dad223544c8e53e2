"""A person who does not answer in time is passed over, and an answer counts whenever it comes."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix.chat import ChatGroup
from agentmatrix.compose import Dag
from agentmatrix.errors import BuildError
from agentmatrix.speakers import broadcast, free, human, round_robin
from agentmatrix.stops import max_turns, silence
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
SOON, LATER = 1e-9, 3600.0
SHAPES = ["group", "in a dag", "in a group", "hosted"]


def group(speaker: Any, timeout: float) -> Any:
    ann = ScriptedChatModel(["Which day?", "Tuesday it is.", "", ""])
    stop = silence() if speaker.is_free else max_turns(3 if speaker.label == "round_robin" else 2)
    members = {"ann": ann, "joe": human(timeout=timeout)}
    return ChatGroup(members, speaker=speaker, stop=stop, reply="transcript", name="panel").compile()


def placed(inner: Any, shape: str) -> Any:
    if shape in ("in a dag", "hosted"):
        return Dag().add_node("panel", inner).compile(checkpointer=InMemorySaver())
    if shape == "in a group":
        outer = ChatGroup({"panel": inner}, stop=max_turns(1), reply="transcript")
        return outer.compile(checkpointer=InMemorySaver())
    return inner.copy({"checkpointer": InMemorySaver()})


def texts(result: Any) -> list[str]:
    return [message.text for message in result["messages"]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=lambda speaker: speaker.label)
async def test_who_is_late_is_passed_over(speaker: Any, sync: bool, shape: str) -> None:
    inner = group(speaker, SOON)
    with loopback(inner) as remote:
        graph = placed(remote if shape == "hosted" else inner, shape)

        async def go_on(given: Any) -> Any:
            return graph.invoke(given, THREAD) if sync else await graph.ainvoke(given, THREAD)

        paused = await go_on({"messages": "Find a day."})
        assert len(paused["__interrupt__"]) == 1
        result = await go_on(None)
        for _ in range(3):  # a person who is asked again is late again
            if "__interrupt__" in result:
                result = await go_on(None)
        assert "__interrupt__" not in result
        # In free conversation nobody has heard anything new.
        said = ["Find a day.", "Which day?", *([] if speaker.is_free else ["Tuesday it is."])]
        assert texts(result)[: len(said)] == said


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=lambda speaker: speaker.label)
def test_before_that_the_group_waits_on(speaker: Any) -> None:
    graph = placed(group(speaker, LATER), "group")
    paused = graph.invoke({"messages": "Find a day."}, THREAD)
    again = graph.invoke(None, THREAD)
    assert [i.value for i in again["__interrupt__"]] == [i.value for i in paused["__interrupt__"]]
    assert "Monday." in texts(graph.invoke(Command(resume="Monday."), THREAD))


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=lambda speaker: speaker.label)
def test_a_late_answer_counts(speaker: Any) -> None:
    graph = placed(group(speaker, SOON), "group")
    graph.invoke({"messages": "Find a day."}, THREAD)
    assert "Monday." in texts(graph.invoke(Command(resume="Monday."), THREAD))


@pytest.mark.parametrize("timeout", [0, -1, True, "soon"])
def test_what_is_no_limit_is_refused(timeout: Any) -> None:
    with pytest.raises(BuildError, match=r"human\(timeout=.*\): name a positive number of seconds"):
        human(timeout=timeout)
