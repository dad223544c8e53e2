"""Carries the context of distributed traces from a caller to its host: OpenTelemetry's and LangSmith's.

LangChain tracers among the callbacks do not need this: they are called for remote runs too. This is for spans and
`@traceable` functions, whose parent lies in context variables. Neither library is imported for it: a process that has
not imported one has no context of it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["continued", "outgoing"]


def outgoing() -> dict[str, str]:
    """The headers of the current trace; empty without one."""
    headers: dict[str, str] = {}
    if "opentelemetry.propagate" in sys.modules or "opentelemetry.trace" in sys.modules:
        from opentelemetry import context, propagate

        if context.get_current():  # else there is nothing to carry
            propagate.inject(headers)
    if "langsmith.run_helpers" in sys.modules:
        from langsmith.run_helpers import get_current_run_tree

        run: Any = get_current_run_tree()
        if run is not None:
            headers.update(run.to_headers())
    return headers


@contextlib.contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """Continues the caller's trace in this context: spans begun here are its children.

    Args:
        headers: from `outgoing` on the caller.
    """
    with contextlib.ExitStack() as stack:
        if "traceparent" in headers and _has_opentelemetry():
            from opentelemetry import context, propagate

            with contextlib.suppress(Exception):
                token = context.attach(propagate.extract(dict(headers)))
                stack.callback(context.detach, token)
        if "langsmith-trace" in headers:
            from langsmith.run_helpers import tracing_context
            from langsmith.utils import tracing_is_enabled

            # A parent alone would turn tracing on; whether this host reports to LangSmith is its own setting.
            # A header that cannot be read is no reason not to run: the run then begins a trace of its own.
            with contextlib.suppress(Exception):
                stack.enter_context(tracing_context(parent=dict(headers), enabled=tracing_is_enabled()))
        yield


def _has_opentelemetry() -> bool:
    try:
        import opentelemetry.propagate  # noqa: F401
    except ImportError:
        return False
    return True
