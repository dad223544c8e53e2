"""The operator's page: its commands run, its unit and its container file can be read, its tables name what there is."""

from __future__ import annotations

import configparser
import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentmatrix.cli.serve import serve
from agentmatrix.session.run_record import Outcome

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "host.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD", "ARG"}


def blocks(language: str) -> list[str]:
    found = [text for kind, text in BLOCKS if kind == language]
    assert found
    return found


def options() -> set[str]:
    return {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}


def variables() -> set[str]:
    return {f"AGENTMATRIX_{name.upper()}" for name in inspect.signature(serve).parameters}


def test_its_commands_run(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra certs is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [line for text in blocks("sh") for line in text.splitlines()]
    assert [command.split()[1] for command in commands] == ["certs", "serve", "serve"]
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        if words[3] != "serve":
            subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
            continue
        with subprocess.Popen(
            [*words, "--port", "0"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as host:
            assert host.stdout is not None
            assert host.stdout.readline().startswith("serving expert at ")
            host.send_signal(signal.SIGTERM)
            _, log = host.communicate(timeout=100)
            assert host.returncode == 0 and "received SIGTERM" in log


def test_the_unit_is_one(tmp_path: Path) -> None:
    (text,) = blocks("ini")
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    assert set(re.findall(r"AGENTMATRIX_\w+", text)) <= variables()
    stop = int(unit["Service"]["TimeoutStopSec"])
    assert stop > inspect.signature(serve).parameters["drain_timeout"].default
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed; the unit was read as an INI file alone")
    # Its program and its user are not on this machine.
    here = text.replace("/srv/agents/.venv/bin/agentmatrix", sys.executable).replace("User=agents", "User=root")
    path = tmp_path / "agentmatrix.service"
    path.write_text(here.replace("WorkingDirectory=/srv/agents", "WorkingDirectory=/"))
    ended = subprocess.run([verify, "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=100)
    about_it = [line for line in ended.stderr.splitlines() if "agentmatrix" in line]
    assert not about_it, ended.stderr


def test_the_container_file_is_one() -> None:
    (text,) = blocks("dockerfile")
    lines = text.replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines]
    assert instructions[0][0] == "FROM" and instructions[-1] == ["ENTRYPOINT", '["agentmatrix", "serve"]']
    assert all(len(found) == 2 and found[0] in INSTRUCTIONS for found in instructions)
    assert set(re.findall(r"AGENTMATRIX_\w+", text)) <= variables()


def test_it_names_options_and_outcomes_that_exist() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
    assert named - options() <= {"--client", "--renew", "--timeout", "--reconnect-timeout"}
    (outcomes,) = re.findall(r"^Outcomes: (.*?)\. ", PAGE, re.MULTILINE)
    assert re.findall(r"`([^`]+)`", outcomes) == list(Outcome.__args__)


def test_it_names_the_metrics_that_there_are() -> None:
    source = (ROOT / "agentmatrix" / "host" / "run_metrics.py").read_text()
    made = {name.replace(".", "_") for name in re.findall(r'"(agentmatrix\.[a-z.]+)"', source)}
    named = set(re.findall(r"`(agentmatrix_\w+)`", PAGE))
    assert made and all(any(name.startswith(one) for name in named) for one in made)
    assert all(any(name.startswith(one) for one in made) for name in named)
