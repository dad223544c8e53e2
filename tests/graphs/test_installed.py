"""The examples in an installed wheel: they take no name that a user's own folder may have, and run from there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
NAMES = (
    *("agent_matrix", "debate", "expert", "gobang", "hello", "megaagent", "refine", "review"),
    *("self_organizing", "voice_desk"),
)
OWN = """
from langchain_core.messages import AnyMessage

def agent(messages: list[AnyMessage]) -> str:
    return f"mine: {messages[-1].text}"
"""


@dataclass(frozen=True)
class Installed:
    """A user's folder with a folder `graphs` of its own, and the wheel installed elsewhere."""

    folder: Path
    packages: Path

    def python(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs the interpreter. `-S` leaves out .pth files, so that this clone is not on the path."""
        path = os.pathsep.join([str(self.packages), *dependencies()])
        return subprocess.run(
            [sys.executable, "-S", *args],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=240,
        )

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "agentmatrix", *args)


def dependencies() -> list[str]:
    """The folders with the installed packages."""
    here = [sysconfig.get_paths()["purelib"], *sys.path]
    return list(dict.fromkeys(place for place in here if Path(place).name in ("site-packages", "dist-packages")))


def build(folder: Path, kind: str, root: Path = ROOT) -> Path:
    builder = {"wheel": WheelBuilder, "sdist": SdistBuilder}[kind](str(root))
    return Path(next(builder.build(directory=str(folder), versions=["standard"])))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    installed = Installed(tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("packages"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(installed.packages), str(wheel)], check=True, timeout=60)
    (installed.folder / "graphs").mkdir()
    (installed.folder / "graphs" / "mine.py").write_text(OWN)
    return installed


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_the_wheel_has_one_name_at_the_top(wheel: Path) -> None:
    names = names_in(wheel)
    assert {name.partition("/")[0] for name in names} == {"agentmatrix", "agentmatrix-0.1.0.dist-info"}
    files = [path for suffix in ("py", "toml") for path in (ROOT / "graphs").rglob(f"*.{suffix}")]
    clone = {f"agentmatrix/{path.relative_to(ROOT).as_posix()}" for path in files}
    assert {name for name in names if name.startswith("agentmatrix/graphs/")} == clone
    assert "agentmatrix/py.typed" in names


def test_the_wheel_of_an_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    sdist = build(tmp_path, "sdist")
    subprocess.run([sys.executable, "-m", "tarfile", "-e", str(sdist), str(tmp_path)], check=True, timeout=60)
    again = build(tmp_path, "wheel", tmp_path / sdist.name.removesuffix(".tar.gz"))
    assert names_in(again) == names_in(wheel)


def test_an_editable_install_is_the_clone_on_the_path(tmp_path: Path) -> None:
    path = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["editable"]))
    with zipfile.ZipFile(path) as archive:
        files = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert [archive.read(name).decode().strip() for name in files] == [str(ROOT)]


def test_a_folder_named_graphs_of_ones_own_works(installed: Installed) -> None:
    ran = installed.cli("run", "graphs.mine:agent", "--input", "hello")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "mine: hello" in ran.stdout
    where = installed.python("-c", "import agentmatrix, graphs.mine; print(agentmatrix.__file__, graphs.mine.__file__)")
    assert where.stdout.split() == [
        str(installed.packages / "agentmatrix" / "__init__.py"),
        str(installed.folder / "graphs" / "mine.py"),
    ]


@pytest.mark.timeout(300)
def test_the_demo_plays(installed: Installed) -> None:
    ran = installed.cli("demo", "--seed", "2")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "wins in 21 moves" in ran.stdout
    assert "Moves computed twice: 0" in ran.stdout
    assert "same moves: yes" in ran.stdout


def test_the_program_of_the_demo_names_what_is_there(installed: Installed) -> None:
    printed = installed.cli("demo", "--code").stdout
    assert "from agentmatrix.graphs.gobang.team import" in printed
    assert "serve agentmatrix.graphs.gobang:white" in printed
    (installed.folder / "game.py").write_text(printed)
    ran = installed.python("game.py")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "wins in" in ran.stdout


def test_examples_are_listed(installed: Installed) -> None:
    ran = installed.cli("example")
    assert (ran.returncode, ran.stderr) == (0, "")
    listed = ran.stdout.splitlines()[: len(NAMES)]
    assert [line.split()[0] for line in listed] == [*NAMES]
    assert all(line.endswith(".") for line in listed)
    assert "agentmatrix.graphs.NAME:graph" in ran.stdout


@pytest.mark.parametrize("name", ["hello", "megaagent", "self_organizing", "voice_desk"])
def test_an_example_runs(installed: Installed, name: str) -> None:
    ran = installed.cli("example", name)
    assert (ran.returncode, ran.stderr) == (0, "")
    said = {
        "hello": "I have this to say: hello.",
        "megaagent": "policy: files, one by each expert",
        "self_organizing": "sequential 16 simulated",
        "voice_desk": "answered 2, cut off 1",
    }
    assert said[name] in ran.stdout
    assert "differs" not in ran.stdout


def test_the_clone_s_name_of_an_example_is_mended(installed: Installed) -> None:
    ran = installed.cli("run", "graphs.hello:graph", "--input", "hello")
    assert ran.returncode == 2
    assert "did you mean agentmatrix.graphs.hello?" in ran.stderr
