"""Every benchmark runs, in a small size, and says something; the figures are for `make bench`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "bench"
SMALL = {
    "bench_actors.py": ["5", "20"],
    "bench_chat.py": ["3", "3"],
    "bench_codec.py": ["0"],
    "bench_dataset.py": ["20"],
    "bench_device.py": ["1", "1"],
    "bench_engine.py": ["1", "one node"],
    "bench_groups.py": ["2"],
    "bench_growth.py": ["8", "4"],
    "bench_makespan.py": ["1", "4"],
    "bench_remote.py": ["2"],
    "bench_signals.py": ["3", "5"],
    "bench_transport.py": ["0.02"],
    "bench_values.py": ["1", "1"],
    "bench_watch.py": ["3", "4", "1"],
    "bench_wire.py": ["2"],
}


def test_each_has_a_small_size() -> None:
    assert {path.name for path in BENCHMARKS.glob("*.py")} == SMALL.keys()


@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name]])
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    out = capsys.readouterr().out
    assert any(character.isdigit() for character in out)
