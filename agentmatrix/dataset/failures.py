"""Kinds of errors that a row can end with, and what follows from each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from langgraph.errors import NodeTimeoutError
from langgraph.types import RetryPolicy

from agentmatrix.errors import (
    AgentNotFound,
    BuildError,
    DatasetError,
    EncodeError,
    HostBusy,
    HostLost,
    HostUnreachable,
    PermissionDenied,
    RemoteError,
    TypeNotAllowed,
    Unauthenticated,
    VersionMismatch,
)

__all__ = ["FailureKind", "failure_kind", "retry_after", "type_name"]

_HOPELESS = (AgentNotFound, BuildError, PermissionDenied, Unauthenticated, VersionMismatch)
_HOPELESS_AT_FIRST = (DatasetError, EncodeError, TypeNotAllowed)
_QUOTA_USED_UP = "insufficient_quota"
_TOO_MANY_REQUESTS = 429
_RATE_LIMIT_NAMES = ("RateLimitError", "TooManyRequests", "ResourceExhausted", "ThrottlingException")


class FailureKind(Enum):
    """What follows from an error."""

    RATE_LIMITED = "all rows wait, no attempt is counted"
    BUSY = "the host has no place: the row waits, no attempt is counted"
    UNREACHABLE = "nothing was started: another host or later, no attempt is counted"
    LOST = "the host was lost with the row"
    RETRIED = "the policy retries it"
    FINAL = "the row has failed"
    HOPELESS = "no row can succeed"
    HOPELESS_AT_FIRST = "no row can succeed, unless one has"


def failure_kind(error: BaseException, retry: RetryPolicy) -> FailureKind:
    """The kind of an error.

    Args:
        error: what a run raised.
        retry: which errors are retried. A timeout is retried as LangGraph retries that of a node.
    """
    if isinstance(error, HostBusy):
        return FailureKind.BUSY
    if isinstance(error, HostUnreachable):
        return FailureKind.UNREACHABLE
    if isinstance(error, HostLost):
        return FailureKind.LOST
    if _is_rate_limit(error):
        return FailureKind.HOPELESS if _QUOTA_USED_UP in str(error) else FailureKind.RATE_LIMITED
    if isinstance(error, _HOPELESS):
        return FailureKind.HOPELESS
    if isinstance(error, _HOPELESS_AT_FIRST):
        return FailureKind.HOPELESS_AT_FIRST
    return FailureKind.RETRIED if isinstance(error, Exception) and _is_retried(error, retry) else FailureKind.FINAL


def retry_after(error: BaseException) -> float | None:
    """The seconds that a provider asks to wait, where the error has them."""
    for found in _with_causes(error):
        response = getattr(found, "response", None)
        headers = getattr(response, "headers", None) or getattr(found, "headers", None)
        if isinstance(headers, Mapping):
            for name in ("retry-after", "Retry-After"):
                try:
                    return max(0.0, float(headers[name]))
                except (KeyError, TypeError, ValueError):
                    continue
        seconds = getattr(found, "retry_after", None)
        if isinstance(seconds, int | float):
            return max(0.0, float(seconds))
    return None


def type_name(error: BaseException) -> str:
    """The name of the error's type, of one on a host that of the original."""
    if isinstance(error, RemoteError) and error.type_name:
        return error.type_name.rpartition(".")[2]
    return type(error).__name__


def _is_rate_limit(error: BaseException) -> bool:
    for found in _with_causes(error):
        response = getattr(found, "response", None)
        codes = [getattr(found, name, None) for name in ("status_code", "code", "http_status")]
        if _TOO_MANY_REQUESTS in [*_plain(codes), getattr(response, "status_code", None)]:
            return True
        if type_name(found) in _RATE_LIMIT_NAMES:
            return True
        if isinstance(found, RemoteError) and re.search(r"\b429\b", str(found)):
            return True
    return False


def _plain(codes: list[Any]) -> list[Any]:
    return [code for code in codes if isinstance(code, int)]


def _with_causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__
    return found


def _is_retried(error: Exception, retry: RetryPolicy) -> bool:
    if isinstance(error, TimeoutError | NodeTimeoutError) and retry.retry_on is RetryPolicy().retry_on:
        return True
    if isinstance(retry.retry_on, type):
        return isinstance(error, retry.retry_on)
    if callable(retry.retry_on):
        return bool(retry.retry_on(error))
    return isinstance(error, tuple(retry.retry_on))
