"""What is loaded when nobody needs it yet: nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import jedi
import pytest

import agentmatrix

HEAVY = {
    "langgraph",
    "langchain_core",
    "grpc",
    "google.protobuf",
    "numpy",
    "uvloop",
    "httpx",
    "ray",
    "pyarrow",
    "sqlite3",
    "starlette",
    "uvicorn",
}
PUBLIC_MODULES = ["middleware", "display", "errors", "speakers", "stops", "testing", "watch"]


def loaded_after(code: str) -> set[str]:
    code = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    return set(ended.stderr.split())


RUN = "import runpy; sys.argv = {}; runpy.run_module('agentmatrix', run_name='__main__')"


@pytest.mark.parametrize(
    "code",
    [
        "import agentmatrix; dir(agentmatrix)",
        RUN.format(["agentmatrix", "--help"]),
        RUN.format(["agentmatrix", "serve", "--help"]),
        RUN.format(["agentmatrix", "refine", "--help"]),
        RUN.format(["agentmatrix", "ui", "--help"]),
    ],
)
def test_import_and_help_load_neither_langgraph_nor_grpc(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_each_public_name_is_there() -> None:
    for name in agentmatrix.__all__:
        assert getattr(agentmatrix, name).__name__ == name
    assert set(agentmatrix.__all__) <= set(dir(agentmatrix))


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_each_public_module_is_an_attribute(name: str) -> None:
    print_it = f"import agentmatrix; print(agentmatrix.{name}.__name__)"
    ended = subprocess.run([sys.executable, "-c", print_it], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == f"agentmatrix.{name}"


def test_completion_offers_the_public_names_only() -> None:
    offered = {*agentmatrix.__all__, *PUBLIC_MODULES, "__version__"}
    assert set(dir(agentmatrix)) == offered
    completions = jedi.Interpreter("agentmatrix.", [{"agentmatrix": agentmatrix}]).complete()
    assert {completion.name for completion in completions} == offered


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Dagg'"):
        _ = agentmatrix.Dagg


@pytest.mark.parametrize(
    "command", ["demo", "example", "run", "chat", "ui", "refine", "serve", "certs", "describe", "draw"]
)
def test_each_command_explains_itself(command: str) -> None:
    help = subprocess.run(
        [sys.executable, "-m", "agentmatrix", command, "--help"], capture_output=True, text=True, timeout=100
    )
    assert help.returncode == 0
    assert f"agentmatrix {command}" in help.stdout


def test_version() -> None:
    version = subprocess.run(
        [sys.executable, "-m", "agentmatrix", "--version"], capture_output=True, text=True, timeout=100
    )
    assert version.stdout == f"agentmatrix {agentmatrix.__version__}\n"
