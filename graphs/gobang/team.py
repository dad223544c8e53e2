"""A team: a proposer whose deep search is a graph of its own, two critics that may veto, and a captain's last word.

The same team plays black or white: which side it is on, it reads from the referee's message.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.graph import MessagesState
from langgraph.pregel import Pregel
from langgraph.types import interrupt
from typing_extensions import TypedDict

from agentmatrix import ChatGroup, Dag
from agentmatrix.errors import BuildError, MissingExtra
from agentmatrix.speakers import round_robin
from agentmatrix.stops import max_turns, when
from agentmatrix.testing import local_model

from .rules import SIDES, Board, moves_in, name_of
from .search import Found, candidates, forced_win, search
from .words import argued, board_in, move_in, say, seed_in, spell
from .work import begin

BUDGET = 3000
"""Positions that a deep search looks at, at most: about a tenth of a second."""

MODEL = "GOBANG_MODEL"
"""The environment variable with the chat model for the critics of `graphs.gobang:white`, as `"provider:name"`."""

Graph = Pregel[Any, Any, Any, Any]
Critic = Callable[[list[AnyMessage]], AIMessage]


class Search(TypedDict, total=False):
    """What the deep search works on: moves by name, such as `"h8"`."""

    moves: list[str]
    seed: int
    candidates: list[str]
    fours: list[str]
    line: list[str]
    score: int
    depth: int
    searched: Annotated[int, operator.add]


class Thought(MessagesState, Search, total=False):
    """What the proposer works on: the conversation and the search."""


def deep_search(budget: int = BUDGET) -> Graph:
    """The graph that looks for a move: candidates, then alpha-beta, beside it a hunt for fours, then the choice."""

    def narrow(state: Search) -> Search:
        board = Board.of(state["moves"])
        begin("candidates", board)
        cells = candidates(board, seed=state["seed"])
        return {"candidates": [name_of(cell) for cell in cells]}

    def alpha_beta(state: Search) -> Search:
        board, cells = Board.of(state["moves"]), moves_in(" ".join(state["candidates"]))
        begin("alpha_beta", board)
        found = search(board, cells, budget=budget, seed=state["seed"])
        line = [name_of(cell) for cell in found.line]
        return {"line": line, "score": found.score, "depth": found.depth, "searched": found.searched}

    def hunt(state: Search) -> Search:
        board = Board.of(state["moves"])
        begin("fours", board)
        found = forced_win(board, board.to_move)
        return {"fours": [name_of(cell) for cell in found.line], "searched": found.searched}

    def choose(state: Search) -> Search:
        return {"line": state["fours"] or state["line"], "depth": max(len(state["fours"]), state["depth"])}

    graph = Dag(Search, name="search")
    graph.add_node("candidates", narrow)
    graph.add_node("alpha_beta", alpha_beta)
    graph.add_node("fours", hunt)
    graph.add_node("choose", choose)
    graph.add_edge("candidates", "alpha_beta")
    graph.add_edge(["alpha_beta", "fours"], "choose")
    return graph.compile()


def proposer(budget: int = BUDGET) -> Graph:
    """The member that opens the argument: it reads the position, has it searched and proposes a move."""

    def read(state: Thought) -> Search:
        return {"moves": board_in(state["messages"]).names, "seed": seed_in(state["messages"])}

    def propose(state: Thought) -> AIMessage:
        line = moves_in(" ".join(state["line"]))
        if state["depth"]:
            why = f"{state['depth']} ahead I expect {spell(line)}"
        else:
            why = "nothing else will do" if len(state["moves"]) > 2 else f"so opens game {state['seed']}"
        return say(f"I propose to play {name_of(line[0])}: {why}.", state["searched"])

    graph = Dag(Thought, name="proposer")
    graph.add_node("read", read)
    graph.add_node("search", deep_search(budget))
    graph.add_node("propose", propose)
    graph.add_edge("read", "search")
    graph.add_edge("search", "propose")
    return graph.compile()


def attack(messages: list[AnyMessage]) -> AIMessage:
    """The critic that looks for a win by force, and overrules a proposal that misses it."""
    board = board_in(messages)
    begin("attack", board)
    move = (argued(messages) or candidates(board))[0]
    after, name = board.play(move), name_of(move)
    if after.over:
        return say(f"It ends the game: play {name}.")
    found = forced_win(board, board.to_move)
    if found.line and found.line[0] != move:
        return say(f"{spell(found.line)} wins by force: play {name_of(found.line[0])}, not {name}.", found.searched)
    threat = forced_win(after, board.to_move)
    searched = found.searched + threat.searched
    if found.line:
        return say(f"{spell(found.line)} wins by force: play {name}.", searched)
    if threat.line:
        return say(f"It threatens {spell(threat.line)}: play {name}.", searched)
    return say(f"I see no win by force yet: play {name}.", searched)


def defence(messages: list[AnyMessage]) -> AIMessage:
    """The critic that looks for the other side's win by force, and vetoes a proposal that allows it."""
    board = board_in(messages)
    begin("defence", board)
    move = (argued(messages) or candidates(board))[-1]
    answer, threat = refutation(board, move), forced_win(board, 1 - board.to_move)
    other, name, searched = SIDES[1 - board.to_move], name_of(move), answer.searched + threat.searched
    if not answer.line and threat.line:
        return say(f"It stops {spell(threat.line)}: play {name}.", searched)
    if not answer.line:
        return say(f"It leaves {other} no win by force: play {name}.", searched)
    for cell in dict.fromkeys((*answer.line, *candidates(board))):
        found = refutation(board, cell)
        searched += found.searched
        if not found.line:
            return say(f"Veto: after {name} {other} wins by {spell(answer.line)}. Play {name_of(cell)}.", searched)
    return say(f"After {name} {other} wins by {spell(answer.line)}, but nothing stops it: play {name}.", searched)


