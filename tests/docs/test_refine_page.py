"""The page on datasets: its files are written, its commands typed, its examples run, in a reader's folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentmatrix.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "refine.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_its_commands_and_examples_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names: dict[str, Any] = {"__name__": "refine.md"}
    said: list[str] = []
    for language, text in BLOCKS:
        if language == "json":
            (tmp_path / "questions.jsonl").write_text(text)
        elif language == "sh":
            for line in text.splitlines():
                typed = shlex.split(line, comments=True)
                ran = CliRunner().invoke(app, typed[1:], prog_name="agentmatrix")
                assert (typed[0], ran.exit_code) == ("agentmatrix", 0), ran.stderr
                said.append(ran.stdout)
                assert ("# asks no model" in line) == ("nothing was to be run" in ran.stderr)
        elif language == "py":
            continue  # they need Ray: tests/dataset/test_ray.py runs them
        elif text.startswith("# answers.py"):
            (tmp_path / "answers.py").write_text(text)
        else:
            exec(compile(text, "refine.md", "exec", dont_inherit=True), names)
    assert json.loads(said[0])["id"] == "a" and said[1:] == [""] * 4
    assert (tmp_path / "short.csv").read_text().splitlines()[0] == "id,text"
    sys.modules.pop("answers")
    assert names["report"].done == 2


def test_it_names_the_modules_that_there_are() -> None:
    folder = Path(__file__).parents[2] / "graphs" / "refine"
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert named == {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
