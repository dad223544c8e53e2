"""A run as a test plays it: what arrives waits in a queue."""

from __future__ import annotations

from queue import Queue

from agentmatrix.errors import AgentMatrixError
from agentmatrix.transport import FrameStream, ReceivedFrame, Transport
from agentmatrix.wire.v1.run_pb2 import Cancel, Frame, Start

WAIT = 60.0


def whole(received: ReceivedFrame) -> Frame:
    """The frame with its large fields in it, as it was sent."""
    frame = received.frame
    body = frame.WhichOneof("body") or ""
    for field in Frame.DESCRIPTOR.fields_by_name[body].message_type.fields:
        if field.type == field.TYPE_BYTES and (value := received.field(field.name)):
            setattr(getattr(frame, body), field.name, value)
    return frame


class Caller:
    """Opens a run at once, with a Start."""

    def __init__(self, transport: Transport, start: bool = True, consumes: bool = True) -> None:
        self.consumes = consumes
        self.inbox: Queue[Frame | AgentMatrixError] = Queue()
        self.frames: FrameStream = transport.open(self)
        if start:
            self.frames.send(Frame(start=Start(agent="echo")))

    def receive(self, received: ReceivedFrame) -> None:
        assert received.frame.run == self.frames.run
        self.inbox.put(whole(received))
        if self.consumes:
            received.release()

    def lost(self, error: AgentMatrixError) -> None:
        self.inbox.put(error)

    def next(self) -> Frame:
        got = self.inbox.get(timeout=WAIT)
        if isinstance(got, AgentMatrixError):
            raise got
        return got

    def started(self) -> Caller:
        assert self.next().HasField("accepted")
        return self

    def say(self, value: bytes, name: str = "") -> None:
        self.frames.send(Frame(signal={"id": name, "value": value}))

    def heard(self) -> bytes:
        return self.next().signal.value

    def echo(self, value: bytes) -> bytes:
        self.say(value)
        return self.heard()

    def finish(self) -> bytes:
        self.frames.send(Frame(cancel=Cancel()))
        frame = self.next()
        self.frames.close()
        return frame.end.result
