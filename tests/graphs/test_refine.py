"""The datasets of graphs/refine: each way offline, with a proofreader elsewhere, and by the command line."""

from __future__ import annotations

import json
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from typer.testing import CliRunner

from agentmatrix import Host, refine
from agentmatrix.cli import app
from agentmatrix.cli.example import package_name
from agentmatrix.testing import ScriptedChatModel
from graphs.refine import QUESTIONS, dialogue, filter_append, preferences, translation

WAYS = [filter_append, translation, preferences, dialogue]


def records(module: Any, graph: Any = None) -> list[dict[str, Any]]:
    report = refine(graph or module.graph, QUESTIONS, result=module.result, order="input")
    assert (report.done, report.failed) == (len(QUESTIONS), 0)
    assert report.tokens > 0 or graph is not None
    return list(report.rows)


def test_poor_rows_are_filtered_and_good_ones_appended_to() -> None:
    found = records(filter_append)
    assert [record["id"] for record in found] == ["sum", "sky", "half"]
    assert found[0] == {**QUESTIONS[0], "explanation": "One works out 'What is 17 and 25' and gets '42'."}


def test_a_translation_is_proofread_here_or_elsewhere() -> None:
    here = records(translation)
    assert [record["french"] for record in here][2] == "(fr) asdf."
    with Host({"proofreader": translation.build_proofreader()}) as host:
        there = records(translation, translation.build(address=f"{host.address}/proofreader"))
    assert there == here


def test_pairs_are_the_best_and_the_worst_answer() -> None:
    found = records(preferences)
    assert [record["id"] for record in found] == ["sum", "sky", "half"]
    assert found[0]["chosen"][0]["content"].startswith("Be exact") and found[0]["margin"] == 6


def test_dialogues_end_in_agreement_or_not() -> None:
    found = {record["id"]: record for record in records(dialogue)}
    assert (found["sum"]["agreed"], found["sum"]["is_right"]) == ("42", True)
    assert (found["odd"]["agreed"], found["odd"]["is_right"]) == (None, False)
    assert [turn["role"] for turn in found["sum"]["dialogue"]] == ["student", "teacher"] * 2


def test_answers_of_real_models_are_read_with_care() -> None:
    """They explain themselves, forget what they were asked for, and agree alone."""
    verdicts = {"KEEP": "keep", "I would DROP it: to KEEP it makes no sense.": "drop"}
    assert {said: filter_append._verdict(said) for said in verdicts} == verdicts
    marks = {"7": 7, "**8**/9": 8, "Mark: 10": None, "2.5": None, "It is good.": None, "0, no, 3.": 3}
    assert {said: preferences._mark_of(said) for said in marks} == marks
    row = {"id": 1, "question": "?", "answer": "42"}
    answers = [{"seed": n, "text": f"t{n}", "mark": mark} for n, mark in enumerate([None, 7, 3])]
    pair = preferences.result(row, {"marked": answers})
    assert pair is not None and pair["chosen"][0]["content"] == "t1" and pair["margin"] == 4
    assert preferences.result(row, {"marked": answers[:2]}) is None
    for said, agreed, is_right in (
        (["AGREED", "AGREED. It is 42."], "It is 42", True),
        (["AGREED", "AGREED: 142"], "142", False),
        (["I think 42", "AGREED: 42"], None, False),
        (["AGREED: 42"], None, False),
    ):
        spoken = [AIMessage(text, name=name) for text, name in zip(said, ("student", "teacher"), strict=False)]
        found = dialogue.result(row, {"messages": [HumanMessage("?"), *spoken]})
        assert (found["agreed"], found["is_right"]) == (agreed, is_right)


@pytest.mark.parametrize(
    ("said", "done"),
    [("", (0, 0, 4, 4)), ("Keeper. " * 500, (0, 4, 4, 4)), ('{"ok": 1}', (0, 4, 4, 4)), ("保留 9。", (0, 4, 4, 4))],
    ids=["nothing", "endless", "json", "another language"],
)
def test_rows_fail_for_which_a_model_gives_no_answer(said: str, done: tuple[int, ...]) -> None:
    model = ScriptedChatModel(said, cycle=True, usage=True)
    reports = [refine(module.build(model), QUESTIONS, result=module.result) for module in WAYS]
    assert tuple(report.done for report in reports) == done
    assert all(report.done + report.failed == len(QUESTIONS) for report in reports)
    assert list(reports[0].rows) == list(reports[2].rows) == []
    assert all(row["agreed"] is None and not row["is_right"] for row in reports[3].rows)


@pytest.mark.parametrize("module", WAYS, ids=lambda module: module.__name__)
def test_each_takes_any_model(module: Any) -> None:
    model = ScriptedChatModel("KEEP 5 AGREED: 42", cycle=True, usage=True)
    report = refine(module.build(model), QUESTIONS, result=module.result)
    assert (report.done, report.failed) == (4, 0) and model.calls >= 4


def test_with_a_real_model_the_way_is_that_of_the_scripted_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--model local` with a model in the real one's place: each agent asks it what it would ask its scripted one."""
    asked: list[str] = []

    def note(messages: list[Any]) -> str:
        asked.append(messages[0].text)
        return "KEEP 5 AGREED: 42"

    model = ScriptedChatModel(note, cycle=True, usage=True)
    monkeypatch.setattr(import_module("graphs.gobang.team"), "local_model", lambda: model)
    monkeypatch.setattr("sys.argv", ["graphs.refine", "--model", "local"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("graphs.refine", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("4 rows done, 0 failed") == 4
    for module, words in (
        (filter_append, "JUDGE"),
        (filter_append, "EXPLAIN"),
        (translation, "TRANSLATE"),
        (translation, "PROOFREAD"),
        (preferences, "ANSWER"),
        (preferences, "JUDGE"),
    ):
        assert any(text.startswith(getattr(module, words)) for text in asked), words


def test_the_example_and_its_command_line(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["example", "refine"], prog_name="agentmatrix")
    assert ran.exit_code == 0 and ran.stdout.count(" rows done, 0 failed") == 4
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    name = f"{package_name()}.refine.preferences"
    line = ["refine", f"{name}:graph", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert CliRunner().invoke(app, [*line, "--result", f"{name}:result"], prog_name="agentmatrix").exit_code == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    assert import_module(name).graph
