"""The examples of the pages in docs/ run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
OWN_TESTS = {path.stem.removeprefix("test_").removesuffix("_page") for path in Path(__file__).parent.glob("test_*.py")}
PAGES = [page.name for page in sorted(DOCS.glob("*.md")) if "```python" in page.read_text()]
PAGES = [page for page in PAGES if page.removesuffix(".md") not in OWN_TESTS]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_in_order(page: str) -> None:
    names: dict[str, Any] = {"__name__": page}
    examples = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, page, "exec", dont_inherit=True), names)
