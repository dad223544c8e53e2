"""The files of a firm, each with the hash of its text: git keeps them, and who writes has to know what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}|")

PATIENCE = 10_000
"""Milliseconds that a writer waits for another one of the same file."""


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
    """A bare git repository with a ref for each file. Any number of processes may write at once: git moves a ref only
    if it is what the writer says. Its log, `logs/refs/files/<name>`, tells who wrote which text, and git keeps these.

    Args:
        folder: of the repository, made if it is not there; None for one that ends with this object.
        execute: whether its Python files may be run. Nothing confines them: they may do what this process may.
    """

    def __init__(self, folder: str | Path | None = None, *, execute: bool = False) -> None:
        self._execute = execute
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="workspace-")
            folder = self._temporary.name
        self._folder = Path(folder)
        if not (self._folder / "HEAD").exists():
            _make(self._folder)

    def _git(self, *args: str, given: str = "", author: str = "nobody") -> bytes:
        settings = [f"user.name={author}", "user.email=@", f"core.filesRefLockTimeout={PATIENCE}"]
        command = ["git", f"--git-dir={self._folder}", *(part for each in settings for part in ("-c", each)), *args]
        ran = subprocess.run(command, input=given.encode(), capture_output=True)
        if ran.returncode:
            raise OSError(f"git {args[0]}: {ran.stderr.decode().strip()}")
        return ran.stdout

    def names(self) -> list[str]:
        """The names of all files."""
        return self._git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/files").decode().split()

    def read(self, *names: str) -> dict[str, File]:
        """Files by name, as they are now."""
        left = self._git("cat-file", "--batch", given="".join(f"{_ref(name)}\n" for name in names))
        files = dict.fromkeys(names, File())
        for name in names:
            head, _, left = left.partition(b"\n")
            if not head.endswith(b" missing"):
                hash, _, size = head.decode().split()
                files[name], left = File(left[: int(size)].decode(), hash), left[int(size) + 1 :]
        return files

    def write(self, name: str, text: str, base: str, author: str) -> str:
        """Write a file. Returns the hash of its text.

        Args:
            name: letters, digits, `_`, `-` and dots.
            text: the whole file.
            base: the hash of the text that the writer has read, "" for a new file.
            author: who writes.

        Raises:
            ConflictError: the file has another hash by now.
            ValueError: it cannot have that name.
            OSError: git cannot write it.
        """
        ref = _ref(name)
        hash = self._git("hash-object", "-w", "--stdin", "--no-filters", given=text).decode().strip()
        try:
            if _HASH.fullmatch(base):
                self._git("update-ref", "--create-reflog", ref, hash, base, author=author)
                return hash
        except OSError:
            if self.read(name)[name].hash == base:  # nobody has written: git itself cannot
                raise
        if (current := self.read(name)[name]).hash != hash:
            raise ConflictError(name, current)
        return hash

    def run(self, name: str, *args: str, timeout: float = 30) -> str:
        """Run a Python file beside all others, for so many seconds at most. Returns what it has printed, and errors.

        Raises:
            ValueError: files are not to be run here.
        """
        if not self._execute:
            raise ValueError("files are not run here: Workspace(execute=True) allows it, and confines nothing")
        with tempfile.TemporaryDirectory() as folder:
            for each, file in self.read(*self.names()).items():
                Path(folder, each).write_bytes(file.text.encode())
            command = [sys.executable, "-E", "-s", name, *args]
            try:
                ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
            except subprocess.TimeoutExpired:
                return f"{name} was stopped after {timeout:g} s"
            return ran.stdout + ran.stderr


def _ref(name: str) -> str:
    if not _NAME.fullmatch(name) or name.endswith(".lock"):
        raise ValueError(f"{name!r} is no name of a file: take letters, digits, '_', '-' and dots")
    return f"refs/files/{name}"


def _make(folder: Path) -> None:
    """Make the repository, beside its place: whoever finds one there finds all of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        made = Path(beside, "made")
        subprocess.run(["git", "init", "--quiet", "--bare", "--template=", made], check=True)
        try:
            os.rename(made, folder)
        except OSError:
            if not (folder / "HEAD").exists():
                raise
