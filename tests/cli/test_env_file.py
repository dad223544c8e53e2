"""Files of environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmatrix.cli.env_file import read_env_file
from agentmatrix.cli.error_report import CommandError

FILE = r"""
# keys of models
OPENAI_API_KEY=sk-1234
export QUOTED="two words # and no comment"
SINGLE='as it $is \n'
ESCAPED="a\nb\"c\""
EMPTY=
SPACED = value with blanks   # a comment
HASH=a#b
LINES="one
two"
AFTER='x' # a comment
"""


def test_values_are_read_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(FILE)
    assert read_env_file(path) == {
        "OPENAI_API_KEY": "sk-1234",
        "QUOTED": "two words # and no comment",
        "SINGLE": r"as it $is \n",
        "ESCAPED": 'a\nb"c"',
        "EMPTY": "",
        "SPACED": "value with blanks",
        "HASH": "a#b",
        "LINES": "one\ntwo",
        "AFTER": "x",
    }


def test_it_reads_what_python_dotenv_reads(tmp_path: Path) -> None:
    dotenv = pytest.importorskip("dotenv", reason="python-dotenv is not installed")
    path = tmp_path / ".env"
    path.write_text(FILE)
    assert read_env_file(path) == dotenv.dotenv_values(path, interpolate=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nsecret-value", "line 2 of .* is no NAME=value"),
        ("A='secret-value", "line 1 of"),
        ('A=1\n\nB="secret-value\n\nC=2', "line 3 of"),
        ("1A=secret-value", "line 1 of"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_not_shown(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(CommandError, match=words) as caught:
        read_env_file(path)
    assert "secret-value" not in str(caught.value)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        read_env_file(tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="it is no text"):
        read_env_file(tmp_path / "binary")
