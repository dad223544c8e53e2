"""Bad input: each is a sentence that names line or column, and no model is asked where that can be."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import MessagesState
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from agentmatrix import Dag, Host, RemoteAgent, refine
from agentmatrix.errors import DatasetError, MissingExtra, Unauthenticated
from agentmatrix.testing import ScriptedChatModel
from tests.forked import Forked

GOOD = '{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'


async def answer(columns: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(columns["text"])}


async def never(columns: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("no agent may be asked")


def refused(tmp_path: Path, text: str | bytes, name: str = "in.jsonl", agent: Any = never, **options: Any) -> str:
    """The sentence with which these rows are refused."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    options.setdefault("output", tmp_path / "out.jsonl")
    with pytest.raises((DatasetError, MissingExtra)) as raised:
        refine(agent, path, **options)
    return str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, sentence in (
        (tmp_path / "nothing.jsonl", "there is no file"),
        (tmp_path / "in.txt", "has an unknown ending: rows are read from .jsonl, .csv"),
        (tmp_path, "has an unknown ending"),
    ):
        with pytest.raises(DatasetError, match=sentence):
            refine(never, path, tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_dataset() -> None:
    with pytest.raises(DatasetError, match="not int"):
        refine(never, 7)
    with pytest.raises(DatasetError, match="a single row was given"):
        refine(never, {"id": 1, "text": "a"})
    with pytest.raises(DatasetError, match=r"several splits was given \(train, test\)"):
        refine(never, {"train": [{"id": 1}], "test": [{"id": 2}]})
    with pytest.raises(DatasetError, match="row 2 is no row: it is of type str, not a dict"):
        refine(answer, [{"id": 1, "text": "a"}, "b"])


def test_no_rows_are_no_error(tmp_path: Path) -> None:
    for name in ("in.jsonl", "in.csv"):
        (tmp_path / name).write_text("")
        assert refine(never, tmp_path / name, tmp_path / f"{name}.out.jsonl").total == 0
    assert refine(never, []).total == 0


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    for line, sentence in (
        ('{"id": 3, "text": }', "line 3 is no row: it is not JSON: Expecting value at column 19"),
        (
            '{"id": 3, ',
            "line 3 is no row: it is not JSON: Expecting property name enclosed in double quotes at column 11",
        ),
        ("[1, 2]", "line 3 is no row: it is no object {...} but a list"),
        ("null", "line 3 is no row: it is no object {...} but null"),
        ('{"id": 3, "text": NaN}', "line 3 is no row: it is not JSON: NaN is no JSON"),
        ("[" * 100_000, "line 3 is no row: it is"),
    ):
        folder = tmp_path / str(abs(hash(line)))
        folder.mkdir()
        assert refused(folder, f"{GOOD}{line}\n").startswith(sentence)
        assert [path.name for path in folder.iterdir()] == ["in.jsonl"]
        report = refine(answer, folder / "in.jsonl", folder / "out.jsonl", skip_bad_lines=True)
        assert (report.done, report.asked, report.bad_lines) == (2, 2, 1)


def test_rows_before_a_line_that_is_none_are_kept(tmp_path: Path) -> None:
    """A line far behind is met when the rows before it are under way."""
    lines = "".join(f'{{"id": {n}, "text": ""}}\n' for n in range(600))
    assert "line 601 is no row: it is not JSON: Unterminated string starting at column 8" in refused(
        tmp_path, lines + '{"id": "', agent=answer
    )
    # What came before is kept; so is where it stands.
    kept = len((tmp_path / "out.jsonl").read_text().splitlines())
    assert 0 < kept <= 600
    report = refine(answer, tmp_path / "in.jsonl", tmp_path / "out.jsonl", skip_bad_lines=True)
    assert (report.done, report.asked, report.bad_lines) == (600, 600 - kept, 1)


def test_csv_that_is_none(tmp_path: Path) -> None:
    assert "line 3 is no row: it has 3 cells, and the header 2" in refused(
        tmp_path, "id,text\n1,a\n2,b,c\n", "in.csv", answer
    )
    assert "line 1: the header names 'id' twice" in refused(tmp_path, "id,id\n1,2\n", "in.csv")
    assert "line 2 is no row: it is no UTF-8 text: invalid start byte at byte 3" in refused(
        tmp_path, b"id,text\n1,\xff\xfe\n", "in.csv"
    )
    assert "line 1 is no row: it is no UTF-8 text: invalid start byte at byte 1" in refused(
        tmp_path, b"\xff{}\n", output=tmp_path / "other.jsonl"
    )
    assert "cannot be read: Not a gzipped file" in refused(tmp_path, "id,text\n", "in.csv.gz")


def test_big_cells_are_read(tmp_path: Path) -> None:
    big = "x" * 10_000_000
    (tmp_path / "in.csv").write_text(f"id,text\n1,{big}\n")
    report = refine(answer, tmp_path / "in.csv", result=lambda columns, state: state)
    assert report.rows == [{"length": 10_000_000}]


def test_ids(tmp_path: Path) -> None:
    assert "line 1 has no column 'key' for its id; it has id, text" in refused(tmp_path, GOOD, id="key")
    assert "line 1 has no id: None stands where" in refused(tmp_path, '{"id": null, "text": "a"}\n')
    assert "line 1 has no id: [1] stands where" in refused(tmp_path, '{"id": [1], "text": "a"}\n')
    assert "half a surrogate pair" in refused(tmp_path, '{"id": "\\ud800", "text": "a"}\n')
    said = refused(tmp_path, GOOD + '{"id": 1, "text": "other"}\n', agent=answer)
    assert said.startswith("line 3 has the id '1' of line 1 and other content")
    # The twin of a row that an earlier run has settled.
    (tmp_path / "more.jsonl").write_text('{"id": 2, "text": "other"}\n{"id": 2, "text": "b"}\n')
    (tmp_path / "in.jsonl").write_text(GOOD)
    refine(answer, tmp_path / "in.jsonl", tmp_path / "o.jsonl")
    (tmp_path / "in.jsonl").write_text(GOOD.replace('"b"', '"changed"'))
    with pytest.raises(DatasetError, match=r"line 2 \(id '2'\) has changed since it was run"):
        refine(answer, tmp_path / "in.jsonl", tmp_path / "o.jsonl")


@pytest.mark.filterwarnings("ignore:coroutine")
def test_functions_of_rows_that_fail(tmp_path: Path) -> None:
    assert "where= failed at line 1 with KeyError: 'no'" in refused(tmp_path, GOOD, where=lambda row: row["no"])
    assert "id= failed at line 1 with KeyError: 'no'" in refused(tmp_path, GOOD, id=lambda row: row["no"])

    async def later(row: dict[str, Any]) -> bool:
        return True

    assert "where= is asked while rows are read" in refused(tmp_path, GOOD, where=later)


def chat(model: ScriptedChatModel) -> Any:
    return Dag(MessagesState).add_node("m", model).compile()


def test_columns_that_the_graph_does_not_know(tmp_path: Path) -> None:
    model = ScriptedChatModel("x", cycle=True)
    graph = chat(model)
    with Host({"chat": graph}) as host:
        for agent in (graph, RemoteAgent(f"{host.address}/chat")):
            said = refused(tmp_path, GOOD, agent=agent)
            assert "line 1 has no column that the graph knows: it takes 'messages', the row has 'id', 'text'" in said
            said = refused(tmp_path, GOOD, agent=agent, input={"massages": "text"})
            assert said == "the graph does not take 'massages'; it takes 'messages'"
            said = refused(tmp_path, GOOD, agent=agent, input={"messages": "txt"})
            assert said == "line 1 has no column 'txt'; it has 'id', 'text'"
    assert model.calls == 0


def test_outputs(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(GOOD)
    (tmp_path / "other.jsonl").write_text("precious\n")
    for output, sentence in (
        (source, "is input and output"),
        (tmp_path / "other.jsonl", "exists and .*other.jsonl.progress knows nothing of it"),
        (tmp_path / "out.txt", "has an unknown ending: rows are written to .jsonl, .csv and .parquet"),
        (tmp_path / "no" / "out.jsonl", "there is no folder"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(DatasetError, match=sentence):
            refine(never, source, output)
    assert (source.read_text(), (tmp_path / "other.jsonl").read_text()) == (GOOD, "precious\n")
    refine(answer, source, tmp_path / "other.jsonl", restart=True)
    assert len((tmp_path / "other.jsonl").read_text().splitlines()) == 2


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(GOOD)
    refine(answer, source, output)
    (tmp_path / "new.jsonl").write_text(GOOD)
    for agent, rows, options, sentence in (
        (never, source, {"repetitions": 2}, "repetitions was 1 and is 2 since the first 2 rows of"),
        (never, source, {"id": "text"}, "id was 'id' and is 'text'"),
        (never, tmp_path / "new.jsonl", {}, "the input was 'in.jsonl' and is 'new.jsonl'"),
        (chat(ScriptedChatModel("x")), source, {"input": {"messages": "text"}}, "the graph's input schema has changed"),
    ):
        with pytest.raises(DatasetError, match=sentence):
            refine(agent, rows, output, **options)
    assert refine(answer, source, output, repetitions=2, restart=True).done == 4
    # Rows that a text editor has taken away are missed.
    output.write_text("")
    with pytest.raises(DatasetError, match="it was cut or replaced; restart, or put it back"):
        refine(never, source, output, repetitions=2)


def write_for_long(folder: Path) -> None:
    async def hang(columns: dict[str, Any]) -> dict[str, Any]:
        import asyncio

        print("at work", flush=True)
        await asyncio.sleep(1000)
        return {}

    refine(hang, folder / "in.jsonl", folder / "out.jsonl", max_concurrency=1)


def test_two_runs_of_one_output(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(GOOD)
    with Forked(write_for_long, tmp_path) as process:
        assert process.stdout.readline() == "at work\n"
        with pytest.raises(DatasetError, match="is being written by another run"):
            refine(never, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert refine(answer, tmp_path / "in.jsonl", tmp_path / "out.jsonl").done == 2


def fill_the_disk(folder: Path, size: int) -> None:
    """A file of ours may have so many bytes: what is behind is refused as on a full disk."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    async def long(columns: dict[str, Any]) -> dict[str, Any]:
        return {"text": "x" * 900}

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        refine(long, [{"id": n} for n in range(500)], folder / "out.jsonl", max_concurrency=4)
    except DatasetError as error:
        print(error)


def test_a_full_disk_tears_nothing(tmp_path: Path) -> None:
    with Forked(fill_the_disk, tmp_path, 200_000) as process:
        said, errors = process.communicate(60)
    assert "cannot be written" in said, errors
    before = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert before

    async def long(columns: dict[str, Any]) -> dict[str, Any]:
        return {"text": "x" * 900}

    refine(long, [{"id": n} for n in range(500)], tmp_path / "out.jsonl")
    after = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(record["id"] for record in after) == list(range(500))


def test_a_run_that_cannot_begin_leaves_no_files(tmp_path: Path) -> None:
    with Forked(fill_the_disk, tmp_path, 5_000) as process:
        said, errors = process.communicate(60)
    assert "the progress file" in said and "cannot be" in said, errors
    assert not list(tmp_path.iterdir())

    async def without_a_right(columns: dict[str, Any]) -> None:
        raise Unauthenticated("the token is wrong")

    rows = [{"id": n} for n in range(500)]
    with pytest.raises(Unauthenticated):
        refine(without_a_right, rows, tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.jsonl").touch()
    with pytest.raises(Unauthenticated):
        refine(without_a_right, rows, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(DatasetError, match="cannot be written: Permission denied"):
        refine(never, [{"id": 1}], folder / "out.jsonl")


def test_numbers() -> None:
    for options, sentence in (
        ({"max_concurrency": 0}, "max_concurrency is a whole number from 1, not 0"),
        ({"max_concurrency": "many"}, "max_concurrency is a whole number from 1, not 'many'"),
        ({"repetitions": 0}, "repetitions is a whole number from 1"),
        ({"limit": -1}, "limit is a whole number from 1"),
        ({"timeout": -1}, "timeout is a number from 0"),
        ({"max_failures": 0}, "max_failures is a share above 0"),
        ({"order": "random"}, "order is 'done' or 'input'"),
        ({"shard": "9/8"}, "a shard is written 3/8"),
        ({"shard": "half"}, "a shard is written 3/8"),
    ):
        with pytest.raises(DatasetError, match=sentence):
            refine(never, [{"id": 1}], **options)


def test_results_that_are_no_json(tmp_path: Path) -> None:
    for value, sentence in (
        (object(), "deep[1].key is of type object"),
        (math.nan, "deep[1].key is nan"),
        ("\ud800", "deep[1].key is a text with half a surrogate pair"),
        ({(1, 2): 3}, "deep[1].key has a key of type tuple"),
    ):

        def result(columns: dict[str, Any], state: Any, value: Any = value) -> Any:
            return {"deep": [1, {"key": value}]}

        with pytest.raises(DatasetError) as raised:
            refine(answer, [{"id": 1, "text": "a"}], result=result)
        assert f"the result of row 1 is no JSON: {sentence}" in str(raised.value)
    with pytest.raises(DatasetError, match="the result of row 1 is of type int: return a dict, a list of"):
        refine(answer, [{"id": 1, "text": "a"}], result=lambda columns, state: 7)
    with pytest.raises(DatasetError, match="has a nested value, 'tags', and CSV has none"):
        refine(answer, [{"id": 1, "text": "a", "tags": [1]}], tmp_path / "out.csv")


def test_one_result_that_is_no_json_fails_its_row_only() -> None:
    def result(columns: dict[str, Any], state: Any) -> Any:
        return {"id": columns["id"], "value": math.inf if columns["id"] == 5 else 1.0}

    rows = [{"id": n, "text": "a"} for n in range(9)]
    report = refine(answer, rows, result=result, max_concurrency=1)
    assert (report.done, report.failed) == (8, 1)
    assert "value is inf" in report.failures[0].error


class Settings(TypedDict):
    tone: str


def test_a_graph_that_needs_a_context() -> None:
    def speak(state: MessagesState, runtime: Runtime[Settings]) -> dict[str, Any]:
        return {"messages": [("ai", runtime.context["tone"])]}

    graph = Dag(MessagesState, context_schema=Settings).add_node("speak", speak).compile()
    with pytest.raises(DatasetError, match=r"the graph needs a context with tone: refine\(context="):
        refine(graph, [{"id": 1, "messages": "a"}])
    report = refine(graph, [{"id": 1, "messages": "a"}], context={"tone": "soft"})
    assert report.rows[0]["messages"][-1]["content"] == "soft"


def test_a_question_that_nobody_can_answer_is_a_failure() -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": interrupt("sure?")}

    graph = Dag(MessagesState).add_node("ask", ask).compile()
    with Host({"ask": graph}) as host:
        for agent in (graph, RemoteAgent(f"{host.address}/ask")):
            report = refine(agent, [{"id": 1, "messages": "a"}])
            assert (report.done, report.failed, report.paused) == (0, 1, 0)
            assert "the graph asks 'sure?' and has no checkpointer" in report.failures[0].error


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert "in.parquet cannot be read: Parquet magic bytes not found" in refused(
        tmp_path, b"PAR1 and no more", "in.parquet"
    )
    assert not (tmp_path / "out.jsonl").exists()


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'agentmatrix[data]'" in refused(tmp_path, b"", "in.parquet")
    assert "pip install 'agentmatrix[data]'" in refused(tmp_path, GOOD, output=tmp_path / "out.parquet")
