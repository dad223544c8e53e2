"""Events and runs as JSON: what another process makes of them is the run that was seen here."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmatrix import watching
from agentmatrix.errors import AnswerError
from agentmatrix.testing import loopback
from agentmatrix.watch import RunEvent, WatchedRun, load
from tests.watch.watched_graphs import INPUT, SHAPES, THREAD, asks, panel

NODES = ["", "a:1", "a:1|b:1", "a:1|b:2", "c:1"]
text = st.text(st.characters(exclude_categories=[]), max_size=20)


def data_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    optional: dict[str, st.SearchStrategy[Any]] = {}
    required: dict[str, st.SearchStrategy[Any]] = {}
    if kind == "begin":
        optional = {"name": text, "input": text, "hidden": st.booleans(), "cached": st.booleans(), "thread_id": text}
    elif kind in ("end", "cancel"):
        optional = {"seconds": st.floats(0, 9), "output": text, "silent": st.booleans()}
    elif kind == "fail":
        optional = {"seconds": st.floats(0, 9), "error": text}
    elif kind == "ask":
        question = st.fixed_dictionaries(
            {"id": st.sampled_from("qr"), "value": st.sampled_from([1, "why?"])}, optional={"schema": st.just({})}
        )
        required, optional = {"questions": st.lists(question, max_size=2)}, {"host": text}
    elif kind in ("say", "token"):
        required = {"id": st.sampled_from("mn"), "speaker": text, "text": text}
        optional = {"role": text} if kind == "say" else {}
    elif kind == "answer":
        required = {"ids": st.lists(st.sampled_from("qr"), max_size=2), "by": text}
    else:
        optional = {"seconds": st.floats(0, 9), "tokens": st.just({"total": 3, "input": 2, "output": 1})}
    return st.fixed_dictionaries(required, optional=optional)


@st.composite
def events(draw: st.DrawFn) -> RunEvent:
    kind = draw(
        st.sampled_from(["begin", "begin", "end", "fail", "ask", "cancel", "call", "tool", "say", "token", "answer"])
    )
    namespace = draw(st.sampled_from(NODES))
    path = "/".join(part.partition(":")[0] for part in namespace.split("|"))
    run = draw(st.sampled_from(["1", "2", ""]))
    return RunEvent(kind, run, path, namespace, draw(st.floats(0, 1e10)), draw(data_of(kind)))


@given(events())
def test_an_event_is_what_it_was(event: RunEvent) -> None:
    assert RunEvent.from_json(json.loads(json.dumps(event.as_json()))) == event
    assert RunEvent.from_json(json.loads(json.dumps(list(event)))) == event


@given(st.lists(events(), max_size=30), st.integers(0, 30))
def test_a_run_of_the_same_events_is_the_same_whoever_looks_when(told: list[RunEvent], look: int) -> None:
    run = WatchedRun()
    for number, event in enumerate(told):
        run.take(event)
        if number == look:
            _ = run.records
    again = WatchedRun.from_json(json.loads(json.dumps(list(run.as_json()))))
    assert again.records == run.records
    assert list(again.events()) == list(run.events())
    assert again.version == run.version


@pytest.mark.parametrize("name", SHAPES)
def test_a_run_of_another_process_is_the_same(name: str, tmp_path: Path) -> None:
    with watching(tokens=True, values=True) as run, contextlib.suppress(ValueError):
        SHAPES[name](loopback).invoke(INPUT, THREAD)
    run.save(tmp_path / "run.jsonl")
    again = load(tmp_path / "run.jsonl")
    assert again.records == run.records
    assert again.summary() == run.summary()
    assert again.nodes == run.nodes
    assert again.transcript == run.transcript
    assert again.questions == run.questions
    for record in run.records:
        assert again.drawing(record.name) == run.drawing(record.name)
        for activation in record.activations:
            assert again.values_of(activation) == run.values_of(activation)


def test_a_run_is_sent_piece_by_piece() -> None:
    there, sent = WatchedRun(), 0
    with watching(tokens=True, values=True) as run:
        graph = panel(loopback)
        for _ in graph.stream(INPUT, THREAD):
            sent, after = run.version, sent
            for line in run.as_json(after):
                there.take_json(json.loads(json.dumps(line)))
    for line in run.as_json(sent):
        there.take_json(line)
    assert there.records == run.records
    assert there.nodes == run.nodes


def test_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    run = WatchedRun()
    run.take(RunEvent("say", "", "", "", 1.0, {"speaker": "user", "text": "\ud800"}))
    run.save(tmp_path / "run.jsonl")
    assert load(tmp_path / "run.jsonl").transcript == run.transcript


@pytest.mark.parametrize("line", [None, 7, {}, [], {"drawing": {}}, {"graph": 1, "drawing": None}, {"kind": "begin"}])
def test_what_is_no_line_is_refused(line: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        WatchedRun.from_json([line])
    (tmp_path / "run.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is not of a saved run"):
        load(tmp_path / "run.jsonl")


def test_a_question_is_answered_after_its_run_was_loaded(tmp_path: Path) -> None:
    graph = asks(loopback)
    with watching() as run:
        graph.invoke(INPUT, THREAD)
    run.save(tmp_path / "run.jsonl")
    shown = load(tmp_path / "run.jsonl")
    with pytest.raises(AnswerError, match="give load its graph"):
        shown.answer("because")
    later = load(tmp_path / "run.jsonl", graph)
    (question,) = later.questions
    assert (question.path, question.value) == ("e/ask", "why?")
    assert question.host.startswith("127.0.0.1:")
    later.answer("because", by="ann")
    assert later.state == "done"
    assert [(one.question, one.by) for one in later.answered] == [(question, "ann")]
    assert later.transcript[-1].text == "because"
    with pytest.raises(AnswerError, match="no question is open"):
        later.answer("once more")
    # The answer that was seen there is part of the file.
    later.save(tmp_path / "more.jsonl")
    assert load(tmp_path / "more.jsonl").answered == later.answered
