"""A team argues from the real board, and its last word is a good move whoever sits in the critics' seats."""

from __future__ import annotations

import runpy
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix.testing import ScriptedChatModel
from graphs.gobang.rules import Board, moves_in, name_of
from graphs.gobang.team import attack, captain, chat_model, defence, human, team
from graphs.gobang.words import argued, board_in, move_in, position, seed_in

WINS_BY_FOURS = Board.of("e8 d8 f8 h12 g8 a1 h9 o1 h10 o15 h11 a15".split())
THREATENED = Board.of("d8 e8 h12 f8 a1 g8 o1 h9 o15 h10 a15 h11".split())


def after(board: Board, *words: str) -> list[AnyMessage]:
    return [position(board), *(HumanMessage(text, name="somebody") for text in words)]


def said(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message.name, message.text) for message in answer["messages"] if message.name != "referee"]


def test_the_referees_message_says_all_that_a_team_needs() -> None:
    message = position(THREATENED, seed=42)
    assert board_in([message]) == THREATENED
    assert seed_in([message]) == 42
    assert "black (x) is to make move 13" in message.text
    assert str(THREATENED) in message.text


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("Play h8.", "h8"),
        ("I'd play **G9**, since h8 is taken by them", "g9"),
        ("White plays b2", "b2"),
        ("After c3 (d4) e5 they win: play f6, not c3.", "f6"),
        ("c3 looks weak to me; d4!", "d4"),
        ("Play a1.", None),
        ("No idea.", None),
    ],
)
def test_a_move_is_understood_in_anybodys_words(text: str, move: str | None) -> None:
    cell = move_in(text, Board.of(["a1"]))
    assert (cell is None and move is None) or (cell is not None and name_of(cell) == move)


def test_only_what_was_said_since_the_referee_counts() -> None:
    messages = [*after(Board(), "Play h8."), *after(Board.of(["h8"]), "Play g7.", "I agree.", "Play g9.", "Play g7.")]
    assert [name_of(cell) for cell in argued(messages)] == ["g7", "g9"]


def test_the_attack_critic_overrules_a_proposal_that_misses_a_win() -> None:
    message = attack(after(WINS_BY_FOURS, "I propose to play a8."))
    assert "wins by force" in message.text
    line = moves_in(message.text)
    board = WINS_BY_FOURS
    for cell in line[: line.index(line[0], 1)]:
        board = board.play(cell)
    assert board.winner == WINS_BY_FOURS.to_move


def test_the_defence_critic_vetoes_a_proposal_that_loses() -> None:
    message = defence(after(THREATENED, "I propose to play a8."))
    assert message.text.startswith("Veto: after a8 white wins by ")
    better = move_in(message.text, THREATENED)
    assert better is not None
    assert defence(after(THREATENED, f"Play {name_of(better)}.")).text.startswith("It stops h8 ")


def test_the_captain_takes_the_move_that_loses_to_nothing() -> None:
    veto = defence(after(THREATENED, "I propose to play a8.")).text
    better = move_in(veto, THREATENED)
    assert better is not None
    assert captain(after(THREATENED, "I propose to play a8.", veto)).text == f"Black plays {name_of(better)}."


def test_a_member_says_where_it_ran_and_what_it_searched() -> None:
    carried = attack(after(THREATENED, "I propose to play a8.")).additional_kwargs
    assert carried["searched"] > 0
    assert set(carried["ran"]) == {"host", "pid"}


def test_a_team_answers_with_all_its_members_words() -> None:
    answer = said(team(budget=300).invoke({"messages": [position(WINS_BY_FOURS)]}))
    assert [name for name, _ in answer] == ["proposer", "attack", "defence", "captain"]
    assert move_in(answer[-1][1], WINS_BY_FOURS) in {moves_in("h8")[0], *moves_in("h7 d8 i8")}


def test_a_team_says_nothing_about_a_game_that_is_over() -> None:
    won = Board.of("a1 a2 b1 b2 c1 c2 d1 d2 e1".split())
    assert said(team().invoke({"messages": [position(won)]})) == []


def test_its_deep_search_is_a_graph_of_its_own() -> None:
    inner: dict[str, Any] = dict(team().get_subgraphs(recurse=True))
    assert {"proposer", "proposer|search"} <= set(inner)
    assert {"candidates", "alpha_beta", "fours", "choose"} <= set(inner["proposer|search"].nodes)


def test_a_chat_model_may_sit_in_the_critics_seats() -> None:
    model = ScriptedChatModel("I have a feeling about the middle. Play h7.", cycle=True)
    board = Board.of(["h8", "g9"])
    answer = said(team(budget=300, critic_model=model).invoke({"messages": [position(board)]}))
    assert [text for name, text in answer if name in ("attack", "defence")] == [model.answers[0]] * 2
    asked = model.prompts[0]
    assert str(board) in asked[-1].text
    assert "proposer: I propose to play" in asked[-1].text


def test_a_chat_model_that_names_no_move_does_not_spoil_the_game() -> None:
    model = ScriptedChatModel("As a language model I play h8, which is taken.", cycle=True)
    board = Board.of("a1 c5 o1 d5 a15 e5 k12 f5".split())
    answer = said(team(budget=300, critic_model=model).invoke({"messages": [position(board)]}))
    assert answer[-1] in {("captain", "Black plays b5."), ("captain", "Black plays g5.")}


def test_a_model_that_cannot_be_had_is_one_clear_sentence() -> None:
    with pytest.raises((ImportError, ValueError), match="the chat model 'nobody:nothing'"):
        chat_model("nobody:nothing")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("name", ["agent_matrix", "megaagent", "refine", "self_organizing"])
@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (["--model", "nobody:nothing"], "argument --model: the chat model 'nobody:nothing'"),
        (["--model"], "expected one argument"),
        (["local"], "unrecognized arguments: local"),
    ],
)
def test_a_command_line_with_a_model_says_what_is_wrong(
    name: str, given: list[str], wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [name, *given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"graphs.{name}", run_name="__main__")
    assert ended.value.code == 2 and wrong in capsys.readouterr().err


def test_a_person_is_asked_with_the_board_and_again_after_a_wrong_answer() -> None:
    graph = human()
    seat = graph.copy({"checkpointer": InMemorySaver()})
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    board = Board.of(["h8"])

    asked = seat.invoke({"messages": [position(board)]}, config)["__interrupt__"][0].value
    assert "White is to move. Your move" in asked
    assert str(board) in asked

    for wrong, why in {"h8": "h8 is taken", "what?": "name one crossing", "g7 g9": "name one crossing"}.items():
        asked = seat.invoke(Command(resume=wrong), config)["__interrupt__"][0].value
        assert asked.startswith(f"{wrong!r} is no move: {why}")

    message = seat.invoke(Command(resume="G9"), config)["messages"][-1]
    assert isinstance(message, AIMessage)
    assert message.text == "White plays g9."
