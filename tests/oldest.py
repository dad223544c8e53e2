"""Prints pip constraints that pin each dependency to the oldest release that pyproject.toml admits.

`make test-oldest` installs under them. They are the lower bounds of `dependencies`, so that there is no second list.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def oldest(requirement: str) -> str:
    """The constraint for a requirement: `"rich>=13.9,<15"` gives `"rich==13.9"`.

    Raises:
        ValueError: the requirement has no lower bound.
    """
    match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?[^;]*?>=\s*([0-9][^\s,;]*)", requirement)
    if match is None:
        raise ValueError(f"{requirement!r} in pyproject.toml has no lower bound (>=)")
    return f"{match[1]}=={match[2]}"


def constraints() -> list[str]:
    """One constraint for each runtime dependency of the project."""
    return [oldest(entry) for entry in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]]


if __name__ == "__main__":
    sys.stdout.write("\n".join(constraints()) + "\n")
