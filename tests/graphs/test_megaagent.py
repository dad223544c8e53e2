"""The MegaAgent paper's firm: who is recruited, who may talk to whom, what the monitors do, and what a kill leaves."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.testing import ScriptedChatModel, loopback
from graphs.megaagent import PROMPTS, RECENT, Workspace, __main__, build
from graphs.megaagent.staff import POLICY, policy_staff, scripted
from tests.forked import Forked

THREAD: Any = {"configurable": {"thread_id": "1"}}
END: Any = {"terminate": {}}
REMIND, REVIEW = re.escape(PROMPTS["remind"]), re.escape(PROMPTS["review"])
Rules = dict[str, Any]


def add(name: str, prompt: str) -> Any:
    return {"add_agent": {"name": name, "prompt": prompt}}


def talk(to: str, text: str) -> Any:
    return {"talk": {"to": to, "text": text}}


def read(name: str) -> Any:
    return {"read_file": {"name": name}}


def write(name: str, text: str, base: str = "") -> Any:
    return {"write_file": {"name": name, "text": text, "base_hash": base}}


def status(todo: str, done: str) -> Any:
    return {"change_task_status": {"todo": todo, "done": done}}


def run(rules: Rules | ScriptedChatModel, workspace: Workspace | None = None, **bounds: int) -> tuple[Any, Any]:
    model = rules if isinstance(rules, ScriptedChatModel) else scripted(rules)
    graph: Any = build(model, workspace or Workspace(), checkpointer=InMemorySaver(), **bounds)
    return graph.invoke({"task": "begin"}, THREAD), graph.actors(THREAD)


def heard(actor: Any, kind: type[BaseMessage]) -> list[str]:
    return [message.text for message in actor.values["messages"] if isinstance(message, kind)]


def finish(*called: Any) -> Any:
    return [*called, status("", "done"), END]


@pytest.mark.parametrize("rows", [__main__.gobang, __main__.policy])
def test_the_table_has_what_the_paper_says(rows: Any) -> None:
    assert [claim for claim in rows() if not claim.holds] == []


@pytest.mark.parametrize("place", ["local", "remote"])
async def test_a_firm_is_an_agent(place: str) -> None:
    graph: Any = build(policy_staff(2, 6), Workspace())
    graph = loopback(graph) if place == "remote" else graph
    for firm in (graph.invoke({"task": POLICY}), await graph.ainvoke({"task": POLICY})):
        assert firm["result"].split(", ") in (["minister0", "minister1"], ["minister1", "minister0"])
        assert (firm["counts"]["calls"], firm["counts"]["add_agent"]) == (3 + 6 + 6 + 2 + 1, 8)


def test_a_second_task_on_the_thread_finds_the_staff() -> None:
    rules: Rules = {
        r"boss\nbegin": finish(add("ann", "Work.")),
        r"ann\n": finish(),
        r"boss\nAgain": finish(),
    }
    graph: Any = build(scripted(rules), Workspace(), checkpointer=InMemorySaver())
    for task in ("begin", "Again."):
        graph.invoke({"task": task}, THREAD)
    staff = graph.actors(THREAD)
    assert [*staff] == ["staff/boss", "staff/boss.ann"]
    assert staff["staff/boss"].count == 5  # begin, ann's report, review, again, review


@pytest.mark.parametrize("to", ["eve", "cid", "bob.cid", "ann", "boss"])
def test_talk_outside_the_neighbourhood_is_refused(to: str) -> None:
    # boss: ann, bob; bob: cid. Whoever talks is not near whom it talks to: a stranger, a peer's worker, itself.
    sender = {"eve": "boss", "cid": "ann", "bob.cid": "ann", "ann": "ann", "boss": "cid"}[to]
    rules: Rules = {
        rf"{sender}\n(?:begin|Work)": finish(talk(to, "hello"), *([add("ann", "Work.")] if sender == "boss" else [])),
        r"boss\nbegin": [add("bob", "Work."), add("ann", "Work."), status("ann, bob", ""), END],
        r"bob\nWork": [add("cid", "Work."), status("cid", ""), END],
        r"\w+\nWork": finish(),
    }
    firm, staff = run(rules)
    assert firm["counts"]["refused"] == 1
    [said] = [
        message
        for actor in staff.values()
        for message in actor.values["messages"]
        if isinstance(message, ToolMessage) and message.status == "error"
    ]
    assert "your superior" in said.text and "peer" in said.text
    assert not any(text == "hello" for actor in staff.values() for text in heard(actor, BaseMessage))


def test_superior_subordinates_and_peers_hear() -> None:
    rules: Rules = {
        r"boss\nbegin": [add("ann", "Work."), add("bob", "Wait."), talk("bob", "from boss"), END],
        r"ann\nWork": finish(talk("boss", "from ann"), talk("bob", "from ann")),
        r"bob\nfrom ann": finish(),
        r"boss\nOthers": finish(),
    }
    firm, staff = run(rules)
    assert "from ann" in heard(staff["staff/boss"], BaseMessage)
    assert {"from boss", "from ann"} <= {*heard(staff["staff/boss.bob"], BaseMessage)}
    assert (firm["waiting"], firm["result"]) == ({}, "done")


def test_nobody_is_recruited_twice() -> None:
    hired = [add("ann", "Work."), add("ann", "Work."), add("boss", "Work."), add("a b", "Work.")]
    firm, staff = run({r"boss\nbegin": finish(*hired), r"ann\n": finish()})
    assert [*staff] == ["staff/boss", "staff/boss.ann"]
    said = [text for text in heard(staff["staff/boss"], ToolMessage) if "recruited" not in text]
    assert said[:3] == [
        "there is a ann already",
        "there is a boss already",
        "'a b' is no name: take letters, digits and '_'",
    ]


def test_hiring_without_end_is_bounded() -> None:
    order = {"boss": "ann", "ann": "bob", "bob": "cid", "cid": "ann"}
    rules: Rules = {rf"{name}\n": finish(add(other, "Work.")) for name, other in order.items()}
    firm, staff = run(rules, max_agents=5)
    assert len(staff) == 5
    assert any("5 actors" in text for actor in staff.values() for text in heard(actor, ToolMessage))


def test_wrong_formats_are_bounded() -> None:
    model = ScriptedChatModel("I shall think about it.", cycle=True)
    firm, staff = run(model, max_calls=4, max_reminders=2)
    assert firm["counts"] == {"calls": 12, "format errors": 12}  # one turn, and two reminders
    assert firm["waiting"] == {"boss": "the task"}
    assert heard(staff["staff/boss"], BaseMessage).count(PROMPTS["format"]) == 12


def test_wrong_calls_are_told_to_the_model() -> None:
    wrong: Any = [{"shout": {}}, {"talk": {"text": "x"}}, {"exec_python_file": {"name": "a.py"}}]
    firm, staff = run({r"boss\nbegin": finish(*wrong)})
    unknown, missing, off, *_ = heard(staff["staff/boss"], ToolMessage)
    assert unknown.startswith("there is no function 'shout'; there are: add_agent, talk, ")
    assert missing == "to: Field required"
    assert off == "files are not run here: Workspace(execute=True) allows it, and confines nothing"
    assert firm["result"] == "done"


@pytest.mark.parametrize("id", [None, ""])
def test_a_call_without_an_id_is_answered(id: str | None) -> None:
    calls = [read("a.md"), status("", "done"), END]
    named = [
        {"name": name, "args": args, "id": id, "type": "tool_call"} for call in calls for name, args in call.items()
    ]
    firm, staff = run(ScriptedChatModel(AIMessage("", tool_calls=named), cycle=True))
    assert heard(staff["staff/boss"], ToolMessage)[:3] == [
        "there is no a.md; the files are: none",
        "noted",
        "until later",
    ]
    assert (firm["waiting"], firm["result"]) == ({}, "done")


def test_a_turn_ends_after_its_calls() -> None:
    firm, _ = run({r"boss\n": [read("notes.md")]}, max_calls=4, max_reminders=1)
    assert firm["counts"]["calls"] == 8


def test_who_waits_for_a_dead_peer_is_reminded() -> None:
    rules: Rules = {
        r"boss\nbegin": [add("ann", "Wait for bob."), add("bob", "Work."), status("ann", ""), END],
        r"bob\n": ConnectionError("no answer"),
        r"ann\n" + REMIND: finish(talk("bob", "Are you there?")),
    }
    firm, staff = run(rules)
    assert (firm["result"], firm["waiting"]) == ("ann", {})
    assert staff["staff/boss.bob"].dismissed
    assert "bob is gone: ConnectionError: no answer. Recruit another, or do without." in heard(
        staff["staff/boss"], BaseMessage
    )
    assert any("was dismissed" in text for text in heard(staff["staff/boss.ann"], ToolMessage))


def test_whose_superior_is_gone_reports_to_the_next_above() -> None:
    rules: Rules = {
        r"boss\nbegin": [add("ann", "Recruit."), status("ann, bob", ""), END],
        r"ann\nRecruit": [add("bob", "Work."), status("bob", ""), END],
        r"bob\nWork": [talk("boss.ann", "x"), talk("ann", "Are you there?"), END],
        r"ann\nAre you there": ConnectionError("no answer"),
        r"bob\nOthers": finish(),
        r"boss\nann is gone": [status("bob", ""), END],
    }
    firm, staff = run(rules)
    assert staff["staff/boss.ann"].dismissed
    assert "bob has finished: done. Review it." in heard(staff["staff/boss"], BaseMessage)
    assert (firm["result"], firm["waiting"]) == ("bob", {})


def test_a_boss_that_cannot_work_ends_the_run() -> None:
    with pytest.raises(ConnectionError, match="no answer"):
        run(ScriptedChatModel(ConnectionError("no answer"), cycle=True))


def test_the_boss_reviews_until_it_has_nothing_to_say() -> None:
    rules: Rules = {
        r"boss\nbegin": [add("ann", "Work."), status("ann", ""), END],
        r"ann\nMend it again": [status("", "mended twice"), END],
        r"ann\nMend it": [status("", "mended"), END],
        r"ann\nWork": finish(),
    }
    words = iter(["Mend it.", "Mend it again."])
    staff_by_rules = scripted(rules).answers[0]

    def answer(messages: list[BaseMessage]) -> Any:
        word = next(words, None) if messages[-1].text == PROMPTS["review"] else None
        return {"name": "talk", "args": {"to": "ann", "text": word}} if word else staff_by_rules(messages)

    firm, staff = run(ScriptedChatModel(answer, cycle=True))
    assert heard(staff["staff/boss"], BaseMessage).count(PROMPTS["review"]) == firm["reminders"] == 3
    assert staff["staff/boss.ann"].values["done"] == "mended twice"


def test_memory_is_the_last_messages_and_the_nearest() -> None:
    counted = [talk("ann", f"Count to {n}.") for n in range(12)]
    model = scripted(
        {
            r"boss\nbegin": [add("ann", "The password of the safe is 1234."), status("ann", ""), END],
            r"boss\nOthers": [*counted, talk("ann", "Open the safe.")],
            r"boss\nann was told": finish(),
            r"ann\nOpen the safe": finish(),
        }
    )
    run(model)
    [asked] = [prompt for prompt in model.prompts if prompt[-1].text == "Open the safe."]
    assert "You remember: The password of the safe is 1234.\n" in asked[0].text
    assert asked[1].type == "human" and 1 < len(asked[1:-1]) <= RECENT
    assert {message.text for message in asked[1:-1] if message.type == "human"} == {
        f"Count to {n}." for n in (9, 10, 11)
    }


def journal(folder: Path, kill_at: int) -> Any:
    """Begins in a process of its own, or goes on where another one was killed, and is killed at a call of the model."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    staff = policy_staff(3, 12)
    given = None if (folder / "asked").exists() else {"task": POLICY}

    def answer(messages: list[BaseMessage]) -> Any:
        with (folder / "asked").open("a") as file:
            file.write("x")
        if 0 < kill_at <= (folder / "asked").stat().st_size:
            os.kill(os.getpid(), signal.SIGKILL)
        return staff.answers[0](messages)

    with SqliteSaver.from_conn_string(str(folder / "db")) as saver:
        model = ScriptedChatModel(answer, cycle=True)
        graph: Any = build(model, Workspace(folder / "files.db"), checkpointer=saver)
        firm = graph.invoke(given, THREAD, durability="sync")
        print(firm["result"], firm["counts"]["add_agent"], firm["counts"]["calls"], len(firm["waiting"]), sep="\n")
        for path, actor in graph.actors(THREAD).items():
            print(path, len(actor.values["subordinates"]), len({*actor.values["subordinates"]}))


