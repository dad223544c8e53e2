"""The private side of langgraph that this package leans on: an upgrade that changes it fails here, loudly."""

from __future__ import annotations

import dataclasses
import inspect

from langgraph.pregel import Pregel
from langgraph.pregel._loop import PregelLoop
from langgraph.pregel._runner import PregelRunner
from langgraph.runtime import RunControl, Runtime

from agentmatrix import pregel
from agentmatrix.ledger_engine import loop
from agentmatrix.remote import RemoteAgent

PLAIN = {"thread_id", "checkpoint_map", "checkpoint_id", "checkpoint_ns"}


def test_every_reserved_config_key_is_sorted_by_how_it_crosses() -> None:
    known = pregel.BY_VALUE | pregel.LENT | pregel.DROPPED | PLAIN
    reserved = set(pregel.reserved_keys().values())
    gone = known - reserved - {"__pregel_read_state"}  # Unknown to 1.2.23 and older.
    assert reserved <= known and not gone, f"new: {reserved - known}, gone: {gone}"
    assert not (pregel.BY_VALUE & pregel.LENT) | (pregel.BY_VALUE & pregel.DROPPED) | (pregel.LENT & pregel.DROPPED)


def test_a_runtime_has_the_fields_that_cross() -> None:
    assert {field.name for field in dataclasses.fields(Runtime)} == {
        *("context", "store", "stream_writer", "heartbeat", "previous", "execution_info", "server_info", "control")
    }


def test_a_run_control_can_become_a_watched_one() -> None:
    heard: list[str] = []
    control = RunControl()
    unwatch = pregel.watch_drain(control, heard.append)
    control.request_drain("now")
    unwatch()
    control.request_drain("later")
    assert heard == ["now"] and control.drain_reason == "later"


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
        *("config_schema", "get_config_jsonschema", "validate"),  # deprecated, or of no use to a remote graph
    }


def test_the_names_that_open_steps_exchange_are_those_that_langgraph_looks_up() -> None:
    """Without one of them, a Dag without barriers would silently run in supersteps."""
    looked_up = {
        Pregel.stream: {"SyncPregelLoop", "PregelRunner"},
        Pregel.astream: {"AsyncPregelLoop", "PregelRunner"},
        Pregel._prepare_state_snapshot: {"prepare_next_tasks"},
        Pregel._aprepare_state_snapshot: {"prepare_next_tasks"},
    }
    for function, names in looked_up.items():
        assert names <= set(function.__code__.co_names), function.__name__


def test_the_methods_that_open_steps_override_are_langgraphs() -> None:
    for ours, theirs in ((loop.OpenLoop, PregelLoop), (loop.Runner, PregelRunner)):
        known = {"__init__", "commit", "submit", "tick", "after_tick", "put_writes", "__enter__", "__exit__"}
        for name in known & vars(ours).keys():
            assert hasattr(theirs, name) or name in inspect.get_annotations(theirs), f"{theirs.__name__}.{name}"
