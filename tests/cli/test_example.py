"""`example`: the graphs that come with AgentMatrix, listed and run; here from a clone."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from agentmatrix.cli.example import examples, package_name
from tests.cli.conftest import Project

ROOT = Path(__file__).parents[2]


def test_each_example_is_listed_with_what_it_is(project: Project) -> None:
    shown = project.cli("example")
    assert (shown.code, shown.err) == (0, "")
    names = {path.stem for path in (ROOT / "graphs").iterdir() if not path.name.startswith("_")}
    assert examples().keys() == names
    for name in names:
        assert f"{name} " in shown.out
        assert str(inspect.getdoc(import_module(f"graphs.{name}"))).partition("\n")[0] in shown.out
    assert package_name() == "graphs"
    assert " graphs.NAME:graph" in shown.out


@pytest.mark.parametrize("name", ["debate", "hello", "review"])
def test_one_runs_on_its_input(project: Project, name: str) -> None:
    ran = project.cli("example", name)
    module = import_module(f"graphs.{name}")
    assert (ran.code, ran.err) == (0, "")
    command, _, said = ran.out.partition("\n")
    assert command == f'agentmatrix run graphs.{name}:graph --input "{module.INPUT}"'
    assert module.graph.invoke({"messages": module.INPUT})["messages"][-1].text in said


@pytest.mark.parametrize("name", ["agent_matrix", "gobang", "megaagent", "self_organizing", "voice_desk"])
def test_one_that_plays_by_itself_does(project: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"graphs.{name}.main", lambda: 7)
    assert project.cli("example", name).code == 7


def test_an_unknown_one_is_one_sentence(project: Project) -> None:
    near, far = project.cli("example", "helo"), project.cli("example", "zebra")
    assert (near.code, near.err) == (2, "error: there is no example 'helo'; did you mean 'hello'?\n")
    assert (far.code, far.err.partition(";")[0]) == (2, "error: there is no example 'zebra'")
    assert "there are: agent_matrix, debate, expert, gobang, hello" in far.err


def test_the_wheel_s_name_of_an_example_is_mended(project: Project) -> None:
    ran = project.cli("draw", "agentmatrix.graphs.hello:graph")
    assert ran.code == 2
    assert "did you mean graphs.hello?" in ran.err
    assert "did you mean" not in project.cli("draw", "agentmatrix.graphs.nothing:graph").err


def test_a_package_that_hides_them_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "__init__.py").write_text("")

    def cli(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agentmatrix", *args]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    hidden, unknown = cli("example"), cli("draw", "graphs.hello:graph")
    assert (hidden.returncode, unknown.returncode) == (2, 2)
    assert (
        hidden.stderr
        == f"error: the examples are in {ROOT / 'graphs'}, hidden by a package `graphs` here: go elsewhere\n"
    )
    assert "there is no module 'graphs.hello'" in unknown.stderr
