"""The internal names and frames of AgentMatrix that the attacks use. No other module here imports them.

When code moves or frames change, this file is what changes with them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import ormsgpack
from langgraph.runtime import ServerInfo

from agentmatrix import Host, RemoteAgent
from agentmatrix.session.event_encoding import GATHERED
from agentmatrix.session.version import spoken_version
from agentmatrix.transport.framing import BulkFields
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.multiplexer import Multiplexer
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.exceptions import EXCEPTION
from agentmatrix.wire.remote_failures import decode_failure, encode_failure
from agentmatrix.wire.v1 import run_pb2 as pb
from agentmatrix.wire.v1.service_pb2 import Card, DescribeReply

__all__ = [
    "BulkFields",
    "CONVERSE",
    "DESCRIBE",
    "HEALTH_CHECK",
    "HEALTH_WATCH",
    "SERVICE",
    "chunks",
    "credit",
    "decoded",
    "describe_reply",
    "encoded",
    "event",
    "failure",
    "frames_of",
    "io_tasks",
    "merged",
    "message",
    "named_failure",
    "pb",
    "recorded_messages",
    "result",
    "runs_of",
    "spoofed_config",
    "start",
    "told",
    "unpacked_reply",
    "with_secrets",
]

SERVICE = "agentmatrix.wire.v1.AgentHost"
CONVERSE, DESCRIBE = f"/{SERVICE}/Converse", f"/{SERVICE}/Describe"
HEALTH_CHECK, HEALTH_WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


def encoded(value: object) -> bytes:
    return Codec().encode(value)


def decoded(data: bytes) -> Any:
    return Codec().decode(data)


# Messages and frames


def message(*frames: pb.Frame) -> bytes:
    """Frames as they go over a stream."""
    return pb.Frames(frames=frames).SerializeToString()


def frames_of(data: bytes) -> list[pb.Frame]:
    return list(pb.Frames.FromString(data).frames)


def credit(received: int, *runs: int) -> bytes:
    """A message that says how much has been read, and lets these runs say whatever they like."""
    frames = [pb.Frame(run=run, credit_bytes=1 << 40) for run in set(runs)]
    return pb.Frames(frames=frames, received=received).SerializeToString()


def start(run: int = 1, agent: str = "quick", verb: str = "invoke", args: Any = (({},), {}), **fields: Any) -> pb.Frame:
    """The first frame of a run; `fields` replace those of the frame."""
    given = {"agent": agent, "verb": verb, "version": spoken_version(), **fields}
    if "arguments" not in given:
        given["arguments"] = encoded(args)
    return pb.Frame(run=run, start=pb.Start(**given))


def chunks(frame: pb.Frame, size: int = 128 * 1024) -> Iterator[pb.Frame]:
    """The start of a run, with its arguments in slices behind it."""
    data = frame.start.arguments
    head = pb.Frame()
    head.CopyFrom(frame)
    head.start.ClearField("arguments")
    head.bulk.add(field=pb.Start.ARGUMENTS_FIELD_NUMBER, size=len(data))
    yield head
    for begin in range(0, len(data), size):
        yield pb.Frame(run=frame.run, chunk=pb.Chunk(data=data[begin : begin + size]))


def merged(fields: BulkFields) -> pb.Frame:
    """A frame with the large fields that came behind it."""
    for name, pieces in fields.values.items():
        body = getattr(fields.frame, fields.frame.WhichOneof("body") or "")
        setattr(body, name, b"".join(piece.getvalue() for piece in pieces))
    return fields.frame


def told(frame: pb.Frame | str | None, length: int = 300) -> str:
    """What the last frame of a run says; a string says how the stream ended."""
    if frame is None or isinstance(frame, str):
        return str(frame)
    if frame.WhichOneof("body") == "reset":
        return f"reset {frame.reset.kind}: {frame.reset.reason}"[:length]
    if frame.end.WhichOneof("outcome") == "failure":
        error = decode_failure(frame.end.failure, Codec())
        return f"failure {type(error).__name__}: {error}"[:length]
    result = frame.end.result
    return f"result of {len(result):,} bytes" if len(result) > 1 << 16 else f"result {decoded(result)!r}"[:length]


def event(kind: str, *arguments: object) -> dict[str, Any]:
    """The body of a frame that notifies an object of the caller."""
    return {"event": pb.Event(kind=kind, arguments=encoded((arguments,) if kind in GATHERED else arguments))}


def result(value: object) -> dict[str, Any]:
    """The body of a frame that ends a run with a value."""
    return {"end": pb.End(result=encoded(value))}


def failure(error: BaseException) -> dict[str, Any]:
    """The body of a frame that ends a run with an error."""
    return {"end": pb.End(failure=encode_failure(error, Codec()))}


def named_failure(type_name: str, *args: object, state: object = None) -> dict[str, Any]:
    """The body of a frame that ends a run with an error of any class, as a hostile host may name it."""
    plain = {"type": type_name, "text": "text", "args": list(args), **({"state": state} if state else {})}
    return {"end": pb.End(failure=ormsgpack.packb([EXCEPTION.ext, plain]))}


def unpacked_reply(frame: pb.Frame) -> tuple[bool, Any]:
    """Whether a caller granted a request, with the value or the error."""
    if frame.reply.WhichOneof("outcome") == "value":
        return True, decoded(frame.reply.value)
    return False, decode_failure(frame.reply.failure, Codec())


def describe_reply(details: Any) -> bytes:
    return DescribeReply(version=spoken_version(), card=Card(name="x", details=details)).SerializeToString()


def spoofed_config() -> bytes:
    """A config whose lent runtime names a user who never showed a token."""
    user = {"identity": "root", "permissions": ["*"]}
    server_info = ServerInfo(assistant_id="a", graph_id="g", user=user)  # type: ignore[arg-type]
    runtime = {"context": None, "previous": None, "execution_info": None, "server_info": server_info}
    lent = {"__pregel_runtime": {**runtime, "writer": False, "heartbeat": False, "drained": None}}
    return encoded({"config": {}, "configurable": {}, "reserved": {}, "lost": {}, "lent": lent})


# Inside of a process


def io_tasks() -> int:
    """How many tasks run on the thread of the connections."""
    return len(asyncio.all_tasks(io_thread().loop))


def runs_of(host: Host) -> int:
    """How many runs are under way on a host."""
    state = host._state
    return len(state.runs) if state is not None else 0


def with_secrets(remote: RemoteAgent, host: Host) -> dict[str, object]:
    """The objects that hold the token."""
    return {
        "options of the caller": remote._connection.options,
        "options of the host": host._options,
        "attributes of the caller": {name: repr(value) for name, value in vars(remote).items()},
    }


@contextlib.contextmanager
def recorded_messages() -> Iterator[list[bytes]]:
    """Records every message that this process writes."""
    seen: list[bytes] = []
    next_message = Multiplexer.next_message

    def recording(multiplexer: Multiplexer) -> bytes | None:
        data = next_message(multiplexer)
        if data:
            seen.append(data)
        return data

    Multiplexer.next_message = recording  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        Multiplexer.next_message = next_message  # type: ignore[method-assign]
