"""The files of a firm, each with the hash of its text: who writes has to know what is there."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

PATIENCE = 60.0
"""Seconds that a writer waits for others."""
LONGEST_NAME = 255
"""Characters in the name of a file: what file systems take."""


class File(NamedTuple):
    """A text and its hash, both empty where there is no file."""

    text: str = ""
    hash: str = ""


class ConflictError(Exception):
    """Somebody has written since the hash that was given; `current` is the file as it is now."""

    def __init__(self, name: str, current: File) -> None:
        there = f"has now the hash {current.hash}, and the text:\n{current.text}"
        super().__init__(f"conflict: {name} {there if current.hash else 'is not there: a new file has no base hash'}")
        self.current = current


class Workspace:
    """All versions of the files, with their authors, in a SQLite table. Any number of threads and processes may write
    at once: one statement compares the hash and adds the version.

    Args:
        path: of the database; by default it is in memory.
        execute: whether its Python files may be run. Nothing confines them: they may do what this process may.
    """

    def __init__(self, path: str | Path = ":memory:", *, execute: bool = False) -> None:
        self._execute, self._lock = execute, threading.Lock()
        self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE IF NOT EXISTS versions (name, text, hash, author)")

    def _select(self, statement: str, *values: str) -> list[tuple[str, ...]]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def names(self) -> list[str]:
        """The names of all files."""
        return [name for (name,) in self._select("SELECT DISTINCT name FROM versions ORDER BY name")]

    def versions(self, name: str) -> list[tuple[str, ...]]:
        """The author and the text of each version of a file, the first one first."""
        return self._select("SELECT author, text FROM versions WHERE name = ? ORDER BY rowid", name)

    def read(self, name: str) -> File:
        """A file as it is now."""
        last = "SELECT text, hash FROM versions WHERE name = ? ORDER BY rowid DESC LIMIT 1"
        return next((File(*row) for row in self._select(last, name)), File())

    def write(self, name: str, text: str, base: str, author: str) -> str:
        """Write a file. Returns the hash of its text.

        Args:
            name: letters, digits, `_`, `-` and dots, 255 at most.
            text: the whole file.
            base: the hash of the text that the writer has read, "" for a new file.
            author: who writes.

        Raises:
            ConflictError: the file has another hash by now.
            ValueError: it cannot have that name.
        """
        if len(name) > LONGEST_NAME or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name):
            allowed = f"letters, digits, '_', '-' and dots, {LONGEST_NAME} at most"
            raise ValueError(f"{name[:80]!r} is no name of a file: take {allowed}")
        hash = blake2b(text.encode(), digest_size=8).hexdigest()
        last = "SELECT hash FROM versions WHERE name = ? ORDER BY rowid DESC LIMIT 1"
        insert = f"INSERT INTO versions SELECT ?, ?, ?, ? WHERE ? = coalesce(({last}), '')"
        with self._lock:
            written = self._db.execute(insert, (name, text, hash, author, base, name)).rowcount
        if not written and (current := self.read(name)).hash != hash:  # the same text: a turn that a kill repeats
            raise ConflictError(name, current)
        return hash

    def run(self, name: str, *args: str, timeout: float = 30) -> str:
        """Run a Python file beside all others, for so many seconds at most. Returns what it has printed, and errors, or
        that there is no such file.

        Raises:
            ValueError: files are not to be run here.
        """
        if not self._execute:
            raise ValueError("files are not run here: Workspace(execute=True) allows it, and confines nothing")
        names = self.names()
        if name not in names:  # Python would take it for an option, or for a path outside
            return f"there is no {name}; the files are: {', '.join(names) or 'none'}"
        with tempfile.TemporaryDirectory() as folder:
            for each in names:
                Path(folder, each).write_bytes(self.read(each).text.encode())
            command = [sys.executable, "-E", "-s", "--", name, *args]
            try:
                ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
            except subprocess.TimeoutExpired:
                return f"{name} was stopped after {timeout:g} s"
            return ran.stdout + ran.stderr
