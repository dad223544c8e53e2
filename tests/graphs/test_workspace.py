"""The firm's files: no update is lost, whoever writes at once, and a conflict says what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphs.megaagent import Workspace
from graphs.megaagent.workspace import ConflictError, File
from tests.forked import Forked


def count_up(folder: Path, author: str, times: int) -> None:
    """Adds lines to one file, again and again, with what the conflict says. In any process."""
    workspace = Workspace(folder)
    for number in range(times):
        file = workspace.read("log.txt")["log.txt"]
        while True:
            try:
                workspace.write("log.txt", f"{file.text}{author} {number}\n", file.hash, author)
                break
            except ConflictError as error:
                file = error.current


def test_a_write_wants_the_hash_and_a_conflict_gives_the_text(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "files")
    assert (workspace.names(), workspace.read("a.md")) == ([], {"a.md": File()})
    base = workspace.write("a.md", "one\n", "", "ann")
    assert workspace.read("a.md", "b.md") == {"a.md": File("one\n", base), "b.md": File()}
    two = workspace.write("a.md", "two\n", base, "ann")
    for wrong in (base, "", "0" * 40, "f" * 40, "nothing", "refs/files/a.md", "--help"):
        with pytest.raises(ConflictError, match=f"conflict: a.md has now the hash {two}, and the text:\ntwo\n") as told:
            workspace.write("a.md", "three\n", wrong, "bob")
        assert told.value.current == File("two\n", two)
    assert Workspace(tmp_path / "files").read("a.md") == {"a.md": File("two\n", two)}


def test_a_write_that_is_repeated_after_a_kill_has_been_done(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.write("a.md", "one", "", "ann") == workspace.write("a.md", "one", "", "ann")


def test_what_git_cannot_do_is_no_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphs.megaagent.workspace.PATIENCE", 10)
    workspace = Workspace(tmp_path)
    base = workspace.write("a.md", "one", "", "ann")
    lock = tmp_path / "refs" / "files" / "a.md.lock"
    lock.touch()
    with pytest.raises(OSError, match="git update-ref: .*a.md.lock': File exists"):
        workspace.write("a.md", "two", base, "ann")
    lock.unlink()
    assert workspace.write("a.md", "two", base, "ann") != base


def test_a_base_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match=r"conflict: a\.md is not there: a new file has no base hash") as told:
        Workspace(tmp_path).write("a.md", "one", "f" * 40, "ann")
    assert told.value.current == File()


@pytest.mark.parametrize("text", ["", "\n\n", "ä€😀", "x missing\n", "no end", "a\r\nb\r\n", "\0"])
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path)
    hash = workspace.write("a.md", text, "", "ann")
    assert workspace.read("b", "a.md", "c") == {"b": File(), "a.md": File(text, hash), "c": File()}


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".git", "a..b", "a.lock", "a\n", "x:y", "a."])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(ValueError, match="is no name of a file"):
        workspace.write(name, "x", "", "ann")
    with pytest.raises(ValueError, match="is no name of a file"):
        workspace.read(name)


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    authors = ["ann", "bob", "cid"]
    writers = [Forked(count_up, tmp_path, author, 10) for author in authors]
    for writer in writers:
        with writer:
            assert writer.communicate(100) == ("", "")
    lines = Workspace(tmp_path).read("log.txt")["log.txt"].text.splitlines()
    assert sorted(lines) == sorted(f"{author} {number}" for author in authors for number in range(10))
    for author in authors:
        assert [line for line in lines if line.startswith(author)] == [f"{author} {number}" for number in range(10)]
    log = (tmp_path / "logs" / "refs" / "files" / "log.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [entry.split()[2] for entry in log]


def test_a_file_runs_beside_the_others_where_that_is_allowed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, execute=True)
    workspace.write("word.py", "WORD = 'hello'\n", "", "ann")
    workspace.write(
        "main.py", "import sys, word\nprint(word.WORD, *sys.argv[1:])\nraise SystemExit('bye')\n", "", "ann"
    )
    workspace.write("ever.py", "while True: pass\n", "", "ann")
    assert workspace.run("main.py", "you") == "hello you\nbye\n"
    assert workspace.run("ever.py", timeout=0.5) == "ever.py was stopped after 0.5 s"
    assert "No such file" in workspace.run("none.py")
    with pytest.raises(ValueError, match=r"files are not run here: Workspace\(execute=True\) allows it"):
        Workspace(tmp_path).run("main.py")
