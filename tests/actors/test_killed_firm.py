"""A firm whose process is killed: who was hired stays hired, and each message counts once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

from tests.actors.firm import play
from tests.forked import Forked


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_590_agents_killed_at_300(tmp_path: Path, way: str, durability: str) -> None:
    admins, workers = (9, 580) if (way, durability) == ("sync", "async") else (4, 40)
    kills = [300] if workers == 580 else [1, 3, 17, 40]
    for kill in kills:
        with Forked(play, tmp_path, way, kill, admins, workers, durability) as killed:
            assert killed.wait(280) == -signal.SIGKILL
    with Forked(play, tmp_path, way, 0, admins, workers, durability) as resumed:
        said, errors = resumed.communicate(280)
    reports, *staff = said.splitlines()
    assert reports == "done", errors
    found = {path: (int(count), int(unread), heard.split(",")) for path, count, unread, heard in map(str.split, staff)}
    assert len(staff) == len(found) == 1 + admins + workers
    for path, (count, unread, heard) in found.items():
        team = sum(other.startswith(f"{path}.") and other.count(".") == path.count(".") + 1 for other in found)
        assert (count, unread, sorted(heard)) == (1 + team, 0, ["done"] * team + ["start"]), path
    # Who was at work at a kill may have been asked once more; nobody else.
    asked = (tmp_path / "asked").read_text().split()
    assert sum(count for count, _, _ in found.values()) <= len(asked) <= 2 * (admins + workers) + 1 + 8 * len(kills)
