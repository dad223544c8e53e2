"""A host that sends each frame back; also a program: `python echo.py '{"address": ..., "token": ...}'`."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import Future
from queue import Queue

from agentmatrix.errors import AgentMatrixError, AgentNotFound
from agentmatrix.transport import FrameReceiver, FrameStream, Peer, ReceivedFrame, ServerOptions, listen
from agentmatrix.wire.v1.run_pb2 import End, Frame
from agentmatrix.wire.v1.service_pb2 import AgentName, Card, DescribeReply, ListAgentsReply
from tests.transport.caller import whole


class EchoRun:
    """Sends signals back; a cancel ends the run, as does the loss of the caller."""

    def __init__(self, host: EchoHost, frames: FrameStream, peer: Peer) -> None:
        self.host, self.frames, self.peer = host, frames, peer
        self.got: list[Frame] = []

    def receive(self, received: ReceivedFrame) -> None:
        frame = whole(received)
        if self.host.consumes:
            received.release()
        match frame.WhichOneof("body"):
            case "start":
                self.host.started.put(self)
                self.frames.send(Frame(accepted={}))
            case "signal":
                self.frames.send(frame)
            case "cancel":
                self.frames.send(Frame(end=End(result=b"cancelled")))
                self.frames.close()

    def lost(self, error: AgentMatrixError) -> None:
        self.host.lost.put((self, error))


class EchoHost:
    """Its only agent is `echo`.

    Attributes:
        consumes: whether it tells the transport that it has consumed a frame.
    """

    consumes = True

    def __init__(self) -> None:
        self.started: Queue[EchoRun] = Queue()
        self.lost: Queue[tuple[EchoRun, AgentMatrixError]] = Queue()
        self.peers: Queue[Peer] = Queue()

    def accept(self, frames: FrameStream, peer: Peer) -> FrameReceiver:
        return EchoRun(self, frames, peer)

    def describe(self, agent: str, peer: Peer) -> Future[DescribeReply]:
        self.peers.put(peer)
        reply: Future[DescribeReply] = Future()
        if agent == "echo":
            reply.set_result(DescribeReply(card=Card(name=agent, details=b"x" * 100_000)))
        elif agent == "broken":
            reply.set_exception(RuntimeError("out of paper"))
        elif agent == "given-up":
            reply.cancel()
        elif agent != "silent":
            reply.set_exception(AgentNotFound(f"no agent {agent!r} here; there is 'echo'"))
        return reply

    def list_agents(self, peer: Peer) -> Future[ListAgentsReply]:
        reply: Future[ListAgentsReply] = Future()
        reply.set_result(ListAgentsReply(agents=[AgentName(name="echo")]))
        return reply


def main() -> None:
    settings = json.loads(sys.argv[1])
    address = settings.pop("address")
    server = listen(address, EchoHost(), ServerOptions(**settings))
    print(server.start(), flush=True)
    if sys.stdin.readline() == "exit\n":
        return
    server.stop(5)


if __name__ == "__main__":
    threading.current_thread().name = "echo"
    main()
