"""One name, one thing: a search for a class or a file finds one place."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from tests.test_layers import PACKAGE, modules


def repeated(names: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that are in more than one place, with the places."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in names:
        places[name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def classes() -> Iterator[tuple[str, str]]:
    for path in modules(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.ClassDef):
                yield node.name.lstrip("_"), f"{path.relative_to(PACKAGE)}:{node.lineno}"


def files() -> Iterator[tuple[str, str]]:
    for path in modules(PACKAGE):
        if path.name != "__init__.py":
            yield path.stem.lstrip("_"), str(path.relative_to(PACKAGE))


def test_no_two_classes_have_one_name() -> None:
    found = repeated(classes())
    assert not found, found


def test_no_two_files_have_one_name() -> None:
    assert not repeated(files())
