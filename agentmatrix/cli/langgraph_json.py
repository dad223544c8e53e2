"""`langgraph.json`, the file in which users of LangGraph name their graphs.

What a host honours: `graphs` with their descriptions, `dependencies` that are folders, `env`, `checkpointer.path`,
`store.path` and `auth.path`. Whatever else is in the file is named in the log, and does nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agentmatrix.cli.env_file import read_env_file
from agentmatrix.cli.error_report import CommandError

__all__ = ["LanggraphJson"]

_EXAMPLE: Final = '{"graphs": {"agent": "./agent.py:graph"}}'
_HONOURED: Final = {"graphs", "dependencies", "env", "checkpointer", "store", "auth", "$schema"}
_HONOURED_GRAPH: Final = {"path", "description"}


@dataclass(frozen=True)
class LanggraphJson:
    """What a host takes of a `langgraph.json`.

    Attributes:
        path: of the file.
        graphs: the targets of the graphs by name.
        descriptions: of the graphs that have one.
        env: variables for the graphs.
        folders: for `sys.path`.
        checkpointer: the target of it; None without one.
        store: likewise.
        auth: likewise.
        ignored: sentences of what is in the file and does nothing.
    """

    path: Path
    graphs: Mapping[str, str]
    descriptions: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    folders: tuple[Path, ...] = ()
    checkpointer: str | None = None
    store: str | None = None
    auth: str | None = None
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> LanggraphJson:
        """Reads the file. Imports nothing of what it names.

        Raises:
            CommandError: the file is missing, is no JSON, has no `graphs` table, or something in it is wrong.
        """
        return _LanggraphJsonReader(path).read()

    def apply(self) -> None:
        """Sets the variables, but not those that the environment has already, and puts the folders on `sys.path`."""
        for name, value in self.env.items():
            os.environ.setdefault(name, value)
        for folder in map(str, (item.resolve() for item in self.folders)):
            if folder not in sys.path:
                sys.path.insert(0, folder)


class _LanggraphJsonReader:
    def __init__(self, path: Path) -> None:
        self._path, self._folder = path, path.parent
        self._ignored: list[str] = []

    def read(self) -> LanggraphJson:
        table = self._table()
        entries = table.get("graphs")
        if not isinstance(entries, dict) or not entries:
            raise self._error(f"has no `graphs` table such as {_EXAMPLE}")
        graphs = {name: self._target(entry, f"graphs.{name}") for name, entry in entries.items()}
        described = {
            name: str(entry["description"])
            for name, entry in entries.items()
            if isinstance(entry, dict) and entry.get("description")
        }
        for name, entry in entries.items():
            self._ignore(entry if isinstance(entry, dict) else {}, _HONOURED_GRAPH, f"graphs.{name}.")
        self._ignore(table, _HONOURED, "")
        return LanggraphJson(
            path=self._path,
            graphs=graphs,
            descriptions=described,
            env=self._env(table.get("env")),
            folders=(self._folder, *self._dependencies(table.get("dependencies", []))),
            checkpointer=self._by_path(table, "checkpointer"),
            store=self._by_path(table, "store"),
            auth=self._by_path(table, "auth"),
            ignored=tuple(self._ignored),
        )

    def _table(self) -> dict[str, Any]:
        try:
            table = json.loads(self._path.read_text())
        except OSError as error:
            name = f"{self._path} cannot be read: {error.strerror}"
            raise CommandError(f"{name}; name a graph as module:attribute") from None
        except ValueError as error:
            raise self._error(f"is not JSON: {error}") from None
        return table if isinstance(table, dict) else {}

    def _error(self, what: str) -> CommandError:
        return CommandError(f"{self._path} {what}")

    def _ignore(self, table: Mapping[str, Any], honoured: Iterable[str], prefix: str) -> None:
        self._ignored += [f"{prefix}{key}" for key in table if key not in honoured]

    def _target(self, entry: Any, key: str) -> str:
        """`path.py:attribute`, from the folder of the file; `module:attribute` as it is."""
        target = entry.get("path") if isinstance(entry, dict) else entry
        if not isinstance(target, str) or ":" not in target:
            raise self._error(f"has no target in {key}: write ./agent.py:graph or module:attribute")
        place, _, attribute = target.rpartition(":")
        if re.search(r"\.[cm]?[jt]sx?$", place):
            raise self._error(f"names a graph in JavaScript in {key}; a host serves Python only")
        return f"{self._folder / place}:{attribute}" if place.endswith(".py") else target

    def _by_path(self, table: Mapping[str, Any], key: str) -> str | None:
        """The target of something that is given by its `path`; whatever else is said of it is not honoured."""
        entry = table.get(key)
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise self._error(f'has something else than {{"path": "./{key}.py:make"}} in {key}')
        self._ignore(entry, {"path"}, f"{key}.")
        return self._target(entry, key) if "path" in entry else None

    def _env(self, env: Any) -> dict[str, str]:
        if env is None:
            return {}
        if isinstance(env, str):
            return read_env_file(self._folder / env)
        if not isinstance(env, dict) or not all(isinstance(value, str | int | float) for value in env.values()):
            raise self._error('has something else than a file or a table of texts in env: {"NAME": "value"}')
        return {name: str(value) for name, value in env.items()}

    def _dependencies(self, dependencies: Any) -> list[Path]:
        """The folders among them. A package that is not installed is one of the things that do nothing."""
        if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
            raise self._error('has something else than a list of texts in dependencies: ["."]')
        for item in dependencies:
            if not item.startswith(".") and not _is_installed(item):
                self._ignored.append(f"dependencies: {item} is not installed, and is not installed by this")
        return [self._folder / item for item in dependencies if item.startswith(".")]


def _is_installed(requirement: str) -> bool:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    try:
        return name is not None and bool(importlib.metadata.version(name[0]))
    except importlib.metadata.PackageNotFoundError:
        return False
