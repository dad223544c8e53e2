"""Runs of the page as files: JSON lines, written as things happen, so that they are found after a restart."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agentmatrix.display.drawing import Drawing
from agentmatrix.errors import AgentMatrixError
from agentmatrix.ui.page_run import PageRun
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.structure import drawing_from_json, drawing_to_json

__all__ = ["RunFiles"]

logger = logging.getLogger("agentmatrix")

MOST_LISTED: Final = 500
_TAIL: Final = 20_000
_FIELDS: Final = ("id", "graph", "thread", "source", "started", "input", "title")


class RunFiles:
    """The files of a folder.

    Args:
        folder: where they are; it is made.

    Raises:
        AgentMatrixError: the folder cannot be made, or not be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (probe := folder / f".probe-{os.getpid()}").touch()
            probe.unlink()
        except OSError as error:
            raise AgentMatrixError(f"runs cannot be kept in {folder}: {error.strerror}") from None
        self._folder = folder
        self._described: dict[str, tuple[int, dict[str, Any]]] = {}

    def keep(self, run: PageRun) -> None:
        """Write what happens in a run to a file, from now on."""
        path = self._path(run.id, run.started)
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
        drawn: list[Drawing | None] = [None]

        def write(text: str) -> None:
            try:
                file.write(f"{text}\n")
                if text.startswith('{"kind": "rest"') and (drawing := run.drawing) is not None and drawing != drawn[0]:
                    drawn[0] = drawing
                    file.write(json.dumps({"drawing": drawing_to_json(drawing), "title": run.title}) + "\n")
                file.flush()
            except (OSError, ValueError):
                logger.exception("the run %s can be kept in %s no more; it goes on", run.id, path)
                run.on_item = None

        if not path.stat().st_size:
            write(json.dumps({"run": {name: run.describe()[name] for name in _FIELDS}}, ensure_ascii=False))
        run.on_item = write

    def load(self, id: str, compiled: Callable[[str], Any], on_change: Callable[[PageRun], None]) -> PageRun | None:
        """The run of a file; None where there is none that can be read.

        Args:
            id: of the run.
            compiled: gives the graph of a name, where the page has it.
            on_change: as of `PageRun`.
        """
        path = next(iter(self._folder.glob(f"*-{id}.jsonl")), None) if id.isalnum() else None
        if path is None:
            return None
        try:
            with path.open(encoding="utf-8") as file:
                meta = json.loads(file.readline())["run"]
                run = PageRun(
                    meta["id"], meta["graph"], meta["thread"], meta["source"], on_change, compiled(meta["graph"])
                )
                run.started, run.input, run.is_loaded = float(meta["started"]), str(meta["input"]), True
                for text in file:
                    _take(run, text)
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("the file %s is not of a run of the page", path, exc_info=True)
            return None
        run.close_loaded()
        return run

    def describe(self, without: set[str]) -> list[dict[str, Any]]:
        """What the list says of the runs of the folder, newest first, without some that are in memory."""
        found = []
        for path in sorted(self._folder.glob("*.jsonl"), reverse=True)[:MOST_LISTED]:
            id = path.stem.rpartition("-")[2]
            if id not in without and (told := self._description(path)) is not None:
                found.append(told)
        return found

    def _description(self, path: Path) -> dict[str, Any] | None:
        try:
            size = path.stat().st_size
            before = self._described.get(path.name)
            if before is not None and before[0] == size:
                return before[1]
            with path.open("rb") as file:
                meta = json.loads(file.readline())["run"]
                file.seek(max(size - _TAIL, 0))
                last = file.read().decode("utf-8", "replace").splitlines()
        except (OSError, ValueError, KeyError):
            return None
        rests = [line for line in last if line.startswith('{"kind": "rest"')]
        state = json.loads(rests[-1])["data"]["state"] if rests else "cut off"
        titles = [json.loads(line).get("title") for line in last if line.startswith('{"drawing"')]
        told = {**meta, "state": state, "isLive": False, "questions": int(state == "asking")}
        told["title"] = next(filter(None, reversed(titles)), meta["title"])
        self._described[path.name] = (size, told)
        return told

    def _path(self, id: str, started: float) -> Path:
        return self._folder / f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}-{id}.jsonl"


def _take(run: PageRun, text: str) -> None:
    try:
        line = json.loads(text)
    except ValueError:
        return  # The last one, of a process that was killed while it wrote.
    if "drawing" in line:
        run.drawing = drawing_from_json(line["drawing"])
    elif "path" in line:
        run.take_event(RunEvent.from_json({key: line[key] for key in RunEvent._fields}))
    else:
        run.take_own(line["kind"], line["at"], line["data"])
