"""The voice desk on a real line: signals come in while it speaks, and what the caller talks over is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix import Host
from agentmatrix.display import draw_text
from agentmatrix.testing import ScriptedChatModel, loopback
from graphs import voice_desk

EMPTY: Any = {"messages": []}
THREAD: Any = {"configurable": {"thread_id": "call"}}
Build = Callable[..., Any]


class Line:
    """Says words at once, but holds the first answer at one word until somebody cuts it off. Works across threads."""

    def __init__(self, hold: str = "five") -> None:
        self.hold: str | None = hold
        self.reached: Future[None] = Future()
        self.cut: Future[None] = Future()

    async def say(self, word: str) -> None:
        if word.strip() != self.hold:
            return
        self.hold = None
        self.reached.set_result(None)
        try:
            await asyncio.wrap_future(Future[None]())
        except asyncio.CancelledError:
            self.cut.set_result(None)
            raise


async def of(future: Future[None]) -> None:
    await asyncio.wait_for(asyncio.wrap_future(future), 100)


async def until(run: Any, node: str) -> None:
    """Until this node has run."""
    async for part in run:
        if node in part:
            return


@pytest.fixture(params=["local", "answerer on a host", "desk on a host"])
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    with ExitStack() as stack:

        def built(line: Line, **options: Any) -> Any:
            if request.param == "answerer on a host":
                model = ScriptedChatModel(voice_desk._reply, cycle=True)
                host = stack.enter_context(Host({"answerer": voice_desk.answering(model, line.say)}))
                return voice_desk.build(f"{host.address}/answerer", **options)
            desk = voice_desk.build(say=line.say, **options)
            return desk if request.param == "local" else stack.enter_context(loopback(desk))

        yield built


def texts(state: Any) -> list[str]:
    return [message.text for message in state["messages"]]


async def test_the_caller_breaks_in(build: Build) -> None:
    line = Line()
    async with build(line).live(EMPTY, stream_mode="updates") as run:
        await run.signal("audio", b"When do you open?")
        await of(line.reached)
        await run.signal("audio", b"And")
        await of(line.cut)
        await run.signal("audio", b"on Sunday?")
        await until(run, "answer")
        await run.signal("hang_up", True)
        result = await run.result()
    assert texts(result) == ["When do you open?", "And on Sunday?", "On Sunday we are closed."]
    assert result["report"] == "asked 2, answered 1, cut off 1"


async def test_nothing_of_an_answer_that_was_cut_off_is_kept(build: Build) -> None:
    line, saver = Line(), InMemorySaver()
    graph = build(line, checkpointer=saver)
    async with graph.live(EMPTY, THREAD, stream_mode="updates") as run:
        await run.signal("audio", b"When do you open?")
        await of(line.reached)
        await run.signal("audio", b"Never mind!")
        await until(run, "answer")
        await run.signal("hang_up", True)
    kept = [str(values) async for values in saver.alist(THREAD)]
    assert kept and not any("nine" in values for values in kept)
    assert texts((await graph.aget_state(THREAD)).values) == [
        "When do you open?", "Never mind!", "You are welcome. Goodbye!",
    ]  # fmt: skip


async def test_hanging_up_ends_the_call_in_the_middle_of_an_answer(build: Build) -> None:
    line = Line()
    async with build(line).live(EMPTY, stream_mode=[]) as run:
        await run.signal("audio", b"When do you open?")
        await of(line.reached)
        await run.signal("hang_up", True)
        await of(line.cut)
        result = await run.result()
    assert (texts(result), result["report"]) == (["When do you open?"], "asked 1, answered 0, cut off 0")


async def test_a_silent_caller_is_hung_up_on_but_not_while_the_desk_speaks(build: Build) -> None:
    line = Line()
    async with build(line, patience=0.02).live(EMPTY, stream_mode="updates") as run:
        await run.signal("audio", b"When do you open?")
        await of(line.reached)
        for _ in range(3):
            await until(run, "watch")
        await run.signal("audio", b"On Sunday?")
        await asyncio.wait_for(until(run, "wrap_up"), 100)
        assert texts(await run.result())[-1] == "On Sunday we are closed."


async def test_the_call_that_it_plays() -> None:
    assert await voice_desk.play(voice_desk.graph) == [
        "caller  Good morning, when do you open?",
        "desk    We are open from nine to five on weekdays, --",
        "caller  And on Sunday?",
        "desk    On Sunday we are closed.",
        "caller  Thank you.",
        "desk    You are welcome. Goodbye!",
        "        asked 3, answered 2, cut off 1",
    ]


def test_without_a_line_there_is_nothing_to_do() -> None:
    assert voice_desk.graph.invoke(EMPTY) == EMPTY


def test_its_drawing_tells_signals_and_timers_from_nodes() -> None:
    drawn = draw_text(voice_desk.graph)
    assert "START ⇢ listen [audio, hang_up], watch [tick]" in drawn
    assert "listen ⇢ answer, watch [latest], wrap_up" in drawn
