"""Where the log of `agentmatrix serve` goes: to stderr, as text or as JSON, one object a line."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

__all__ = ["JsonFormatter", "LogFormat", "LogLevel", "logging_to_stderr"]

_QUIET: Final = ("asyncio", "grpc", "httpcore", "httpx", "urllib3")
"""Libraries that log each request of a client, with addresses that may hold keys."""
_PLAIN_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}


class LogLevel(StrEnum):
    """The least level of the lines that are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How lines are written."""

    TEXT = "text"
    JSON = "json"


class TextFormatter(logging.Formatter):
    """`2026-11-27 11:08:13,123 INFO agentmatrix.runs: ...`, the traceback below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class JsonFormatter(logging.Formatter):
    """An object for each record: time, level, logger, message, what `extra=` gave, and the traceback as text."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _PLAIN_RECORD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


@contextlib.contextmanager
def logging_to_stderr(level: LogLevel, form: LogFormat) -> Iterator[None]:
    """Shows the log of the host, of the graphs and of the libraries that they use."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    before = root.level
    root.setLevel(level.value.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
