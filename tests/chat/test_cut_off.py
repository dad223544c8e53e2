"""The end of a group does not wait for members that it cuts off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from langchain_core.messages import AnyMessage
from langgraph.types import RetryPolicy

from agentmatrix import ChatGroup
from agentmatrix.speakers import free
from agentmatrix.stops import says


async def test_a_member_that_does_not_let_itself_be_cancelled_holds_nothing_up() -> None:
    at_work, lets_go = asyncio.Event(), asyncio.Event()

    async def stubborn(messages: list[AnyMessage]) -> str:
        at_work.set()
        while not lets_go.is_set():
            try:
                await lets_go.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    async def quick(messages: list[AnyMessage]) -> str:
        await at_work.wait()
        return "DONE"

    group = ChatGroup({"stubborn": stubborn, "quick": quick}, speaker=free(), stop=says("DONE")).compile()
    result = await group.ainvoke({"messages": "Go."})
    assert (result["messages"][-1].text, result["stop_reason"]) == ("DONE", "says('DONE')")
    lets_go.set()


def test_a_thread_that_is_cut_off_holds_nothing_up() -> None:
    at_work, lets_go = threading.Event(), threading.Event()

    def stubborn(messages: list[AnyMessage]) -> str:
        at_work.set()
        lets_go.wait(100)
        return "late"

    def quick(messages: list[AnyMessage]) -> str:
        at_work.wait(100)
        return "DONE"

    group: Any = ChatGroup({"stubborn": stubborn, "quick": quick}, speaker=free(), stop=says("DONE")).compile()
    assert group.invoke({"messages": "Go."})["stop_reason"] == "says('DONE')"
    assert not lets_go.is_set()
    lets_go.set()


PROGRAM = """
import threading
from agentmatrix import ChatGroup
from agentmatrix.speakers import free
from agentmatrix.stops import says

at_work = threading.Event()

def stubborn(messages):
    at_work.set()
    threading.Event().wait()

def quick(messages):
    at_work.wait()
    return "DONE"

group = ChatGroup({"stubborn": stubborn, "quick": quick}, speaker=free(), stop=says("DONE")).compile()
print(group.invoke({"messages": "Go."})["stop_reason"])
"""


def test_a_process_ends_though_a_member_never_answers() -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (ended.stdout.strip(), ended.returncode) == ("says('DONE')", 0), ended.stderr


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
async def test_who_is_cut_off_is_not_tried_again(sync: bool) -> None:
    tried, tries = threading.Event(), list[int]()

    def bob(messages: list[AnyMessage]) -> str:
        tries.append(1)
        tried.set()
        raise ConnectionError("no line")

    def ann(messages: list[AnyMessage]) -> str:
        assert tried.wait(60)
        return "DONE"

    policy = RetryPolicy(initial_interval=0.2, backoff_factor=1, jitter=False, max_attempts=4)
    group = ChatGroup({"ann": ann}, speaker=free(), stop=says("DONE"))
    graph = group.add_node("bob", bob, retry_policy=policy).compile()
    if sync:
        result = await asyncio.to_thread(graph.invoke, {"messages": "?"})
    else:
        result = await graph.ainvoke({"messages": "?"})
    assert result["stop_reason"] == "says('DONE')"
    threads = [thread for thread in threading.enumerate() if thread.name == "chat-member"]
    for thread in threads:
        await asyncio.to_thread(thread.join, 60)
    assert len(tries) == 1
