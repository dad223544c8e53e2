"""Members and nested graphs behind a host, in this process and in another one: questions, errors, losses, contents."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agentmatrix import ChatGroup, CyclicGraph, Dag, RemoteAgent
from agentmatrix.errors import HostLost, HostUnreachable
from agentmatrix.speakers import broadcast, free, human, round_robin
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
PLACES = pytest.mark.parametrize("place", [lambda graph: graph, loopback], ids=["here", "remote"])


def model(*answers: Any, cycle: bool = False) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=cycle)


@PLACES
def test_two_questions_five_graphs_deep(place: Any) -> None:
    """langchain-ai/langgraph#2870, #4796, microsoft/agent-framework#3255: answers find their question, nothing around
    it runs again, and no answered question comes back."""
    ran: list[int] = []

    def ask(state: MessagesState) -> Any:
        return {"messages": [AIMessage(f"{interrupt('name?')} is {interrupt('age?')}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    graph: Any = builder.compile()
    for level in range(5):

        def before(state: MessagesState, level: int = level) -> Any:
            ran.append(level)
            return {"messages": [AIMessage(f"level {level}")]}

        outer = Dag() if level % 2 else CyclicGraph()
        outer.add_node("before", before)
        outer.add_node("inner", place(graph) if level in (1, 3) else graph)
        outer.add_edge(START, "before")
        outer.add_edge("before", "inner")
        graph = outer.compile(InMemorySaver() if level == 4 else None)
    assert [i.value for i in graph.invoke({"messages": "Go."}, THREAD)["__interrupt__"]] == ["name?"]
    assert [i.value for i in graph.invoke(Command(resume="Ann"), THREAD)["__interrupt__"]] == ["age?"]
    assert graph.invoke(Command(resume="7"), THREAD)["messages"][-1].text == "Ann is 7"
    assert ran == [4, 3, 2, 1, 0]


@PLACES
def test_a_person_in_a_team_in_a_group(place: Any) -> None:
    """langgraph4j/langgraph4j#95, microsoft/agent-framework#5818: a question from within a team pauses the whole, and
    nobody speaks twice when it goes on."""
    ann, zoe = model("Which day?", "Fine."), model("z")
    team = place(ChatGroup({"ann": ann, "joe": human()}, stop=max_turns(3)).compile())
    graph = ChatGroup({"team": team, "zoe": zoe}, stop=max_turns(2), reply="transcript").compile(InMemorySaver())
    assert graph.invoke({"messages": "Go."}, THREAD)["__interrupt__"][0].value == "ann: Which day?"
    result = graph.invoke(Command(resume="Tuesday."), THREAD)
    assert [(m.name, m.text) for m in result["messages"]] == [(None, "Go."), ("team", "Fine."), ("zoe", "z")]
    assert (ann.calls, zoe.calls) == (2, 1)


class Odd(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_an_error_of_a_remote_member(speaker: Any) -> None:
    """microsoft/autogen#8041 (pull request), ray-project/ray#20830: an error behind a host comes out as what it was,
    with its attributes, and names the member."""

    def bad(messages: list[AnyMessage]) -> str:
        raise Odd(7, "lost")

    members = {"ann": model("a", ""), "bad": loopback(bad, allow=[Odd]), "zoe": model("z", "")}
    with pytest.raises(Odd, match="7: lost") as caught:
        ChatGroup(members, speaker=speaker).compile().invoke({"messages": "Go."})
    assert (caught.value.code, caught.value.detail) == (7, "lost")
    assert "'bad'" in " ".join(caught.value.__notes__)


HOST = """
import os, sys, time
from agentmatrix import Host

def slow(messages):
    open(sys.argv[1], "w").write("at work")
    time.sleep(1000)
    return "late"

with Host({"slow": slow, "quick": lambda messages: {"messages": [("ai", "here")]}}) as host:
    print(host.address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A host in another process, its address, and a file that is there once its member is at work."""
    program, sign = tmp_path / "host.py", tmp_path / "sign"
    program.write_text(textwrap.dedent(HOST))
    process = subprocess.Popen(
        [sys.executable, str(program), str(sign)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    yield process, process.stdout.readline().strip(), sign
    process.kill()
    process.wait(100)


def test_a_member_in_another_process(elsewhere: Any) -> None:
    """microsoft/autogen#4784: a group with a member in another process answers."""
    _, address, _ = elsewhere
    group = ChatGroup(
        {"ann": model("a"), "bob": RemoteAgent(f"{address}/quick")}, stop=max_turns(2), reply="transcript"
    )
    assert [m.text for m in group.compile().invoke({"messages": "Go."})["messages"]] == ["Go.", "a", "here"]


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_the_host_of_a_member_is_killed(elsewhere: Any, speaker: Any) -> None:
    """microsoft/autogen#6140: the worker goes away while its agent is at work: an error that names the member, and
    soon."""
    process, address, sign = elsewhere
    members = {"bob": RemoteAgent(f"{address}/slow"), "ann": model("a", "", cycle=True)}
    graph = ChatGroup(members, speaker=speaker, stop=max_turns(3)).compile()

    def kill() -> None:
        while not sign.exists():
            time.sleep(0.02)
        process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(HostLost) as caught:
        graph.invoke({"messages": "Go."})
    killer.join()
    assert "bob" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
def test_a_member_whose_host_was_never_started(speaker: Any) -> None:
    """academy-agents/academy#288, dask/distributed#1110: nobody is there: an error, soon, and no endless waiting."""
    import socket

    with socket.socket() as free_port:
        free_port.bind(("127.0.0.1", 0))
        port = free_port.getsockname()[1]
        members = {"ann": model("a", ""), "bob": RemoteAgent(f"127.0.0.1:{port}/bob", connect_timeout=1000)}
        graph = ChatGroup(members, speaker=speaker, stop=max_turns(2)).compile()
        with pytest.raises(HostUnreachable, match="bob"):
            graph.invoke({"messages": "Go."})


@pytest.mark.asyncio
@PLACES
@pytest.mark.parametrize("speaker", [round_robin(), broadcast(), free()], ids=["turns", "broadcast", "free"])
async def test_a_run_is_cancelled_while_a_later_member_speaks(place: Any, speaker: Any) -> None:
    """microsoft/agent-framework#3608: only the first agent hears of a cancellation."""
    at_work, heard = threading.Event(), threading.Event()

    async def slow(messages: list[AnyMessage]) -> str:
        at_work.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            heard.set()
            raise
        return "late"

    builder = StateGraph(MessagesState)

    async def node(state: MessagesState) -> Any:
        return {"messages": [AIMessage(await slow(state["messages"]))]}

    builder.add_node("slow", node)
    builder.add_edge(START, "slow")
    members = {"ann": model("a", ""), "bob": place(builder.compile())}
    run = asyncio.create_task(
        ChatGroup(members, speaker=speaker, stop=max_turns(2)).compile().ainvoke({"messages": "Go."})
    )
    assert await asyncio.to_thread(at_work.wait, 100)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await asyncio.to_thread(heard.wait, 100)
