"""The demo: a whole game between a team in this process and one that another process serves, and is killed in."""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from rich.console import Console

from agentmatrix import RemoteAgent
from agentmatrix.display import draw_text
from agentmatrix.errors import AgentMatrixError, HostLost

from . import build, human, team
from .rules import SIDES, Board
from .second import KillingSaver, Second, ended_by_signals
from .show import Show, table
from .team import Graph, chat_model
from .words import board_in, position, say
from .work import Done, written_down

KILLED = 6
"""The move in the middle of which white's host is killed."""

_WON = Board.of("a1 a2 b1 b2 c1 c2 d1 d2 e1".split())


class Match:
    """The two teams of a game, and the checkpoints from which it can go on.

    Args:
        black: the team of this process.
        host: `"host:port"` or `"host:port/agent"` of white's team.
        seed: the number of the game.
        second: the process that serves white's team, where it is one of ours; killed once, at a checkpoint.
    """

    def __init__(self, black: Graph, host: str, seed: int, second: Second | None = None) -> None:
        self.white = _white_at(host)
        self.second = second
        self._black, self._seed = black, seed
        self._saver = KillingSaver(second.kill, KILLED) if second else InMemorySaver()

    def __enter__(self) -> Match:
        return self

    def __exit__(self, *exc: object) -> None:
        self.white.close()

    @property
    def address(self) -> str:
        """Where white plays."""
        return self.white.url.removeprefix("grpc://")

    def graph(self) -> Graph:
        """The game. All graphs of a match go on from the same checkpoints."""
        return build(self._black, self.white, seed=self._seed, checkpointer=self._saver)

    def start_another(self) -> None:
        """White's host was killed: starts another, on another port."""
        assert self.second is not None
        self.white.close()
        self.second.start()
        self.white = _white_at(self.second.address)


class GaveUp(AgentMatrixError):
    """The person who plays has stopped to answer."""


def main(
    *,
    seed: int = 0,
    host: str | None = None,
    model: str | None = None,
    opponent: str = "team",
    code: bool = False,
    kill: bool = True,
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
        kill: kill the process started here in the middle of a move, and go on with another.
        console: where to show it; by default stdout.

    Returns:
        An exit code: 0, or 1 where the game played again in one process had other moves, or a move was computed twice.

    Raises:
        AgentMatrixError: the host cannot be reached, or an extra is not installed; one sentence says what to do.
    """
    console = console or Console(highlight=False)
    if isinstance(console.file, io.TextIOWrapper):
        # A terminal that lacks a character of somebody's words shows another one in its place.
        console.file.reconfigure(errors="replace")
    if code:
        console.out(program(), end="", highlight=False)
        return 0
    black = human() if opponent == "human" else team(critic_model=chat_model(model) if model else None)
    # On an event loop Ctrl-C cancels the run; in LangGraph's sync verbs it may hit a lock that is never freed then.
    with asyncio.Runner() as runner, ended_by_signals(), ExitStack() as stack:
        folder = stack.enter_context(written_down())
        second = stack.enter_context(Second(model=model)) if host is None else None
        address = host or (second.address if second else "")
        match = stack.enter_context(Match(black, address, seed, second if kill else None))
        _ = match.white.card
        show = play(match, console, seed, runner, live=opponent != "human")
        done = Done.read(folder)
        console.print(table(show, done, runner.run(overhead(match.white))))
        twice = report(console, done)
        if model:
            console.print("Not played again: a chat model may say something else the next time.")
            return 1 if twice else 0
        same = runner.run(again(console, show.record["moves"], seed, opponent, foreign=host is not None))
        return 1 if twice or not (same or host) else 0


def program() -> str:
    """The text of program.py, with names that work wherever a copy of it lies."""
    text = Path(__file__).with_name("program.py").read_text(encoding="utf-8")
    return text.replace("graphs.gobang", str(__package__)).replace("from .", f"from {__package__}.")


def play(match: Match, console: Console, seed: int, runner: asyncio.Runner, *, live: bool) -> Show:
    """Draw the graph, play the game and show it as it goes on; a person is asked for moves."""
    show, graph = Show(console, {"white": match.address}, live=live), match.graph()
    console.print(f"Game {seed}: black plays here, white at {match.address}.\n")
    console.print(draw_text(graph, ascii=console.options.ascii_only), soft_wrap=True, markup=False)
    value: Any = {"moves": []}
    with show.playing():
        while True:
            try:
                question = runner.run(_stretch(graph, value, show))
            except HostLost:
                if match.second is None or not match.second.killed:
                    raise
                show.killed("white")
                match.start_another()
                show.goes_on("white", match.address)
                graph, value = match.graph(), None
                continue
            if question is None:
                break
            value = Command(resume=_ask(console, question))
    console.print(f"\n{show.record.get('result', '').capitalize()}.\n")
    return show


async def _stretch(graph: Graph, value: Any, show: Show) -> str | None:
    """Plays until the game ends or a person is asked; returns what is asked."""
    config: RunnableConfig = {"configurable": {"thread_id": "game"}}
    # "sync": no node starts before the results of those before it are kept, so none of these is computed twice.
    parts: AsyncIterator[Any] = graph.astream(value, config, stream_mode="updates", subgraphs=True, durability="sync")
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


def report(console: Console, done: Done) -> int:
    """Say how many moves were computed twice, by what the nodes have written down; return it."""
    twice = sum(len(done.twice(side)) for side in SIDES)
    if done.lines:
        lines = f"{done.lines.total():,} lines that the nodes wrote into files"
        console.print(f"Moves computed twice: {twice}, counted from {lines}.", soft_wrap=True)
    return twice


async def again(console: Console, moves: list[str], seed: int, opponent: str, *, foreign: bool) -> bool:
    """Play the game again with both teams here, a person's moves as they were; return whether it is the same."""

    def recorded(messages: list[AnyMessage]) -> AIMessage:
        return say(f"Again I play {moves[len(board_in(messages).moves)]}.")

    began = time.perf_counter()
    replay = await build(recorded if opponent == "human" else None, seed=seed).ainvoke({"moves": []})
    same: bool = replay["moves"] == moves
    console.print(
        f"The same game with both teams in this process, in {time.perf_counter() - began:.1f} s: "
        f"same moves: {'yes' if same else 'no'}"
        + (" (the team elsewhere plays in its own way)" if foreign and not same else ""),
        soft_wrap=True,
    )
    return same


def _white_at(host: str) -> RemoteAgent:
    agent = RemoteAgent(host)
    return agent if agent.agent else RemoteAgent("white", url=host)
