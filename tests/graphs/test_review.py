"""The review: who is waited for, who is not, who is skipped, and a person who is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from langchain_core.messages import AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix import Host
from agentmatrix.display import draw_text
from agentmatrix.testing import loopback
from graphs import review

PLAIN: Any = {"messages": "We move on Friday."}
FIGURES: Any = {"messages": "We move on 3 May."}
THREAD: Any = {"configurable": {"thread_id": "text"}}
LONG = 3600.0
Build = Callable[..., Any]


@pytest.fixture(params=["local", "lawyer on a host", "review on a host"])
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    with ExitStack() as stack:

        def built(**options: Any) -> Any:
            if request.param == "lawyer on a host":
                host = stack.enter_context(Host({"legal": review.legal}))
                return review.build(f"{host.address}/legal", **options)
            graph = review.build(**options)
            return graph if request.param == "local" else stack.enter_context(loopback(graph))

        yield built


def said(result: Any) -> dict[str, str]:
    """By author, what was said."""
    return {message.name: message.text for message in result["messages"][1:]}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_text_without_figures_skips_them(build: Build, asynchronous: bool) -> None:
    graph = build(patience=LONG)
    result = said(await graph.ainvoke(PLAIN) if asynchronous else graph.invoke(PLAIN))
    assert "figures" not in result
    assert result["edit"].startswith("facts: So it is.; legal: Nobody can object.; checked: The linter was done.")
    assert result["approve"] == "Approved: nobody was asked."


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_person_is_asked_once_and_told_of_the_figures(build: Build, asynchronous: bool) -> None:
    read = []

    def lint(messages: list[AnyMessage]) -> str:
        read.append(messages[-1].text)
        return "Fine."

    graph = build(lint=lint, patience=LONG, person=True, checkpointer=InMemorySaver())
    paused = await graph.ainvoke(FIGURES, THREAD) if asynchronous else graph.invoke(FIGURES, THREAD)
    (asked,) = paused["__interrupt__"]
    assert asked.value.endswith("Figures: They add up. Shall it go out?")
    answer: Any = Command(resume="by me")
    result = await graph.ainvoke(answer, THREAD) if asynchronous else graph.invoke(answer, THREAD)
    assert said(result)["approve"] == "Approved: by me."
    assert read == ["To all: We move on 3 May."]


async def test_a_linter_that_is_too_slow_is_called_off(build: Build) -> None:
    called_off = asyncio.Event()
    loop = asyncio.get_running_loop()
    started: list[str] = []

    async def lint(messages: list[AnyMessage]) -> str:
        started.append("lint")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            loop.call_soon_threadsafe(called_off.set)
            raise
        return "never"

    result = said(await build(lint=lint, patience=0.05).ainvoke(PLAIN))
    if started:  # its time may be up before it was
        await asyncio.wait_for(called_off.wait(), 100)
    assert "lint" not in result
    assert "checked: The linter was too slow." in result["edit"]


async def test_nobody_waits_for_a_remark_on_style() -> None:
    edited = asyncio.Event()

    async def style(messages: list[AnyMessage]) -> str:
        await edited.wait()
        return "Too short."

    parts = review.build(style=style, patience=LONG).astream(PLAIN, stream_mode="updates")
    order = []
    async for part in parts:
        order.extend(part)
        if "edit" in part:
            assert "style" not in said({"messages": [None, *part["edit"]["messages"]]})["edit"]
            edited.set()
    assert order.index("edit") < order.index("style")


async def test_a_remark_that_is_there_is_taken_along() -> None:
    remarked = asyncio.Event()

    async def lint(messages: list[AnyMessage]) -> str:
        await remarked.wait()
        return "Fine."

    order = []
    async for part in review.build(lint=lint, patience=LONG).astream(PLAIN, stream_mode="updates"):
        order.extend(part)
        if "style" in part:
            remarked.set()
        if "edit" in part:
            assert part["edit"]["messages"][-1].text.endswith("style: Short and good.")
    assert order.index("style") < order.index("edit")


def test_its_drawing_tells_the_kinds_of_sources() -> None:
    drawn = draw_text(review.graph)
    for line in ("draft ⇢ checked [deadline]", "style ⇢ edit [optional]", "checked ⇢ edit [gate]", "facts → edit"):
        assert line in drawn