def captain(messages: list[AnyMessage]) -> AIMessage:
    """The last word: of the moves that were argued for one that wins by force, else the best that loses to none."""
    board = board_in(messages)
    begin("captain", board)
    named, winning = argued(messages) or candidates(board), forced_win(board, board.to_move)
    refuted = {cell: refutation(board, cell) for cell in named}
    sound = [cell for cell in named if not refuted[cell].line] or named
    choice = search(board, [cell for cell in winning.line[:1] if cell in named] or sound, budget=BUDGET // 4)
    searched = winning.searched + choice.searched + sum(found.searched for found in refuted.values())
    return say(f"{SIDES[board.to_move].capitalize()} plays {name_of(choice.line[0])}.", searched)


def refutation(board: Board, cell: int) -> Found:
    """The other side's win by force after a move; an empty line where there is none."""
    after = board.play(cell)
    return Found((), 0, 0, 0) if after.over else forced_win(after, after.to_move)


def seat(model: BaseChatModel, critic: Critic) -> Critic:
    """A critic whose words come from a chat model. Where they name no legal move, the search's words stand."""

    def speak(messages: list[AnyMessage]) -> AIMessage:
        found = critic(messages)
        task = (
            f"You are the {critic.__name__} critic of a Gobang team and are asked about the proposed move. "
            f"Your search says: {found.text}\n"
            'Answer in one or two sentences, and end with the move that you want, in the form "Play h8."'
        )
        talk = "\n\n".join(f"{message.name}: {message.text}" for message in messages)
        reply = model.invoke([SystemMessage(task), HumanMessage(talk)])
        understood = move_in(reply.text, board_in(messages)) is not None
        text = reply.text if understood else f"{reply.text}\n{found.text}".strip()
        return AIMessage(text, id=reply.id, additional_kwargs=found.additional_kwargs)

    return speak


def team(*, budget: int = BUDGET, critic_model: BaseChatModel | None = None) -> Graph:
    """A team of four, which takes the referee's message and answers with its members' words, the captain's last.

    The number of the game that the referee names seeds its opening and how ties fall, wherever it runs. Asked about
    a game that is over, it says nothing.

    Args:
        budget: positions that its deep search looks at, at most.
        critic_model: a chat model to speak in the critics' seats.
    """
    critics: dict[str, Critic] = {"attack": attack, "defence": defence}
    if critic_model is not None:
        critics = {name: seat(critic_model, critic) for name, critic in critics.items()}
    members = {"proposer": proposer(budget), **critics, "captain": captain}
    stop = max_turns(len(members)) | when(nothing_to_say)
    # The proposer is a graph of functions, which read the text as it is.
    group = ChatGroup(
        members, speaker=round_robin(), stop=stop, name="team", reply="transcript", include_agent_name=None
    )
    return group.compile()


def nothing_to_say(state: MessagesState) -> bool:
    """Whether the game that a team is asked about is over."""
    return board_in(state["messages"]).over


def human() -> Graph:
    """A person's seat: an interrupt shows the board and asks for a move, and asks again after a wrong answer."""

    def ask(messages: list[AnyMessage]) -> AIMessage:
        board = board_in(messages)
        side = SIDES[board.to_move].capitalize()
        question = f"{side} is to move. Your move, such as h8?\n{board}"
        answer = str(interrupt(question))
        while wrong := _wrong(answer, board):
            answer = str(interrupt(f"{answer!r} is no move: {wrong}. {question}"))
        return say(f"{side} plays {name_of(moves_in(answer)[0])}.")

    graph = Dag(MessagesState, name="human")
    graph.add_node("seat", ask)
    return graph.compile()


def _wrong(answer: str, board: Board) -> str:
    """What is wrong with a person's answer, empty where it is a move."""
    cells = moves_in(answer)
    if len(cells) != 1:
        return "name one crossing, a1 to o15"
    return f"{name_of(cells[0])} is taken" if cells[0] in board.moves else ""


def chat_model(name: str) -> BaseChatModel:
    """The chat model `"provider:name"`, by LangChain's `init_chat_model`; or `"local"`, which needs no key.

    Raises:
        MissingExtra: langchain, the provider's package or the extra `local` is not installed.
        BuildError: the model cannot be made, for want of a key for instance.
    """
    if name == "local":
        return local_model()
    try:
        from langchain.chat_models import init_chat_model

        model = init_chat_model(name)
    except ImportError as error:
        how = "pip install langchain" if error.name == "langchain" else error
        raise MissingExtra(f"the chat model {name!r} needs a package that is not installed: {how}") from None
    except Exception as error:
        why = " ".join(str(error).split())
        raise BuildError(f"the chat model {name!r} cannot be made: {why}") from error
    assert isinstance(model, BaseChatModel)
    return model
