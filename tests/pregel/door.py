"""What the tests of the door to LangGraph's private names share."""

from __future__ import annotations

import dataclasses
import operator
from typing import Annotated, Any, TypedDict


class State(TypedDict, total=False):
    text: str
    texts: Annotated[list[str], operator.add]


def mend(file: str, what: str) -> str:
    """What a failure says: the file of the package that is to be mended."""
    return f"LangGraph or LangChain has changed: {what}; mend pregel/{file}"


def names(cls: Any) -> set[str]:
    """The fields of a dataclass."""
    return {field.name for field in dataclasses.fields(cls)}
