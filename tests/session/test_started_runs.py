"""A run that is sent twice under one id runs once; the ids of others are others."""

from __future__ import annotations

import pytest

from agentmatrix.errors import ProtocolError
from agentmatrix.session import started_runs
from agentmatrix.session.started_runs import StartedRuns
from agentmatrix.transport.identity import Identity

ALICE, BOB = Identity("alice"), Identity("bob")


def test_an_id_belongs_to_its_caller() -> None:
    runs = StartedRuns()
    runs.add(ALICE, "1")
    with pytest.raises(ProtocolError, match="'1' was started here already, and is not started again"):
        runs.check(ALICE, "1")
    for user, id in ((BOB, "1"), (None, "1"), (ALICE, "2"), (ALICE, "")):
        runs.check(user, id)
    runs.add(None, "")
    runs.check(None, "")


def test_the_oldest_is_forgotten_and_a_long_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(started_runs, "_MOST", 2)
    runs = StartedRuns()
    for id in "abc":
        runs.add(ALICE, id)
    runs.check(ALICE, "a")
    with pytest.raises(ProtocolError):
        runs.check(ALICE, "b")
    with pytest.raises(ProtocolError, match="200 characters at most"):
        runs.check(ALICE, "x" * 201)
