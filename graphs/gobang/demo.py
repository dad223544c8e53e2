"""The demo: a whole game between a team in this process and one that another process serves."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from rich.console import Console

from agentmatrix import RemoteAgent
from agentmatrix.display import draw_text
from agentmatrix.errors import AgentMatrixError, HostUnreachable
from graphs.gobang import build, human, team
from graphs.gobang.rules import Board
from graphs.gobang.show import Show, table
from graphs.gobang.team import MODEL, Graph, chat_model
from graphs.gobang.words import board_in, position, say

_ADDRESS = re.compile(r" at (\S+)$")
_START = 60.0
_WON = Board.of("a1 a2 b1 b2 c1 c2 d1 d2 e1".split())


class GaveUp(AgentMatrixError):
    """The person who plays has stopped to answer."""


def main(
    *,
    seed: int = 0,
    host: str | None = None,
    model: str | None = None,
    opponent: str = "team",
    code: bool = False,
    console: Console | None = None,
) -> int:
    """Play a game and show it.

    Args:
        seed: the number of the game.
        host: `"host:port"` or `"host:port/agent"` of a team that is served elsewhere; by default one is served by a
            process started here.
        model: `"provider:name"` of a chat model for the critics' seats.
        opponent: `"team"`, or `"human"` for a person who plays black.
        code: print a short program that builds the game, and play none.
        console: where to show it; by default stdout.

    Returns:
        An exit code: 0, or 1 where the game played again in one process had other moves.

    Raises:
        AgentMatrixError: the host cannot be reached, or an extra is not installed; one sentence says what to do.
    """
    console = console or Console(highlight=False)
    if isinstance(console.file, io.TextIOWrapper):
        # A terminal that lacks a character of somebody's words shows another one in its place.
        console.file.reconfigure(errors="replace")
    if code:
        console.out(Path(__file__).with_name("program.py").read_text(), end="", highlight=False)
        return 0
    black = human() if opponent == "human" else team(critic_model=chat_model(model) if model else None)
    # On an event loop Ctrl-C cancels the run; in LangGraph's sync verbs it may hit a lock that is never freed then.
    with asyncio.Runner() as runner, host_at(host, model) as url, _white_at(url) as white:
        _ = white.card
        graph = build(black, white, seed=seed, checkpointer=InMemorySaver() if opponent == "human" else None)
        show = play(graph, console, white.url.removeprefix("grpc://"), seed, runner)
        console.print(table(show, {"white": white.url.removeprefix("grpc://")}, runner.run(overhead(white))))
        if model:
            console.print("Not played again: a chat model may say something else the next time.")
            return 0
        return runner.run(again(console, show.record["moves"], seed, opponent, foreign=host is not None))


def play(graph: Graph, console: Console, address: str, seed: int, runner: asyncio.Runner) -> Show:
    """Draw the graph, play the game and show it as it goes on; a person is asked for moves."""
    show = Show(console, {"white": address}, live=graph.checkpointer is None)
    console.print(f"Game {seed}: black plays here, white at {address}.\n")
    console.print(draw_text(graph, ascii=console.options.ascii_only), soft_wrap=True, markup=False)
    value: Any = {"moves": []}
    with show.playing():
        while (question := runner.run(_stretch(graph, value, show))) is not None:
            value = Command(resume=_ask(console, question))
    console.print(f"\n{show.record.get('result', '').capitalize()}.\n")
    return show


async def _stretch(graph: Graph, value: Any, show: Show) -> str | None:
    """Plays until the game ends or a person is asked; returns what is asked."""
    config: RunnableConfig = {"configurable": {"thread_id": "game"}}
    parts: AsyncIterator[Any] = graph.astream(value, config, stream_mode="updates", subgraphs=True)
    question = None
    async for namespace, update in parts:
        question = update["__interrupt__"][0].value if "__interrupt__" in update else question
        show.part(namespace, update)
    return question


def _ask(console: Console, question: str) -> str:
    console.print(question, markup=False, soft_wrap=True)
    try:
        return console.input("> ")
    except EOFError:
        raise GaveUp("the game was given up: the input ended before the game did") from None


async def overhead(white: Graph, calls: int = 40) -> float:
    """What a call of the remote team takes longer than one of the same team here, in milliseconds.

    Both are asked about a game that is over, to which a team says nothing: what is left is the call itself.
    """
    here, question = team(), {"messages": [position(_WON)]}
    took: dict[Graph, list[float]] = {white: [], here: []}
    for _ in range(calls):
        for graph, times in took.items():
            began = time.perf_counter()
            await graph.ainvoke(question)
            times.append(time.perf_counter() - began)
    return 1000 * (statistics.median(took[white]) - statistics.median(took[here]))


async def again(console: Console, moves: list[str], seed: int, opponent: str, *, foreign: bool) -> int:
    """Play the same game with both teams in this process, a person's moves as they were, and compare."""

    def recorded(messages: list[AnyMessage]) -> AIMessage:
        return say(f"Again I play {moves[len(board_in(messages).moves)]}.")

    began = time.perf_counter()
    replay = await build(recorded if opponent == "human" else None, seed=seed).ainvoke({"moves": []})
    same = replay["moves"] == moves
    console.print(
        f"The same game with both teams in this process, in {time.perf_counter() - began:.1f} s: "
        f"same moves: {'yes' if same else 'no'}"
        + (" (the team elsewhere plays in its own way)" if foreign and not same else ""),
        soft_wrap=True,
    )
    return 0 if same or foreign else 1


def _white_at(host: str) -> RemoteAgent:
    agent = RemoteAgent(host)
    return agent if agent.agent else RemoteAgent("white", url=host)


@contextmanager
def host_at(host: str | None, model: str | None) -> Iterator[str]:
    """Where white's team is served: at `host`, else by a second process, which ends with this context."""
    if host is not None:
        yield host
        return
    with tempfile.TemporaryFile("w+") as log, _ended_by_signals():
        process = _serve(log, model)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _serve(log: IO[str], model: str | None) -> subprocess.Popen[str]:
    """`agentmatrix serve graphs.gobang:white` in a session of its own: Ctrl-C is for us, and we end it."""
    command = [sys.executable, "-m", "agentmatrix", "serve", "graphs.gobang:white", "--port", "0"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path} | ({MODEL: model} if model else {})
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
    )


def _address(process: subprocess.Popen[str], log: IO[str]) -> str:
    """The address that a host prints when it listens."""
    timer = threading.Timer(_START, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
    finally:
        timer.cancel()
    if found := _ADDRESS.search(said.strip()):
        return found[1]
    process.wait()
    log.seek(0)
    why = log.read().strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    raise HostUnreachable(f"the second process did not start to serve: {why[0]}")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process as Ctrl-C does, so that the second one ends with it."""

    heard: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.raise_signal(signal.SIGINT)

    here = threading.current_thread() is threading.main_thread()
    names = [name for name in ("SIGTERM", "SIGHUP") if here and hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in (signal.Signals[name] for name in names)}
    try:
        yield
    except KeyboardInterrupt:
        if heard:
            raise SystemExit(128 + heard[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
