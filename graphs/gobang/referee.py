"""The referee: a loop that hands the position to the team that is to move and enters its move, until the game ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState
from langgraph.types import Checkpointer
from typing_extensions import TypedDict

from agentmatrix import CyclicGraph

from .rules import SIDES, Board, name_of
from .team import BUDGET, Graph, team
from .words import move_in, position

LONGEST = 120
"""Moves after which a game without a winner is a draw."""


class Record(TypedDict, total=False):
    """What the referee keeps of a game: all that it takes to go on with it anywhere.

    Attributes:
        moves: the game so far, black's first move first, such as `["h8", "g9"]`.
        board: the position as text.
        searched: positions looked at, by side.
        heard: how many messages have been judged.
        result: how the game ended; empty while it goes on.
    """

    moves: list[str]
    board: str
    searched: dict[str, int]
    heard: int
    result: str


class Game(MessagesState, Record, total=False):
    """The record, and in `messages` who said what; each message says its `side` in `additional_kwargs`."""


def build(
    black: Any = None,
    white: Any = None,
    *,
    seed: int = 0,
    budget: int = BUDGET,
    critic_model: BaseChatModel | None = None,
    checkpointer: Checkpointer = None,
) -> Graph:
    """A whole game. Its input may hold `moves` to go on from; its output is a `Game`.

    Args:
        black: the agent that plays black, such as a `RemoteAgent`: it is given the referee's message and answers with
            messages, the last of which names its move. By default a `team` of this process.
        white: the same for white.
        seed: the number of the game, by which teams draw their opening and settle ties.
        budget: positions that the default teams' deep search looks at for a move, at most.
        critic_model: a chat model for the critics' seats of the default teams.
        checkpointer: as in LangGraph; a person's seat needs one.
    """
    graph = CyclicGraph(Game, name="referee", max_rounds=LONGEST + 1)
    for side, agent in zip(SIDES, (black, white), strict=True):
        agent = agent or team(budget=budget, critic_model=critic_model)
        graph.add_node(side, agent, input_map=asking(seed), output_map=heard_from(side))
        graph.add_edge(side, "judge")
    graph.add_node("judge", judge)
    graph.add_conditional_edges(START, turn, [*SIDES, END])
    graph.add_conditional_edges("judge", turn, [*SIDES, END])
    return graph.compile(checkpointer=checkpointer)


def board_of(game: Game) -> Board:
    """The position that a game has reached."""
    return Board.of(game.get("moves", []))


def asking(seed: int = 0) -> Callable[[Game], dict[str, Any]]:
    """Makes a team's input of the game: the position, and nothing that was said before."""

    def ask(game: Game) -> dict[str, Any]:
        return {"messages": [position(board_of(game), seed)]}

    return ask


def heard_from(side: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes an update of a team's answer: its words, marked with the side that they are from."""

    def heard(answer: dict[str, Any]) -> dict[str, Any]:
        words = [message for message in answer["messages"] if isinstance(message, AIMessage)]
        marked = [{"additional_kwargs": message.additional_kwargs | {"side": side}} for message in words]
        return {"messages": [message.model_copy(update=mark) for message, mark in zip(words, marked, strict=True)]}

    return heard


def judge(game: Game) -> Record:
    """Enters the move that the last message of this turn names; a side that names none loses."""
    board, said = board_of(game), game["messages"][game.get("heard", 0) :]
    side = SIDES[board.to_move]
    move = move_in(said[-1].text, board) if said else None
    searched = sum(message.additional_kwargs.get("searched", 0) for message in said)
    counted = game.get("searched", {})
    record: Record = {
        "heard": len(game["messages"]),
        "searched": counted | {side: counted.get(side, 0) + searched},
    }
    if move is None:
        return record | {"result": f"{side} names no legal move and loses"}
    board = board.play(move)
    return record | {"moves": board.names, "board": str(board), "result": verdict(board)}


def verdict(board: Board) -> str:
    """How a game ended, in words; empty while it goes on."""
    if board.winner is not None:
        return f"{SIDES[board.winner]} wins in {len(board.moves)} moves with {' '.join(map(name_of, board.five))}"
    return f"a draw after {len(board.moves)} moves" if board.over or len(board.moves) >= LONGEST else ""


def turn(game: Game) -> str:
    """The side to move, or the end."""
    board = board_of(game)
    return END if game.get("result") or verdict(board) else SIDES[board.to_move]
