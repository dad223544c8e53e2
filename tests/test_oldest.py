"""The constraints of `make test-oldest` are the lower bounds of pyproject.toml."""

from __future__ import annotations

import pytest

from tests.oldest import constraints, oldest


@pytest.mark.parametrize(
    ("requirement", "constraint"),
    [
        ("rich>=13.9", "rich==13.9"),
        ("langgraph-checkpoint>=4.3,<5", "langgraph-checkpoint==4.3"),
        ("psycopg[binary]<4,>=3.2", "psycopg==3.2"),
        ("uvloop>=0.21; sys_platform != 'win32'", "uvloop==0.21"),
    ],
)
def test_a_lower_bound_becomes_the_version(requirement: str, constraint: str) -> None:
    assert oldest(requirement) == constraint


def test_a_dependency_without_a_lower_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="'rich<15' in pyproject.toml has no lower bound"):
        oldest("rich<15")


def test_every_dependency_of_the_project_has_a_lower_bound() -> None:
    assert any(entry.startswith("langgraph==") for entry in constraints())
