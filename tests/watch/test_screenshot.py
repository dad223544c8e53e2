"""The picture as a browser paints it, in headless Chromium: the colours of the states are on the screen."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix import ChatGroup, Dag, watching
from agentmatrix.chat.human import human
from agentmatrix.stops import max_turns
from agentmatrix.testing import loopback
from tests.watch.watched_graphs import INPUT, THREAD, model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
Colour = tuple[int, int, int]

DONE, ASKING, REMOTE = (0xDC, 0xFC, 0xE7), (0xFE, 0xF9, 0xC3), (0xC2, 0x41, 0x0C)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")


def pixels(path: Path) -> Iterator[Colour]:
    """The colours of a PNG, as Chromium writes them: 8 bits a channel, not interlaced."""
    data, place, packed = path.read_bytes(), 8, b""
    width = height = channels = 0
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colours = struct.unpack(">IIBB", body[:10])
            channels = {2: 3, 6: 4}[colours]
            assert depth == 8
        elif kind == b"IDAT":
            packed += body
        place += 12 + length
    raw, size = zlib.decompress(packed), width * channels
    above = bytearray(size)
    for row in range(height):
        start = row * (size + 1)
        above = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + size]), above, channels)
        for x in range(0, size, channels):
            yield above[x], above[x + 1], above[x + 2]


def _unfiltered(kind: int, line: bytearray, above: bytearray, channels: int) -> bytearray:
    for x in range(len(line)):
        left = line[x - channels] if x >= channels else 0
        corner = above[x - channels] if x >= channels else 0
        estimate = left + above[x] - corner
        nearest = min((left, above[x], corner), key=lambda value: abs(estimate - value))
        line[x] = (line[x] + (0, left, above[x], (left + above[x]) // 2, nearest)[kind]) & 0xFF
    return line


def screenshot(page: str, folder: Path) -> Path:
    (folder / "page.html").write_text(f"<meta charset='utf-8'>{page}", encoding="utf-8")
    picture = folder / "page.png"
    command: list[Any] = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=760,900", f"--screenshot={picture}"]
    # Whatever is looked for elsewhere is not found, and would leave its mark in the log.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"file://{folder / 'page.html'}"]
    done = subprocess.run(command, capture_output=True, timeout=200)
    assert picture.exists(), done.stderr.decode()
    return picture


def test_states_have_their_colours_on_the_screen(tmp_path: Path) -> None:
    expert = Dag(name="expert")
    expert.add_sequence([("look", lambda messages: "looked"), ("write", model())])
    members = {"optimist": model("quick"), "expert": loopback(expert.compile()), "person": human("person")}
    report = Dag(name="report")
    report.add_sequence([("plan", lambda messages: "a plan"), ("panel", ChatGroup(members, stop=max_turns(3)))])
    with watching() as run:
        report.compile(checkpointer=InMemorySaver()).invoke(INPUT, THREAD)
    page = run._repr_html_()
    assert page is not None
    found = list(pixels(screenshot(page, tmp_path)))
    for colour in (DONE, ASKING, REMOTE):
        # A node of 126 by 50 pixels.
        assert found.count(colour) > 500, colour
    run.answer("Yes.")
    page = run._repr_html_()
    assert page is not None
    found = list(pixels(screenshot(page, tmp_path)))
    assert found.count(ASKING) == 0
    assert found.count(DONE) > 10_000
