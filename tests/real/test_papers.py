"""The graphs of the papers and the datasets with a real model: whatever it says, they come to their end."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="the extra local is not installed")

from agentmatrix import refine
from agentmatrix.testing import local_model
from graphs import agent_matrix
from graphs.megaagent.__main__ import trial
from graphs.refine import QUESTIONS, dialogue, filter_append, preferences, translation
from graphs.self_organizing.__main__ import calls_and_depth

pytestmark = pytest.mark.timeout(1200)


def test_the_calls_of_the_papers_graphs_do_not_depend_on_the_words() -> None:
    rows = [*agent_matrix.table(local_model(max_tokens=4)), *calls_and_depth(2, local_model(max_tokens=8))]
    assert {claim.what for claim in rows if not claim.holds} <= {"meta-prompting: an answer"}


def test_a_firm_comes_to_its_end_in_its_bounds() -> None:
    counts = {claim.what: claim.found for claim in trial(local_model(max_tokens=16))}
    assert "boss" in counts["agents"] and 0 < int(counts["calls"]) <= 8 * 4 * 8


@pytest.mark.parametrize(
    ("module", "bounds"),
    [(filter_append, {}), (translation, {}), (preferences, {"answers": 2}), (dialogue, {"turns": 2})],
    ids=["filter_append", "translation", "preferences", "dialogue"],
)
def test_each_row_is_done_or_failed(module: Any, bounds: dict[str, int]) -> None:
    report = refine(module.build(local_model(max_tokens=8), **bounds), QUESTIONS[:2], result=module.result)
    assert report.done + report.failed == 2 and report.left == 0 and report.tokens > 0
