"""The page about the local page: its graph is written, its commands are typed, and what they open is fetched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests import forked
from tests.forked import Forked
from tests.ui.page_client import page, wait_for

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ui.md").read_text()
FILES = {name: text for text, name in re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", PAGE, re.M | re.S)}
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S) for line in block.splitlines()]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
UI = [line for line in COMMANDS if line.startswith("agentmatrix ui ")]


@pytest.mark.parametrize("line", UI)
def test_a_command_opens_the_page_with_its_graphs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with Forked(forked.command, *line.split()[1:], "--address", "127.0.0.1:0") as process:
        said = process.stdout.readline()
        url = said.removeprefix("the page is at ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", url), said
        with httpx.Client(trust_env=False, timeout=100) as http:
            assert "<title>AgentMatrix</title>" in http.get(url).text
            base = url.partition("/?")[0]
            picture = http.get(f"{base}/api/graphs/graph/picture").json()
            assert "panel/person" in [node["path"] for node in picture["nodes"].values()]
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_script_is_seen_on_the_page_as_it_says(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (command,) = (line for line in COMMANDS if line.startswith("AGENTMATRIX_UI="))
    variable, url = command.split()[0].split("=")
    (block,) = (text for text in BLOCKS if "watching(ui=" in text)
    assert url in block
    with page() as client:
        (tmp_path / "script.py").write_text(f"from desk import graph\n{block}".replace(url, client.server.base_url))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), variable: client.server.base_url}
        words = [sys.executable, *command.split()[2:]]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stderr) == (0, "")
        (run,) = client.server.runs
        wait_for(client, run, lambda: run.state == "asking")
        assert run.source.startswith("script.py, process")


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
