"""The notebooks run top to bottom in a Jupyter kernel, and their graphs show themselves there."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def with_cells_run_twice(notebook: Any) -> Any:
    """The notebook with each cell tagged `run-twice` standing there twice, as where a person runs it again."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if "run-twice" in cell.metadata.get("tags", ()):
            again = deepcopy(cell)
            again["id"] = f"{cell['id']}-again"
            cells.append(again)
    notebook.cells = cells
    return notebook


def outputs(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws_offline(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = with_cells_run_twice(nbformat.read(path, as_version=4))
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(path.parent)}}).execute()
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    pictures = [output.data for output in outputs(notebook) if "image/svg+xml" in output.get("data", {})]
    assert pictures
    for picture in pictures:
        assert picture["image/svg+xml"].startswith("<svg")
        assert picture["text/plain"]
    assert any("127.0.0.1" in picture["image/svg+xml"] for picture in pictures), "a remote node is marked"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not list(outputs(notebook))
    assert all(cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
