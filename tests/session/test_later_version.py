"""A later version says more than this one knows: fields, bodies of frames, keys of a card. All of it is ignored.

`later/frames.bin` and `later/card.bin` were written by protos with more fields: a message with a start between two
frames of an unknown body, and the answer to Describe.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import TypedDict

import grpc
import pytest
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from agentmatrix.card import AgentCard
from agentmatrix.errors import ProtocolError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.v1 import run_pb2 as pb

LATER = Path(__file__).with_name("later")
SERVICE = "agentmatrix.wire.v1.AgentHost"


class Text(TypedDict):
    text: str


def shout(state: Text) -> Text:
    return {"text": state["text"].upper()}


def test_frames_of_a_later_version_start_a_run() -> None:
    graph = StateGraph(Text).add_node("shout", shout).add_edge(START, "shout").compile()
    ended = threading.Event()

    def messages() -> Iterator[bytes]:
        yield (LATER / "frames.bin").read_bytes()
        ended.wait()

    with Host({"shout": graph}) as host, grpc.insecure_channel(host.address) as channel:
        for message in channel.stream_stream(f"/{SERVICE}/Converse")(messages()):
            for frame in pb.Frames.FromString(message).frames:
                assert not frame.HasField("reset"), frame
                if frame.HasField("end"):
                    ended.set()
                    assert Codec().decode(frame.end.result) == {"text": "HI"}
                    return
    pytest.fail("the run did not end")


def test_a_card_of_a_later_version_is_read() -> None:
    def describe(data: bytes, context: grpc.ServicerContext) -> bytes:
        return (LATER / "card.bin").read_bytes()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    handlers = {"Describe": grpc.unary_unary_rpc_method_handler(describe)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with RemoteAgent(f"127.0.0.1:{port}/shout") as remote:
            assert (remote.card.name, remote.card.description) == ("shout", "Shouts.")
            assert [name for name, _ in remote.get_subgraphs()] == ["inner"]
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    "packed", [7, [], {"name": 7}, {"subgraphs": []}, {"subgraphs": {"x": 1}}, {"schemas": "none"}, {"drawings": None}]
)
def test_what_is_no_card_is_refused_with_a_sentence(packed: object) -> None:
    with pytest.raises(ProtocolError, match="is no card"):
        AgentCard.unpack(packed)  # type: ignore[arg-type]


def test_a_card_of_an_earlier_version_lacks_what_was_added_later() -> None:
    assert AgentCard.unpack({"name": "x"}) == AgentCard("x")
