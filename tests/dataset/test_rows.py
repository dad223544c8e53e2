"""Where rows come from and what becomes of them: sources, columns, results, ids, order, shards."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AnyMessage
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import MessagesState
from pydantic import BaseModel

from agentmatrix import Dag, arefine, refine
from agentmatrix.testing import ScriptedChatModel

ROWS: list[dict[str, Any]] = [{"id": f"q{n}", "question": f"what is {n}"} for n in range(7)]
INPUT = {"messages": "question"}


def model() -> ScriptedChatModel:
    return ScriptedChatModel(lambda messages: messages[-1].text.upper(), cycle=True)


def one_node(scripted: ScriptedChatModel) -> Any:
    return Dag(MessagesState).add_node("answer", scripted).compile()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_id(records: Any) -> list[dict[str, Any]]:
    return sorted(records, key=lambda record: record["id"])


def write_jsonl(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines_in_json_lines_out_and_the_second_time_no_model_is_asked(tmp_path: Path) -> None:
    scripted = model()
    source, output = write_jsonl(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    report = refine(one_node(scripted), source, output, input=INPUT)
    assert (report.done, report.asked, report.left, report.total, report.ended) == (7, 7, 0, 7, "input")
    assert by_id(read(output))[2] == {
        "id": "q2",
        "question": "what is 2",
        "messages": [
            {"role": "user", "content": "what is 2"},
            {"role": "assistant", "content": "WHAT IS 2", "name": "answer"},
        ],
    }
    again = refine(one_node(scripted), source, output, input=INPUT)
    assert (again.done, again.asked, scripted.calls, len(read(output))) == (7, 0, 7, 7)


def csv_text(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet"])
def test_files_are_read(tmp_path: Path, ending: str) -> None:
    rows = [*ROWS, {"id": "lines", "question": 'of "two"\nlines, ja: äöü'}]
    path = tmp_path / f"in{ending}"
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet is the extra `data`")
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = csv_text(rows) if ".csv" in ending else "".join(json.dumps(row) + "\n\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode("utf-8-sig"))

    def answer(columns: dict[str, Any]) -> dict[str, str]:
        return {"answer": columns["question"].upper()}

    output = tmp_path / "out.jsonl"
    assert refine(answer, path, output, limit=3).done == 3
    assert refine(answer, path, output).done == 8
    assert by_id(read(output)) == by_id([{**row, "answer": row["question"].upper()} for row in rows])


class LikeHuggingFace:
    """A dataset as `datasets.load_dataset` gives it: a length, and rows by iteration."""

    def __len__(self) -> int:
        return len(ROWS)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(ROWS)


async def later() -> AsyncIterator[dict[str, Any]]:
    for row in ROWS:
        await asyncio.sleep(0)
        yield row


@pytest.mark.parametrize(
    "rows",
    [ROWS, tuple(ROWS), LikeHuggingFace(), (row for row in ROWS), later()],
    ids=["list", "tuple", "like Hugging Face", "generator", "async generator"],
)
async def test_iterables_are_read(rows: Any) -> None:
    report = await arefine(one_node(model()), rows, input=INPUT)
    assert report.done == report.total == 7
    assert [record["messages"][1]["content"] for record in by_id(report.rows)] == [f"WHAT IS {n}" for n in range(7)]


def test_stdin_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.BytesIO("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines))
    assert refine(one_node(model()), "-", input=INPUT).done == 7


def test_a_generator_is_read_as_far_as_slots_are_free() -> None:
    taken: list[int] = []
    seen: list[int] = []

    def endless() -> Iterator[dict[str, int]]:
        n = 0
        while True:
            taken.append(n)
            yield {"id": n}
            n += 1

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        seen.append(len(taken))
        return {}

    assert refine(answer, endless(), limit=1000, max_concurrency=4).done == 1000
    assert len(taken) == 1000
    # Two chunks of 256 rows are read ahead.
    assert all(ahead - number <= 3 * 256 for number, ahead in enumerate(seen))


class Row(TypedDict):
    question: str


class Model(BaseModel):
    question: str


def of_columns(columns: dict[str, Any]) -> dict[str, Any]:
    return {"answer": columns["question"].upper()}


def of_messages(messages: list[AnyMessage]) -> str:
    return messages[-1].text.upper()


def of_unannotated(messages):
    return messages[-1].text.upper()


def of_state(state: Row) -> dict[str, Any]:
    return {"question": state["question"].upper()}


def of_model(state: Model) -> dict[str, Any]:
    return {"question": state.question.upper()}


class Callable_:
    async def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        return of_columns(columns)


@pytest.mark.parametrize(
    ("agent", "input", "last"),
    [
        (of_columns, None, lambda record: record["answer"]),
        (Callable_(), None, lambda record: record["answer"]),
        (of_messages, INPUT, lambda record: record["messages"][-1]["content"]),
        (of_unannotated, INPUT, lambda record: record["messages"][-1]["content"]),
        (of_state, None, lambda record: record["question"]),
        (of_model, None, lambda record: record["question"]),
        (model(), INPUT, lambda record: record["messages"][-1]["content"]),
        (Dag(MessagesState).add_node("m", model()), INPUT, lambda record: record["messages"][-1]["content"]),
        (
            ChatPromptTemplate.from_messages([("user", "{question}")]) | model(),
            None,
            lambda record: record["output"]["content"],
        ),
    ],
    ids=["columns", "callable", "messages", "unannotated", "state", "model", "chat model", "builder", "chain"],
)
def test_anything_that_acts_is_an_agent(agent: Any, input: Any, last: Any) -> None:
    report = refine(agent, ROWS, input=input)
    assert [last(record) for record in by_id(report.rows)] == [f"WHAT IS {n}" for n in range(7)]


async def test_input_and_result_may_be_functions_async_too() -> None:
    async def given(columns: dict[str, Any]) -> dict[str, Any]:
        return {"messages": f"tell me {columns['question']}"}

    async def result(columns: dict[str, Any], state: dict[str, Any]) -> Any:
        number = int(columns["id"][1:])
        text = state["messages"][-1].text
        return None if number == 0 else [{"id": columns["id"], "text": text, "part": part} for part in range(number)]

    report = await arefine(one_node(model()), ROWS, input=given, result=result)
    assert report.done == 7
    assert Counter(record["id"] for record in report.rows) == {f"q{n}": n for n in range(1, 7)}
    assert report.rows[0]["text"].startswith("TELL ME WHAT IS")


def test_where_accept_and_limit() -> None:
    tries: Counter[str] = Counter()

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        tries[columns["id"]] += 1
        return {"tries": tries[columns["id"]]}

    def accept(columns: dict[str, Any], state: dict[str, Any]) -> bool:
        return bool(state["tries"] >= 2 and columns["id"] != "q3")

    report = refine(answer, ROWS, where=lambda columns: columns["id"] != "q1", accept=accept, limit=5)
    assert (report.done, report.rejected, report.filtered, report.ended) == (3, 1, 1, "limit")
    assert tries == {"q0": 2, "q2": 2, "q3": 3, "q4": 2}
    (rejected,) = report.failures
    assert (rejected.id, rejected.status, rejected.attempts, rejected.name) == ("q3", "rejected", 3, "row 4")


def test_repetitions_have_ids_and_seeds(tmp_path: Path) -> None:
    async def answer(columns: dict[str, Any], config: Any) -> dict[str, Any]:
        return {"seed": config["configurable"]["repetition"]}

    output = tmp_path / "out.jsonl"
    report = refine(answer, ROWS, output, repetitions=3)
    assert report.done == report.total == 21
    found = [(record["id"], record["repetition"], record["seed"]) for record in read(output)]
    assert sorted(found) == [(f"q{n}", r, r) for n in range(7) for r in range(3)]
    assert refine(answer, ROWS, output, repetitions=3).asked == 0


def test_equal_rows_are_run_once() -> None:
    rows = [{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "a"}]
    report = refine(of_texts, rows)
    assert (report.done, report.duplicates, report.total) == (2, 2, 2)
    many = [{"text": f"{n % 700}"} for n in range(2000)]
    report = refine(of_texts, many, max_concurrency=5)
    assert (report.done, report.duplicates, report.total) == (700, 1300, 700)


async def of_texts(columns: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(columns["text"])}


def test_order_of_the_input_for_any_concurrency(tmp_path: Path) -> None:
    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.02 if columns["id"] % 9 == 0 else 0)
        return {"square": columns["id"] ** 2}

    rows = [{"id": n} for n in range(100)]
    outputs = []
    for slots in (1, 7, 64):
        output = tmp_path / f"{slots}.jsonl"
        refine(answer, rows, output, order="input", max_concurrency=slots)
        outputs.append(output.read_bytes())
    assert len(set(outputs)) == 1
    assert [record["id"] for record in read(tmp_path / "7.jsonl")] == list(range(100))


def test_shards_are_all_rows_and_none_twice() -> None:
    rows = [{"text": f"row {n}"} for n in range(50)]
    parts = [refine(of_texts, rows, shard=f"{i}/3").rows for i in (1, 2, 3)]
    assert all(parts)
    assert sorted(record["text"] for part in parts for record in part) == sorted(row["text"] for row in rows)


def test_csv_is_made_at_the_end(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    refine(of_columns, ROWS[:3], output, order="input")
    refine(of_columns, ROWS, output, order="input")
    with output.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{**row, "answer": row["question"].upper()} for row in ROWS]


def test_parquet_is_made_at_the_end(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet is the extra `data`")
    import pyarrow.parquet

    output = tmp_path / "out.parquet"
    refine(one_node(model()), ROWS, output, input=INPUT, order="input")
    records = pyarrow.parquet.read_table(output).to_pylist()
    assert [record["messages"][1]["content"] for record in records] == [f"WHAT IS {n}" for n in range(7)]


def test_rows_that_were_added_are_run_and_no_others(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        asked.append(columns["id"])
        return {}

    source, output = write_jsonl(tmp_path / "in.jsonl", ROWS[1:5]), tmp_path / "out.jsonl"
    refine(answer, source, output)
    with source.open("a") as file:
        file.write(json.dumps(ROWS[5]) + "\n")
    assert refine(answer, source, output).asked == 1
    write_jsonl(source, ROWS)
    report = refine(answer, source, output)
    assert (report.asked, report.done, report.total) == (2, 7, 7)
    assert Counter(asked) == {row["id"]: 1 for row in ROWS}


@pytest.mark.parametrize("ids", [True, False])
def test_rows_that_were_moved_are_the_same_rows(tmp_path: Path, ids: bool) -> None:
    """The input is edited in any way: what is settled is known wherever it stands, and is no duplicate for that."""
    asked: list[int] = []

    async def answer(columns: dict[str, Any]) -> dict[str, Any]:
        asked.append(columns["n"])
        return {}

    def lines(*numbers: int) -> list[dict[str, Any]]:
        return [{"id": n, "n": n} if ids else {"n": n} for n in numbers]

    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    numbers = list(range(700))
    for _ in range(3):
        report = refine(answer, write_jsonl(source, lines(*numbers, numbers[-1])), output)
        assert (report.done, report.duplicates, report.left) == (len(numbers), 1, 0)
        assert Counter(asked) == dict.fromkeys(numbers, 1)
        # New rows in front and in the middle; the others in another order.
        new = [len(numbers), len(numbers) + 1]
        numbers = [new[0], *random.Random(1).sample(numbers, len(numbers)), new[1]]
    assert len(set(output.read_text().splitlines())) == 704


async def test_a_sync_caller_inside_a_loop_has_its_rows_too() -> None:
    assert refine(of_columns, ROWS).done == 7
