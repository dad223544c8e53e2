"""A whole game under the referee, with teams here and elsewhere, and people."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentmatrix.testing import ScriptedChatModel, loopback
from graphs.gobang import build, graph, human, team
from graphs.gobang.rules import SIDES, Board
from graphs.gobang.words import board_in

FAST = 150


@pytest.fixture(scope="module")
def game() -> dict[str, Any]:
    return dict(build(seed=0, budget=FAST).invoke({"moves": []}))


def test_a_game_is_played_to_its_end(game: dict[str, Any]) -> None:
    board = Board.of(game["moves"])
    assert board.over
    assert board.winner is not None
    assert game["board"] == str(board)
    assert game["result"].startswith(f"{SIDES[board.winner]} wins in {len(board.moves)} moves with ")


def test_the_record_says_who_said_what_and_how_much_was_searched(game: dict[str, Any]) -> None:
    assert len(game["messages"]) == 4 * len(game["moves"]) == game["heard"]
    captains = [message for message in game["messages"] if message.name == "captain"]
    plays = [f"{SIDES[number % 2].capitalize()} plays {move}." for number, move in enumerate(game["moves"])]
    assert [message.text for message in captains] == plays
    for side in SIDES:
        spoken = [m.additional_kwargs["searched"] for m in game["messages"] if m.additional_kwargs["side"] == side]
        assert game["searched"][side] == sum(spoken) > 0


def test_the_same_seed_is_the_same_game_and_another_seed_another(game: dict[str, Any]) -> None:
    assert build(seed=0, budget=FAST).invoke({"moves": []})["moves"] == game["moves"]
    assert build(seed=5, budget=FAST).invoke({"moves": []})["moves"][:3] != game["moves"][:3]


def test_a_team_on_a_host_plays_as_the_same_team_here(game: dict[str, Any]) -> None:
    with loopback(team(budget=FAST)) as white:
        assert build(white=white, seed=0, budget=FAST).invoke({"moves": []})["moves"] == game["moves"]


def test_what_a_remote_team_says_streams_member_by_member() -> None:
    with loopback(team(budget=FAST)) as white:
        parts: Any = build(white=white, budget=FAST).stream({"moves": ["h8"]}, stream_mode="updates", subgraphs=True)
        speakers = [
            message.name
            for namespace, update in parts
            if len(namespace) == 1 and namespace[0].startswith("white:")
            for change in update.values()
            if isinstance(change, dict)
            for message in change.get("messages", ())
        ]
    assert speakers[:4] == ["proposer", "attack", "defence", "captain"]


def test_a_game_goes_on_from_its_last_checkpoint_in_another_graph(game: dict[str, Any]) -> None:
    saver = InMemorySaver()
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    first = build(seed=0, budget=FAST, checkpointer=saver)
    update: Any
    for update in first.stream({"moves": []}, config, stream_mode="updates"):
        if len(update.get("judge", {}).get("moves", ())) == 6:
            break
    other = build(seed=0, budget=FAST, checkpointer=saver)
    assert other.get_state(config).values["moves"] == game["moves"][:6]
    assert other.invoke(None, config)["moves"] == game["moves"]


def test_a_position_can_be_set_up() -> None:
    moves = "c3 c5 d3 d5 e3 e5 f3 f5".split()
    played = build(budget=FAST).invoke({"moves": moves})
    assert played["result"].startswith("black wins in 9 moves")


def test_a_finished_game_stays_as_it_is() -> None:
    moves = "a1 a2 b1 b2 c1 c2 d1 d2 e1".split()
    assert build().invoke({"moves": moves})["moves"] == moves


def test_any_agent_may_play() -> None:
    def corner(messages: list[AnyMessage]) -> AIMessage:
        return AIMessage(f"Play o{15 - len(board_in(messages).moves) // 2 * 2}.")

    played = build(black=corner, white=ScriptedChatModel(["Play a1.", "Play a1 again!"])).invoke({"moves": []})
    assert played["moves"] == ["o15", "a1", "o13"]
    assert played["result"] == "white names no legal move and loses"


def test_a_person_plays_through_interrupts() -> None:
    graph = build(black=human(), budget=FAST, checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    asked = graph.invoke({"moves": []}, config)["__interrupt__"]
    assert "Black is to move" in asked[0].value
    asked = graph.invoke(Command(resume="nonsense"), config)["__interrupt__"]
    assert asked[0].value.startswith("'nonsense' is no move")
    played = graph.invoke(Command(resume="a1"), config)
    assert played["moves"][0] == "a1"
    assert len(played["moves"]) == 2
    assert "Black is to move" in played["__interrupt__"][0].value


async def test_a_game_can_be_played_async(game: dict[str, Any]) -> None:
    assert (await build(seed=0, budget=FAST).ainvoke({"moves": []}))["moves"] == game["moves"]


def test_the_module_has_graphs_to_serve() -> None:
    assert {"black", "white", "judge"} <= set(graph.nodes)
