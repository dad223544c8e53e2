"""The fields of the records that a task of LangGraph's is made of, as far as this package knows them.

Code that makes such a record by itself asks first: where a release of LangGraph has added a field, LangGraph makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.runtime import ExecutionInfo, Runtime
from langgraph.types import PregelExecutableTask

__all__ = ["FIELDS", "KNOWN_RECORDS"]

FIELDS: Mapping[type, tuple[str, ...]] = {
    PregelExecutableTask: (
        *("name", "input", "proc", "writes", "config", "triggers", "retry_policy", "cache_key", "id", "path"),
        *("writers", "subgraphs", "timeout"),
    ),
    Runtime: (
        *("context", "store", "stream_writer", "heartbeat", "previous", "execution_info", "server_info", "control"),
    ),
    ExecutionInfo: (
        *("checkpoint_id", "checkpoint_ns", "task_id", "thread_id", "run_id"),
        *("node_attempt", "node_first_attempt_time"),
    ),
    PregelScratchpad: (
        *("step", "stop", "call_counter", "interrupt_counter", "get_null_resume", "resume", "subgraph_counter"),
    ),
}
"""By class, its fields in order."""


KNOWN_RECORDS = frozenset(
    kind for kind, names in FIELDS.items() if tuple(field.name for field in fields(cast(Any, kind))) == names
)
"""The classes that have these fields in the installed release, and no others."""
