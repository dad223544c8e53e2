"""The private side of LangGraph and LangChain that this package leans on, used here as `agentmatrix/pregel` uses it.

Each failure names the file to mend. Builders, compiled graphs and tasks have theirs in `tests/pregel`. A new reserved
config key is no failure: see `agentmatrix.pregel.config_keys`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import _streaming
from langchain_core.tracers import context as tracing
from langgraph._internal import _config, _constants, _queue, _replay, _runnable, _scratchpad
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import (
    Pregel,
    _algo,
    _checkpoint,
    _executor,
    _messages,
    _retry,
    _task_status,
    _tools,
    _utils,
    _write,
    debug,
)
from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop
from langgraph.pregel._read import PregelNode
from langgraph.pregel._runner import PregelRunner
from langgraph.pregel.protocol import StreamProtocol
from langgraph.runtime import ExecutionInfo, RunControl, Runtime
from langgraph.types import Command, Interrupt

from agentmatrix.pregel import callback_handlers, config_keys, config_values
from agentmatrix.pregel.execution import MISSING
from agentmatrix.pregel.run_control import RunControlProxy, set_drained, watch_drain
from agentmatrix.pregel.state_types import state_types_around
from agentmatrix.remote import RemoteAgent
from agentmatrix.testing import loopback
from tests.pregel.door import State, mend, names

DOOR = Path(config_keys.__file__).parent
SELF, ANY = object(), object()
MOST_PRIVATE_NAMES = 33


MAKES_A_TASK = (
    *("checkpoint", "pending_writes", "processes", "channels", "managed", "config", "step", "stop", "for_execution"),
    *("store", "checkpointer", "manager", "retry_policy", "cache_policy"),
)

# Each private function and class that pregel/ calls, with the arguments that it is called with, and the calling file.
CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], tuple[str, ...], str]] = [
    (_config.ensure_config, (ANY, ANY), (), "config_values.py"),
    (_config.merge_configs, (ANY, ANY), (), "config_values.py"),
    (_config.get_callback_manager_for_config, (ANY,), (), "callback_handlers.py"),
    (_config.get_async_callback_manager_for_config, (ANY,), (), "callback_handlers.py"),
    (_replay.ReplayState, (ANY,), (), "config_values.py"),
    (_replay.ReplayState._is_first_visit, (SELF, ANY), (), "config_values.py"),
    (
        _scratchpad.PregelScratchpad,
        (),
        ("step", "stop", "call_counter", "interrupt_counter", "get_null_resume", "resume", "subgraph_counter"),
        "config_values.py",
    ),
    (StreamProtocol, (ANY, ANY), (), "config_values.py"),
    (_messages.StreamMessagesHandler, (ANY, ANY), ("parent_ns",), "callback_handlers.py"),
    (_messages.StreamMessagesHandlerV2, (ANY, ANY), ("parent_ns",), "callback_handlers.py"),
    (_tools.StreamToolCallHandler, (ANY, ANY), ("parent_ns",), "callback_handlers.py"),
    (_streaming._StreamingCallbackHandler.tap_output_iter, (SELF, ANY, ANY), (), "callback_handlers.py"),
    (_streaming._StreamingCallbackHandler.tap_output_aiter, (SELF, ANY, ANY), (), "callback_handlers.py"),
    (_streaming._V2StreamingCallbackHandler, (), (), "callback_handlers.py"),
    (_runnable.RunnableCallable, (ANY, ANY), ("name", "trace", "recurse"), "runnables.py"),
    (_runnable.coerce_to_runnable, (ANY,), ("name", "trace"), "runnables.py"),
    (_utils._runnable_has_native_async, (ANY,), (), "runnables.py"),
    (_write.ChannelWrite, (ANY,), (), "compiled_graph.py"),
    (_write.ChannelWrite.register_writer, (ANY,), (), "runnables.py"),
    (_write.ChannelWriteTupleEntry, (ANY,), (), "compiled_graph.py"),
    (_write.ChannelWriteEntry, (ANY,), ("value",), "pickling.py"),
    (_write.ChannelWriteTupleEntry, (ANY,), ("value",), "pickling.py"),
    (PregelNode.copy, (SELF, ANY), (), "compiled_graph.py"),
    (CompiledStateGraph.attach_node, (SELF, ANY, ANY), (), "compiled_graph.py"),
    (CompiledStateGraph.validate, (SELF,), (), "compiled_graph.py"),
    (Command._update_as_tuples, (SELF,), (), "task_config.py"),
    (PregelLoop.put_writes, (SELF, ANY, ANY), (), "virtual_tasks.py"),
    (PregelLoop._emit, (SELF, ANY, ANY, ANY), (), "virtual_tasks.py"),
    (Interrupt.from_ns, (ANY,), ("ns",), "virtual_tasks.py"),
    (RunControl.request_drain, (SELF, ANY), (), "run_control.py"),
    (_queue.SyncQueue, (), (), "bounded_stream.py"),
    (_queue.SyncQueue.put, (SELF, ANY), (), "bounded_stream.py"),
    (_queue.SyncQueue.get, (SELF, ANY, ANY), (), "bounded_stream.py"),
    (_queue.SyncQueue.qsize, (SELF,), (), "bounded_stream.py"),
    # The engine takes these from execution.py.
    (_algo.apply_writes, (ANY, ANY, ANY, ANY, ANY), (), "execution.py"),
    (_algo.prepare_next_tasks, (ANY,) * 8, ("for_execution", "store", "checkpointer", "manager"), "execution.py"),
    (_algo._xxhash_str, (ANY, ANY), (), "task_template.py"),
    (
        _algo.prepare_single_task,
        (ANY, None),
        (*MAKES_A_TASK, "checkpoint_id_bytes", "checkpoint_null_version"),
        "execution.py",
    ),
    (
        _algo.prepare_node_error_handler_task,
        (ANY,),
        tuple(n for n in (*MAKES_A_TASK, "handler_node_name", "failed_error") if n != "for_execution"),
        "execution.py",
    ),
    (_checkpoint.channels_from_checkpoint, (ANY, ANY), ("saver", "config"), "execution.py"),
    (_executor.BackgroundExecutor, (ANY,), (), "execution.py"),
    (_executor.AsyncBackgroundExecutor, (ANY,), (), "execution.py"),
    (debug.map_debug_tasks, (ANY,), (), "execution.py"),
    (debug.map_debug_checkpoint, (ANY,) * 8, (), "execution.py"),
    (_task_status.read_task_statuses, (ANY,), (), "execution.py"),
    (PregelRunner.commit, (SELF, ANY, ANY), (), "execution.py"),
    (
        PregelRunner.tick,
        (SELF, ANY),
        ("reraise", "timeout", "retry_policy", "get_waiter", "schedule_task"),
        "execution.py",
    ),
    (_retry.run_with_retry, (ANY, ANY, ANY), (), "single_attempt.py"),
    (_retry.arun_with_retry, (ANY, ANY, ANY, ANY), (), "single_attempt.py"),
    (PregelLoop.accept_push, (SELF, ANY, ANY, ANY), (), "execution.py"),
    (PregelLoop._put_checkpoint, (SELF, ANY), (), "execution.py"),
    (PregelLoop._suppress_interrupt, (SELF, ANY, ANY, ANY), (), "execution.py"),
    (PregelLoop._first, (SELF,), ("input_keys", "updated_channels"), "execution.py"),
    (SyncPregelLoop.schedule_error_handler, (SELF, ANY, ANY), (), "execution.py"),
    (AsyncPregelLoop.aschedule_error_handler, (SELF, ANY, ANY), (), "execution.py"),
]
# Private names that are no calls, with the test that is about them.
OTHERS = {
    "CONTROL_WRITES": "test_what_the_engine_replaces_is_looked_up_by_name",
    "_constants": "test_reserved_keys_that_are_not_known_yet_stay_with_the_caller",
}


@pytest.mark.parametrize(
    ("function", "arguments", "keywords", "file"), CALLS, ids=[getattr(call[0], "__qualname__", "") for call in CALLS]
)
def test_a_private_function_takes_the_arguments_that_it_is_called_with(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: tuple[str, ...], file: str
) -> None:
    try:
        inspect.signature(function).bind(*arguments, **dict.fromkeys(keywords, ANY))
    except TypeError as error:
        pytest.fail(mend(file, f"{function.__qualname__}{inspect.signature(function)}: {error}"))


def private_imports() -> Iterator[tuple[str, str]]:
    for path in sorted(DOOR.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("langgraph", "langchain_core")):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    if any(part.startswith("_") for part in name.split(".")):
                        yield path.name, name


def test_every_private_import_of_the_door_is_called_here() -> None:
    called = {(function.__module__, function.__qualname__.split(".")[0]) for function, *_ in CALLS}
    for file, name in private_imports():
        module, _, what = name.rpartition(".")
        if module.endswith("._constants") or what in OTHERS:
            continue  # a constant that is gone is an ImportError
        found = getattr(importlib.import_module(module), what)
        assert (found.__module__, found.__qualname__) in called, f"add {name} of pregel/{file} to CALLS"


def test_private_names_are_few() -> None:
    """Each is one that a release of LangGraph or LangChain may change. The names of reserved keys are beside them."""
    names = {name for _, name in private_imports() if "._constants" not in name and not name.endswith("._constants")}
    assert len(names) <= MOST_PRIVATE_NAMES, f"{len(names)} private names: find a public way, or a few lines of our own"


# Reserved config keys.


def test_every_known_reserved_key_is_sorted_once() -> None:
    sets = (config_keys.BY_VALUE, config_keys.PROXIED, config_keys.DROPPED, config_keys.IDENTITY)
    assert len(frozenset().union(*sets)) == sum(map(len, sets)), "pregel/config_keys.py sorts a key twice"


def test_reserved_keys_that_are_not_known_yet_stay_with_the_caller() -> None:
    crossing = {key for key in config_keys.unknown_keys() if not config_keys.is_reserved(key)}
    assert not crossing, mend(
        "config_keys.py",
        f"the reserved keys {crossing} have a prefix that is_reserved does not know and would cross to hosts: "
        "sort them into IDENTITY, BY_VALUE, PROXIED or DROPPED",
    )


def test_reserved_keys_that_are_not_known_yet_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = config_keys.unknown_keys()
    monkeypatch.setattr(_constants, "CONFIG_KEY_FUTURE", "__pregel_from_the_future", raising=False)
    assert config_keys.unknown_keys() - before == {"__pregel_from_the_future"}  # by `make transparency`


def test_a_reserved_key_of_a_newer_langgraph_is_dropped_at_the_boundary() -> None:
    seen: list[dict[str, Any]] = []

    def node(state: State, config: RunnableConfig) -> State:
        seen.append(dict(config["configurable"]))
        return {"text": "done"}

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile()
    future = {"__pregel_from_the_future": object(), "__pregel_plain": 1, "mine": 2}
    assert loopback(graph).invoke({}, {"configurable": future}) == {"text": "done", "texts": []}
    assert seen[0]["mine"] == 2
    assert not seen[0].keys() & {"__pregel_from_the_future", "__pregel_plain"}


# Values behind the keys.


def test_a_runtime_has_the_fields_that_cross() -> None:
    crossing = {
        "context",
        "store",
        "stream_writer",
        "heartbeat",
        "previous",
        "execution_info",
        "server_info",
        "control",
    }
    assert names(Runtime) == crossing, (
        f"LangGraph has changed Runtime by {names(Runtime) ^ crossing}: let session/config.py carry or drop it, "
        "and say here which"
    )
    assert {"task_id", "checkpoint_ns"} <= names(ExecutionInfo), mend("virtual_tasks.py", "ExecutionInfo's fields")
    idle: Runtime[None] = Runtime()
    assert not config_values.has_stream_writer(idle) and not config_values.has_heartbeat(idle), mend(
        "config_values.py", "a Runtime that nobody listens to has other functions than the _no_op_ ones"
    )


def test_a_scratchpad_has_the_fields_that_cross() -> None:
    fields = {"step", "stop", "call_counter", "interrupt_counter", "get_null_resume", "resume", "subgraph_counter"}
    assert names(_scratchpad.PregelScratchpad) == fields, mend(
        "config_values.py", f"PregelScratchpad's fields, by {names(_scratchpad.PregelScratchpad) ^ fields}"
    )
    state = {"step": 1, "stop": 9, "resume": ["yes"], "subgraph": 3}
    pad = config_values.scratchpad_proxy(**state, null_resume=lambda consume: None)
    assert config_values.scratchpad_state(pad) == {**state, "null_resume": None}
    assert config_values.new_scratchpad(1, 9).get_null_resume(True) is None


def test_a_replay_tells_of_the_namespaces_that_it_visits() -> None:
    visits: list[str] = []
    replay = config_values.ReplayStateProxy("checkpoint", {"old"}, visits.append)
    broken = mend("config_values.py", "how ReplayState counts visits")
    assert replay._is_first_visit("new") and not replay._is_first_visit("new") and visits == ["new"], broken
    assert config_values.visited_namespaces(replay) == {"old", "new"} and replay.checkpoint_id == "checkpoint", broken


def test_a_stream_has_modes() -> None:
    stream = StreamProtocol(print, {"values"})
    assert set(stream.modes) == {"values"}, mend("config_values.py", "StreamProtocol.modes, which cross to hosts")


def test_the_recursion_limit_that_langgraph_fills_in_is_told_from_others() -> None:
    limit = config_values.ensure_config({}).get("recursion_limit")
    assert config_values.is_default_recursion_limit(limit), mend("config_values.py", "_DefaultRecursionLimit")
    assert not config_values.is_default_recursion_limit(25)


def test_the_current_config_is_that_of_the_context() -> None:
    assert isinstance(var_child_runnable_config, ContextVar), mend("config_values.py", "var_child_runnable_config")
    found: list[str | None] = []
    config: RunnableConfig = {"configurable": {"checkpoint_ns": "here"}}
    config_values.in_namespace(config, "there", lambda value: found.append(config_values.current_namespace()), None)
    assert found == ["there"], mend("config_values.py", "where get_config() finds the current config")


def test_a_channel_without_a_value_has_a_mark() -> None:
    graph = StateGraph(State).add_node("node", lambda state: {}).add_edge(START, "node").compile()
    empty = graph.channels["text"].from_checkpoint(MISSING)
    assert not empty.is_available() and empty.checkpoint() is MISSING, mend("execution.py", "MISSING")


# Run controls, callbacks.


def test_a_run_control_can_become_a_watched_one() -> None:
    heard: list[str] = []
    control = RunControl()
    unwatch = watch_drain(control, heard.append)
    control.request_drain("now")
    unwatch()
    control.request_drain("later")
    assert heard == ["now"] and control.drain_reason == "later", mend("run_control.py", "the layout of RunControl")


def test_a_proxy_of_a_run_control_tells_its_caller_of_what_the_caller_does_not_know() -> None:
    told: list[str] = []
    control = RunControlProxy(told.append)
    set_drained(control, "the caller's")
    control.request_drain("the host's")
    assert told == ["the host's"], mend("run_control.py", "RunControl.request_drain")


@pytest.mark.parametrize("kind", ["messages", "messages_v2", "tools"])
def test_a_stream_handler_is_made_of_the_state_of_another(kind: str) -> None:
    given: dict[str, Any] = {"subgraphs": True, "parent_ns": ("a",), "seen": {"id"}}
    handler = callback_handlers.new_stream_handler(kind, print, **given)
    state = {**given, "seen": set() if kind == "tools" else {"id"}}
    broken = mend("callback_handlers.py", f"the attributes of {type(handler).__name__}")
    assert callback_handlers.stream_handler_state(handler) == state and handler.stream is print, broken
    assert callback_handlers.stream_handler_kind(handler) == kind, broken


def test_callback_managers_have_the_fields_that_cross() -> None:
    fields = ("handlers", "inheritable_handlers", "parent_run_id", "tags", "inheritable_tags", "metadata")
    for is_async, kind in ((False, CallbackManager), (True, AsyncCallbackManager)):
        manager = callback_handlers.callback_manager({"callbacks": None, "tags": ["tag"]}, is_async=is_async)
        assert isinstance(manager, kind) and manager.inheritable_tags == ["tag"]
        for field in (*fields, "inheritable_metadata"):
            assert hasattr(manager, field), f"{kind.__name__}.{field} is gone: mend session/callbacks.py"


def test_langchains_hooks_are_found() -> None:
    for hook in getattr(tracing, "_configure_hooks", ()):
        assert len(hook) == 4 and hasattr(hook[0], "get"), mend("callback_handlers.py", "_configure_hooks")
    assert isinstance(tracing.tracing_v2_callback_var, ContextVar), mend("callback_handlers.py", "tracing's context")


# What RemoteAgent and the engine take over.


def test_a_task_knows_the_state_types_of_its_graph() -> None:
    found: list[Any] = []

    def node(state: State, config: RunnableConfig) -> State:
        found.extend(state_types_around(config))
        return {}

    StateGraph(State).add_node("node", node).add_edge(START, "node").compile().invoke({})
    channels = StateGraph(State).channels.values()
    for channel in channels:
        assert channel.ValueType in found, mend("state_types.py", "the function that reads channels for a task")
    assert state_types_around({}) == []


def test_every_public_method_of_a_graph_is_remote() -> None:
    """What RemoteAgent inherits comes down to methods that it overrides."""
    inherited = {
        name
        for name, member in inspect.getmembers(Pregel, inspect.isfunction)
        if not name.startswith("_") and name in vars(Pregel) and getattr(RemoteAgent, name) is member
    }
    assert inherited == {
        *("update_state", "aupdate_state"),  # bulk_update_state
        *("stream_events", "astream_events"),  # stream, astream
        *("config_schema", "validate"),  # deprecated, or of no use to a remote graph
    }, "Pregel has new public methods: let remote/remote_agent.py override them, or sort them in here"


def test_what_the_engine_replaces_is_looked_up_by_name() -> None:
    """Without one of these, a Dag would silently run in LangGraph's supersteps, or show a state that is not its own."""
    looked_up: dict[Any, set[str]] = {
        Pregel.stream: {"SyncPregelLoop", "PregelRunner"},
        Pregel.astream: {"AsyncPregelLoop", "PregelRunner"},
        PregelRunner.tick: {"run_with_retry"},
        PregelRunner.atick: {"arun_with_retry"},
        Pregel._prepare_state_snapshot: {"prepare_next_tasks"},
        Pregel._aprepare_state_snapshot: {"prepare_next_tasks"},
    }
    for function, globals_ in looked_up.items():
        assert globals_ <= set(function.__code__.co_names), mend("execution.py", function.__name__)
    for function in (Pregel.bulk_update_state, Pregel.abulk_update_state):
        inner = [code for code in function.__code__.co_consts if inspect.iscode(code)]
        assert any("apply_writes" in code.co_names for code in inner), mend("execution.py", function.__name__)
    assert {"__error__", "__interrupt__", "__resume__"} <= _task_status.CONTROL_WRITES
