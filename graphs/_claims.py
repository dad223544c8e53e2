"""The countable claims of a paper: the table that its graph prints, and the command line for another model."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NamedTuple

from langchain_core.language_models import BaseChatModel

from agentmatrix.errors import AgentMatrixError

from .gobang.team import chat_model

__all__ = ["Claim", "parser_with_model", "print_claims"]


class Claim(NamedTuple):
    """A claim, what the paper says, what was found, and whether that is so; by default where both are equal."""

    what: str
    theirs: str
    found: str
    is_met: bool | None = None

    @property
    def holds(self) -> bool:
        """Whether the claim holds here."""
        return self.theirs == self.found if self.is_met is None else self.is_met


def print_claims(claims: Iterable[Claim]) -> None:
    """Prints a table; a claim that does not hold is marked with `differs`."""
    rows = list(claims)
    claim, theirs = max(len(row.what) for row in rows), max(len(row.theirs) for row in rows)
    for row in rows:
        mark = "" if row.holds else "   differs"
        print(f"{row.what:<{claim}}   {row.theirs:<{theirs}}   {row.found}{mark}", flush=True)


def parser_with_model(name: str, doc: str | None) -> argparse.ArgumentParser:
    """A command line with `--model`, which is `local` or LangChain's `provider:name`.

    Args:
        name: of the module.
        doc: its docstring, whose first line is the description.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=(doc or "").partition("\n")[0])
    where = "local (extra `local`) or provider:name (langchain); by default scripted"
    parser.add_argument("--model", type=_model, help=where)
    return parser


def _model(name: str) -> BaseChatModel:
    """`chat_model` as a type of argparse, which prints what is wrong."""
    try:
        return chat_model(name)
    except AgentMatrixError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
