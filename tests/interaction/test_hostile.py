"""Bytes of a caller that is no friend: they end their own run, and nothing else."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any, TypedDict

import ormsgpack
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.errors import AgentMatrixError, DecodeError, TypeNotAllowed
from agentmatrix.session.version import spoken_version
from agentmatrix.transport import ReceivedFrame, connect, parse_target
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.remote_failures import decode_failure
from agentmatrix.wire.v1 import run_pb2 as pb


class State(TypedDict, total=False):
    text: Any


class Raw:
    """Speaks frames by hand."""

    def __init__(self, address: str) -> None:
        self.inbox: SimpleQueue[pb.Frame | AgentMatrixError] = SimpleQueue()
        self.frames = connect(parse_target(address)).open(self)

    def receive(self, received: ReceivedFrame) -> None:
        self.inbox.put(received.frame)

    def lost(self, error: AgentMatrixError) -> None:
        self.inbox.put(error)

    def failure(self) -> BaseException:
        """What the host answers in the end."""
        while True:
            frame = self.inbox.get(timeout=100)
            if isinstance(frame, AgentMatrixError):
                return frame
            if frame.WhichOneof("body") == "end":
                return decode_failure(frame.end.failure, Codec())


def start(**fields: Any) -> pb.Frame:
    given = {
        "agent": "a",
        "verb": "invoke",
        "version": spoken_version(),
        "arguments": Codec().encode((({},), {})),
        **fields,
    }
    return pb.Frame(start=pb.Start(**given))


@pytest.fixture
def host() -> Any:
    graph = StateGraph(State).add_node("n", lambda state: {"text": "fine"}).add_edge(START, "n").compile()
    with Host({"a": graph}) as host:
        yield host
        assert RemoteAgent(f"{host.address}/a").invoke({"text": ""}) == {"text": "fine"}


DEEP = b"\x91" * 5000 + b"\xc0"
WIDE = b"\xdd" + (20_000_000).to_bytes(4, "big") + b"\x80" * 1_000_000


@pytest.mark.parametrize("arguments", [b"", b"\xc1", DEEP, WIDE, ormsgpack.packb({"a": 1})], ids=len)
def test_bytes_that_are_no_arguments(host: Host, arguments: bytes) -> None:
    raw = Raw(host.address)
    raw.frames.send(start(arguments=arguments))
    assert isinstance(raw.failure(), (DecodeError, TypeError, ValueError))


def test_a_class_that_the_host_did_not_list(host: Host) -> None:
    import subprocess

    raw = Raw(host.address)
    with pytest.raises(AgentMatrixError):
        Codec().encode(subprocess.Popen)
    named = Codec([subprocess.CompletedProcess]).encode((({"text": subprocess.CompletedProcess([], 0)},), {}))
    raw.frames.send(start(arguments=named))
    assert isinstance(raw.failure(), TypeNotAllowed)


@pytest.mark.parametrize("verb", ["", "__class__", "copy", "with_config", "nodes", "_defaults", "os.system"])
def test_a_verb_that_is_no_verb(host: Host, verb: str) -> None:
    raw = Raw(host.address)
    raw.frames.send(start(verb=verb))
    assert "verb" in str(raw.failure())


def test_reserved_keys_of_a_config_are_the_hosts_own(host: Host) -> None:
    """A caller cannot plant objects or an identity under the keys that langgraph trusts."""
    seen: list[Any] = []

    def look(state: State, config: RunnableConfig) -> State:
        seen.append({key for key in config["configurable"] if key in ("__pregel_send_twice", "langgraph_auth_user")})
        return {}

    graph = StateGraph(State).add_node("look", look).add_edge(START, "look").compile()
    with Host({"a": graph}) as other:
        agent = RemoteAgent(f"{other.address}/a")
        agent.invoke({"text": ""}, {"configurable": {"langgraph_auth_user": {"identity": "root"}}})
        packed = {
            "config": {},
            "configurable": {"__pregel_send_twice": 1, "langgraph_auth_user": {"identity": "root"}},
            "reserved": {"__pregel_send_twice": 1},
            "lent": {},
            "lost": {},
        }
        raw = Raw(other.address)
        raw.frames.send(start(config=Codec().encode(packed)))
        while (frame := raw.inbox.get(timeout=100)) and not isinstance(frame, AgentMatrixError):
            if frame.WhichOneof("body") == "end":
                break
    assert seen == [set(), set()]