def test_a_firm_that_was_killed_goes_on_and_hires_nobody_twice(tmp_path: Path) -> None:
    pytest.importorskip("langgraph.checkpoint.sqlite")
    for kill in (1, 4, 12, 25):
        with Forked(journal, tmp_path, kill) as killed:
            assert killed.wait(100) == -signal.SIGKILL
    with Forked(journal, tmp_path, 0) as resumed:
        said, errors = resumed.communicate(100)
    assert said, errors
    result, hired, called, waiting, *staff = said.splitlines()
    assert sorted(result.split(", ")) == ["minister0", "minister1", "minister2"]
    assert (int(hired), int(called), int(waiting)) == (15, 1 + 3 + 12 + 12 + 3 + 1, 0)
    assert len(staff) == len({line.split()[0] for line in staff}) == 16
    assert all(count == distinct for _, count, distinct in map(str.split, staff))
    assert len(Workspace(tmp_path / "files.db").names()) == 12
    # Only who was at work at a kill was asked once more.
    assert int(called) < (tmp_path / "asked").stat().st_size <= int(called) + 4 * 16


def test_of_two_writers_with_one_hash_one_gets_the_other_s_text() -> None:
    rules: Rules = {
        r"boss\nbegin": [write("plan.md", "boss\n")],
        r"boss\nplan.md is written": [add("ann", "Work."), add("bob", "Work."), status("ann, bob", ""), END],
        r"(?:ann|bob)\nWork": [read("plan.md")],
        r"(ann|bob)\n(?:conflict: .*)?hash (\w+)(?:, and the text:)?\n(.*)": [write("plan.md", r"\3\1\n", r"\2")],
        r"(?:ann|bob)\nplan.md is written": finish(),
    }
    workspace = Workspace()
    firm, _ = run(rules, workspace)
    lines = workspace.read("plan.md").text.splitlines()
    assert (lines[0], sorted(lines[1:])) == ("boss", ["ann", "bob"])
    assert firm["result"] in ("ann, bob", "bob, ann")
