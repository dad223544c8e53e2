"""Runs LangGraph's own tests with their graphs behind a real host: `make transparency`.

Fetches the source distribution of the installed langgraph into a scratch folder, makes an environment there for its
tests, runs them unchanged and then with graphs replaced, and prints what applies, passes and fails, by file. A test
counts when it passes unchanged and at least one of its graphs was replaced. The reserved config keys of this LangGraph
that nobody has sorted yet are listed first: they do not cross to hosts, which may be why a test fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import venv
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agentmatrix.pregel.config_keys import unknown_keys

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
NEEDS = [
    "pytest", "pytest-mock", "pytest-timeout", "syrupy", "httpx", "redis", "psycopg[binary]", "pycryptodome", "uvloop",
    "anyio", "pytest-repeat", "pytest-xdist", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres",
    "langchain",
]  # fmt: skip
UNSUITED = ("test_delta_channel_benchmark.py", "test_prune_postgres.py")


def prepare(scratch: Path) -> tuple[Path, Path]:
    """The folder of LangGraph's tests and the Python to run them with."""
    release = version("langgraph")
    source = scratch / f"langgraph-{release}"
    python = scratch / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(scratch / "venv", with_pip=True)
        pinned = [f"langgraph=={release}", f"langchain-core=={version('langchain-core')}"]
        subprocess.run([python, "-m", "pip", "install", "-q", "-e", str(PROJECT), *pinned, *NEEDS], check=True)
    if not source.exists():
        fetch = ["download", "-q", "--no-deps", "--no-binary", ":all:", f"langgraph=={release}", "-d", str(scratch)]
        subprocess.run([python, "-m", "pip", *fetch], check=True)
        with tarfile.open(scratch / f"langgraph-{release}.tar.gz") as archive:
            archive.extractall(scratch, filter="data")
    return source, python


def run(source: Path, python: Path, mode: str, chosen: list[str]) -> dict[str, dict[str, Any]]:
    """Runs the tests in one mode; returns outcome and replacements by test."""
    report = source.parent / f"{mode}.json"
    report.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "NO_DOCKER": "true",
        "TRANSPARENCY": mode,
        "TRANSPARENCY_REPORT": str(report),
        "PYTHONPATH": str(HERE),
    }
    ignored = [f"--ignore=tests/{name}" for name in UNSUITED]
    command = [python, "-m", "pytest", "-p", "plugin", "-q", "--timeout=60", "--no-header"]
    command += ["-p", "no:cacheprovider", "-W", "ignore", "--tb=short", *ignored, *(chosen or ["tests"])]
    with open(source.parent / f"{mode}.log", "w") as log:
        subprocess.run(command, cwd=source, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    found: dict[str, dict[str, Any]] = json.loads(report.read_text())
    return found


def show(mode: str, base: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> int:
    """Prints a table for one mode; returns how many applicable tests failed."""
    applicable: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    failed: list[str] = []
    for test, entry in found.items():
        if base.get(test, {}).get("outcome") != "passed" or not entry.get("replaced"):
            continue
        file = test.split("::")[0].removeprefix("tests/")
        applicable[file] += 1
        if entry["outcome"] == "passed":
            passed[file] += 1
        else:
            failed.append(test)
    print(f"\n{mode}: {sum(passed.values())} of {sum(applicable.values())} applicable tests pass")
    for file in sorted(applicable):
        print(f"  {passed[file]:5d} / {applicable[file]:<5d} {file}")
    for test in failed:
        reason = (found[test].get("why") or "").strip().splitlines()
        print(f"  failed: {test}\n          {reason[-1] if reason else ''}")
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, default=PROJECT / ".transparency", help="folder for source and tests")
    parser.add_argument("--mode", action="append", choices=["nodes", "calls", "top"], help="default: all three")
    parser.add_argument("tests", nargs="*", help="files or tests, as tests/test_pregel.py")
    options = parser.parse_args()
    if unknown := sorted(unknown_keys()):
        print(f"new reserved config keys, dropped at the boundary: {', '.join(unknown)} (pregel/config_keys.py)")
    options.scratch.mkdir(parents=True, exist_ok=True)
    source, python = prepare(options.scratch)
    base = run(source, python, "off", options.tests)
    failures = [
        show(mode, base, run(source, python, mode, options.tests)) for mode in options.mode or ["nodes", "calls", "top"]
    ]
    sys.exit(1 if any(failures) else 0)


if __name__ == "__main__":
    main()
