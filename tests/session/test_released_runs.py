"""A run that has ended leaves nothing to the garbage collector: what it had goes with its last reference."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.session.caller import CallerRun
from agentmatrix.session.config import CallerConfig, HostRunConfig
from agentmatrix.session.host_run import HostRun
from agentmatrix.wire.codec import Codec


class State(TypedDict, total=False):
    text: str


def echo(state: State) -> State:
    return {"text": state["text"]}


GRAPH = StateGraph(State).add_node("echo", echo).add_edge(START, "echo").compile()


def parent(remote: Any) -> Any:
    return StateGraph(State).add_node("remote", remote).add_edge(START, "remote").compile(checkpointer=InMemorySaver())


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda remote, _: remote.invoke({"text": "a"}),
    "stream": lambda remote, _: list(remote.stream({"text": "a"})),
    "nested": lambda _, around: around.invoke({"text": "a"}, {"configurable": {"thread_id": "1"}}),
}


@pytest.mark.parametrize("verb", CALLS)
def test_nothing_is_left_to_the_garbage_collector(verb: str) -> None:
    with (
        Host({"echo": GRAPH}, address=f"inproc://released-{verb}") as host,
        RemoteAgent(f"{host.address}/echo") as remote,
    ):
        around = parent(remote)
        CALLS[verb](remote, around)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(5):
                CALLS[verb](remote, around)
            gc.collect()
            left = [
                type(one)
                for one in gc.garbage
                if isinstance(one, (CallerRun, CallerConfig, HostRun, HostRunConfig, Codec))
            ]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left
