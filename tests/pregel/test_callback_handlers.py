"""Whether something traces a call, as LangSmith itself says it."""

from __future__ import annotations

from typing import Any

import pytest
from langsmith import tracing_context
from langsmith._internal import _context
from langsmith.run_helpers import set_tracing_parent
from langsmith.run_trees import RunTree
from langsmith.utils import get_env_var, tracing_is_enabled

from agentmatrix.pregel.callback_handlers import is_traced


@pytest.mark.parametrize("variable", [None, "LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"])
@pytest.mark.parametrize("everywhere", [None, False, True, "local"])
@pytest.mark.parametrize("here", [None, False, True, "local"])
@pytest.mark.parametrize("has_parent", [False, True])
def test_a_call_is_traced_where_langsmith_says_so(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, everywhere: Any, here: Any, has_parent: bool
) -> None:
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "true")
    monkeypatch.setattr(_context, "_GLOBAL_TRACING_ENABLED", everywhere)
    get_env_var.cache_clear()
    try:
        with tracing_context(enabled=here):
            if not has_parent:
                assert is_traced() is bool(tracing_is_enabled())
                return
            with set_tracing_parent(RunTree(name="parent", client=None)):
                assert is_traced() is bool(tracing_is_enabled())
    finally:
        get_env_var.cache_clear()
