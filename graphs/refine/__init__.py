"""Datasets refined by agents: rows filtered and filled in, translated, compared in pairs, talked through by two.

    agentmatrix example refine                   # all four on a few questions, offline
    python -m graphs.refine --model local        # with a small real model (extra `local`), or --model provider:name
    agentmatrix refine graphs.refine.preferences:graph questions.jsonl --output pairs.jsonl \\
        --result graphs.refine.preferences:result

Each module has a `graph`, a `result` that makes records of its state, and a `build(model)` that takes any chat model;
its `real` is built with a small one in this process (extra `local`). docs/refine.md tells the rest.
"""

from __future__ import annotations

from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from agentmatrix import refine

from . import dialogue, filter_append, preferences, translation

__all__ = ["QUESTIONS", "main"]

QUESTIONS: Final[list[dict[str, Any]]] = [
    {"id": "sum", "question": "What is 17 and 25?", "answer": "42"},
    {"id": "sky", "question": "Why is the sky blue?", "answer": "Air scatters blue light most."},
    {"id": "odd", "question": "asdf", "answer": ""},
    {"id": "half", "question": "What is half of 90?", "answer": "45"},
]
"""A dataset as people have it: with a row that is none."""


def main(model: BaseChatModel | None = None) -> int:
    """Refine the questions in each of the four ways, and print the records.

    Args:
        model: the chat model of all agents; by default scripted ones.
    """
    for module in (filter_append, translation, preferences, dialogue):
        report = refine(module.build(model), QUESTIONS, result=module.result, order="input")
        print(f"\n{(module.__doc__ or '').partition(chr(10))[0]}")
        print(f"{report.done} rows done, {report.failed} failed, {len(report.rows)} records, {report.tokens} tokens")
        for record in report.rows:
            print(f"  {record}")
    return 0
