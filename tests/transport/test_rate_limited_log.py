"""Strangers who are refused a thousand times leave some lines and a number."""

from __future__ import annotations

import logging

import pytest

from agentmatrix.transport.rate_limited_log import RateLimitedLog


def test_beyond_ten_lines_in_ten_seconds_they_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = RateLimitedLog(logging.getLogger("agentmatrix.test"), "callers were refused", lambda: now[0])
    for number in range(1000):
        log.warning("the caller at %s was refused", number)
    assert [record.getMessage() for record in caplog.records] == [f"the caller at {n} was refused" for n in range(10)]
    now[0] = 10.0
    log.warning("the caller at %s was refused", "last")
    assert [record.getMessage() for record in caplog.records[10:]] == [
        "990 more callers were refused",
        "the caller at last was refused",
    ]
