"""Every example of docs/groups.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import agentmatrix.speakers
import agentmatrix.stops

TEXT = (Path(__file__).parents[2] / "docs" / "groups.md").read_text()


def test_the_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/groups.md", "exec"), names)
    assert len(blocks) >= 11


def test_the_tables_name_all_that_there_is() -> None:
    for module in (agentmatrix.speakers, agentmatrix.stops):
        for name in set(module.__all__) - {"Speaker", "Stop"}:
            assert f"`{name}(" in TEXT, name
