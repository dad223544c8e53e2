"""The firm's files: no update is lost, whoever writes at once, and a conflict says what is there."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graphs.megaagent import Workspace
from graphs.megaagent import workspace as module
from graphs.megaagent.workspace import ConflictError, File
from tests.forked import Forked


def count_up(folder: Path, author: str, times: int) -> None:
    """Adds lines to one file, again and again, with what the conflict says. In any process."""
    workspace = Workspace(folder / "files.db")
    for number in range(times):
        file = workspace.read("log.txt")
        while True:
            try:
                workspace.write("log.txt", f"{file.text}{author} {number}\n", file.hash, author)
                break
            except ConflictError as error:
                file = error.current


def test_a_write_wants_the_hash_and_a_conflict_gives_the_text(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "db")
    assert (workspace.names(), workspace.read("a.md")) == ([], File())
    base = workspace.write("a.md", "one\n", "", "ann")
    assert (workspace.read("a.md"), workspace.read("b.md")) == (File("one\n", base), File())
    two = workspace.write("a.md", "two\n", base, "ann")
    for wrong in (base, "", "0" * 40, "f" * 40, "nothing", "refs/files/a.md", "--help"):
        with pytest.raises(ConflictError, match=f"conflict: a.md has now the hash {two}, and the text:\ntwo\n") as told:
            workspace.write("a.md", "three\n", wrong, "bob")
        assert told.value.current == File("two\n", two)
    assert Workspace(tmp_path / "db").read("a.md") == File("two\n", two)


def test_a_write_that_is_repeated_after_a_kill_has_been_done(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "files.db")
    assert workspace.write("a.md", "one", "", "ann") == workspace.write("a.md", "one", "", "ann")


def test_a_table_that_is_locked_is_no_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    workspace = Workspace(tmp_path / "files.db")
    base = workspace.write("a.md", "one", "", "ann")
    other = sqlite3.connect(tmp_path / "files.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        workspace.write("a.md", "two", base, "ann")
    other.execute("ROLLBACK")
    assert workspace.write("a.md", "two", base, "ann") != base


def test_a_base_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match=r"conflict: a\.md is not there: a new file has no base hash") as told:
        Workspace(tmp_path / "files.db").write("a.md", "one", "f" * 40, "ann")
    assert told.value.current == File()


@pytest.mark.parametrize("text", ["", "\n\n", "ä€😀", "x missing\n", "no end", "a\r\nb\r\n", "\0"])
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path / "files.db")
    hash = workspace.write("a.md", text, "", "ann")
    assert (workspace.read("a.md"), workspace.read("b")) == (File(text, hash), File())


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".git", "a..b", "a\n", "x:y", "a.", "a" * 256])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path / "files.db")
    with pytest.raises(ValueError, match="is no name of a file"):
        workspace.write(name, "x", "", "ann")
    assert (workspace.read(name), workspace.names()) == (File(), [])


def test_threads_that_write_at_once_lose_nothing() -> None:
    workspace = Workspace()

    def add_lines(author: str) -> None:
        for number in range(50):
            file = workspace.read("log.txt")
            while True:
                try:
                    workspace.write("log.txt", f"{file.text}{author} {number}\n", file.hash, author)
                    break
                except ConflictError as error:
                    file = error.current

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_lines, "abcd"))
    lines = workspace.read("log.txt").text.splitlines()
    assert sorted(lines) == sorted(f"{author} {number}" for author in "abcd" for number in range(50))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    authors = ["ann", "bob", "cid"]
    writers = [Forked(count_up, tmp_path, author, 10) for author in authors]
    for writer in writers:
        with writer:
            assert writer.communicate(100) == ("", "")
    versions = Workspace(tmp_path / "files.db").versions("log.txt")
    lines = versions[-1][1].splitlines()
    assert sorted(lines) == sorted(f"{author} {number}" for author in authors for number in range(10))
    for author in authors:
        assert [line for line in lines if line.startswith(author)] == [f"{author} {number}" for number in range(10)]
    assert [line.split()[0] for line in lines] == [author for author, _ in versions]


def test_a_file_runs_beside_the_others_where_that_is_allowed(tmp_path: Path) -> None:
    workspace = Workspace(execute=True)
    workspace.write("word.py", "WORD = 'hello'\n", "", "ann")
    workspace.write(
        "main.py", "import sys, word\nprint(word.WORD, *sys.argv[1:])\nraise SystemExit('bye')\n", "", "ann"
    )
    workspace.write("ever.py", "while True: pass\n", "", "ann")
    assert workspace.run("main.py", "you") == "hello you\nbye\n"
    assert workspace.run("ever.py", timeout=0.5) == "ever.py was stopped after 0.5 s"
    for name in ("none.py", "-c", module.__file__):
        assert workspace.run(name) == f"there is no {name}; the files are: ever.py, main.py, word.py"
    with pytest.raises(ValueError, match=r"files are not run here: Workspace\(execute=True\) allows it"):
        Workspace(tmp_path / "files.db").run("main.py")
